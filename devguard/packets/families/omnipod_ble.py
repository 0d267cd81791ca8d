"""Omnipod DASH over Bluetooth: fragments of 20 bytes, and the "TW" messages they join to.

    first:    00 | number of the last full fragment | 18 bytes;  alone: 00 | 00 | crc32 (4) | size | 13 bytes
    middle:   index | 19 bytes
    last:     index | size | crc32 (4) | 14 bytes;               what did not fit: index + 1 | size | rest
    message:  5457 | flags (2) | sequence | ack number | length << 5 (2) | source (4) | destination (4) | payload | tag

Numbers are big endian; size is what is left of the payload. Checksum: CRC-32 over the joined payload, in the last
fragment: a fragment alone is valid, not complete, and its checksum not checked. A packet here is one fragment, all of
them one after another, or a joined message; name `earlier` (hex) gives the fragments before the one decoded.
Encrypted messages: AES-128-CCM with an 8-byte tag, the header as associated data, and a 13-byte nonce: prefix (8),
1 bit set from pod to controller, counter (39 bits). Keys `ck` (16 bytes) and `nonce_prefix` (8), raw or hex; name
`nonce_seq` is the counter, without it 0 to 255 are tried. A message that decrypts is `authenticated` and `crc_ok`; its
command is read as in `omnipod_dash` and is therapy-affecting as there. Pairing and session messages are not read
further, nor is the command characteristic (RTS, CTS, HELLO).
"""

from __future__ import annotations

from typing import Any, Final

import construct as c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from devguard.errors import Malformed
from devguard.packets.checksums import crc32
from devguard.packets.families.omnipod import DASH, read_message
from devguard.packets.family import Family, Read
from devguard.packets.gather import Gatherer
from devguard.packets.layout import Damaged, parse
from devguard.packets.packet import Context, Effect, Packet, unreadable

NAME: Final = "omnipod_dash_ble"
FRAGMENT: Final = 20
MAX_FULL: Final = 15
MAX_FRAGMENTS: Final = MAX_FULL + 1
MAGIC: Final = b"TW"
HEADER: Final = 16
TAG: Final = 8
PREFIX: Final = 8
CK: Final = 16
TRIED: Final = 256
COUNTERS: Final = 1 << 39
TYPES: Final = ("clear", "encrypted", "session_establishment", "pairing")
ENCRYPTED: Final = 1
COMMAND_MARKS: Final = (b"S0.0=", b"0.0=")  # a command to the pod, an answer of it

ALONE: Final = c.Struct(
    "index" / c.Int8ub, "full" / c.Int8ub, "crc32" / c.Int32ub, "size" / c.Int8ub, "data" / c.Bytes(13)
)
LAST: Final = c.Struct("index" / c.Int8ub, "size" / c.Int8ub, "crc32" / c.Int32ub, "data" / c.Bytes(14))
MESSAGE: Final = c.Struct(
    "magic" / c.Const(MAGIC),
    "flags"
    / c.BitStruct(
        "version" / c.BitsInteger(3),
        "sas" / c.Flag,
        "tfs" / c.Flag,
        "eqos" / c.BitsInteger(3),
        "ack" / c.Flag,
        "priority" / c.Flag,
        "last_message" / c.Flag,
        "gateway" / c.Flag,
        "type" / c.BitsInteger(4),
    ),
    "sequence" / c.Int8ub,
    "ack_number" / c.Int8ub,
    "size"
    / c.BitStruct(
        "length" / c.Rebuild(c.BitsInteger(11), lambda this: len(this._.payload) - _tag_of(this._)),
        "zero" / c.BitsInteger(5),
    ),
    "source" / c.Int32ub,
    "destination" / c.Int32ub,
    "payload" / c.Bytes(lambda this: this.size.length + _tag_of(this)),
)


def _tag_of(this: Any) -> int:
    return TAG if this.flags.type == ENCRYPTED else 0


def decode(data: bytes, context: Context) -> Packet:
    """A fragment, fragments one after another, or a joined message. Raises `Malformed` for keys and names that cannot
    be (`key.malformed`, `packet.unknown`)."""
    keys = _keys(context)
    if data[:2] == MAGIC:
        return _message(data, data, {}, keys, None)
    try:
        earlier = _earlier(context)
        own = _fragments(data)
        parts = own if own[0][0] == 0 else [*earlier, *own]
        _in_order(parts)
    except Damaged as error:
        return unreadable(NAME, data, error)
    fields: dict[str, Any] = {"index": own[-1][0], "fragments": len(own)}
    if parts[0][0] != 0:
        fields |= {"complete": False, "data": b"".join(part[1:] for part in own).hex()}
        return Packet(NAME, "fragment", data, fields, None, False, patient=frozenset({"data"}), told=Effect.UNKNOWN)
    try:
        joined, wanted = _joined(parts, fields)
    except Damaged as error:
        return unreadable(NAME, data, error)._replace(name="fragment", fields=fields)
    if wanted is None:
        fields |= {"complete": False, "data": joined.hex()}
        return Packet(NAME, "fragment", data, fields, None, False, patient=frozenset({"data"}), told=Effect.UNKNOWN)
    fields |= {"complete": True, "joined": joined.hex()}
    found = crc32(joined)
    if found != wanted:
        detail = f"CRC-32: {wanted:#010x} in the last fragment, the joined bytes give {found:#010x}"
        damaged = unreadable(NAME, data, Damaged("packet.crc", detail), crc_ok=False)
        return damaged._replace(name="fragment", fields=fields, patient=frozenset({"joined"}))
    return _message(data, joined, fields, keys, True)


