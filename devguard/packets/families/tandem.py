"""Tandem t:slim X2 and Mobi over Bluetooth: the messages of the pump's five characteristics.

    frame:    frames that follow | transaction | chunk of at most 18 bytes (control requests: 40)
    joined:   opcode | transaction | length of cargo | cargo ... | crc16 little endian
    signed:   cargo ends with seconds since the pump's reset (4, little endian) | HMAC-SHA1 (20)

A packet here is all frames of one message, one after another; in a capture of one a record they are joined, and a first
frame alone is `packet.length`, incomplete. Checksum: CRC-16 0x1021 from FFFF over the joined message. Control messages
are signed: HMAC-SHA1 over everything before it, with the pairing code (old firmware) or the key agreed by J-PAKE (new).
Key `hmac` (the code's characters, or the agreed 32 bytes as hex) makes the answer `authenticated`; a signature that
does not fit it is `packet.crc` while `crc_ok` stays the checksum's. Unsigned messages are not authenticated. The same
opcode means different messages on each characteristic: name `characteristic` (`CONTROL`, `CURRENT_STATUS`,
`AUTHORIZATION`, `CONTROL_STREAM`, `HISTORY_LOG`) decides; without it the cargo's length does, and `ambiguous_with`
lists what else it may be. Therapy-affecting: bolus, temporary rate, suspend, resume, profiles, modes, limits,
Control-IQ settings, clock, filling and priming, transmitter id, factory reset, and requests not listed. Cancelling a
bolus and editing a profile segment are not marked so by the readers; `effect` says that they act. Cargo is not read
further; that of answers is patient data.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final

import construct as c

from devguard.errors import Malformed
from devguard.packets.checksums import crc16_ccitt_false
from devguard.packets.families._tandem_opcodes import LONE, PAIRS, PATIENT_REQUESTS, SIGNED, THERAPY, UNMARKED
from devguard.packets.family import Family, Read
from devguard.packets.gather import Gatherer
from devguard.packets.layout import Damaged, Layout
from devguard.packets.packet import Context, Effect, Packet, unreadable

NAME: Final = "tandem_ble"
HEAD: Final = 2
OVERHEAD: Final = 5  # opcode, transaction, length, checksum
CHUNKS: Final = (18, 40)
MAX_FOLLOW: Final = 15
HMAC: Final = 20
SIGNATURE: Final = 4 + HMAC
AGREED: Final = 32
CHARACTERISTICS: Final = ("CONTROL_STREAM", "CONTROL", "CURRENT_STATUS", "AUTHORIZATION", "HISTORY_LOG")
"""In the order in which they are preferred where a message's shape fits several."""

