"""The text of a key file: header lines anyone may read, then (in a private file) one PEM block or a token line.

    devguard-key: 1              devguard-public-key: 1 in a public export, which has no PEM block
    name: alice-release          what the owner calls the key
    person: Alice Example        who holds it
    role: release                what it may sign (devguard.cose.roles)
    alg: ESP256
    development: no              yes: never valid in production
    public: pQEC...              COSE_Key, base64url without padding

    token: pkcs11:...            instead of the PEM block: where the private key is (devguard.custody.uri)

The lines are exactly these, in this order. They inform; what counts is what the trust document says of the key.
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from dataclasses import dataclass
from typing import Final

from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.names import unseen
from devguard.cose.roles import RoleName
from devguard.custody.uri import TokenUri, parse_uri
from devguard.errors import Malformed

PRIVATE_MARK: Final = "devguard-key"
PUBLIC_MARK: Final = "devguard-public-key"
VERSION: Final = "1"
MAX_TEXT: Final = 128
_FIELDS: Final = ("name", "person", "role", "alg", "development", "public")
_ENCRYPTED: Final = "ENCRYPTED PRIVATE KEY"
_PLAIN: Final = "PRIVATE KEY"
_ELSEWHERE: Final = "token: "


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a key file says openly: name, person, role (a `RoleName` value), public key, development mark."""

    name: str
    person: str
    role: str
    key: CoseKey
    development: bool

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm the key signs with."""
        return self.key.algorithm


@dataclass(frozen=True, slots=True)
class KeyText:
    """A parsed key file. der: the PKCS#8 structure, None in a public export. encrypted: whether it is.

    token: where the private key is when it is on a token; `der` is None then.
    """

    info: KeyInfo
    der: bytes | None
    encrypted: bool
    token: TokenUri | None = None

    @property
    def private(self) -> bool:
        """Whether the file leads to a private key."""
        return self.der is not None or self.token is not None


def check_texts(name: str, person: str, role: str) -> None:
    """Refuse texts that could mislead a reader or a file system: `Malformed("key.malformed")`.

    One to 128 printable characters in Unicode normal form C (so that one person is one string), none that is not
    seen, no space at either end; a name is no path and no option; a role is one of `RoleName`.
    """
    for what, text in (("name", name), ("person", person)):
        if not 0 < len(text) <= MAX_TEXT or not text.isprintable() or text != text.strip():
            raise Malformed(
                "key.malformed", f"{what} must be 1 to {MAX_TEXT} printable characters, found {text[:40]!r}"
            )
        if unseen(text):
            raise Malformed("key.malformed", f"{what} has a character that nobody sees: {text[:40]!a}")
        if not unicodedata.is_normalized("NFC", text):
            raise Malformed("key.malformed", f"{what} must be in Unicode normal form C")
    if name[0] in ".-" or "/" in name or "\\" in name:
        raise Malformed("key.malformed", f"a key name is neither a path nor an option, found {name[:40]!r}")
    if role not in frozenset(RoleName):
        raise Malformed("key.malformed", f"no role is named {role[:40]!r}; known: {', '.join(RoleName)}")


def format_public(info: KeyInfo) -> bytes:
    """The public export of a key."""
    return _lines(PUBLIC_MARK, info).encode()


def format_private(info: KeyInfo, der: bytes, encrypted: bool) -> bytes:
    """The private key file around a PKCS#8 structure."""
    label = _ENCRYPTED if encrypted else _PLAIN
    text = base64.b64encode(der).decode()
    block = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"{_lines(PRIVATE_MARK, info)}\n-----BEGIN {label}-----\n{block}\n-----END {label}-----\n".encode()


def format_token(info: KeyInfo, uri: TokenUri) -> bytes:
    """The key file of a key on a token."""
    return f"{_lines(PRIVATE_MARK, info)}\n{_ELSEWHERE}{uri}\n".encode()


