"""Accu-Chek Combo: frames of its serial profile and the transport packets in them.

    frame:  CC | stuffed packet | CC          CC inside is 77 DD, 77 inside is 77 EE
    packet: version | command | length (16 bit little endian) | address | nonce (13) | payload | mac (8)

Command: low five bits the command, 80 sequence bit, 20 reliability bit. Packets of the pairing before keys exist carry
a CRC-16 (reflected 0x1021 from FFFF, little endian) of their 18-byte header as payload and a mac of zeros; all others
carry a Twofish CBC-MAC, which is not checked here: nothing counts as authenticated and `crc_ok` is null. `combo_frame`
undoes the stuffing; `combo_transport` reads a packet without or with its frame. Therapy-affecting: data packets for
the pump's remote terminal (keys pressed) and command services, whoever sent them, since a direction is not told;
service and command are shown. Nonce, payload and mac are kept as bytes; payloads are patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc16_mcrf4xx
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, parse, rest
from devguard.packets.packet import NOTHING, Context, Effect, Packet, unreadable
from devguard.packets.stream import DelimitedFramer

FRAME: Final = "combo_frame"
TRANSPORT: Final = "combo_transport"
MARK: Final = 0xCC
ESCAPE: Final = 0x77
_ESCAPED: Final = {0xDD: MARK, 0xEE: ESCAPE}
HEADER: Final = 18
MAC: Final = 8
LONGEST: Final = HEADER + 0xFFFF + MAC
LONGEST_FRAME: Final = 2 * 4096  # what a line brings; a packet of 64 KiB was never seen
_COMMANDS: Final = {
    0x03: "data",
    0x05: "acknowledge",
    0x06: "error response",
    0x09: "request pairing connection",
    0x0A: "pairing connection accepted",
    0x0C: "request keys",
    0x0F: "get available keys",
    0x11: "key response",
    0x12: "request id",
    0x14: "id response",
    0x17: "request regular connection",
    0x18: "regular connection accepted",
    0x1B: "disconnect",
}
_WITH_CRC: Final = frozenset({0x09, 0x0C, 0x0F})
_DATA: Final = 0x03
_CONNECTION: Final = 0x00
_ACTING_SERVICES: Final = {0x48: "remote terminal", 0xB7: "command"}

PACKET: Final = c.Struct(
    "version" / c.Int8ub,
    "command" / c.Int8ub,
    "length" / c.Rebuild(c.Int16ul, lambda this: len(this.payload)),
    "address" / c.Int8ub,
    "nonce" / c.Bytes(13),
    rest("payload", HEADER + MAC),
    "mac" / c.Bytes(MAC),
)


def stuffed(data: bytes) -> bytes:
    """The frame of a packet."""
    inner = data.replace(b"\x77", b"\x77\xee").replace(b"\xcc", b"\x77\xdd")
    return b"\xcc" + inner + b"\xcc"


def unstuffed(frame: bytes) -> bytes:
    """The packet in a frame; `Damaged` for what no frame holds."""
    if len(frame) < 2 or frame[0] != MARK or frame[-1] != MARK:
        raise Damaged("packet.unknown", "a frame begins and ends with cc")
    out = bytearray()
    inner = iter(frame[1:-1])
    for at, byte in enumerate(inner, 1):
        if byte == MARK:
            raise Damaged("packet.unknown", f"cc inside the frame at {at}")
        if byte == ESCAPE:
            follower = next(inner, None)
            if follower not in _ESCAPED:
                raise Damaged("packet.unknown", f"77 is followed by {follower!r}, expected dd or ee")
            byte = _ESCAPED[follower]
        out.append(byte)
    return bytes(out)


def decode_frame(data: bytes, _context: Context) -> Packet:
    """One frame with both marks."""
    try:
        inner = unstuffed(data)
    except Damaged as error:
        return unreadable(FRAME, data, error)
    return Packet(
        FRAME,
        "frame",
        data,
        {"unescaped": inner.hex()},
        None,
        False,
        patient=frozenset({"unescaped"}),
        told=Effect.UNKNOWN,
    )


def decode_transport(data: bytes, _context: Context) -> Packet:
    """One transport packet, in its frame or without."""
    try:
        packet = unstuffed(data) if data[:1] == b"\xcc" and data[-1:] == b"\xcc" and len(data) > 1 else data
        if len(packet) < HEADER + MAC:
            raise Damaged("packet.length", f"a packet has at least {HEADER + MAC} bytes, there are {len(packet)}")
        body = parse(PACKET, packet)
        if body.length != len(body.payload):
            raise Damaged("packet.length", f"the packet says {body.length} bytes of payload, has {len(body.payload)}")
    except Damaged as error:
        return unreadable(TRANSPORT, data, error)
    command = body.command & 0x1F
    expected = _expected(command, packet, body)
    fields: dict[str, Any] = {
        "version": body.version,
        "command": command,
        "sequence_bit": bool(body.command & 0x80),
        "reliability_bit": bool(body.command & 0x20),
        "payload_len": body.length,
        "address": body.address,
        "nonce": body.nonce.hex(),
        "payload": body.payload.hex(),
        "mac": body.mac.hex(),
        "crc16_expected": expected,
        "framed": stuffed(packet).hex(),
    }
    good = None if expected is None else expected == int.from_bytes(body.payload, "little")
    name = _COMMANDS.get(command, f"unknown {command:#04x}")
    therapy, told = False, None if command in _COMMANDS else Effect.UNKNOWN
    if command == _DATA:
        service = body.payload[1] if len(body.payload) > 1 else None
        therapy = service in _ACTING_SERVICES
        told = None if therapy or service == _CONNECTION else Effect.UNKNOWN
        fields["service"] = service if service is None else _ACTING_SERVICES.get(service, service)
        name = f"data, {fields['service']}" if therapy else name
    return Packet(
        TRANSPORT,
        name,
        data,
        fields,
        good,
        therapy,
        code="packet.crc" if good is False else None,
        detail=f"the payload is not the header's CRC {expected:#06x}" if good is False else "",
        patient=frozenset({"payload", "framed"}),
        told=told,
    )


def _expected(command: int, packet: bytes, body: Any) -> int | None:
    """The header's CRC where the payload is one: before there are keys."""
    bare = command in _WITH_CRC and len(body.payload) == 2 and not any(body.mac)
    return crc16_mcrf4xx(packet[:HEADER]) if bare else None


def framer(read: Read, _context: Context) -> DelimitedFramer:
    """Frames in a serial stream: what is between two marks and no transport packet is noise."""
    return DelimitedFramer(
        b"\xcc", b"\xcc", LONGEST_FRAME, read, sound=lambda packet: decode_transport(packet.raw, NOTHING).valid
    )


FAMILIES: Final = (
    Family(FRAME, "Accu-Chek Combo, frames", decode_frame, framer),
    Family(TRANSPORT, "Accu-Chek Combo, transport packets", decode_transport, framer),
)
