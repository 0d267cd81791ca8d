"""EDHOC messages as bytes: strict parsers and encoders (RFC 9528 sections 3.3, 3.5.3, 5 and 6).

This layer knows the shape of every message for METHOD 0 to 3 and every form of ID_CRED; what devguard's
application profile accepts of it (method 0, no EAD, `kcwt`) is decided in the machines and resolvers.
All parsers raise `RemoteProtocolError("session.handshake")` with a reason, or `Refused` for a bad public key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.errors import Malformed, RemoteProtocolError
from devguard.session.ephemeral import CODE, KEY_LENGTH, Curve, check_public
from devguard.session.suites import CURVES

MAX_MESSAGE: Final = 16_384  # a credential with two of the largest signatures, and room
MAX_ELEMENTS: Final = 64
KID: Final = 4  # COSE header parameter


@dataclass(frozen=True, slots=True)
class Ead:
    """One item of external authorization data; a negative label makes it critical."""

    label: int
    value: bytes | None

    @property
    def critical(self) -> bool:
        return self.label < 0

    def encode(self) -> bytes:
        return wire.encode(self.label) + (b"" if self.value is None else wire.encode(self.value))


@dataclass(frozen=True, slots=True)
class Message1:
    """message_1 (section 5.2.1). `suites` ends with the selected one; `c_i` is the identifier's byte string."""

    method: int
    suites: tuple[int, ...]
    g_x: bytes
    c_i: bytes
    ead: tuple[Ead, ...] = ()

    @property
    def selected(self) -> int:
        return self.suites[-1]

    def encode(self) -> bytes:
        head = wire.encode(self.method) + encode_suites(self.suites) + wire.encode(self.g_x)
        return head + encode_identifier(self.c_i) + encode_ead(self.ead)


@dataclass(frozen=True, slots=True)
class Plaintext2:
    """PLAINTEXT_2 (section 5.3.2); `proof` is Signature_or_MAC_2."""

    c_r: bytes
    id_cred: Mapping[Any, Any]
    proof: bytes
    ead: tuple[Ead, ...] = ()

    def encode(self) -> bytes:
        body = encode_id_cred(self.id_cred) + wire.encode(self.proof)
        return encode_identifier(self.c_r) + body + encode_ead(self.ead)


@dataclass(frozen=True, slots=True)
class Plaintext3:
    """PLAINTEXT_3 (section 5.4.2); `proof` is Signature_or_MAC_3."""

    id_cred: Mapping[Any, Any]
    proof: bytes
    ead: tuple[Ead, ...] = ()

    def encode(self) -> bytes:
        return encode_id_cred(self.id_cred) + wire.encode(self.proof) + encode_ead(self.ead)


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An EDHOC error message (section 6). Nobody has authenticated it: it ends a handshake and proves nothing."""

    code: int
    info: Any

    @property
    def suites(self) -> tuple[int, ...]:
        """SUITES_R of error 2, else empty."""
        return _suites(self.info, "SUITES_R") if self.code == 2 else ()

    def encode(self) -> bytes:
        return wire.encode(self.code) + wire.encode(self.info)


def _fault(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(CODE, reason)


def _split(data: bytes, what: str) -> list[Any]:
    """The values of a deterministic CBOR sequence of bounded length."""
    if len(data) > MAX_MESSAGE:
        raise _fault(f"{what} has {len(data)} bytes, more than the {MAX_MESSAGE} allowed")
    try:
        values = wire.decode_sequence(data, code=CODE)
    except Malformed as error:
        raise _fault(f"{what}: {error.message}") from error
    if len(values) > MAX_ELEMENTS:
        raise _fault(f"{what} has more than {MAX_ELEMENTS} elements")
    return values


def _is_int(value: object) -> bool:
    return type(value) is int  # a CBOR true is not an integer, though Python's is


def encode_suites(suites: Sequence[int]) -> bytes:
    """SUITES_I or SUITES_R: one suite is an int, two or more an array."""
    return wire.encode(suites[0] if len(suites) == 1 else list(suites))


def _suites(value: object, what: str) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list) or not all(_is_int(item) for item in value):
        raise _fault(f"{what} is neither an integer nor an array of integers")
    if len(value) < 2:
        raise _fault(f"{what} is an array of {len(value)}: surplus array encoding")
    if len(set(value)) != len(value):
        raise _fault(f"{what} names a cipher suite twice")
    return tuple(value)


def encode_identifier(identifier: bytes) -> bytes:
    """Section 3.3.2: a byte string that is the encoding of an integer -24..23 stands for itself."""
    return identifier if _is_short(identifier) else wire.encode(identifier)


def identifier_bytes(identifier: bytes | int) -> bytes:
    """The identifier's byte string, from itself or from the integer that represents it."""
    if isinstance(identifier, bytes):
        return identifier
    encoded = wire.encode(identifier)
    if not _is_short(encoded):
        raise _fault(f"identifier {identifier} is an integer outside -24..23")
    return encoded


def _is_short(identifier: bytes) -> bool:
    return len(identifier) == 1 and (identifier[0] <= 0x17 or 0x20 <= identifier[0] <= 0x37)


def _identifier(value: object, what: str) -> bytes:
    if isinstance(value, bytes):
        if _is_short(value):
            raise _fault(f"{what} is h'{value.hex()}', a surplus byte string encoding of an integer identifier")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return identifier_bytes(value)
    raise _fault(f"{what} is neither a byte string nor an integer")


