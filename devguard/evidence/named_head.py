"""What people sign beside a record: flat fields of which the last is the head of the station's log. Pure.

A COSE_Sign1 (RFC 9052 section 4.2) over [1, field, ...]. Because the text of the log's head is signed with the rest,
whoever holds the station's key cannot rewrite what was before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import read_sign1, sign1
from devguard.cose.signer import Signer
from devguard.errors import Malformed
from devguard.evidence.checkpoint import parse_text

FORMAT: Final = 1
_CODE: Final = "log.tampered"


def sign_fields(signer: Signer, fields: Sequence[object], *, typ: str) -> bytes:
    """`fields` as tagged COSE_Sign1 bytes."""
    return sign1(signer, wire.encode([FORMAT, *fields]), typ=typ).encode()


def read_fields(data: bytes, key: CoseKey, kinds: Sequence[type], *, typ: str, what: str) -> list[Any]:
    """The fields in `data`, of these `kinds` and the last of them a head, if `key` signed them.

    Raises `Malformed("log.tampered")`, `what` for people, and the COSE room's codes.
    """
    items: Any = wire.decode(read_sign1(data, code=_CODE).verify(key, typ=typ), code=_CODE, max_depth=2)
    if not isinstance(items, list) or [type(one) for one in items] != [int, *kinds] or items[0] != FORMAT:
        raise Malformed(_CODE, f"not {what} of format {FORMAT}")
    parse_text(items[-1])
    return items[1:]
