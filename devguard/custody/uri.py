"""PKCS#11 URIs (RFC 7512): which token and which key on it, as one line of text that holds no secret.

Read strictly: an attribute that is unknown here, given twice or badly escaped refuses, because a URI that is half
understood names another key. `pin-value` and `pin-source` refuse always: a PIN has no place in a command line, a
key file or a shell history.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

from devguard.errors import Malformed

SCHEME: Final = "pkcs11:"
MAX_URI: Final = 2048
MAX_ID: Final = 64
_PATH: Final = {"token", "manufacturer", "model", "serial", "object", "id", "slot-id", "type"}
_QUERY: Final = {"module-path"}
_SECRET: Final = {"pin-value", "pin-source"}
MAX_SLOT: Final = 2**64 - 1
# pk11-path-res-avail and pk11-query-res-avail of RFC 7512 section 2.3, with unreserved and pct-encoded.
_IN_PATH: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*")
_IN_QUERY: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*")
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True)
class TokenUri:
    """What a URI says. None: not said. `id` is CKA_ID, `object` CKA_LABEL, `module_path` the library to load."""

    token: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    module_path: str | None = None

    def __str__(self) -> str:
        """The URI in one canonical spelling."""
        parts = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and one.name != "module_path":
                parts.append(f"{one.name.replace('_', '-')}={_escaped(value)}")
        query = f"?module-path={_escaped(self.module_path, keep=b'/')}" if self.module_path is not None else ""
        return f"{SCHEME}{';'.join(parts)}{query}"


def is_token_uri(text: str) -> bool:
    """Whether `text` means a key on a token and no file."""
    return text[: len(SCHEME)].lower() == SCHEME


def parse_uri(text: str) -> TokenUri:
    """The URI that `text` is; `Malformed("key.uri")` otherwise. The message never repeats a PIN."""
    if not is_token_uri(text) or len(text) > MAX_URI:
        raise Malformed("key.uri", f"a PKCS#11 URI starts with {SCHEME} and has at most {MAX_URI} characters")
    path, _, query = text[len(SCHEME) :].partition("?")
    found = {**_attributes(path, ";", _PATH, _IN_PATH), **_attributes(query, "&", _QUERY, _IN_QUERY)}
    if found.pop("type", b"private") != b"private":
        raise Malformed("key.uri", "devguard signs with type=private objects only")
    slot = found.pop("slot-id", None)
    if slot is not None and not (re.fullmatch(rb"[0-9]{1,20}", slot) and int(slot) <= MAX_SLOT):
        raise Malformed("key.uri", "slot-id is a decimal number")
    identity = found.pop("id", None)
    if identity is not None and not 0 < len(identity) <= MAX_ID:
        raise Malformed("key.uri", f"id has 1 to {MAX_ID} bytes")
    texts = {name.replace("-", "_"): _utf8(name, value) for name, value in found.items()}
    return TokenUri(**texts, slot_id=None if slot is None else int(slot), id=identity)


def _attributes(text: str, separator: str, known: set[str], allowed: re.Pattern[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name in _SECRET:
            raise Malformed("key.uri", f"{name} is not taken from a URI: type the PIN, or give --passphrase-fd")
        if name not in known or not equals:
            raise Malformed("key.uri", f"attribute {name[:40]!r} is not one devguard knows there")
        if name in found:
            raise Malformed("key.uri", f"attribute {name} is there twice")
        if not allowed.fullmatch(value):
            raise Malformed("key.uri", f"the value of {name} has a character that must be escaped")
        found[name] = _unescaped(value)
    return found


def _unescaped(value: str) -> bytes:
    return re.sub(rb"%(..)", lambda match: bytes.fromhex(match[1].decode()), value.encode("ascii"))


def _utf8(name: str, value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("key.uri", f"the value of {name} is not UTF-8") from None
    if not text or not text.isprintable():
        raise Malformed("key.uri", f"the value of {name} is empty or not printable")
    return text


def _escaped(value: str | bytes | int, keep: bytes = b"") -> str:
    if isinstance(value, bytes):
        return "".join(f"%{byte:02X}" for byte in value)
    plain = _PLAIN | frozenset(keep)
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in str(value).encode("utf-8"))