def encode_id_cred(id_cred: Mapping[Any, Any]) -> bytes:
    """ID_CRED_x as it stands in a plaintext: compact when it is {4: kid} alone (section 3.5.3.2)."""
    if len(id_cred) == 1 and isinstance(id_cred.get(KID), bytes):
        return encode_identifier(id_cred[KID])
    return wire.encode(id_cred)


def _id_cred(value: object, what: str) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        if not value:
            raise _fault(f"{what} is an empty map")
        if set(value) == {KID}:
            raise _fault(f"{what} is a surplus map encoding of a lone kid")
        return value
    return {KID: _identifier(value, what)}


def encode_ead(ead: Sequence[Ead]) -> bytes:
    return b"".join(item.encode() for item in ead)


def _ead(values: Sequence[Any], what: str) -> tuple[Ead, ...]:
    items: list[Ead] = []
    at = 0
    while at < len(values):
        label = values[at]
        if not _is_int(label):
            raise _fault(f"{what}: wrong number or type of elements where EAD may follow")
        following = values[at + 1] if at + 1 < len(values) else None
        value = following if isinstance(following, bytes) else None
        items.append(Ead(label, value))
        at += 1 if value is None else 2
    return tuple(items)


def _bytes(value: object, what: str) -> bytes:
    if not isinstance(value, bytes):
        raise _fault(f"{what} is a {type(value).__name__}, not a byte string")
    return value


def parse_message_1(data: bytes) -> Message1:
    """message_1, with G_X validated against the curve of the selected suite where that suite is registered."""
    values = _split(data, "message_1")
    if values and isinstance(values[0], list):
        raise _fault("message_1 is wrapped in an array: surplus array encoding")
    if len(values) < 4:
        raise _fault(f"message_1 has {len(values)} elements, fewer than the 4 it needs")
    method, suites, g_x, c_i = values[:4]
    if not _is_int(method) or not 0 <= method <= 3:
        raise _fault("METHOD is not 0, 1, 2 or 3")
    message = Message1(
        method,
        _suites(suites, "SUITES_I"),
        _bytes(g_x, "G_X"),
        _identifier(c_i, "C_I"),
        _ead(values[4:], "message_1"),
    )
    curve = CURVES.get(message.selected)
    if curve is not None:
        check_public(curve, message.g_x, "G_X")
    return message


def parse_message_2(data: bytes, curve: Curve) -> tuple[bytes, bytes]:
    """(G_Y, CIPHERTEXT_2); G_Y is validated."""
    both = _one(data, "message_2")
    length = KEY_LENGTH[curve]
    if len(both) <= length:
        raise _fault(f"message_2 has {len(both)} bytes, too few for a public key of {length} and a ciphertext")
    check_public(curve, both[:length], "G_Y")
    return both[:length], both[length:]


def parse_ciphertext(data: bytes, what: str) -> bytes:
    """CIPHERTEXT_3 or CIPHERTEXT_4 out of message_3 or message_4."""
    return _one(data, what)


def _one(data: bytes, what: str) -> bytes:
    values = _split(data, what)
    if len(values) != 1:
        raise _fault(f"{what} has {len(values)} elements: wrong number, it has exactly one")
    return _bytes(values[0], what)


def parse_plaintext_2(data: bytes, proof_length: int) -> Plaintext2:
    """PLAINTEXT_2, whose Signature_or_MAC_2 must have `proof_length` bytes."""
    values = _split(data, "PLAINTEXT_2")
    if len(values) < 3:
        raise _fault(f"PLAINTEXT_2 has {len(values)} elements, fewer than the 3 it needs")
    c_r, id_cred, proof = _identifier(values[0], "C_R"), _id_cred(values[1], "ID_CRED_R"), values[2]
    return Plaintext2(c_r, id_cred, _proof(proof, proof_length, "_2"), _ead(values[3:], "PLAINTEXT_2"))


def parse_plaintext_3(data: bytes, proof_length: int) -> Plaintext3:
    """PLAINTEXT_3, whose Signature_or_MAC_3 must have `proof_length` bytes."""
    values = _split(data, "PLAINTEXT_3")
    if len(values) < 2:
        raise _fault(f"PLAINTEXT_3 has {len(values)} elements, fewer than the 2 it needs")
    id_cred, proof = _id_cred(values[0], "ID_CRED_I"), _proof(values[1], proof_length, "_3")
    return Plaintext3(id_cred, proof, _ead(values[2:], "PLAINTEXT_3"))


def parse_plaintext_4(data: bytes) -> tuple[Ead, ...]:
    """PLAINTEXT_4: nothing but EAD_4."""
    return _ead(_split(data, "PLAINTEXT_4"), "PLAINTEXT_4")


def _proof(value: object, length: int, index: str) -> bytes:
    proof = _bytes(value, f"Signature_or_MAC{index}")
    if len(proof) != length:
        raise _fault(f"Signature_or_MAC{index} has {len(proof)} bytes, the cipher suite makes {length}")
    return proof


def parse_error(data: bytes) -> ErrorMessage | None:
    """The error message in `data`, or None when `data` is another message (or no message at all).

    No other message is a sequence of two elements that starts with an integer. A malformed SUITES_R or
    ERR_INFO raises like the other parsers.
    """
    if not data or data[0] >> 5 > 1:
        return None
    values = _split(data, "error message")
    if len(values) != 2 or not _is_int(values[0]):
        return None
    code, info = values
    if code == 1 and not isinstance(info, str):
        raise _fault("ERR_INFO of error 1 is not a text string")
    if code == 2:
        _suites(info, "SUITES_R")
    if code == 3 and info is not True:
        raise _fault("ERR_INFO of error 3 is not true")
    return ErrorMessage(code, info)
