"""Approvals as text: for a terminal, a telephone, a QR code in its alphanumeric mode, or a keyboard.

    DEVGUARD-CODE:MFRGGZDFMZTWQ2L...

The kind, then the bytes and a CRC-32 over kind and bytes in base32 (RFC 4648 section 6). For people it stands in groups
of five. Spaces, line ends and dashes mean nothing, nor does the case; 0, 1 and 8, which base32 does not have, are read
as the letters they look like. The checksum finds slips, not attacks: what is inside is signed.
"""

from __future__ import annotations

import base64
import binascii
import enum
import zlib
from typing import Final

from devguard.errors import Malformed

CODE: Final = "grant.malformed"
MAX_ARMOR: Final = 64 * 1024
_PREFIX: Final = "DEVGUARD-"
_GROUP: Final = 5
_PER_LINE: Final = 5
_HINT: Final = "type or scan it again, all of it"
_SLIPS: Final = str.maketrans("018", "OIB")


class Kind(enum.StrEnum):
    """What a text carries."""

    REQUEST = "REQUEST"
    ANSWER = "ANSWER"
    CODE = "CODE"


def armor(kind: Kind, data: bytes) -> str:
    """`data` as text on one line."""
    return f"{_PREFIX}{kind}:{base64.b32encode(data + _checksum(kind, data)).decode().rstrip('=')}"


def in_groups(text: str) -> str:
    """Such a text for people: the prefix, then five groups of five on a line."""
    prefix, _, body = text.partition(":")
    groups = [body[at : at + _GROUP] for at in range(0, len(body), _GROUP)]
    lines = ["-".join(groups[at : at + _PER_LINE]) for at in range(0, len(groups), _PER_LINE)]
    return "\n".join([f"{prefix}:", *lines])


def _checksum(kind: Kind, data: bytes) -> bytes:
    return zlib.crc32(kind.encode() + data).to_bytes(4, "big")


def is_armor(data: bytes) -> bool:
    """Whether bytes begin as such a text does."""
    return data[:64].lstrip().upper().startswith(_PREFIX.encode())


def dearmor(text: str, *, bare: Kind | None = None) -> tuple[Kind, bytes]:
    """(kind, bytes) of a text, at most 64 KiB; `Malformed("grant.malformed")` for anything else, slips included.

    `bare`: what a text without its prefix is taken for.
    """
    if len(text) > MAX_ARMOR:
        raise Malformed(CODE, f"a text of {len(text)} characters; at most {MAX_ARMOR} are read")
    prefix, separator, body = text.strip().upper().rpartition(":")
    kind = next((one for one in Kind if prefix == _PREFIX + one), None) if separator else bare
    if kind is None:
        raise Malformed(CODE, f"not a text that begins with {_PREFIX} and what it is")
    packed = "".join(body.split()).replace("-", "").rstrip("=").translate(_SLIPS)
    try:
        sealed = base64.b32decode(packed.encode("ascii") + b"=" * (-len(packed) % 8))
    except (binascii.Error, UnicodeEncodeError):
        raise Malformed(CODE, "the text has characters or a length that it cannot have", _HINT) from None
    data, checksum = sealed[:-4], sealed[-4:]
    if _checksum(kind, data) != checksum:
        raise Malformed(CODE, "the text does not fit its checksum: a slip, or a part of it is missing", _HINT)
    return kind, data
