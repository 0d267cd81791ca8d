"""Frames of the link: one fixed header, a body, CRC-32, stuffed with COBS between 0x00 delimiters.

Layout before COBS (all integers big endian):
  byte 0: kind(3 bits) | sealed(1) | key epoch, low 2 bits | fin(1) | reserved(1) = 0
  DATA, CLOSE: sequence u16.  ACK: cumulative u16, credit u16 (64-byte units), n u8, SACK bitmap of n bytes
  plain: connection nonce, 4 bytes.  sealed: record counter, low 16 bits
  body (sealed: ciphertext and tag), then CRC-32 (zlib's) over everything before it.
Header = everything before the body: it is the associated data of a sealed frame. No keys and no state here.
"""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from cobs import cobs

from devguard.errors import LocalProtocolError, Malformed
from devguard.link.parameters import CREDIT_UNIT, LINK_VERSION, SACK_LIMIT, PeerLimits

DELIMITER: Final = b"\x00"
NONCE_SIZE: Final = 4
CRC_ERROR: Final = "packet.crc"
_SEALED, _FIN, _RESERVED = 0x10, 0x02, 0x01
_U16 = struct.Struct(">H")
_ACK = struct.Struct(">HHB")
_CRC = struct.Struct(">I")
_ANNOUNCE = struct.Struct(">BHH")
_LONGEST_HEADER: Final = 1 + _ACK.size + SACK_LIMIT + NONCE_SIZE
_FEED: Final = 64 * 1024


class Kind(enum.IntEnum):
    """Frame kinds; the numbers are on the wire."""

    DATA = 0
    ACK = 1
    OPEN = 2
    OPEN_ACK = 3
    CLOSE = 4
    PING = 5


