"""Omnipod Eros on the air (433 MHz): packets, and the messages that several of them carry.

    packet:   address (4) | type (3 bits), sequence (5 bits) | payload of at most 31 bytes | crc8
    message:  begun by a PDM or POD packet, its rest in CON packets (31 bytes each), each acknowledged by an ACK

Checksum: CRC-8 0x07 over a packet, the message's own CRC-16 over the whole of it. Bytes past the 37th are noise,
`packet.length`. A packet alone is judged by what it carries; in a capture of several, one a record, the last CON of a
message shows the whole `message` (as in `omnipod_message`), says whether it acts on therapy, and is `packet.crc` where
the message's checksum is wrong. Sequence numbers tell the parts: two more than the part before (an ACK lies between),
or the same where it was sent again. A CON packet whose beginning or predecessor is missing is valid, not
complete, and what it does is not known. Nothing is authenticated. Therapy-affecting commands: as in `omnipod_message`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc8_omnipod, crc16_omnipod
from devguard.packets.families.omnipod import (
    BLOCKS,
    HARMLESS,
    MESSAGE_HEAD,
    OVERHEAD,
    STATUS,
    effect,
    read_message,
    wrong_sum,
)
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, Layout, rest
from devguard.packets.packet import Context, Effect, Packet, unreadable

EROS: Final = "omnipod_eros"
PACKET_HEAD: Final = 5
PAYLOAD: Final = 31
LONGEST: Final = PACKET_HEAD + PAYLOAD + 1
TYPES: Final = {7: "POD", 5: "PDM", 2: "ACK", 4: "CON"}
SEQUENCES: Final = 32
_STEP: Final = 2  # the part's own acknowledgement lies between
_PODS: Final = 8  # heard at one time, of each the message under way

PACKET_LAYOUT: Final = Layout(
    c.Struct(
        "address" / c.Int32ub,
        "head" / c.Int8ub,
        rest("payload", PACKET_HEAD + 1),
    ),
    c.Int8ub,
    crc8_omnipod,
)


def _radio_fields(packet: Any, kind: str, data: bytes) -> dict[str, Any]:
    over = len(data) > LONGEST
    return {
        "address": f"{packet.address:08x}",
        "packet_type": kind,
        "sequence": packet.head & 31,
        "first_37_bytes_crc8_ok": crc8_omnipod(data[: LONGEST - 1]) == data[LONGEST - 1] if over else None,
        "payload": packet.payload.hex(),
    }


def decode_packet(data: bytes, _context: Context) -> Packet:
    """One packet of an Eros pod's radio."""
    try:
        packet, found, expected = PACKET_LAYOUT.read(data)
        if len(data) <= PACKET_HEAD:
            raise Damaged("packet.length", f"a packet has at least {PACKET_HEAD + 1} bytes, there are {len(data)}")
    except Damaged as error:
        return unreadable(EROS, data, error)
    kind = TYPES.get(packet.head >> 5, f"unknown {packet.head >> 5:#x}")
    fields = _radio_fields(packet, kind, data) | {"crc8": found, "crc8_expected": expected}
    fields["crc8_ok_over_whole"] = found == expected
    problems = [] if found == expected else [wrong_sum("CRC-8", found, expected)]
    if len(data) > LONGEST:
        problems.append(Damaged("packet.length", f"a packet has at most {LONGEST} bytes, there are {len(data)}"))
    command = None
    if kind in ("POD", "PDM"):
        command = _first_part(packet.payload, fields, problems)
    elif len(packet.payload) >= 4 and kind == "ACK":
        fields["address2"] = packet.payload[:4].hex()
    if kind == "ACK" and len(packet.payload) != 4:
        problems.append(Damaged("packet.length", f"an ACK carries 4 bytes, there are {len(packet.payload)}"))
    fields["reject"] = bool(problems)
    private = {"address", "address2"} | ({"payload"} if kind != "PDM" else set())
    begun = _blocks_begun(packet.payload) if command is not None and kind == "PDM" else set()
    told = effect(begun)
    if kind == "CON" or kind not in TYPES.values() or (kind == "PDM" and not fields.get("message_complete")):
        told = told or Effect.UNKNOWN  # what is not here may act
    return Packet(
        EROS,
        kind if command is None else f"{kind} {fields['command_name']}",
        data,
        fields,
        not any(problem.code == "packet.crc" for problem in problems),
        bool(begun - HARMLESS),
        code=problems[0].code if problems else None,
        detail=problems[0].message if problems else "",
        patient=frozenset(private & fields.keys()),
        told=None if begun - HARMLESS else told,
    )


