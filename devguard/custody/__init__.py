"""Custody: where private keys live, and the careful reading and writing of files.

A private key leaves this room only as a `Signer` (see `devguard.cose.signer`). Import from the modules:
`files` (atomic writes, bounded reads), `keyfile` (the encrypted key file), `memory` (a signer that is never stored).
"""
