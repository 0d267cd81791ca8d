"""Captures as records: raw bytes, hex text, pcap and pcapng with serial link types.

A record is what one direction of a line brought at one time. Only the container is read here; what the bytes say is
the family's business. pcap is read through dpkt (extra `[capture]`), pcapng by `pcapng`, each interface by its own link
type; both from a reader that hands out at most one block of bounded size. Link types: RTAC serial (250) with its
12-byte header, USER0 to USER15 (147 to 162) as they are. Another link type is refused by number; beside a serial
interface in the same pcapng its packets are passed over.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from devguard.errors import Malformed, Refused
from devguard.packets.pcapng import captured

READ: Final = 64 * 1024
MAX_LINE: Final = 64 * 1024
MAX_BLOCK: Final = 1 << 20
_RTAC_SERIAL: Final = 250
_RTAC_HEADER: Final = struct.Struct(">IIBBH")  # seconds, microseconds, event, UART state, reserved
_RTAC_DATA: Final = {1: 1, 3: 1, 2: 2, 4: 2}  # event -> direction: sent (start, end), received (start, end)
_USER: Final = range(147, 163)
_PCAP: Final = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_SPACES: Final = re.compile(rb"[\s:,-]+|0[xX]")
_HEX_TEXT: Final = re.compile(rb"[\s0-9A-Fa-fxX:,-]*\Z")
_CODE: Final = "capture.malformed"


class Reader(Protocol):
    """An open buffered reader: `io.BufferedReader`, `io.BytesIO`."""

    def read(self, size: int, /) -> bytes: ...
    def read1(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class Form(enum.StrEnum):
    """How a capture is kept."""

    RAW = "raw"
    HEX = "hex"
    PCAP = "pcap"
    PCAPNG = "pcapng"


@dataclass(frozen=True, slots=True)
class Record:
    """Bytes of one direction (0: the capture does not say, 1: sent, 2: received) of one interface, in order of
    capture."""

    data: bytes
    direction: int = 0
    interface: int = 0


def recognise(head: bytes) -> Form:
    """The form of a capture from its first bytes: magic numbers first, then lines of nothing but hex digits."""
    if head[:4] in _PCAP:
        return Form.PCAP
    if head[:4] == _PCAPNG:
        return Form.PCAPNG
    lines = [line.split(b"#", 1)[0] for line in head.split(b"\n")]
    text = b"\n".join(lines[:-1] if len(head) >= 4096 else lines)  # a head may end inside a line
    return Form.HEX if text.strip() and _HEX_TEXT.match(text) else Form.RAW


def records(reader: Reader, form: Form) -> Iterator[Record]:
    """Every record of the capture. Raises `Malformed("capture.malformed")`, `Refused("packet.unknown")` for a link
    type that is no serial line, `Refused("file.missing")` where dpkt is not installed."""
    if form is Form.HEX:
        return _hex(reader)
    if form is Form.RAW:
        return _raw(reader)
    return _pcap(reader) if form is Form.PCAP else _pcapng(reader)


def hex_bytes(text: bytes, where: str = "hex text") -> bytes:
    """The bytes of hex digits, with spaces, colons, commas, dashes or `0x` between them."""
    digits = _SPACES.sub(b"", text)
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError as error:
        raise Malformed(_CODE, f"{where}: not an even number of hex digits") from error


def _raw(reader: Reader) -> Iterator[Record]:
    while data := reader.read1(READ):
        yield Record(data)


def _hex(reader: Reader) -> Iterator[Record]:
    number = 0
    while line := reader.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise Malformed(_CODE, f"line {number} has more than {MAX_LINE} characters")
        try:
            data = bytes.fromhex(line.decode("ascii"))  # most lines are nothing but digits
        except ValueError:
            data = hex_bytes(line.split(b"#", 1)[0].strip(), f"line {number}")
        if data:
            yield Record(data)


class _Bounded:
    """A reader that never hands out more than one block at once, whatever length a header claims."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.name = ""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BLOCK:
            raise Malformed(_CODE, f"a block claims {size} bytes, at most {MAX_BLOCK} are read")
        data = self._reader.read(size)
        if 0 < len(data) < size:
            raise Malformed(_CODE, f"the capture ends inside a block: {len(data)} of {size} bytes")
        return data


def _pcap(reader: Reader) -> Iterator[Record]:
    try:
        import dpkt  # type: ignore[import-untyped]  # it ships no types
    except ImportError as error:
        raise Refused(
            "file.missing",
            "pcap captures are read with dpkt, which is not installed",
            "pip install 'devguard[capture]'",
        ) from error
    try:
        opened = dpkt.pcap.Reader(_Bounded(reader))
        link = opened.datalink()
        if not _is_serial(link):
            raise _another(link)
        for _, data in opened:
            yield from _of(link, bytes(data))
    except (dpkt.Error, ValueError, struct.error, EOFError, ArithmeticError, LookupError) as error:
        raise Malformed(_CODE, f"the pcap capture cannot be read: {error}") from error


def _pcapng(reader: Reader) -> Iterator[Record]:
    for one in captured(_Bounded(reader)):
        link = one.links[one.interface]
        if _is_serial(link):
            yield from _of(link, one.data, one.direction, one.interface)
        elif not any(map(_is_serial, one.links)):
            raise _another(link)


def _is_serial(link: int) -> bool:
    return link == _RTAC_SERIAL or link in _USER


def _another(link: int) -> Refused:
    return Refused(
        "packet.unknown",
        f"the capture's link type is {link}, no serial line",
        "export the serial bytes (RTAC serial, or a USER link type), or give them as hex text",
    )


def _of(link: int, data: bytes, direction: int = 0, interface: int = 0) -> Iterator[Record]:
    """The record in a packet of a serial link type; none in one that tells only of the line's state."""
    if link != _RTAC_SERIAL:
        yield Record(data, direction, interface)
        return
    if len(data) < _RTAC_HEADER.size:
        raise Malformed(_CODE, f"a serial record has {len(data)} bytes, its header alone has {_RTAC_HEADER.size}")
    told = _RTAC_DATA.get(_RTAC_HEADER.unpack_from(data)[2])
    if told is not None and len(data) > _RTAC_HEADER.size:
        yield Record(data[_RTAC_HEADER.size :], told, interface)