def _first_part(payload: bytes, fields: dict[str, Any], problems: list[Damaged]) -> int | None:
    """What the beginning of a message says, added to the fields; gives its command. The message's checksum is there
    where it is complete."""
    if len(payload) < MESSAGE_HEAD + 1:
        problems.append(Damaged("packet.length", f"the beginning of a message in {len(payload)} bytes"))
        return None
    length = (payload[4] & 3) << 8 | payload[5]
    whole = OVERHEAD + length
    command = payload[MESSAGE_HEAD]
    complete = len(payload) >= whole
    fields |= {
        "address2": payload[:4].hex(),
        "b9": payload[4],
        "body_len": length,
        "command": command,
        "command_name": BLOCKS.get(command, f"unknown {command:#04x}"),
        "message_complete": complete,
    }
    if complete:
        found, expected = int.from_bytes(payload[whole - 2 : whole], "big"), crc16_omnipod(payload[: whole - 2])
        fields |= {
            "message_crc16": found,
            "message_crc16_expected": expected,
            "message_crc16_ok": found == expected,
        }
        if found != expected:
            problems.append(wrong_sum("the message's CRC-16", found, expected))
    if len(payload) < min(whole, PAYLOAD) or len(payload) > whole:
        wanted = min(whole, PAYLOAD)
        problems.append(Damaged("packet.length", f"{wanted} bytes of payload expected, there are {len(payload)}"))
    return command


def _blocks_begun(payload: bytes) -> set[int]:
    """The kinds of the blocks that begin in the part of a message that is here."""
    at, found = MESSAGE_HEAD, set()
    end = min(len(payload), MESSAGE_HEAD + ((payload[4] & 3) << 8 | payload[5]))
    while at < end:
        kind = payload[at]
        found.add(kind)
        at += 10 if kind == STATUS else 2 + payload[at + 1] if at + 1 < end else 1
    return found


@dataclass(slots=True)
class _Begun:
    """A message under way: the packet type that began it, its parts so far, the last part and its number."""

    kind: str
    data: bytes
    last: str
    sequence: int

    @property
    def whole(self) -> int:
        """The bytes that the message says it has."""
        return OVERHEAD + ((self.data[4] & 3) << 8 | self.data[5])


class Conversation:
    """Radio packets in the order they were heard; a message's whole comes with its last CON packet."""

    def __init__(self, read: Read, _context: Context) -> None:
        self._read = read
        self._number = 0
        self._begun: dict[str, _Begun] = {}
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, Packet]]:
        """See `Framer.feed`; `data` is one record."""
        packet = self._read(data)
        if packet.valid:
            kind, address = packet.fields["packet_type"], packet.fields["address"]
            if kind in ("PDM", "POD"):
                self._begin(address, packet)
            elif kind == "CON":
                packet = self._go_on(address, packet)
        self._number += 1
        return [(self._number - 1, packet)]

    def finish(self) -> list[tuple[int, Packet]]:
        """See `Framer.finish`: a message whose rest never came was already told, packet by packet."""
        return []

    def _begin(self, address: str, packet: Packet) -> None:
        fields = packet.fields
        self._begun.pop(address, None)
        if not fields["message_complete"]:
            while len(self._begun) >= _PODS:
                del self._begun[next(iter(self._begun))]
            payload = bytes.fromhex(fields["payload"])
            self._begun[address] = _Begun(fields["packet_type"], payload, fields["payload"], fields["sequence"])

    def _go_on(self, address: str, packet: Packet) -> Packet:
        begun, payload, sequence = self._begun.get(address), packet.fields["payload"], packet.fields["sequence"]
        if begun is None:
            return packet
        if (sequence, payload) == (begun.sequence, begun.last):
            return packet._replace(fields={**packet.fields, "repeated": True}, told=None)
        if (sequence - begun.sequence) % SEQUENCES != _STEP or len(begun.data) >= begun.whole:
            del self._begun[address]
            return packet
        begun.data += bytes.fromhex(payload)
        begun.last, begun.sequence = payload, sequence
        if len(begun.data) < begun.whole:
            return packet._replace(fields={**packet.fields, "message_complete": False}, told=None)
        return _complete(packet, begun)


def _complete(packet: Packet, begun: _Begun) -> Packet:
    """The last CON packet with the message it ends."""
    message = read_message(EROS, begun.data)
    inner = {name: value for name, value in message.fields.items() if name != "address"}
    private = bool(message.patient - {"address"}) or begun.kind == "POD" or not message.valid
    return packet._replace(
        name=f"CON {message.name}",
        fields={**packet.fields, "message_complete": True, "message": inner},
        crc_ok=message.crc_ok is not False,
        therapy_affecting=message.therapy_affecting and begun.kind != "POD",
        told=Effect.NONE if begun.kind == "POD" and message.valid else message.told,
        code=message.code,
        detail=message.detail,
        patient=packet.patient | ({"message"} if private else frozenset()),
    )


FAMILIES: Final = (Family(EROS, "Omnipod Eros, radio packets", decode_packet, gather=Conversation),)
