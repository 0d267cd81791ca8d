"""SMP, the management protocol of MCUmgr, as frames and as it comes over a serial console.

    smp_frame:   version and operation | flags | length (16 bit) | group (16 bit) | sequence | command | CBOR map
    smp_serial:  06 09 first line, 04 14 each further line: base64 of (length (16 bit), frame, crc16) | 0A

Numbers are big endian. The frame carries no checksum; over serial, CRC-16 0x1021 from 0 covers the frame, and `length`
counts frame and checksum. SMP authenticates nothing. Therapy-affecting is what changes the firmware that runs, asked or
answered: reset, image upload, erase and state; setting the clock, settings, files and shell commands act too, though
the readers do not mark them. Values of the map are shown as they are, bytes as hex; a body that is no CBOR map is not
valid. Answers about settings, files, shell and a vendor's own groups are patient data.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, Final

import cbor2
import construct as c

from devguard import wire
from devguard.errors import Malformed
from devguard.packets.checksums import crc16_xmodem
from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, Layout, parse, rest
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable

FRAME: Final = "smp_frame"
SERIAL: Final = "smp_serial"
HEADER: Final = 8
LONGEST: Final = HEADER + 0xFFFF
LONGEST_LINE: Final = 1024
LONGEST_TEXT: Final = 2 * (LONGEST + 4)
FIRST: Final = b"\x06\x09"
MORE: Final = b"\x04\x14"
_NODES: Final = 10_000
_LARGEST: Final = 1 << 64
_DEPTH: Final = 16
_OPERATIONS: Final = ("read", "read response", "write", "write response")
_GROUPS: Final = {
    0: "os",
    1: "image",
    2: "statistics",
    3: "settings",
    8: "file",
    9: "shell",
    10: "enumeration",
    63: "zephyr basic",
}
_COMMANDS: Final = {
    (0, 0): "echo",
    (0, 2): "task statistics",
    (0, 3): "memory pool statistics",
    (0, 4): "date and time",
    (0, 5): "reset",
    (0, 6): "mcumgr parameters",
    (0, 7): "application information",
    (0, 8): "bootloader information",
    (1, 0): "state",
    (1, 1): "upload",
    (1, 2): "file",
    (1, 3): "core list",
    (1, 4): "core load",
    (1, 5): "erase",
    (1, 6): "slot information",
    (2, 0): "group data",
    (2, 1): "list of groups",
    (3, 0): "read or write",
    (3, 1): "delete",
    (3, 2): "commit",
    (3, 3): "load or save",
    (8, 0): "upload or download",
    (8, 1): "status",
    (8, 2): "hash",
    (8, 3): "supported hashes",
    (8, 4): "close",
    (9, 0): "execute",
    (63, 0): "erase storage",
}
_ACTS: Final = frozenset({(0, 5), (1, 0), (1, 1), (1, 5), (63, 0)})
# The readers do not mark these, and the vectors follow them: a clock that is set; settings, files and shell commands,
# which can change whatever the device does.
_UNMARKED: Final = frozenset({(0, 4), (3, 0), (3, 1), (3, 2), (3, 3), (8, 0), (9, 0)})
_WRITE: Final = 2
_ANSWERS: Final = frozenset({1, 3})
_PRIVATE: Final = frozenset({3, 8, 9})  # settings, files, shell: what a device answers there may be a patient's
_USER: Final = 64
_WRITES: Final = frozenset({2, 3})

PACKET: Final = c.Struct(
    "head" / c.BitStruct("reserved" / c.BitsInteger(3), "version" / c.BitsInteger(2), "op" / c.BitsInteger(3)),
    "flags" / c.Int8ub,
    "length" / c.Rebuild(c.Int16ub, lambda this: len(this.body)),
    "group" / c.Int16ub,
    "sequence" / c.Int8ub,
    "command" / c.Int8ub,
    rest("body", HEADER),
)
BLOCK: Final = Layout(
    c.Struct("length" / c.Rebuild(c.Int16ub, lambda this: len(this.frame) + 2), rest("frame", 4)),
    c.Int16ub,
    crc16_xmodem,
    cover=lambda body: body[2:],
)


def decode_frame(data: bytes, _context: Context) -> Packet:
    """One frame."""
    try:
        if not HEADER <= len(data) <= LONGEST:
            raise Damaged("packet.length", f"a frame has {HEADER} to {LONGEST} bytes, there are {len(data)}")
        got = parse(PACKET, data)
    except Damaged as error:
        return unreadable(FRAME, data, error)
    fields: dict[str, Any] = {
        "op": got.head.op,
        "version": got.head.version,
        "flags": got.flags,
        "length": got.length,
        "group": got.group,
        "sequence": got.sequence,
        "command": got.command,
        "length_ok": got.length == len(got.body),
    }
    code, detail = None, ""
    if not fields["length_ok"]:
        code, detail = "packet.length", f"the frame says {got.length} bytes of body, has {len(got.body)}"
    elif got.head.op >= len(_OPERATIONS) or got.head.reserved:
        code, detail = "packet.unknown", f"the first byte is {data[0]:#04x}: no operation of SMP"
    else:
        try:
            fields["kwargs"] = _map(got.body)
        except Malformed as error:
            code, detail = "packet.unknown", f"the body is no CBOR map: {error.message}"
    what, writes = (got.group, got.command), got.head.op in _WRITES
    therapy, told = writes and what in _ACTS, None
    if got.head.op == _WRITE and what in _UNMARKED:
        told = Effect.ACTS
    elif code is not None or (writes and what not in _COMMANDS):
        told = Effect.UNKNOWN
    name = _name(got.head.op, got.group, got.command)
    answers = got.head.op in _ANSWERS and (got.group in _PRIVATE or got.group >= _USER)
    private = frozenset({"kwargs"} & fields.keys()) if answers else frozenset()
    return Packet(FRAME, name, data, fields, None, therapy, False, code, detail, private, told)


def _name(operation: int, group: int, command: int) -> str:
    asked = _OPERATIONS[operation] if operation < len(_OPERATIONS) else f"operation {operation}"
    within = _GROUPS.get(group, f"group {group}")
    return f"{within} {_COMMANDS.get((group, command), f'unknown {command:#04x}')}, {asked}"


def _map(body: bytes) -> dict[str, Any]:
    value = wire.decode_foreign(body, code="packet.unknown")
    if not isinstance(value, dict):
        raise Malformed("packet.unknown", f"a {type(value).__name__}")
    shown: dict[str, Any] = _Shown().value(value, _DEPTH)
    return shown


class _Shown:
    """CBOR values as JSON ones, within a budget: shared references could make a small body endless."""

    def __init__(self) -> None:
        self._left = _NODES

    def value(self, value: object, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth < 0:
            raise Malformed("packet.unknown", "too many or too deeply nested values")
        if isinstance(value, (bytes, bytearray)):
            return bytes(value).hex()
        if isinstance(value, Mapping):
            return {self._key(key, depth - 1): self.value(item, depth - 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(item, depth - 1) for item in value]
        if isinstance(value, cbor2.CBORTag):
            return {"tag": value.tag, "value": self.value(value.value, depth - 1)}
        if value is None or isinstance(value, (bool, str)) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, int):
            return value if abs(value) < _LARGEST else hex(value)  # digits of huge numbers take their square in time
        try:
            return str(value)[:LONGEST_LINE]
        except ValueError:  # a number too large for Python to write
            return type(value).__name__

    def _key(self, key: object, depth: int) -> str:
        return str(self.value(key, depth))[:LONGEST_LINE]


def decode_serial(data: bytes, context: Context) -> Packet:
    """One frame as its console lines, the ends of the lines included."""
    try:
        lines, block = _joined(data)
        if len(block) < 4:
            raise Damaged("packet.length", f"the lines hold {len(block)} bytes, at least 4 are needed")
        got, found, expected = BLOCK.read(block)
    except Damaged as error:
        return unreadable(SERIAL, data, error)
    fields: dict[str, Any] = {"frame_length": got.length, "lines": lines, "frame": got.frame.hex(), "crc16": found}
    inner = decode_frame(got.frame, context)
    if inner.valid:
        fields["smp"] = dict(inner.fields)
    name = inner.name if inner.valid else "block"
    acts = inner.therapy_affecting
    private = {"frame", "smp"} if inner.patient or not inner.valid else ()
    packet = checked(SERIAL, name, data, fields, (found, expected), therapy=acts, told=inner.told, patient=private)
    if packet.valid and got.length != len(got.frame) + 2:
        detail = f"the block says {got.length} bytes, has {len(got.frame) + 2}"
        return packet._replace(code="packet.length", detail=detail)
    if packet.valid and not inner.valid:  # the console carries any frame; what it holds is said, and is not its fault
        packet = packet._replace(detail=f"the frame in it is no SMP: {inner.detail}")
    return packet


def _joined(data: bytes) -> tuple[int, bytes]:
    """(number of lines, what their base64 says); every line but the first begins as one that goes on."""
    if len(data) > LONGEST_TEXT:
        raise Damaged("packet.length", f"more than {LONGEST_TEXT} bytes of lines")
    parts = data.split(b"\n")
    if parts[-1]:
        raise Damaged("packet.length", "the last line has no end")
    text = b""
    for number, line in enumerate(parts[:-1]):
        mark = MORE if number else FIRST
        if not line.startswith(mark) or len(line) > LONGEST_LINE:
            raise Damaged("packet.unknown", f"line {number + 1} begins with {line[:2].hex()}, expected {mark.hex()}")
        text += line[2:].rstrip(b"\r")
    if not text:
        raise Damaged("packet.length", "there are no lines")
    try:
        return len(parts) - 1, base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Damaged("packet.unknown", f"no base64: {error}") from error


def _characters(first: bytes) -> int:
    """How many base64 characters the block has that begins with this line; 0 where it cannot be told."""
    try:
        length = int.from_bytes(base64.b64decode(first[2:6], validate=True)[:2], "big")
    except binascii.Error:
        return 0
    return -(-(length + 2) // 3) * 4


class SerialFramer:
    """Frames in a console's output: lines between other lines, joined until their block is whole."""

    def __init__(self, read: Read, _context: Context) -> None:
        self._read = read
        self._wanted = 0  # base64 characters of the block whose lines are held
        self._buffer = bytearray()
        self._base = 0
        self._held: list[bytes] = []
        self._got = self._begin = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, Packet]]:
        """See `Framer.feed`."""
        self._buffer += data
        found = []
        while (stop := self._buffer.find(b"\n")) >= 0:
            found += self._line(bytes(self._buffer[: stop + 1]))
        if len(self._buffer) > LONGEST_LINE:
            self._forget(len(self._buffer) - LONGEST_LINE)
        return found

    def finish(self) -> list[tuple[int, Packet]]:
        """See `Framer.finish`."""
        self._drop()
        self._forget(len(self._buffer))
        return []

    def _line(self, line: bytes) -> list[tuple[int, Packet]]:
        begin = line.rfind(FIRST)
        if begin >= 0:
            self._drop()
            self._forget(begin)
            self._begin = self._base
            return self._hold(line[begin:])
        if self._held and line.startswith(MORE):
            return self._hold(line)
        self._drop()
        self._forget(len(line))
        return []

    def _hold(self, line: bytes) -> list[tuple[int, Packet]]:
        if not self._held:
            self._wanted = _characters(line)
            self._got = 0
        self._held.append(line)
        self._got += len(line[2:].strip())
        self._shift(len(line))
        if self._got < self._wanted:
            return []
        packet = self._read(b"".join(self._held))
        if not packet.valid:
            self.damaged += 1
            self._drop()
            return []
        self._held.clear()
        return [(self._begin, packet)]

    def _drop(self) -> None:
        self.skipped += sum(map(len, self._held))
        self._held.clear()

    def _forget(self, count: int) -> None:
        self.skipped += count
        self._shift(count)

    def _shift(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count


FAMILIES: Final = (
    Family(FRAME, "SMP (MCUmgr), frames", decode_frame),
    Family(SERIAL, "SMP (MCUmgr) over a serial console", decode_serial, SerialFramer, baud=115200),
)
