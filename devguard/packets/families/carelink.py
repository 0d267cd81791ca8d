"""MiniMed CareLink USB stick: what a program writes to it and reads from it, one transfer a record.

    send    01 00 A7 01 | serial (3) | 80+hi, lo of parameter count | button | retries | pages | 00 | opcode | crc8
            | parameters ... | crc8 of them (00 without any)
    poll    03 00 00
    fetch   0C 00 | hi, lo | crc8
    reply   02 | ... | at 5: 80 (end of data) + hi, lo of the length | ... | at 13: data ... | crc8 of it | 00 ...

Checksum: CRC-8 0x9B; reads come padded with zeros to 64 bytes, which a stream's reader skips. A poll carries none. The
pump's serial number is all that a command needs: nothing is authenticated. Therapy-affecting: opcodes 40 to 6F (bolus,
temporary basal, suspend, profiles, limits, clock, remote ids, keys, power control). Data and the serial number are
patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc8_minimed
from devguard.packets.families import _minimed as minimed
from devguard.packets.family import Family, Read
from devguard.packets.gather import Singly
from devguard.packets.layout import Damaged, Layout, Swift, rest
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable
from devguard.packets.stream import LengthFramer

NAME: Final = "carelink_usb"
SEND, REPLY, POLL, FETCH = b"\x01\x00\xa7\x01", 0x02, b"\x03\x00\x00", b"\x0c\x00"
HEAD: Final = 15
DATA_AT: Final = 13
LONGEST: Final = 4096
_NAMES: Final = {
    0x40: "set_rtc",
    0x41: "set_max_bolus",
    0x42: "bolus",
    0x4A: "select_basal_profile",
    0x4C: "temp_basal",
    0x4D: "suspend_resume",
    0x51: "set_remote_id",
    0x5B: "keypad_push",
    0x5D: "power_control",
    0x69: "temp_basal_percent",
    0x6E: "set_max_basal",
    0x70: "read_rtc",
    0x71: "read_pump_id",
    0x72: "read_battery",
    0x73: "read_remaining_insulin",
    0x74: "read_firmware_version",
    0x75: "read_error_status",
    0x76: "read_remote_ids",
    0x79: "read_totals_today",
    0x80: "read_history",
    0x8D: "read_pump_model",
    0x92: "read_profile_std",
    0x93: "read_profile_a",
    0x94: "read_profile_b",
    0x98: "read_basal_temp",
    0x9A: "read_glucose_history",
    0x9D: "read_current_history_page",
    0xC0: "read_settings",
    0xCD: "read_current_glucose_page",
    0xCE: "read_pump_status",
}

HEAD_LAYOUT: Final = Layout(
    c.Struct(
        "start" / c.Const(SEND),
        "serial" / c.Bytes(3),
        "count" / c.Int16ub,
        "button" / c.Int8ub,
        "retries" / c.Int8ub,
        "pages" / c.Int8ub,
        "zero" / c.Const(b"\x00"),
        "opcode" / c.Int8ub,
    ),
    c.Int8ub,
    crc8_minimed,
)
BLOCK: Final = Layout(c.Struct(rest("data", 1)), c.Int8ub, crc8_minimed)

SWIFT_HEAD: Final = Swift(
    HEAD_LAYOUT,
    ">4s3sHBBBBB",
    "start serial count button retries pages zero opcode",
    ">B",
    crc8_minimed,
    usual=lambda body: body.start == SEND and body.zero == 0,
)
SWIFT_BLOCK: Final = Swift(BLOCK, "<", "", ">B", crc8_minimed, inner="data", usual=lambda _: True)
Readers = tuple[Layout | Swift, Layout | Swift]
"""How a command's head is read, and a block of data."""


def decode(data: bytes, _context: Context) -> Packet:
    """One transfer to or from the stick."""
    return _decoded(data, (HEAD_LAYOUT, BLOCK))


def bulk(data: bytes, _context: Context) -> Packet:
    """The same, fast."""
    return _decoded(data, (SWIFT_HEAD, SWIFT_BLOCK))


