"""The shelf: a TUF repository of releases and trust documents, and the bench's careful reader of one.

TUF 1.0.34 through the `tuf` package (extra `[shelf]`), not our own. Import from the modules: `repository` makes and
changes a shelf, `client` follows one, `carry` puts one on a USB stick, `source` says where bytes come from.
`freshness`, `limits`, `names` and `package` import nothing heavy; the others need the `tuf` package.
"""
