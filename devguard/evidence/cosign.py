"""Cosignatures of witnesses over checkpoints (C2SP tlog-cosignature), Ed25519 and ML-DSA-44. Pure.

A cosignature says: at this time, the largest tree of that log that I have seen has that root, and it continues every
one I saw before. Whether it does is looked at before one is made (`witness`). Key names are those of the station's
own keys: `devguard/` and 16 digits of the fingerprint.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.signer import Signer
from devguard.errors import Malformed, Refused
from devguard.evidence.checkpoint import MAX_SIGNATURES, Checkpoint, origin_of, parse_text, read_note, signature_line

TYPES: Final = {Algorithm.ED25519: b"\x04", Algorithm.ML_DSA_44: b"\x06"}
_SIZES: Final = {Algorithm.ED25519: 64, Algorithm.ML_DSA_44: 2420}
_TIME: Final = struct.Struct(">Q")
_CODE: Final = "log.tampered"
_MAX_TIME: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Cosignature:
    """One that holds: whose key, and when it was made (epoch seconds)."""

    key: CoseKey
    time: int


def check_witness_key(key: CoseKey) -> None:
    """`Refused("signature.algorithm")` unless the key is Ed25519 or ML-DSA-44: the types there are of cosignatures."""
    if key.algorithm not in TYPES:
        raise Refused("signature.algorithm", "a witness cosigns with an Ed25519 or an ML-DSA-44 key")


def witness_id(name: str, key: CoseKey) -> bytes:
    """First four bytes of SHA-256(name || 0x0A || type || public key)."""
    return hashlib.sha256(name.encode() + b"\n" + TYPES[key.algorithm] + key.x).digest()[:4]


def _message(key: CoseKey, name: str, text: bytes, checkpoint: Checkpoint, time: int) -> bytes:
    if key.algorithm is Algorithm.ED25519:
        return f"cosignature/v1\ntime {time}\n".encode() + text
    origin = checkpoint.origin.encode()
    names = bytes((len(name),)) + name.encode() + _TIME.pack(time) + bytes((len(origin),)) + origin
    return b"subtree/v1\n\x00" + names + _TIME.pack(0) + _TIME.pack(checkpoint.size) + checkpoint.root


def cosign(note: bytes, signer: Signer, now: int) -> bytes:
    """The note with one signature line more, by a witness that has seen all that a cosignature says.

    An older cosignature by the same key gives way. Raises `Refused("signature.algorithm")`, `Malformed("log.tampered")`
    for what is no checkpoint or has no room for a signature more.
    """
    check_witness_key(signer.key)
    parts = read_note(note)
    checkpoint, name = parse_text(parts.text), origin_of(signer.key)
    if not 0 < len(checkpoint.origin.encode()) < 256 or not 0 < now <= _MAX_TIME:
        raise Malformed(_CODE, "the origin is longer than a cosignature can name, or the time is none")
    identity = witness_id(name, signer.key)
    kept = [one for one in parts.signatures if (one.name, one.key_id) != (name, identity)]
    if len(kept) >= MAX_SIGNATURES:
        raise Malformed(_CODE, f"the checkpoint has {MAX_SIGNATURES} signatures already")
    signature = _TIME.pack(now) + signer.sign(_message(signer.key, name, parts.text, checkpoint, now))
    lines = [signature_line(one.name, one.key_id, one.signature) for one in kept]
    made = b"".join([parts.text, b"\n", *lines, signature_line(name, identity, signature)])
    cosignatures(made, [signer.key])  # a fault in the signer's computation shows here and never leaves
    return made


def cosignatures(note: bytes, witnesses: Sequence[CoseKey]) -> tuple[Cosignature, ...]:
    """The cosignatures by `witnesses`, in their order; signatures of others are passed over.

    One by a witness that does not hold refuses the whole note: `Refused("log.tampered")`.
    """
    parts = read_note(note)
    checkpoint, found = parse_text(parts.text), []
    for key in witnesses:
        check_witness_key(key)
        name = origin_of(key)
        mine = [one for one in parts.signatures if one.name == name and one.key_id == witness_id(name, key)]
        for one in mine[:1]:
            if len(mine) > 1 or len(one.signature) != _TIME.size + _SIZES[key.algorithm]:
                raise Refused(_CODE, f"the cosignature by {name} has another size, or is there twice")
            time = _TIME.unpack(one.signature[: _TIME.size])[0]
            try:
                key.verify(key.algorithm, _message(key, name, parts.text, checkpoint, time), one.signature[8:])
            except Refused:
                raise Refused(_CODE, f"the cosignature by {name} does not hold") from None
            if not 0 < time <= _MAX_TIME:
                raise Refused(_CODE, f"the cosignature by {name} says no time")
            found.append(Cosignature(key, time))
    return tuple(found)
