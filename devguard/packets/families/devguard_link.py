"""devguard's own link frames and the messages in plain ones (docs/link.md, docs/conversation.md).

    COBS of: kind, flags (1) | sequence or acknowledgement | nonce (4) or record counter (2) | body | CRC-32 | then 00

Read with or without the delimiters. Sealed frames are told by kind, sequence, key epoch and counter; what they say is
encrypted, and `authenticated` stays false because the key never leaves the session. In plain frames only `hello` and
the key exchange travel: a message that one frame holds is read (`verb`, and what it says), the announcements of an
opening too. Nothing of devguard's conversation is a therapy command, and no frame here is therapy-affecting. Checksum:
zlib's CRC-32 over header and body.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from devguard.errors import DevguardError, Malformed
from devguard.link.frames import (
    CRC_ERROR,
    DELIMITER,
    Frame,
    FrameReader,
    Kind,
    decode_announcement,
    decode_frame,
    frame_limit,
)
from devguard.packets.family import Family, Read
from devguard.packets.packet import Context, Packet, unreadable
from devguard.session.verbs import decode_message, verb_of

NAME: Final = "devguard_link"
SEGMENT: Final = 4096
LIMIT: Final = frame_limit(SEGMENT)


def decode(data: bytes, _context: Context) -> Packet:
    """One frame."""
    inner = data.strip(DELIMITER)
    if not inner or len(inner) > LIMIT or DELIMITER in inner:
        detail = f"a frame has 1 to {LIMIT} bytes and no delimiter inside, there are {len(inner)}"
        return unreadable(NAME, data, Malformed("packet.length", detail))
    try:
        frame = decode_frame(inner)
    except Malformed as error:
        bad = error.code == CRC_ERROR
        code = "packet.crc" if bad else "packet.unknown"
        return unreadable(NAME, data, Malformed(code, error.message), crc_ok=not bad)
    sealed = "sealed" if frame.nonce is None else "plain"
    said = _said(frame)
    verb = f": {said['verb']}" if "verb" in said else ""
    name = f"{frame.kind.name.lower().replace('_', ' ')}, {sealed}{verb}"
    return Packet(NAME, name, data, _fields(frame) | said, True, False)


def _said(frame: Frame) -> dict[str, Any]:
    """What a plain frame says by itself; empty where it is sealed, a part, or not of the conversation."""
    if frame.nonce is None:
        return {}
    try:
        if frame.kind in (Kind.OPEN, Kind.OPEN_ACK):
            limits = decode_announcement(frame.body)
            return {"link_version": limits} if isinstance(limits, int) else asdict(limits)
        if frame.kind is Kind.DATA and frame.fin:
            message = decode_message(frame.body, sealed=False)
            said = {name: _shown(value) for name, value in asdict(message).items()}
            return {"verb": verb_of(message).name.lower().replace("_", " "), "says": said}
    except DevguardError:
        return {}
    return {}


def _shown(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else list(value) if isinstance(value, tuple) else value


def _fields(frame: Frame) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": frame.kind.name, "sealed": frame.nonce is None}
    if frame.nonce is None:
        fields |= {"key_epoch": frame.epoch, "record_counter": frame.counter}
    else:
        fields["nonce"] = frame.nonce.hex()
    if frame.kind in (Kind.DATA, Kind.CLOSE):
        fields["sequence"] = frame.sequence
    if frame.kind is Kind.DATA:
        fields["fin"] = frame.fin
    if frame.ack is not None:
        fields |= {
            "cumulative": frame.ack.cumulative,
            "credit": frame.ack.credit,
            "sack": frame.ack.bitmap.hex(),
        }
    return fields | {"body": frame.body.hex()}


class LinkFramer:
    """Frames between delimiters, through the link's own reader; offsets count from the stream's beginning."""

    def __init__(self, read: Read, _context: Context) -> None:
        self._read = read
        self._reader = FrameReader(LIMIT)
        self._fed = 0
        self._taken = 0
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[tuple[int, Packet]]:
        """See `Framer.feed`."""
        found = []
        for piece in _pieces(data):
            frames = self._reader.feed(piece)
            self._fed += len(piece)
            found += [(self._fed - len(frame) - 1, self._read(frame + DELIMITER)) for frame in frames]
        self._taken += sum(len(packet.raw) for _, packet in found)
        self.skipped = self._fed - self._taken - self._reader.held
        return found

    def finish(self) -> list[tuple[int, Packet]]:
        """See `Framer.finish`."""
        self.skipped = self._fed - self._taken
        return []


def _pieces(data: bytes) -> list[bytes]:
    """`data` cut after each delimiter."""
    parts = data.split(DELIMITER)
    return [part + DELIMITER for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


FAMILIES: Final = (Family(NAME, "devguard's own link", decode, LinkFramer, baud=115200),)