def _earlier(context: Context) -> list[bytes]:
    try:
        given = bytes.fromhex(context.names.get("earlier", ""))
        return _fragments(given) if given else []
    except (ValueError, Damaged) as error:
        raise Malformed("packet.unknown", "`earlier` is no row of fragments in hex") from error


def _fragments(data: bytes) -> list[bytes]:
    if not data or len(data) % FRAGMENT:
        raise Damaged("packet.length", f"fragments have {FRAGMENT} bytes each, there are {len(data)}")
    if len(data) > MAX_FRAGMENTS * FRAGMENT:
        raise Damaged("packet.length", f"a message has at most {MAX_FRAGMENTS} fragments, there are more")
    return [data[at : at + FRAGMENT] for at in range(0, len(data), FRAGMENT)]


def _in_order(parts: list[bytes]) -> None:
    for place, part in enumerate(parts, parts[0][0]):
        if part[0] != place or part[0] > MAX_FULL:
            raise Damaged("packet.unknown", f"fragment {place} expected, fragment {part[0]} found")


def _goes_on(parts: list[bytes]) -> bool | None:
    """Whether a fragment is missing behind these."""
    try:
        held = _fragments(b"".join(parts))
        if held[0][0] != 0:
            return False
        _in_order(held)
        return _joined(held, {})[1] is None
    except Damaged:
        return None if len(parts) > 1 else False


def gather(read: Read, _context: Context) -> Gatherer:
    """The fragments of a message, one a record."""
    return Gatherer(read, _goes_on)


def _joined(parts: list[bytes], fields: dict[str, Any]) -> tuple[bytes, int | None]:
    """(payload, the checksum it must have); the checksum is None while fragments are missing."""
    full = parts[0][1]
    fields["full_fragments"] = full
    if full >= MAX_FULL:
        raise Damaged("packet.unknown", f"{full} full fragments said, fewer than {MAX_FULL} are possible")
    if full == 0:
        payload, last = b"", parse(ALONE, parts[0])
    elif len(parts) <= full:
        return parts[0][2:] + b"".join(part[1:] for part in parts[1:]), None
    else:
        payload = parts[0][2:] + b"".join(part[1:] for part in parts[1:full])
        last = parse(LAST, parts[full])
    fields |= {"size": last.size, "crc32": f"{last.crc32:08x}"}
    payload += last.data[: last.size]
    rest, missing = parts[full + 1 :], last.size - len(last.data)
    if missing > FRAGMENT - 2 or len(rest) > (missing > 0):
        raise Damaged("packet.length", f"{last.size} bytes said to be left, {len(rest)} fragments follow")
    if missing > 0 and not rest:
        return payload, None
    if missing > 0:
        if rest[0][1] != missing:
            raise Damaged("packet.length", f"{missing} bytes are left, the fragment after the last says {rest[0][1]}")
        payload += rest[0][2 : 2 + missing]
    return payload, last.crc32


def _message(data: bytes, joined: bytes, fields: dict[str, Any], keys: Keys | None, crc_ok: bool | None) -> Packet:
    """The message in `joined`; `data` is what was given, `crc_ok` what its fragments say."""
    try:
        if len(joined) < HEADER or joined[:2] != MAGIC:
            raise Damaged("packet.unknown", f"a message begins {MAGIC.hex()} and has at least {HEADER} bytes")
        wanted = HEADER + (joined[6] << 3 | joined[7] >> 5) + (TAG if joined[3] & 15 == ENCRYPTED else 0)
        if len(joined) != wanted:
            raise Damaged("packet.length", f"the message says {wanted} bytes, there are {len(joined)}")
        message = parse(MESSAGE, joined)
        if message.flags.version or message.size.zero:
            raise Damaged("packet.unknown", "a version or length bits that no message has")
    except Damaged as error:
        masked = frozenset({"joined"} & fields.keys())
        return unreadable(NAME, data, error, crc_ok=crc_ok)._replace(name="message", fields=fields, patient=masked)
    kind = message.flags.type
    name = TYPES[kind] if kind < len(TYPES) else f"unknown {kind:#04x}"
    fields |= {
        "magic": MAGIC.decode(),
        "type": name,
        "sequence": message.sequence,
        "ack": message.flags.ack,
        "ack_number": message.ack_number,
        "payload_len": message.size.length,
        "source": f"{message.source:08x}",
        "destination": f"{message.destination:08x}",
        "tag_len": _tag_of(message),
        "payload": message.payload.hex(),
    }
    masked = frozenset({"joined", "source", "destination", "payload"} & fields.keys())
    packet = Packet(NAME, name, data, fields, crc_ok, False, patient=masked, told=Effect.UNKNOWN)
    return packet if kind != ENCRYPTED or keys is None else _decrypted(packet, joined, keys)