_KINDS: Final = {int(kind): kind for kind in Kind}
_SEQUENCED: Final = frozenset({Kind.DATA, Kind.CLOSE})
_PLAIN_ONLY: Final = frozenset({Kind.OPEN, Kind.OPEN_ACK})
_BODILESS: Final = frozenset({Kind.ACK, Kind.CLOSE, Kind.PING})


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """`cumulative`: the next sequence number awaited (low 16 bits). Bit i of `bitmap` (little endian, no trailing
    zero bytes) says that cumulative + 1 + i has arrived. `credit`: window in 64-byte units."""

    cumulative: int
    credit: int
    bitmap: bytes = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame off the wire, its CRC right. `nonce` is None on a sealed frame; `body` is still sealed then."""

    kind: Kind
    header: bytes
    body: bytes
    fin: bool = False
    sequence: int = 0
    ack: Acknowledgement | None = None
    nonce: bytes | None = None
    epoch: int = 0
    counter: int = 0


def encode_header(
    kind: Kind,
    *,
    nonce: bytes | None = None,
    record: tuple[int, int] | None = None,
    sequence: int = 0,
    fin: bool = False,
    ack: Acknowledgement | None = None,
) -> bytes:
    """Header of a plain frame (`nonce`) or of a sealed one (`record` = epoch, counter): exactly one of the two."""
    if (nonce is None) == (record is None):
        raise LocalProtocolError("link.protocol", "a frame is either plain or sealed")
    first = kind << 5 | (_FIN if fin else 0)
    tail = nonce or b""
    if record is not None:
        first |= _SEALED | (record[0] & 3) << 2
        tail = _U16.pack(record[1] & 0xFFFF)
    middle = b""
    if kind in _SEQUENCED:
        middle = _U16.pack(sequence & 0xFFFF)
    elif ack is not None:
        middle = _ACK.pack(ack.cumulative & 0xFFFF, ack.credit, len(ack.bitmap)) + ack.bitmap
    return bytes((first,)) + middle + tail


def encode_frame(header: bytes, body: bytes = b"") -> bytes:
    """Wire bytes of one frame with its closing delimiter; the opening one belongs to the burst."""
    content = header + body
    stuffed: bytes = cobs.encode(content + _CRC.pack(zlib.crc32(content)))
    return stuffed + DELIMITER


def decode_frame(raw: bytes) -> Frame:
    """The frame between two delimiters. Malformed("packet.crc") is noise, Malformed("link.protocol") is a frame
    whose checksum is right but whose layout is not ours."""
    try:
        whole = cobs.decode(raw)
    except cobs.DecodeError as error:
        raise Malformed(CRC_ERROR, f"not COBS: {error}") from error
    content = whole[:-4]
    if len(whole) < 5 or _CRC.unpack(whole[-4:])[0] != zlib.crc32(content):
        raise Malformed(CRC_ERROR, "frame checksum is wrong")
    try:
        return _parse(content)
    except struct.error as error:
        raise Malformed("link.protocol", "frame ends inside its header") from error


def _parse(content: bytes) -> Frame:
    first = content[0]
    kind = _KINDS.get(first >> 5)
    sealed, epoch, fin = bool(first & _SEALED), first >> 2 & 3, bool(first & _FIN)
    if kind is None or first & _RESERVED or (fin and kind is not Kind.DATA):
        raise Malformed("link.protocol", f"unknown frame kind or flags 0x{first:02x}")
    if (sealed and kind in _PLAIN_ONLY) or (epoch and not sealed):
        raise Malformed("link.protocol", f"flags 0x{first:02x} contradict each other")
    at, sequence, ack, nonce, counter = 1, 0, None, None, 0
    if kind in _SEQUENCED:
        sequence, at = _U16.unpack_from(content, at)[0], at + 2
    elif kind is Kind.ACK:
        ack, at = _parse_ack(content, at)
    if sealed:
        counter, at = _U16.unpack_from(content, at)[0], at + 2
    else:
        nonce, at = content[at : at + NONCE_SIZE], at + NONCE_SIZE
        if at > len(content):
            raise Malformed("link.protocol", "frame ends inside its nonce")
        if kind in _BODILESS and at != len(content):
            raise Malformed("link.protocol", f"{kind.name} frame with a body")
    return Frame(kind, content[:at], content[at:], fin, sequence, ack, nonce, epoch, counter)


def _parse_ack(content: bytes, at: int) -> tuple[Acknowledgement, int]:
    cumulative, credit, size = _ACK.unpack_from(content, at)
    at += _ACK.size
    bitmap = content[at : at + size]
    if size > SACK_LIMIT or len(bitmap) != size or bitmap[-1:] == b"\x00":
        raise Malformed("link.protocol", "SACK bitmap is too long, cut off or padded")
    return Acknowledgement(cumulative, credit, bitmap), at + size


def encode_announcement(window: int, segment: int) -> bytes:
    """Body of OPEN and OPEN_ACK: version u8, window u16, largest segment u16, both in 64-byte units."""
    return _ANNOUNCE.pack(LINK_VERSION, window // CREDIT_UNIT, segment // CREDIT_UNIT)


def decode_announcement(body: bytes) -> PeerLimits | int:
    """What the peer takes, or its version number when that is not ours. Malformed("link.protocol") otherwise."""
    if not body:
        raise Malformed("link.protocol", "announcement is empty")
    if body[0] != LINK_VERSION:
        return body[0]
    if len(body) != _ANNOUNCE.size:
        raise Malformed("link.protocol", f"announcement of {len(body)} bytes, expected {_ANNOUNCE.size}")
    _, window, segment = _ANNOUNCE.unpack(body)
    if segment == 0 or window < segment:
        raise Malformed("link.protocol", "announced window is smaller than its segment")
    return PeerLimits(window * CREDIT_UNIT, segment * CREDIT_UNIT)


def frame_limit(segment_max: int, tag_size: int = 16) -> int:
    """Longest stuffed frame, without delimiter, of segments up to `segment_max`."""
    content = max(segment_max, CREDIT_UNIT) + _LONGEST_HEADER + tag_size + _CRC.size
    return content + content // 254 + 1


class FrameReader:
    """Cuts a byte stream at its delimiters. Keeps at most one frame of `limit` bytes; what grows longer is noise,
    dropped up to the next delimiter and counted in `noise_bytes`."""

    __slots__ = ("_limit", "_partial", "_skipping", "noise_bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._skipping = False
        self.noise_bytes = 0

    @property
    def held(self) -> int:
        """Bytes of the frame that has not ended yet."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that end inside `data`, still stuffed, empty ones left out."""
        frames: list[bytes] = []
        for start in range(0, len(data), _FEED):
            pieces = bytes(data[start : start + _FEED]).split(DELIMITER)
            if len(pieces) > 1:
                self._grow(pieces[0])
                if self._partial and not self._skipping:
                    frames.append(bytes(self._partial))
                self._partial.clear()
                self._skipping = False
                frames += filter(self._fits, filter(None, pieces[1:-1]))
            self._grow(pieces[-1])
        return frames

    def _fits(self, piece: bytes) -> bool:
        if len(piece) > self._limit:
            self.noise_bytes += len(piece)
            return False
        return True

    def _grow(self, piece: bytes) -> None:
        if self._skipping or len(self._partial) + len(piece) > self._limit:
            self.noise_bytes += len(self._partial) + len(piece)
            self._partial.clear()
            self._skipping = True
        else:
            self._partial += piece
