"""Custody: where private keys live, and the careful reading and writing of files.

A private key leaves this room only as a `Signer` (see `devguard.cose.signer`). Import from the modules:
`files` (atomic writes, bounded reads), `locks` (one writer at a time), `keyfile` (the key file, encrypted or naming a
token), `uri`, `pkcs11` and `tokenkeys` (keys on tokens), `memory` (a signer that is never stored), `words`
(fingerprints for reading aloud), `offline` (whether a network is up).
"""
