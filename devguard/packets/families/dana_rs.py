"""Dana RS and Dana-i over Bluetooth: packets hidden by the device's name, and by pairing keys on newer pumps.

    A5 A5 | length | type | opcode | parameters ... | crc16 big endian | 5A 5A

Length counts type to parameters. Types: 01 and 02 handshake and its answer, A1 command, B2 answer, C3 notice. Name
`device` (the 10 characters of the Bluetooth name) undoes the first level, an exclusive or from type to checksum;
without it only the length is readable. Name `mode` is `default`, `rsv3` or `ble5`: it chooses the checksum, a 16-bit
shift-and-mix in three variants; handshakes have the default one in all modes; without a mode all three are tried.

- default: commands carry further layers: keys `time_information` (the 8 parameter bytes of the pump's answer to
  ENCRYPTION__TIME_INFORMATION) and `passkey` (2, as in ENCRYPTION__CHECK_PASSKEY), raw or hex. Without them a command
  is valid, its checksum not checked and its opcode not known.
- rsv3, ble5: whole packets are hidden a second time: key `ble5_key` (6 digits), or `pairing_key` (6 bytes) and
  `random_pairing_key` (3) with `sync_key` (1: the last byte on the line before this packet; without it, as after
  pairing). Without keys such bytes are `packet.unknown`, or with name `level=second` taken as they are, unchecked. A
  packet without the second level has the marks A5 and 5A, or AA and EE (ble5), 7A and 2E (rsv3).

All of it is obfuscation: nothing is authenticated. Therapy-affecting: commands that set or stop a bolus, basal,
suspend, profile, clock or option, and commands not listed; what a hidden packet does is not known. Packets split over
Bluetooth notifications are joined, unless the second level hides them: then one record is one packet. Parameters are
not read further; all but those of commands are patient data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import construct as c

from devguard.errors import Malformed
from devguard.packets.families._dana_opcodes import COMMANDS, ENCRYPTION, HARMLESS, NOTIFY
from devguard.packets.family import Family, Read
from devguard.packets.gather import Gatherer
from devguard.packets.layout import Damaged, Layout, rest
from devguard.packets.packet import Context, Effect, Packet, unreadable

NAME: Final = "dana_rs_ble"
OVERHEAD: Final = 7  # marks, length, checksum
LONGEST: Final = OVERHEAD + 255
MODES: Final = ("default", "rsv3", "ble5")
MARKS: Final = {
    b"\xa5\xa5": (b"\x5a\x5a", None),
    b"\xaa\xaa": (b"\xee\xee", "ble5"),
    b"\x7a\x7a": (b"\x2e\x2e", "rsv3"),
}
REQUEST, REPLY, COMMAND, ANSWER, NOTICE = 0x01, 0x02, 0xA1, 0xB2, 0xC3
HANDSHAKE: Final = (REQUEST, REPLY)
TYPES: Final = {REQUEST: ENCRYPTION, REPLY: ENCRYPTION, COMMAND: COMMANDS, ANSWER: COMMANDS, NOTICE: NOTIFY}
DEVICE: Final = 10
_PASSWORD_MASK: Final = b"\x87\x0d"
_BLE5_TABLE: Final = bytes.fromhex(
    "637c777bf26b6fc53001672bfed7ab766c704850fdedb9da5e154657a78d9d84b7fd9326363ff7cc34a5e5f171d8311547f1"
    "1a711d29c5896fb7620eaa18be1b09832c1a1b6e5aa0523bd6b329e32f8453d1a0ed20fcb15b6acbbe394a4c58cfb054bb16"
)


def _aes_box() -> bytes:
    """The S-box of AES, from its definition: the inverse in GF(2^8), then the affine map."""
    box = bytearray(256)
    power, inverse = 1, 1
    while True:
        power ^= (power << 1 & 0xFF) ^ (0x1B if power & 0x80 else 0)
        for shift in (1, 2, 4):
            inverse ^= inverse << shift & 0xFF
        inverse ^= 0x09 if inverse & 0x80 else 0
        turned = inverse
        for turn in (1, 2, 3, 4):
            turned ^= (inverse << turn | inverse >> 8 - turn) & 0xFF
        box[power] = turned ^ 0x63
        if power == 1:
            box[0] = 0x63
            return bytes(box)


_BOX: Final = _aes_box()


def _mixer(mix: Callable[[int], int]) -> Callable[[bytes], int]:
    def crc(data: bytes) -> int:
        value = 0
        for byte in data:
            value = ((value >> 8) | (value << 8)) & 0xFFFF ^ byte
            value ^= (value & 0xFF) >> 4
            value ^= value << 12 & 0xFFFF
            value ^= mix(value & 0xFF)
        return value

    return crc


CRCS: Final[dict[str, Callable[[bytes], int]]] = {
    "default": _mixer(lambda low: low << 3 | low >> 2 << 5),
    "rsv3": _mixer(lambda low: low << 5 | low >> 4 << 2),
    "ble5": _mixer(lambda low: low << 4 | low >> 3 << 2),
}
BODY: Final = c.Struct("type" / c.Int8ub, "opcode" / c.Int8ub, rest("params", 4))
LAYOUTS: Final = {variant: Layout(BODY, c.Int16ub, crc) for variant, crc in CRCS.items()}


@dataclass(frozen=True, slots=True)
class Known:
    """What the caller knows of the pump: the three sums of its name, its mode, and its keys."""

    device: str | None
    mode: str | None
    time_information: bytes | None
    passkey: bytes | None
    second: Callable[[bytes], bytes] | None

    @property
    def sums(self) -> tuple[int, int, int]:
        """The bytes that hide the first level."""
        name = (self.device or "").encode("ascii")
        return sum(name[:3]) & 0xFF, sum(name[3:8]) & 0xFF, sum(name[8:]) & 0xFF


def decode(data: bytes, context: Context) -> Packet:
    """One packet. Raises `Malformed` for keys and names that cannot be (`key.malformed`, `packet.unknown`)."""
    known = _known(context)
    fields: dict[str, Any] = {} if known.mode is None else {"mode": known.mode}
    try:
        if not data or len(data) > LONGEST:
            raise Damaged("packet.length", f"a packet has 1 to {LONGEST} bytes, there are {len(data)}")
        plain = data
        if data[:2] not in MARKS and known.second is not None:
            plain = known.second(data)
            fields["first_level"] = _marked(plain).hex()
        elif data[:2] not in MARKS and context.names.get("level") == "second":
            return Packet(NAME, "second level", data, fields, None, False, told=Effect.UNKNOWN)
        return _first_level(data, plain, fields, known)
    except Damaged as error:
        failed = unreadable(NAME, data, error)
        return failed._replace(fields=fields)


def _known(context: Context) -> Known:
    device, mode = context.names.get("device"), context.names.get("mode")
    if device is not None and (len(device) != DEVICE or not device.isascii()):
        raise Malformed("packet.unknown", f"`device` is a Bluetooth name of {DEVICE} characters, not {device[:20]!r}")
    if mode is not None and mode not in MODES:
        raise Malformed("packet.unknown", f"`mode` is one of {', '.join(MODES)}, not {mode[:20]!r}")
    return Known(device, mode, context.secret("time_information", 8), context.secret("passkey", 2), _second(context))


def _second(context: Context) -> Callable[[bytes], bytes] | None:
    """What undoes the second level, where its keys are given."""
    digits = context.keys.get("ble5_key")
    if digits is not None:
        if len(digits) != 6 or not digits.isdigit():
            raise Malformed("key.malformed", "the key 'ble5_key' has 6 digits")
        low, middle, high = (_BLE5_TABLE[int(digits[at : at + 2])] for at in (0, 2, 4))
        table = bytes((_swap(((byte ^ high) + middle) & 0xFF) - low) & 0xFF for byte in range(256))
        return lambda data: data.translate(table)
    pairing, chance = context.secret("pairing_key", 6), context.secret("random_pairing_key", 3)
    if pairing is None or chance is None:
        return None
    first = context.secret("sync_key", 1)
    return lambda data: _unchained(data, pairing, chance, _first_sync(pairing) if first is None else first[0])


def _swap(byte: int) -> int:
    return byte >> 4 | byte << 4 & 0xF0


def _first_sync(key: bytes) -> int:
    value = _swap(key[0] + key[1] & 0xFF)
    value = _swap((value ^ key[2]) - key[3] & 0xFF)
    return _swap(value ^ key[4]) ^ key[5]


def _unchained(data: bytes, key: bytes, chance: bytes, sync: int) -> bytes:
    """RSv3's second level undone: each byte depends on the keys and on the byte before it on the line."""
    box, mixed = [_BOX[byte] for byte in key], [_BOX[byte] for byte in chance]
    plain = bytearray()
    for byte in data:
        value = _swap((byte + mixed[2] - mixed[1] & 0xFF) ^ mixed[0])
        value = _swap((value + box[5] - box[4] & 0xFF) ^ box[3])
        value = _swap((value + box[2] - box[1] & 0xFF) ^ box[0] ^ sync ^ key[5])
        value = _swap((value ^ key[4]) + key[3] & 0xFF)
        value = _swap((value ^ key[2]) - key[1] & 0xFF)
        plain.append((value + sync & 0xFF) ^ key[0])
        sync = byte
    return bytes(plain)


