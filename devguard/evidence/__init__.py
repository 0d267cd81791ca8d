"""The evidence log: what was done, by whom, with what result, and proof that nothing of it was changed.

`tree`, `record`, `checkpoint` and `frame` are pure; `log` appends and `verify` checks files. Import from the modules.
"""
