"""Technicians: grants (who may push what, where, until when), device credentials, and the checks of both.

Pure: bytes, `now` and what the device knows are arguments. Import from the modules: `claims`, `check`, `uses`,
`chain`, `credential`.
"""