def _marked(plain: bytes) -> bytes:
    """The packet with the marks of the first level."""
    end = MARKS.get(plain[:2], (b"", None))[0]
    if len(plain) < OVERHEAD or not end or plain[-2:] != end:
        return plain
    return b"\xa5\xa5" + plain[2:-2] + b"\x5a\x5a"


def _first_level(data: bytes, plain: bytes, fields: dict[str, Any], known: Known) -> Packet:
    if plain[:2] not in MARKS:
        raise Damaged("packet.unknown", f"a packet begins a5a5, this one {plain[:2].hex()}")
    end, implied = MARKS[plain[:2]]
    if len(plain) < OVERHEAD + 2 or plain[2] + OVERHEAD != len(plain):
        says = f"{plain[2] + OVERHEAD}" if len(plain) > 2 else f"at least {OVERHEAD + 2}"
        raise Damaged("packet.length", f"{says} bytes expected, there are {len(plain)}")
    if plain[-2:] != end:
        raise Damaged("packet.unknown", f"a packet ends {end.hex()}, this one {plain[-2:].hex()}")
    mode = implied or known.mode
    fields |= {"mode": mode} if mode is not None else {}
    fields["length"] = plain[2]
    if known.device is None:
        return Packet(NAME, "hidden", data, fields, None, False, told=Effect.UNKNOWN)
    fields["device"] = known.device
    body = bytes(byte ^ known.sums[at % 3] for at, byte in enumerate(plain[3:-2]))
    variant, extra = _variant(body, mode), 0
    if variant is None:
        if known.time_information is None or known.passkey is None:
            private = frozenset({"device"})
            fields["clear"] = None
            return Packet(NAME, "hidden", data, fields, None, False, patient=private, told=Effect.UNKNOWN)
        extra = _extra(known.time_information)
        body = bytes(byte ^ extra ^ known.passkey[(at + 1) % 2] for at, byte in enumerate(body))
        mode, variant = "default", "default"
    elif mode is None and variant != "default":
        mode = variant
    return _read(data, plain[2:3] + body, fields | {"extra_xor": extra}, mode, variant)


