"""COSE header buckets and the structure that a COSE signature covers (RFC 9052 sections 3 and 4.4).

Strict where the standard leaves room: labels are integers or text, none occurs in both buckets, `crit` and `typ`
are protected or absent. Protected bytes enter the signature as they were received, never re-encoded.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import cbor2

from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.errors import LocalProtocolError, Malformed, Refused


class Header(enum.IntEnum):
    """Header labels this room gives a meaning to (RFC 9052 table 3, RFC 9596)."""

    ALG = 1
    CRIT = 2
    CONTENT_TYPE = 3
    KID = 4
    TYP = 16


_UNDERSTOOD: Final = frozenset({Header.ALG, Header.CONTENT_TYPE, Header.KID, Header.TYP})
_PROTECTED_ONLY: Final = (Header.CRIT, Header.TYP)
_EMPTY_MAP: Final = b"\xa0"

# How a protected bucket is read: the code of what is malformed, and whether its CBOR must be deterministic.
Form = tuple[str, bool]
LENIENT: Final[Form] = ("wire.malformed", False)


def read_protected(protected: object, form: Form) -> Mapping[Any, Any]:
    """The header map inside a protected bucket, unchangeable; a zero-length string is the empty map."""
    code, deterministic = form
    if not isinstance(protected, bytes):
        raise Malformed(code, "the protected header is not a byte string")
    headers = wire.decode(protected or _EMPTY_MAP, code=code, deterministic=deterministic)
    if not isinstance(headers, dict):
        raise Malformed(code, "the protected header is not a map")
    return MappingProxyType({label: _unchangeable(value) for label, value in headers.items()})


def _unchangeable(value: object) -> object:
    if isinstance(value, list):
        return tuple(_unchangeable(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({key: _unchangeable(item) for key, item in value.items()})
    return value


def check_buckets(headers: Mapping[Any, Any], unprotected: object, code: str) -> None:
    """Refuse a decoded protected header and another bucket that break RFC 9052 section 3: `Malformed(code)`."""
    if not isinstance(unprotected, dict):
        raise Malformed(code, "the unprotected header is not a map")
    for label in (*headers, *unprotected):
        if type(label) is not int and type(label) is not str:
            raise Malformed(code, "a header label is neither integer nor text")
    both = headers.keys() & unprotected.keys()
    if both:
        raise Malformed(code, f"header label {str(min(both, key=str))[:40]} is in both buckets")
    for label in _PROTECTED_ONLY:
        if label in unprotected:
            raise Malformed(code, f"header {label.name.lower()} is not protected")
    _check_values({**headers, **unprotected}, headers, code)


def read_body(data: bytes, tag: int, *, tagged: bool | None, code: str, deterministic: bool) -> list[Any]:
    """The four members of a COSE_Sign1 or COSE_Sign array under its tag; the payload's type is checked."""
    tags = () if tagged is False else (tag,)
    item = wire.decode(data, code=code, deterministic=deterministic, tags=tags)
    if isinstance(item, cbor2.CBORTag):
        item = item.value
    elif tagged:
        raise Malformed(code, f"CBOR tag {tag} expected")
    if not isinstance(item, list) or len(item) != 4:
        raise Malformed(code, "a COSE signature object is an array of four")
    if item[2] is not None and not isinstance(item[2], bytes):
        raise Malformed(code, "the payload is neither a byte string nor null")
    return item


def _check_values(merged: Mapping[Any, Any], protected: Mapping[Any, Any], code: str) -> None:
    if type(merged.get(Header.ALG, 0)) not in (int, str):
        raise Malformed(code, "header alg is neither integer nor text")
    if not isinstance(merged.get(Header.KID, b""), bytes):
        raise Malformed(code, "header kid is not a byte string")
    if type(merged.get(Header.TYP, "")) not in (int, str):
        raise Malformed(code, "header typ is neither text nor integer")
    critical = protected.get(Header.CRIT)
    if Header.CRIT not in protected:
        return
    if not isinstance(critical, tuple) or not critical:
        raise Malformed(code, "header crit is not an array with labels")
    for label in critical:
        if type(label) not in (int, str) or label not in protected:
            raise Malformed(code, "header crit names a label that is not in the protected header")


