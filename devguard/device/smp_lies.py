"""A device that lies over SMP, one lie at a time: for benches and tests of whoever has to find it out.

`Lie` stands between server and line and changes answers on their way. What it says no longer fits what the device did;
the device itself stays as it is. None of this is on unless somebody asks for it by name.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from devguard import wire
from devguard.device.smp_server import SmpServer, reply
from devguard.errors import Malformed
from devguard.session.smp_frame import (
    HEADER,
    Group,
    Header,
    ImageCommand,
    Message,
    Operation,
    OsCommand,
    read_header,
    read_message,
)

_DEEP: Final = 10_000
_HASH: Final = 32
_UPLOAD: Final = (Group.IMAGE, ImageCommand.UPLOAD)
_STATE: Final = (Group.IMAGE, ImageCommand.STATE)
_HUGE: Final = {"off": (1 << 32) - 1, "buf_size": (1 << 32) - 1, "buf_count": 1 << 31, "rc": 0}


class LieKind(enum.StrEnum):
    """What the device lies about."""

    NOTHING_WRITTEN = "nothing-written"  # every piece is acknowledged, none is written
    WRONG_HASH = "wrong-hash"  # the slot's hash is another one
    CLAIMED_HASH = "claimed-hash"  # nothing is written, and the state tells the hash that is looked for
    NO_TRIAL = "no-trial"  # it says yes to the trial, and its state shows none
    SILENT_REVERT = "silent-revert"  # it runs the new image until it is told to keep it, and then the old one again
    NOT_KEPT = "not-kept"  # it says that it keeps the image, and its state does not
    PERMANENT = "permanent"  # asked for a trial it would keep the image at once
    GOES_BACK = "goes-back"  # it keeps the image, and would start the old one at its next reset
    VERSION = "version"  # the judged hash under another version
    NO_RESET = "no-reset"  # it says it resets, and does not
    OFFSET_AHEAD = "offset-ahead"  # it has bytes that nobody has sent yet
    OFFSET_BACK = "offset-back"  # it loses what it had, again and again
    STUCK = "stuck"  # it never gets on
    DRIP = "drip"  # of every piece it takes one byte
    HUGE = "huge"  # numbers at their ends
    CBOR = "cbor"  # bodies that are no CBOR
    TRUNCATED = "truncated"  # bodies that end early
    DEEP = "deep"  # bodies nested ten thousand times
    SEQUENCE = "sequence"  # answers to questions that nobody asked
    LENGTH = "length"  # headers that speak of other bodies
    TEXTS = "texts"  # a version that writes to the terminal
    MUTE = "mute"  # no answer to any piece


@dataclass(slots=True)
class Lie:
    """A server that lies. `reset_wanted` as of the honest one."""

    server: SmpServer
    kind: LieKind
    _told: dict[str, Any] = field(default_factory=dict)

    @property
    def reset_wanted(self) -> bool:
        """Whether the device is to be reset now."""
        return self.server.reset_wanted

    @reset_wanted.setter
    def reset_wanted(self, wanted: bool) -> None:
        self.server.reset_wanted = wanted

    def answer(self, frame: bytes) -> bytes | None:
        """What the device says instead of its answer."""
        try:
            asked = read_message(frame)
        except Malformed:
            return self.server.answer(frame)
        early = self._unheard(asked)
        if early is not None:
            return early
        if self.kind is LieKind.DRIP and _command(asked.header) == _UPLOAD:
            frame = _with_body(frame, _first_byte(asked.values))
        honest = self.server.answer(frame)
        if honest is None:
            return None
        if self.kind is LieKind.NO_RESET:
            self.server.reset_wanted = False
        if self.kind is LieKind.MUTE and _command(asked.header) == _UPLOAD:
            return None
        spoilt = _SPOILT.get(self.kind)
        if spoilt is not None:
            return spoilt(honest)
        answer = read_message(honest)
        return reply(asked.header, self._bent(asked, dict(answer.values)))

    def _unheard(self, asked: Message) -> bytes | None:
        """Pieces that the server never sees."""
        if _command(asked.header) != _UPLOAD or self.kind not in (LieKind.NOTHING_WRITTEN, LieKind.CLAIMED_HASH):
            return None
        offset, data = _piece(asked.values)
        self._told["hash"] = data[-_HASH:]  # where an unsigned image has it
        return reply(asked.header, {"off": offset + len(data)})

    def _bent(self, asked: Message, values: dict[str, Any]) -> Mapping[str, Any]:
        command = _command(asked.header)
        if command == _STATE:
            if asked.header.operation is Operation.WRITE:
                self._heed(asked.values)
                return {"images": []} if self.kind in _SAYS_YES else values
            return self._state(values)
        if command == _UPLOAD and "off" in values:
            return values | self._offset(values["off"])
        return values

    def _heed(self, values: Mapping[str, Any]) -> None:
        if values.get("confirm"):
            self._told["kept"] = True
        elif self.kind is LieKind.CLAIMED_HASH:
            self._told["pending"] = True

    def _offset(self, offset: int) -> dict[str, Any]:
        if self.kind is LieKind.OFFSET_AHEAD:
            self._told["pieces"] = self._told.get("pieces", 0) + 1
            return {"off": offset + 64 if self._told["pieces"] > 3 else offset}
        if self.kind is LieKind.OFFSET_BACK:
            return {"off": offset // 2}
        return {"off": 0} if self.kind is LieKind.STUCK else {}

    def _state(self, values: dict[str, Any]) -> Mapping[str, Any]:
        images = [dict(one) for one in values.get("images", [])]
        if self.kind is LieKind.CLAIMED_HASH:
            waiting = self._told.get("pending", False)
            images = images[:1]
            if "hash" in self._told:
                images.append({"slot": 1, "version": "1.1.0", "hash": self._told["hash"], "pending": waiting})
        for one in images:
            self._bend(one)
        if self.kind is LieKind.SILENT_REVERT and self._told.get("kept"):
            images = [one | {"hash": bytes(32), "version": "0.0.1"} if one.get("active") else one for one in images]
        return values | {"images": images}

    def _bend(self, one: dict[str, Any]) -> None:
        if self.kind is LieKind.WRONG_HASH and one.get("slot") == 1:
            one["hash"] = bytes((one["hash"][0] ^ 1,)) + one["hash"][1:]
        elif self.kind is LieKind.NO_TRIAL and one.get("slot") == 1:
            one["pending"] = False
        elif self.kind is LieKind.NOT_KEPT and one.get("active"):
            one["confirmed"] = False
        elif self.kind is LieKind.PERMANENT and one.get("pending"):
            one["permanent"] = True
        elif self.kind is LieKind.GOES_BACK and self._told.get("kept") and not one.get("active"):
            one["pending"] = True
        elif self.kind in _VERSIONS:
            one["version"] = _VERSIONS[self.kind]


_VERSIONS: Final = {LieKind.VERSION: "7.7.7", LieKind.TEXTS: "1.1.0\x1b]0;confirmed\x07\x1b[2J"}
_SAYS_YES: Final = frozenset({LieKind.NO_TRIAL, LieKind.NOT_KEPT, LieKind.SILENT_REVERT, LieKind.CLAIMED_HASH})


def _command(header: Header) -> tuple[int, int]:
    return header.group, header.command


def _piece(values: Mapping[str, Any]) -> tuple[int, bytes]:
    """Offset and bytes of a piece; whatever else a host may send is none."""
    offset, data = values.get("off"), values.get("data")
    good = isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0 and isinstance(data, bytes)
    return (offset, data) if good else (0, b"")  # type: ignore[return-value]


def _first_byte(values: Mapping[str, Any]) -> bytes:
    """A piece cut down to its first byte; the first one keeps its header, without which nothing begins."""
    offset, data = _piece(values)
    return wire.encode({**values, "data": data[:1]} if offset else values)


def _with_body(frame: bytes, body: bytes) -> bytes:
    return frame[:2] + (len(body) & 0xFFFF).to_bytes(2, "big") + frame[4:HEADER] + body


def _huge(frame: bytes) -> bytes:
    header = read_header(frame)
    if _command(header) == _STATE:
        images = [{"slot": (1 << 63) - 1, "version": "1" * 60_000, "hash": bytes(32)}]
        return _with_body(frame, wire.encode({"images": images}))
    if _command(header) in (_UPLOAD, (Group.OS, OsCommand.PARAMETERS)):
        return _with_body(frame, wire.encode(_HUGE))
    return frame


def _deep(frame: bytes) -> bytes:
    return _with_body(frame, b"\xa1\x66images" + b"\x81" * _DEEP + b"\x00")


_SPOILT: Final[dict[LieKind, Callable[[bytes], bytes]]] = {
    LieKind.HUGE: _huge,
    LieKind.CBOR: lambda frame: _with_body(frame, b"\xbf\x63off\xfb\x7f\xff\xff" + bytes(range(0x40, 0x80))),
    LieKind.TRUNCATED: lambda frame: _with_body(frame, frame[HEADER:-1]),
    LieKind.DEEP: _deep,
    LieKind.SEQUENCE: lambda frame: frame[:6] + bytes((frame[6] ^ 0x80,)) + frame[7:],
    LieKind.LENGTH: lambda frame: frame[:2] + b"\xff\xff" + frame[4:],
}