def _decoded(data: bytes, readers: Readers) -> Packet:
    head, block = readers
    try:
        if not 3 <= len(data) <= LONGEST:
            raise Damaged("packet.length", f"a transfer has 3 to {LONGEST} bytes, there are {len(data)}")
        if data.startswith(SEND):
            return _send(data, head)
        if data[0] == REPLY:
            return _reply(data, block)
        if data[:3] == POLL and not data.strip(b"\x03\x00"):
            return Packet(NAME, "poll", data, {}, None, False)
        if data.startswith(FETCH) and len(data) == 5:
            body, found, expected = block.read(data)
            fields = {"size": int.from_bytes(body.data[2:4], "big"), "crc8": found}
            return checked(NAME, "fetch", data, fields, (found, expected))
        raise Damaged("packet.unknown", f"no transfer of the stick begins with {data[:4].hex()}")
    except Damaged as error:
        return unreadable(NAME, data, error)


def _send(data: bytes, layout: Layout | Swift) -> Packet:
    if len(data) < HEAD + 1:
        raise Damaged("packet.length", f"a command has at least {HEAD + 1} bytes, there are {len(data)}")
    head, found, expected = layout.read(data[:HEAD])
    count = head.count & 0x7FFF
    if len(data) != HEAD + count + 1:
        wanted = HEAD + count + 1
        raise Damaged("packet.length", f"the command says {wanted} bytes, there are {len(data)}")
    params, last = data[HEAD:-1], data[-1]
    fields: dict[str, Any] = {
        "serial": head.serial.hex(),
        "param_count": count,
        "button": head.button,
        "retries": head.retries,
        "pages": head.pages,
        "opcode": head.opcode,
        "opcode_name": _NAMES.get(head.opcode),
        "params": params.hex(),
        "crc8_head": found,
        "crc8_params": last,
    }
    sums = (found, expected) if found != expected else (last, crc8_minimed(params))
    told = None if minimed.acts(head.opcode) or head.opcode in _NAMES else Effect.UNKNOWN
    name = fields["opcode_name"] or f"unknown {head.opcode:#04x}"
    return checked(NAME, name, data, fields, sums, therapy=minimed.acts(head.opcode), patient={"serial"}, told=told)


def _reply(data: bytes, layout: Layout | Swift) -> Packet:
    if len(data) <= DATA_AT:
        raise Damaged("packet.length", f"a reply has more than {DATA_AT} bytes, there are {len(data)}")
    length = int.from_bytes(data[5:7], "big") & 0x7FFF
    end = DATA_AT + length + 1
    if len(data) < end or data[end:].strip(b"\x00"):
        raise Damaged("packet.length", f"the reply says {length} bytes of data, {len(data)} came in all")
    body, found, expected = layout.read(data[DATA_AT:end])
    fields = {
        "retries": data[3],
        "end_of_data": bool(data[5] & 0x80),
        "length": length,
        "data": body.data.hex(),
        "crc8": found,
    }
    return checked(NAME, "reply", data, fields, (found, expected), patient={"data"})


def _size(head: bytes) -> int | None:
    if head[0] == REPLY:
        return DATA_AT + (int.from_bytes(head[5:7], "big") & 0x7FFF) + 1 if len(head) > 6 else None
    begun = head[: len(SEND)]
    if head[0] == SEND[0] and SEND.startswith(begun):
        return HEAD + (int.from_bytes(head[7:9], "big") & 0x7FFF) + 1 if len(head) > 8 else None
    for mark, size in ((POLL, len(POLL)), (FETCH, 5)):
        if mark.startswith(begun[: len(mark)]):
            return size if len(head) >= len(mark) else None
    raise ValueError("no transfer begins so")


def framer(read: Read, _context: Context) -> LengthFramer:
    """Transfers one after another, as a serial driver's log has them."""
    return LengthFramer((b"\x01", b"\x02", b"\x03", b"\x0c"), _size, LONGEST, read)


FAMILIES: Final = (Family(NAME, "MiniMed CareLink USB stick", decode, framer, bulk, gather=Singly),)