def check_critical(headers: Mapping[Any, Any]) -> None:
    """Refuse a protected header that demands what this version does not understand (`signature.critical`)."""
    for label in headers.get(Header.CRIT, ()):
        if label not in _UNDERSTOOD:
            raise Refused("signature.critical", f"critical header {str(label)[:40]!r} is not known here")


def check_type(headers: Mapping[Any, Any], typ: str | None) -> None:
    """Refuse a protected `typ` other than the one asked for (`key.purpose`); None asks for none at all."""
    found = headers.get(Header.TYP)
    if found != typ:
        raise Refused("key.purpose", f"a signature for {_type(typ)} expected, found one for {_type(found)}")


def _type(typ: object) -> str:
    return "an object without a type" if typ is None else repr(str(typ)[:80])


def algorithm_of(headers: Mapping[Any, Any]) -> int:
    """The registry number of a protected header's alg; 0 (reserved, never allowed) when there is no such number."""
    found = headers.get(Header.ALG)
    return found if type(found) is int else 0


def kid_of(headers: Mapping[Any, Any], unprotected: Mapping[Any, Any]) -> bytes | None:
    """The key id, protected before unprotected: a hint where to look, never a proof."""
    found = headers.get(Header.KID, unprotected.get(Header.KID))
    return found if isinstance(found, bytes) else None


class Headed:
    """What every signed object reads from its two buckets; a base for classes that have both.

    `headers` is the decoded protected header. It is read once, from `protected` and nothing else, and cannot be
    changed: what was checked is what is verified.
    """

    __slots__ = ()
    protected: bytes
    unprotected: Mapping[Any, Any]
    headers: Mapping[Any, Any]

    def __post_init__(self, form: Form) -> None:
        object.__setattr__(self, "headers", read_protected(self.protected, form))

    @property
    def algorithm(self) -> int:
        """The protected algorithm number; 0 when there is none, which no key allows."""
        return algorithm_of(self.headers)

    @property
    def kid(self) -> bytes | None:
        """The key id, protected first, then unprotected; a hint, not a proof."""
        return kid_of(self.headers, self.unprotected)


def protected_for(algorithm: Algorithm, kid: bytes, typ: str | None, extra: Mapping[Any, Any] | None) -> bytes:
    """An encoded protected header; `extra` may not hold labels that are set here."""
    headers: dict[Any, Any] = {int(Header.ALG): int(algorithm), int(Header.KID): kid}
    if typ is not None:
        headers[int(Header.TYP)] = typ
    extra = extra or {}
    if extra.keys() & {Header.ALG, Header.CRIT, Header.KID, Header.TYP}:
        raise LocalProtocolError("wire.malformed", "alg, crit, kid and typ are not set through extra headers")
    return wire.encode(headers | dict(extra))


def signed_bytes(body: bytes, sign: bytes | None, external_aad: bytes, payload: bytes) -> bytes:
    """Sig_structure: of COSE_Sign1 when `sign` is None, else of one signature of COSE_Sign.

    An encoded empty map stands for the zero-length string, as section 4.4 demands.
    """
    body = b"" if body == _EMPTY_MAP else body
    if sign is None:
        return wire.encode(["Signature1", body, external_aad, payload])
    sign = b"" if sign == _EMPTY_MAP else sign
    return wire.encode(["Signature", body, sign, external_aad, payload])


def covered_payload(inside: bytes | None, outside: bytes | None) -> bytes:
    """The one payload a signature covers: inside the object, or detached and given by the caller, never both."""
    if inside is not None and outside is not None:
        raise Refused("signature.invalid", "the payload should be detached, but the object carries one")
    payload = inside if inside is not None else outside
    if payload is None:
        raise Refused("signature.invalid", "the payload is detached and was not given")
    return payload