def _lines(mark: str, info: KeyInfo) -> str:
    public = base64.urlsafe_b64encode(info.key.encode()).rstrip(b"=").decode()
    mode = "yes" if info.development else "no"
    values = (info.name, info.person, info.role, info.algorithm.label, mode, public)
    head = "".join(f"{field}: {value}\n" for field, value in zip(_FIELDS, values, strict=True))
    return f"{mark}: {VERSION}\n{head}"


def parse(data: bytes) -> KeyText:
    """A private key file or a public export.

    Raises `Malformed("key.malformed")`, `Malformed("envelope.version")` for a newer version, and what `CoseKey`
    raises for a weak key.
    """
    try:
        lines = [line.removesuffix("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise Malformed("key.malformed", "a key file is UTF-8 text") from None
    mark, _, version = lines[0].partition(": ")
    if mark not in (PRIVATE_MARK, PUBLIC_MARK):
        raise Malformed("key.malformed", f"a key file starts with {PRIVATE_MARK} or {PUBLIC_MARK}")
    if version != VERSION:
        raise Malformed("envelope.version", f"key file version {version[:20]!r} is not known here")
    info = _info(lines[1 : 1 + len(_FIELDS)])
    rest = lines[1 + len(_FIELDS) :]
    if mark == PUBLIC_MARK:
        if any(rest):
            raise Malformed("key.malformed", "text follows the public key")
        return KeyText(info, None, encrypted=False)
    if len(rest) > 1 and not rest[0] and rest[1].startswith(_ELSEWHERE):
        return KeyText(info, None, encrypted=False, token=_token(rest))
    der, encrypted = _pem(rest)
    return KeyText(info, der, encrypted)


def _info(lines: list[str]) -> KeyInfo:
    values: list[str] = []
    for number, field in enumerate(_FIELDS):
        found, _, value = (lines[number] if number < len(lines) else "").partition(": ")
        if found != field:
            raise Malformed("key.malformed", f"line {number + 2} of a key file must be `{field}: ...`")
        values.append(value)
    name, person, role, alg, development, public = values
    check_texts(name, person, role)
    key = CoseKey.decode(_unpack(public, urlsafe=True))
    if alg != key.algorithm.label:
        raise Malformed("key.malformed", f"the file says {alg[:20]!r}, the public key is for {key.algorithm.label}")
    if development not in ("yes", "no"):
        raise Malformed("key.malformed", "development is yes or no")
    return KeyInfo(name, person, role, key, development == "yes")


def _token(lines: list[str]) -> TokenUri:
    if any(lines[2:]):
        raise Malformed("key.malformed", "text follows the token line")
    uri = parse_uri(lines[1].removeprefix(_ELSEWHERE))
    if uri.object is None and uri.id is None:
        raise Malformed("key.uri", "the token line of a key file names a key by object or id")
    return uri


def _pem(lines: list[str]) -> tuple[bytes, bool]:
    while lines and not lines[-1]:
        lines = lines[:-1]
    for label in (_ENCRYPTED, _PLAIN):
        if len(lines) > 3 and lines[:2] == ["", f"-----BEGIN {label}-----"] and lines[-1] == f"-----END {label}-----":
            return _unpack("".join(lines[2:-1]), urlsafe=False), label == _ENCRYPTED
    raise Malformed("key.malformed", "one PEM block or one token line must follow the header lines")


def _unpack(text: str, *, urlsafe: bool) -> bytes:
    """Strict base64: one text for one byte string."""
    padded = text + "=" * (-len(text) % 4) if urlsafe else text
    try:
        data = base64.b64decode(padded, altchars=b"-_" if urlsafe else None, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("key.malformed", "base64 expected") from None
    again = base64.urlsafe_b64encode(data).rstrip(b"=") if urlsafe else base64.b64encode(data)
    if again.decode() != text:
        raise Malformed("key.malformed", "base64 in its one canonical form expected")
    return data
