"""The session between bench and device: EDHOC (RFC 9528), records, and the update conversation on top.

Everything here is sans-I/O: bytes in, bytes out; clock, entropy and ports belong to the caller. Import from the
modules: `initiator`, `responder`, `credentials`, `records` for the handshake and what seals the frames after it.
"""