LAYOUT: Final = Layout(
    c.Struct(
        "opcode" / c.Int8ub,
        "txid" / c.Int8ub,
        "length" / c.Rebuild(c.Int8ub, lambda this: len(this.cargo)),
        "cargo" / c.Bytes(lambda this: this.length),
    ),
    c.Int16ul,
    crc16_ccitt_false,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A message: where it travels, what it is called, how long its cargo is without a signature."""

    characteristic: str
    name: str
    size: int | None

    def fits(self, length: int) -> bool:
        """Whether a cargo of that length can be this message's."""
        extra = SIGNATURE if self.characteristic in SIGNED else 0
        return self.size is None or length == self.size + extra


def _kinds() -> dict[int, tuple[Kind, ...]]:
    table: dict[int, list[Kind]] = {}
    for characteristic in CHARACTERISTICS:
        for opcode, name, request, answer in PAIRS.get(characteristic, ()):
            table.setdefault(opcode, []).append(Kind(characteristic, f"{name}Request", request))
            table.setdefault(opcode + 1, []).append(Kind(characteristic, f"{name}Response", answer))
        for opcode, name, size in LONE.get(characteristic, ()):
            table.setdefault(opcode, []).append(Kind(characteristic, name, size))
    return {opcode: tuple(kinds) for opcode, kinds in table.items()}


KINDS: Final = _kinds()


def decode(data: bytes, context: Context) -> Packet:
    """All frames of one message, one after another. Raises `Malformed("packet.unknown")` for a `characteristic` that
    does not exist."""
    characteristic = _characteristic(context)
    try:
        frames = _frames(data)
        merged = b"".join(frame[HEAD:] for frame in frames)
        body, found, expected = LAYOUT.read(merged)
    except Damaged as error:
        return unreadable(NAME, data, error)
    kind, others = _kind(body.opcode, body.length, characteristic)
    fields: dict[str, Any] = {
        "opcode": body.opcode,
        "txid": body.txid,
        "message": kind.name,
        "characteristic": kind.characteristic or None,
        "ambiguous_with": others,
        "cargo_len": body.length,
        "cargo": body.cargo.hex(),
        "frames": len(frames),
        "merged": merged.hex(),
        "crc16": found,
        "signed": kind.characteristic in SIGNED if kind.characteristic else None,
    }
    code, detail, authenticated = None, "", False
    if found != expected:
        code, detail = "packet.crc", f"checksum {found:#06x} found, the bytes give {expected:#06x}"
    elif fields["signed"] is not False and len(body.cargo) >= SIGNATURE:
        code, detail, authenticated = _signature(merged, fields, context)
    acts, good = _acts(body.opcode, kind), found == expected
    told = Effect.ACTS if body.opcode in UNMARKED.get(kind.characteristic, ()) else None
    return Packet(NAME, kind.name, data, fields, good, acts, authenticated, code, detail, _patient(kind), told)


def _frames(data: bytes) -> list[bytes]:
    """The frames of the message: their number is in the first, their size is the one at which every frame's head
    counts down and carries the transaction."""
    if len(data) < HEAD + OVERHEAD:
        raise Damaged("packet.length", f"a first frame has at least {HEAD + OVERHEAD} bytes, there are {len(data)}")
    follow, txid, _, inner, length = data[:5]
    if follow > MAX_FOLLOW:
        raise Damaged("packet.unknown", f"{follow} frames said to follow, at most {MAX_FOLLOW} do")
    if inner != txid:
        raise Damaged("packet.length", f"no first frame: transaction {txid} outside, {inner} inside")
    whole, count = OVERHEAD + length, follow + 1
    wanted = whole + HEAD * count
    if len(data) != wanted:
        what = "incomplete: " if len(data) < wanted else ""
        raise Damaged("packet.length", f"{what}{count} frames of {wanted} bytes expected, there are {len(data)}")
    if count == 1:
        return [data]
    fitting = [cut for size in _sizes(whole, count) if (cut := _cut(data, size + HEAD, follow, txid))]
    if not fitting:
        raise Damaged("packet.unknown", f"no frame size at which {count} frames of transaction {txid} count down")
    return next((cut for cut in fitting if _sound(cut)), fitting[0])


def _goes_on(parts: list[bytes]) -> bool | None:
    """Whether a frame is missing behind these: heads count down and carry the transaction."""
    first, index = parts[0], len(parts) - 1
    if len(first) < OVERHEAD or first[0] > MAX_FOLLOW or first[1] != first[3]:
        return False
    if index and parts[-1][:HEAD] != bytes((first[0] - index, first[1])):
        return None
    return index < first[0] and sum(map(len, parts)) < OVERHEAD + first[4] + HEAD * (first[0] + 1)


def gather(read: Read, _context: Context) -> Gatherer:
    """The frames of a message, one a record."""
    return Gatherer(read, _goes_on)


def _sizes(whole: int, count: int) -> list[int]:
    """The chunk sizes that give so many frames, the known ones first."""
    possible = [size for size in range(-(-whole // count), whole) if -(-whole // size) == count]
    return sorted(possible, key=lambda size: (size not in CHUNKS, size))


def _cut(data: bytes, size: int, follow: int, txid: int) -> list[bytes]:
    """The frames of that size; empty where a head does not say what it must."""
    frames = [data[at : at + size] for at in range(0, len(data), size)]
    heads = [bytes((follow - index, txid)) for index in range(follow + 1)]
    return frames if [frame[:HEAD] for frame in frames] == heads else []


def _sound(frames: list[bytes]) -> bool:
    merged = b"".join(frame[HEAD:] for frame in frames)
    return crc16_ccitt_false(merged[:-2]) == int.from_bytes(merged[-2:], "little")


def _characteristic(context: Context) -> str | None:
    given = context.names.get("characteristic")
    if given is None:
        return None
    name = given.strip().upper().replace("-", "_").replace(" ", "_")
    if name not in CHARACTERISTICS:
        raise Malformed("packet.unknown", f"no characteristic {given!r}", f"one of {', '.join(CHARACTERISTICS)}")
    return name


def _kind(opcode: int, length: int, characteristic: str | None) -> tuple[Kind, list[str]]:
    """The message, and the names of others that fit as well. One whose length fits no known message is taken for the
    one that would act on therapy, so that no command hides behind an odd length."""
    known = [kind for kind in KINDS.get(opcode, ()) if characteristic in (None, kind.characteristic)]
    if not known:
        return Kind(characteristic or "", f"unknown {opcode:#04x}", None), []
    fitting = [kind for kind in known if kind.fits(length)]
    chosen = (fitting or sorted(known, key=lambda kind: not _acts(opcode, kind)))[0]
    return chosen, [kind.name for kind in fitting or known if kind is not chosen]


def _acts(opcode: int, kind: Kind) -> bool:
    if kind.name.startswith("unknown"):
        return opcode % 2 == 0  # requests are even
    return opcode in THERAPY.get(kind.characteristic, ())


def _patient(kind: Kind) -> frozenset[str]:
    if kind.name.endswith("Request") and kind.name not in PATIENT_REQUESTS:
        return frozenset()
    return frozenset({"cargo", "merged"})


def _signature(merged: bytes, fields: dict[str, Any], context: Context) -> tuple[str | None, str, bool]:
    """(code, detail, authenticated) of a signed message; what it carries is added to the fields."""
    covered, carried = merged[: -HMAC - 2], merged[-HMAC - 2 : -2]
    key = _key(context)
    good = None
    if key is not None:
        good = hmac.compare_digest(hmac.new(key, covered, hashlib.sha1).digest(), carried)
    if fields["signed"] is None and not good:
        return None, "", False  # an unlisted message need not be signed
    fields["signed"] = True
    fields["hmac_sha1"] = carried.hex()
    fields["pump_time_since_reset"] = int.from_bytes(covered[-4:], "little")
    fields["hmac_ok"] = good
    if good is False:
        return "packet.crc", "the checksum is right, the HMAC-SHA1 does not fit the key given", False
    return None, "", bool(good)


def _key(context: Context) -> bytes | None:
    """A pairing code as it is; an agreed key also as hex digits, which no code has as many of."""
    given = context.keys.get("hmac")
    return context.secret("hmac", AGREED) if given is not None and len(given) == 2 * AGREED else given


def framed(opcode: int, txid: int, cargo: bytes, chunk: int = CHUNKS[0], key: bytes | None = None) -> bytes:
    """All frames of a message, signed where a key is given (cargo then without signature, but with its time). For
    tests and made vectors."""
    if key is not None:
        head = bytes((opcode, txid, len(cargo) + HMAC))
        cargo += hmac.new(key, head + cargo, hashlib.sha1).digest()
    merged = LAYOUT.write(opcode=opcode, txid=txid, cargo=cargo)
    chunks = [merged[at : at + chunk] for at in range(0, len(merged), chunk)]
    return b"".join(bytes((len(chunks) - 1 - index, txid)) + part for index, part in enumerate(chunks))


FAMILIES: Final = (Family(NAME, "Tandem t:slim X2 and Mobi, Bluetooth", decode, gather=gather),)