def _variant(body: bytes, mode: str | None) -> str | None:
    """The checksum's variant of a first-level body; None where further layers of the default mode hide it."""
    if body[0] in HANDSHAKE:
        return "default"
    if mode in ("rsv3", "ble5"):
        return mode
    if mode is None:
        sound = (name for name in ("rsv3", "ble5") if CRCS[name](body[:-2]) == int.from_bytes(body[-2:], "big"))
        return next(sound, None)
    return None


def _extra(time_information: bytes) -> int:
    """The byte that hides a command in default mode: the sum of the pump's time, and that of its password."""
    password = bytes(byte ^ mask for byte, mask in zip(time_information[6:], _PASSWORD_MASK, strict=True))
    return (sum(time_information[:6]) & 0xFF) ^ (sum(password) & 0xFF)


def _read(data: bytes, sized: bytes, fields: dict[str, Any], mode: str | None, variant: str) -> Packet:
    """`sized`: length and clear body with its checksum."""
    body, found, expected = LAYOUTS[variant].read(sized[1:])
    listed = TYPES.get(body.type, {}).get(body.opcode)
    asked = body.type in (REQUEST, COMMAND, NOTICE)
    fields |= {
        "clear": (b"\xa5\xa5" + sized + b"\x5a\x5a").hex(),
        "type": body.type,
        "opcode": body.opcode,
        "opcode_name": listed if asked else None,
        "crc_variant": variant,
        "params": body.params.hex(),
        "crc16": found,
    }
    if mode is not None:
        fields["mode"] = mode
    name = listed or f"unknown {body.opcode:#04x}"
    kind = {REPLY: " answer", ANSWER: " answer"}.get(
        body.type, "" if body.type in TYPES else f" of type {body.type:#04x}"
    )
    good = found == expected
    acts = (body.type == COMMAND and body.opcode not in HARMLESS) or body.type not in TYPES
    private = {"device"} | (set() if body.type == COMMAND else {"clear", "params", "first_level"})
    return Packet(
        NAME,
        name + kind,
        data,
        fields,
        good,
        acts,
        code=None if good else "packet.crc",
        detail="" if good else f"checksum {found:#06x} found, the bytes give {expected:#06x} ({variant})",
        patient=frozenset(private & fields.keys()),
    )


def _goes_on(parts: list[bytes]) -> bool | None:
    """Whether a packet that Bluetooth split goes on: its marks and its length are in the first part. What a second
    level hides is one record a packet."""
    first = parts[0]
    if first[:2] not in MARKS or len(first) < 3:
        return False
    size, wanted = sum(map(len, parts)), first[2] + OVERHEAD
    if size > wanted and len(parts) > 1 and parts[-1][:2] in MARKS:
        return None
    return size < wanted


def gather(read: Read, _context: Context) -> Gatherer:
    """Packets of more than one record."""
    return Gatherer(read, _goes_on)


def hidden(
    device: str, kind: int, opcode: int, params: bytes, variant: str = "default", extra: bytes = b"\0\0"
) -> bytes:
    """A first-level packet, `extra` the two bytes of the default mode's further layers. For tests and made vectors."""
    body = LAYOUTS[variant].write(type=kind, opcode=opcode, params=params)
    sums = Known(device, None, None, None, None).sums
    return (
        b"\xa5\xa5"
        + bytes((len(body) - 2,))
        + bytes(byte ^ sums[at % 3] ^ extra[at % 2] for at, byte in enumerate(body))
        + b"\x5a\x5a"
    )


FAMILIES: Final = (Family(NAME, "Dana RS and Dana-i, Bluetooth", decode, gather=gather),)