Keys = tuple[bytes, bytes, range]
"""CK, nonce prefix, the counters to try."""


def _keys(context: Context) -> Keys | None:
    ck, prefix = context.secret("ck", CK), context.secret("nonce_prefix", PREFIX)
    if ck is None or prefix is None:
        return None
    given = context.names.get("nonce_seq")
    if given is None:
        return ck, prefix, range(TRIED)
    if not given.isdecimal() or len(given) > 12 or int(given) >= COUNTERS:
        raise Malformed("packet.unknown", f"`nonce_seq` is a number below {COUNTERS}, not {given[:20]!r}")
    return ck, prefix, range(int(given), int(given) + 1)


def _decrypted(packet: Packet, joined: bytes, keys: Keys) -> Packet:
    ck, prefix, counters = keys
    cipher = AESCCM(ck, tag_length=TAG)
    header, payload = joined[:HEADER], joined[HEADER:]
    for counter in counters:
        for direction in (1, 0):
            nonce = prefix + (direction << 39 | counter).to_bytes(5, "big")
            try:
                plain = cipher.decrypt(nonce, payload, header)
            except InvalidTag:
                continue
            fields = dict(packet.fields) | {"nonce_seq": counter, "pod_to_controller_bit": direction}
            return _read(packet, fields, plain)
    span = f"{counters[0]}" if len(counters) == 1 else f"{counters[0]} to {counters[-1]}"
    detail = f"the AES-CCM tag does not fit the key and nonce prefix given, with counter {span}"
    return packet._replace(crc_ok=False, code="packet.crc", detail=detail)


def _read(packet: Packet, fields: dict[str, Any], plain: bytes) -> Packet:
    """The packet with what its plaintext says: a command or an answer, as in `omnipod_dash`."""
    fields["plaintext"] = plain.hex()
    name, therapy, told, code, detail = packet.name, False, packet.told, None, ""
    masked = set(packet.patient) | {"plaintext"}
    for mark in COMMAND_MARKS:
        if not plain.startswith(mark):
            continue
        at = len(mark) + 2
        size = int.from_bytes(plain[len(mark) : at], "big")
        inner = read_message(DASH, plain[at : at + size])
        fields["message"] = {key: value for key, value in inner.fields.items() if key != "address"}
        masked |= {"message"} if "body" in inner.patient or not inner.valid else set()
        name, therapy, told = inner.name, inner.therapy_affecting, inner.told
        code, detail = inner.code, inner.detail
        break
    return Packet(NAME, name, packet.raw, fields, True, therapy, True, code, detail, frozenset(masked), told)


def sealed(ck: bytes, prefix: bytes, counter: int, plain: bytes, *, from_pod: bool = False, sequence: int = 0) -> bytes:
    """An encrypted message, for tests and made vectors."""
    flags = {
        "version": 0,
        "sas": True,
        "tfs": False,
        "eqos": 0,
        "ack": False,
        "priority": False,
        "last_message": False,
        "gateway": False,
        "type": ENCRYPTED,
    }
    values = {"flags": flags, "sequence": sequence, "ack_number": 0, "source": 0x1092, "destination": 0x1093}
    built = MESSAGE.build(values | {"size": {"zero": 0}, "payload": bytes(len(plain) + TAG)})
    nonce = prefix + (from_pod << 39 | counter).to_bytes(5, "big")
    header = bytes(built[:HEADER])
    return header + AESCCM(ck, tag_length=TAG).encrypt(nonce, plain, header)


def fragmented(payload: bytes) -> bytes:
    """All fragments of a payload, for tests and made vectors."""
    check = crc32(payload)
    full = 0 if len(payload) <= 18 else (len(payload) - 18) // 19 + 1
    if full == 0:
        head = ALONE.build(
            {"index": 0, "full": 0, "crc32": check, "size": len(payload), "data": payload[:13].ljust(13, b"\0")}
        )
        rest = payload[13:]
    else:
        middle = payload[18 : 18 + 19 * (full - 1)]
        end = payload[18 + len(middle) :]
        head = bytes((0, full)) + payload[:18]
        head += b"".join(bytes((1 + at // 19,)) + middle[at : at + 19] for at in range(0, len(middle), 19))
        head += LAST.build({"index": full, "size": len(end), "crc32": check, "data": end[:14].ljust(14, b"\0")})
        rest = end[14:]
    extra = (bytes((full + 1, len(rest))) + rest).ljust(FRAGMENT, b"\0") if rest else b""
    return bytes(head) + extra


FAMILIES: Final = (Family(NAME, "Omnipod DASH, Bluetooth fragments and messages", decode, gather=gather),)
