"""The SMP server of an emulated device: one message in, one answer out; no line, no clock.

Groups OS (echo, reset, parameters) and image (state, upload, erase), as Zephyr's server answers them. What stands in
the slots and what may be done to them is the device's (`smp_target`): one takes images from anybody, another demands
authorisation, which SMP cannot give, and denies everything that would change it. Source: Zephyr's "SMP protocol
specification", "OS management" and "Image management".
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from devguard import wire
from devguard.errors import Malformed
from devguard.session.smp_frame import (
    HEADER,
    V1,
    Group,
    Header,
    ImageCommand,
    Message,
    Operation,
    OsCommand,
    read_header,
    read_message,
)

MAX_ECHO: Final = 1024


class Fault(enum.IntEnum):
    """Errors of the protocol itself."""

    INVALID = 3
    BAD_STATE = 6
    NOT_SUPPORTED = 8
    ACCESS_DENIED = 11


class ImageFault(enum.IntEnum):
    """Errors of the image group."""

    NO_FREE_SLOT = 9
    HASH_NOT_FOUND = 8
    INVALID_SLOT = 14
    INVALID_OFFSET = 20
    INVALID_LENGTH = 21
    INVALID_HEADER = 22
    INVALID_MAGIC = 23
    INVALID_HASH = 24
    CURRENT_IS_NEWER = 27
    ALREADY_PENDING = 28
    TOO_LARGE = 30
    OVERRUN = 31
    TEST_OF_ACTIVE = 33


class Denied(Exception):
    """What the server answers with instead. Stays in this room."""

    def __init__(self, fault: Fault | ImageFault) -> None:
        super().__init__(fault.name)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class UploadPiece:
    """One piece of an upload as it was asked for; None: the field was not there."""

    offset: int
    data: bytes
    image: int
    length: int | None
    sha: bytes | None
    upgrade: bool


class Target(Protocol):
    """The device behind a server. Everything may raise `Denied`."""

    def states(self) -> list[dict[str, Any]]:
        """The `images` of an image state."""

    def upload(self, piece: UploadPiece) -> dict[str, Any]:
        """Take a piece; the values of the answer."""

    def set_state(self, digest: bytes | None, *, confirm: bool) -> None:
        """Try or keep an image."""

    def erase(self, slot: int) -> None:
        """Erase a slot."""

    def check_reset(self) -> None:
        """Return when the device may be reset now."""


@dataclass(slots=True)
class SmpServer:
    """Answers messages for a device. `reset_wanted` is set once a reset has been answered; the device does it then."""

    target: Target
    buffer_size: int
    buffer_count: int
    reset_wanted: bool = False

    def answer(self, frame: bytes) -> bytes | None:
        """The answer to one message; None for what is none, which a server lets go."""
        try:
            header = read_header(frame)
        except Malformed:
            return None
        if header.operation not in (Operation.READ, Operation.WRITE):
            return None
        try:
            values = self._values(read_message(frame))
        except Malformed:
            values = {"rc": int(Fault.INVALID)}
        except Denied as error:
            values = _error(error.fault, header)
        return reply(header, values)

    def _values(self, message: Message) -> Mapping[str, Any]:
        header = message.header
        do = self._commands().get((header.operation, header.group, header.command))
        if do is None:
            raise Denied(Fault.NOT_SUPPORTED)
        return do(message.values)

    def _commands(self) -> dict[tuple[int, int, int], Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
        return {
            (Operation.WRITE, Group.OS, OsCommand.ECHO): self._echo,
            (Operation.READ, Group.OS, OsCommand.ECHO): self._echo,
            (Operation.WRITE, Group.OS, OsCommand.RESET): self._reset,
            (Operation.READ, Group.OS, OsCommand.PARAMETERS): self._parameters,
            (Operation.READ, Group.IMAGE, ImageCommand.STATE): self._states,
            (Operation.WRITE, Group.IMAGE, ImageCommand.STATE): self._set_state,
            (Operation.WRITE, Group.IMAGE, ImageCommand.UPLOAD): self._upload,
            (Operation.WRITE, Group.IMAGE, ImageCommand.ERASE): self._erase,
        }

    @staticmethod
    def _echo(values: Mapping[str, Any]) -> Mapping[str, Any]:
        text = values.get("d")
        if not isinstance(text, str) or len(text) > MAX_ECHO:
            raise Denied(Fault.INVALID)
        return {"r": text}

    def _reset(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        self.target.check_reset()
        self.reset_wanted = True
        return {}

    def _parameters(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"buf_size": self.buffer_size, "buf_count": self.buffer_count}

    def _states(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"images": self.target.states(), "splitStatus": 0}

    def _set_state(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        digest, confirm = values.get("hash"), values.get("confirm", False)
        if not isinstance(confirm, bool) or not (digest is None or isinstance(digest, bytes)):
            raise Denied(Fault.INVALID)
        if digest is None and not confirm:
            raise Denied(Fault.INVALID)
        self.target.set_state(digest, confirm=confirm)
        return self._states(values)

    def _upload(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        piece = UploadPiece(
            offset=_uint(values, "off", None),
            data=_bytes(values, "data") or b"",
            image=_uint(values, "image", 0),
            length=None if "len" not in values else _uint(values, "len", None),
            sha=_bytes(values, "sha"),
            upgrade=values.get("upgrade") is True,
        )
        return self.target.upload(piece)

    def _erase(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        self.target.erase(_uint(values, "slot", 1))
        return {}


def reply(header: Header, values: Mapping[str, Any]) -> bytes:
    """The answer to a message with that header."""
    body = wire.encode(values)
    operation = Operation(header.operation + 1)
    return Header(operation, header.version, len(body), header.group, header.sequence, header.command).encode() + body


def _error(fault: Fault | ImageFault, header: Header) -> dict[str, Any]:
    """As version 1 or 2 of the protocol says it: a group's own errors have a map of their own in version 2."""
    if header.version == V1 or isinstance(fault, Fault):
        return {"rc": int(fault) if isinstance(fault, Fault) else int(Fault.INVALID)}
    return {"err": {"group": header.group, "rc": int(fault)}}


def _uint(values: Mapping[str, Any], name: str, default: int | None) -> int:
    value = values.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise Denied(Fault.INVALID)
    return value


def _bytes(values: Mapping[str, Any], name: str) -> bytes | None:
    value = values.get(name)
    if value is not None and not isinstance(value, bytes):
        raise Denied(Fault.INVALID)
    return value


def longest_frame(buffer_size: int) -> int:
    """Bytes of the longest message that a buffer holds beside its length and checksum."""
    return max(HEADER, buffer_size - 4)
