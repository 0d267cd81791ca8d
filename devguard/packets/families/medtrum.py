"""Medtrum pumps over Bluetooth: commands and answers in chunks of at most 20 bytes.

    chunk:    length | opcode | sequence | index | data (at most 15) | crc8
    single:   length | opcode | sequence | 00    | data ...          | crc8 | 00
    joined:   length | opcode | sequence | 00    | data of all chunks, its last byte the inner crc8

Checksums: CRC-8 0x9B over each chunk, and once more over the joined message; `length` counts the joined message with
its inner checksum. Chunks are numbered from 1, in order. A packet here is all chunks one after another; in a capture of
one a record they are joined. The session key is derived from the serial number, so nothing is authenticated.
Therapy-affecting: 10 and 12 clock and time zone, 16 prime, 18 activate, 19 bolus, 20 cancel bolus, 21 basal profile,
24 and 25 temporary basal, 29 resume, 31 stop, 35 and 36 patch settings, 115 clear alarm, and 22, 23, 26 to 28 and 37,
which stand among them and have no name here; what other opcodes do is not known. `medtrum_payload` is a command before
it is chunked: opcode, parameters; doses in 0.05 U.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc8_minimed
from devguard.packets.family import Family, Read
from devguard.packets.gather import Gatherer
from devguard.packets.layout import Damaged, Layout, parse, rest
from devguard.packets.packet import Context, Effect, Packet, unreadable

CHUNKS: Final = "medtrum_ble"
PAYLOAD: Final = "medtrum_payload"
HEAD: Final = 4
DATA: Final = 15
CHUNK: Final = HEAD + DATA + 1
PULSE: Final = 0.05
_SHORTEST: Final = HEAD + 1
_LONGEST_PAYLOAD: Final = 255 - HEAD
_OPCODES: Final = {
    3: "synchronize",
    4: "subscribe",
    5: "authorize",
    10: "set time",
    11: "get time",
    12: "set time zone",
    16: "prime",
    18: "activate",
    19: "set bolus",
    20: "cancel bolus",
    21: "set basal profile",
    24: "set temporary basal",
    25: "cancel temporary basal",
    29: "resume pump",
    30: "poll patch",
    31: "stop patch",
    35: "set patch",
    36: "set bolus motor",
    99: "get record",
    115: "clear alarm",
}
_ACTS: Final = frozenset({10, 12, 16, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 31, 35, 36, 37, 115})
_BOLUS: Final = 19

LAYOUT: Final = Layout(
    c.Struct(
        "length" / c.Int8ub, "opcode" / c.Int8ub, "sequence" / c.Int8ub, "index" / c.Int8ub, rest("data", HEAD + 1)
    ),
    c.Int8ub,
    crc8_minimed,
)
BOLUS: Final = c.Struct("opcode" / c.Int8ub, "kind" / c.Int8ub, "pulses" / c.Int16ul)


def decode_chunks(data: bytes, _context: Context) -> Packet:
    """All chunks of one message, one after another."""
    try:
        chunks = _chunks(data)
        read = [(*LAYOUT.read(chunk), chunk) for chunk in chunks]
    except Damaged as error:
        return unreadable(CHUNKS, data, error)
    first = read[0][0]
    fields: dict[str, Any] = {
        "length_byte": first.length,
        "opcode": first.opcode,
        "sequence": first.sequence,
        "chunks": len(read),
        "indices": [body.index for body, _, _, _ in read],
    }
    code, detail = _judged(read)
    if len(read) > 1 or code is None:
        joined = b"".join(body.data for body, _, _, _ in read)
        fields["data"] = (joined if len(read) == 1 else joined[:-1]).hex()
    return Packet(
        CHUNKS,
        _name(first.opcode),
        data,
        fields,
        code is None or code != "packet.crc",
        first.opcode in _ACTS,
        code=code,
        detail=detail,
        patient=frozenset({"data"}) & frozenset(fields),
        told=_told(first.opcode),
    )


def _chunks(data: bytes) -> list[bytes]:
    """The chunks in `data`: one whose index is 0 or whose message fits it, or as many as the length byte says."""
    if len(data) < _SHORTEST:
        raise Damaged("packet.length", f"a chunk has at least {_SHORTEST} bytes, there are {len(data)}")
    length = data[0]
    if length < HEAD + 1:
        raise Damaged("packet.length", f"the message says {length} bytes, it has at least {HEAD + 1}")
    if length <= HEAD + DATA:
        if len(data) != length + 1 or data[-1] != 0:
            raise Damaged("packet.length", f"a single chunk of {length} bytes and a 0 expected, there are {len(data)}")
        return [data[:-1]]
    inside = length - HEAD
    wanted = inside + -(-inside // DATA) * (HEAD + 1)
    if len(data) != wanted:
        raise Damaged("packet.length", f"{wanted} bytes of chunks expected, there are {len(data)}")
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def _goes_on(parts: list[bytes]) -> bool | None:
    """Whether a chunk is missing behind these: all carry length, opcode and sequence of their message, the first of
    them number 1."""
    first, newest = parts[0], parts[-1]
    if len(first) < _SHORTEST or first[HEAD - 1] != 1:
        return False
    if len(parts) > 1 and (newest[: HEAD - 1] != first[: HEAD - 1] or newest[HEAD - 1 : HEAD] == b"\x01"):
        return None
    inside = first[0] - HEAD
    return inside > DATA and sum(map(len, parts)) < inside + -(-inside // DATA) * (HEAD + 1)


def gather(read: Read, _context: Context) -> Gatherer:
    """The chunks of a message, one a record."""
    return Gatherer(read, _goes_on)


def _judged(read: list[tuple[Any, int, int, bytes]]) -> tuple[str | None, str]:
    """What is wrong with the chunks; None for nothing."""
    first = read[0][0]
    for number, (body, found, expected, _) in enumerate(read, 1):
        if found != expected:
            return "packet.crc", f"chunk {number}: checksum {found:#04x} found, the bytes give {expected:#04x}"
        if (body.length, body.opcode, body.sequence) != (first.length, first.opcode, first.sequence):
            return "packet.unknown", f"chunk {number} belongs to another message"
        if len(read) > 1 and body.index != number:
            return "packet.unknown", f"chunk {number} says it is {body.index}"
    if len(read) == 1:
        return (None, "") if first.index == 0 else ("packet.unknown", f"a single chunk says it is {first.index}")
    joined = b"".join(body.data for body, _, _, _ in read)
    expected = crc8_minimed(bytes((first.length, first.opcode, first.sequence, 0)) + joined[:-1])
    if joined[-1] != expected:
        return "packet.crc", f"joined message: checksum {joined[-1]:#04x} found, the bytes give {expected:#04x}"
    return None, ""


def decode_payload(data: bytes, _context: Context) -> Packet:
    """A command before it is chunked."""
    try:
        if not 1 <= len(data) <= _LONGEST_PAYLOAD:
            raise Damaged("packet.length", f"a command has 1 to {_LONGEST_PAYLOAD} bytes, there are {len(data)}")
        opcode = data[0]
        fields: dict[str, Any] = {"opcode": opcode}
        if opcode == _BOLUS:
            bolus = parse(BOLUS, data)
            fields |= {"kind": bolus.kind, "bolus_units": round(bolus.pulses * PULSE, 2)}
        fields["params"] = data[1:].hex()
    except Damaged as error:
        return unreadable(PAYLOAD, data, error)
    return Packet(PAYLOAD, _name(opcode), data, fields, None, opcode in _ACTS, told=_told(opcode))


def _told(opcode: int) -> Effect | None:
    return None if opcode in _ACTS or opcode in _OPCODES else Effect.UNKNOWN


def _name(opcode: int) -> str:
    return _OPCODES.get(opcode, f"unknown {opcode:#04x}")


def chunked(opcode: int, sequence: int, body: bytes) -> bytes:
    """A message as chunks, for tests and made vectors."""
    length = HEAD + len(body) + 1
    head = bytes((length, opcode, sequence))
    whole = body + bytes((crc8_minimed(head + b"\x00" + body),))
    if len(whole) <= DATA + 1:
        return head + b"\x00" + whole + b"\x00"
    parts = [whole[at : at + DATA] for at in range(0, len(whole), DATA)]
    chunks = [head + bytes((index,)) + part for index, part in enumerate(parts, 1)]
    return b"".join(chunk + bytes((crc8_minimed(chunk),)) for chunk in chunks)


FAMILIES: Final = (
    Family(CHUNKS, "Medtrum pumps, Bluetooth chunks", decode_chunks, gather=gather),
    Family(PAYLOAD, "Medtrum pumps, commands before chunking", decode_payload),
)
