"""SMP messages: an 8-byte header and one CBOR map. Pure; which lines or packets carry them is the link's business.

    version and operation (1) | flags (1) | length of the body (2) | group (2) | sequence (1) | command (1) | body

Numbers are big endian; the lowest three bits of the first byte are the operation, the next two the version. Source:
Zephyr's "SMP protocol specification". An answer repeats group, command and sequence of its question.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from devguard.errors import LocalProtocolError, Malformed
from devguard.session.smp_cbor import CODE, decode_map

HEADER: Final = 8
MAX_BODY: Final = 0xFFFF - 2
V1: Final = 0
V2: Final = 1
_FORM: Final = 0b111
_VERSION_SHIFT: Final = 3


class Operation(enum.IntEnum):
    """What a message is."""

    READ = 0
    READ_ANSWER = 1
    WRITE = 2
    WRITE_ANSWER = 3


class Group(enum.IntEnum):
    """The command groups devguard speaks."""

    OS = 0
    IMAGE = 1


class OsCommand(enum.IntEnum):
    """Commands of the group OS."""

    ECHO = 0
    RESET = 5
    PARAMETERS = 6


class ImageCommand(enum.IntEnum):
    """Commands of the group IMAGE."""

    STATE = 0
    UPLOAD = 1
    ERASE = 5


@dataclass(frozen=True, slots=True)
class Header:
    """The eight bytes before a body."""

    operation: Operation
    version: int
    length: int
    group: int
    sequence: int
    command: int

    def encode(self) -> bytes:
        """The eight bytes."""
        return (
            bytes((self.operation | self.version << _VERSION_SHIFT, 0))
            + self.length.to_bytes(2, "big")
            + self.group.to_bytes(2, "big")
            + bytes((self.sequence, self.command))
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its header and the values of its map."""

    header: Header
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A question without its sequence number, which every transmission has anew. `slow`: the device may first erase
    a slot, so the time that its answer takes says nothing of the line."""

    operation: Operation
    group: int
    command: int
    body: bytes
    slow: bool = False

    def frame(self, sequence: int) -> bytes:
        """The bytes of one transmission."""
        if len(self.body) > MAX_BODY:
            raise LocalProtocolError(CODE, f"an SMP body of {len(self.body)} bytes does not fit its length field")
        header = Header(self.operation, V2, len(self.body), self.group, sequence, self.command)
        return header.encode() + self.body

    def asks(self, header: Header) -> bool:
        """Whether a header is that of an answer to this question."""
        wanted = (self.operation + 1, self.group, self.command)
        return (header.operation, header.group, header.command) == wanted


def read_header(data: bytes) -> Header:
    """The header at the start of a frame; `Malformed("smp.malformed")` when there is none or it speaks of another
    number of bytes than follow."""
    if len(data) < HEADER:
        raise Malformed(CODE, f"an SMP message has at least {HEADER} bytes, this one {len(data)}")
    operation, version = data[0] & _FORM, data[0] >> _VERSION_SHIFT  # the bits above are reserved, and 0
    if operation > max(Operation) or version > V2:
        raise Malformed(CODE, f"the first byte {data[0]:#04x} is no operation of SMP")
    length = int.from_bytes(data[2:4], "big")
    if length != len(data) - HEADER:
        raise Malformed(CODE, f"an SMP header speaks of {length} bytes, {len(data) - HEADER} follow")
    return Header(Operation(operation), version, length, int.from_bytes(data[4:6], "big"), data[6], data[7])


def read_message(data: bytes) -> Message:
    """A whole message; `Malformed("smp.malformed")` for anything else."""
    header = read_header(data)
    return Message(header, decode_map(bytes(data[HEADER:])))
