"""SMP messages as lines of a serial console: base64 between marks, checksum inside; log lines may stand in between.

    06 09 first line, 04 14 each further one: base64 of (length (2), message, CRC-16 (2)) | 0A

`length` counts message and checksum, big endian; CRC-16 with polynomial 0x1021 from 0 covers the message. A line has at
most 127 bytes, as the buffers of small devices have. Sans-I/O; anything that does not fit is noise and is counted.
Source: Zephyr's "SMP transport", console protocol.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

FIRST: Final = b"\x06\x09"
MORE: Final = b"\x04\x14"
LINE_TEXT: Final = 124
MAX_LINE: Final = 1024
OVERHEAD: Final = 4
MAX_FRAME: Final = 0xFFFF - 2
_END: Final = b"\n"


def encode_lines(frame: bytes) -> bytes:
    """A message as its lines."""
    block = (len(frame) + 2).to_bytes(2, "big") + frame + binascii.crc_hqx(frame, 0).to_bytes(2, "big")
    text = base64.b64encode(block)
    lines = (text[at : at + LINE_TEXT] for at in range(0, len(text), LINE_TEXT))
    return b"".join((FIRST if not at else MORE) + line + _END for at, line in enumerate(lines))


class ConsoleReader:
    """Messages out of a console's bytes. `largest`: longer ones are let go, as a device without the room does.

    `noise` counts bytes that belong to no message, `damaged` messages that did not come whole.
    """

    def __init__(self, largest: int = MAX_FRAME) -> None:
        self._largest = largest
        self._line = bytearray()
        self._text = bytearray()
        self._wanted = 0  # base64 characters of the block whose lines are held; 0: none is
        self.noise = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now, in their order."""
        found = []
        pieces = bytes(data).split(_END)
        for piece in pieces[:-1]:
            frame = self._take(bytes(self._line) + piece)
            self._line.clear()
            if frame is not None:
                found.append(frame)
        self._line += pieces[-1]
        if len(self._line) > MAX_LINE:
            self.noise += len(self._line) - MAX_LINE
            del self._line[:-MAX_LINE]
        return found

    def _take(self, line: bytes) -> bytes | None:
        begin, more = line.rfind(FIRST), line.rfind(MORE)
        if begin >= 0:
            self._drop()
            text = line[begin + 2 :].rstrip(b"\r")
            self._wanted = self._characters(text)
        elif more >= 0 and self._wanted:
            text = line[more + 2 :].rstrip(b"\r")
        else:
            self.noise += len(line)
            return None
        if not self._wanted:
            self.damaged += 1
            return None
        self._text += text
        if len(self._text) < self._wanted:
            return None
        return self._whole()

    def _drop(self) -> None:
        """A new message begins: what was held never came whole."""
        self.damaged += self._wanted > 0
        self._text.clear()
        self._wanted = 0

    def _characters(self, text: bytes) -> int:
        """Base64 characters of the whole block, from its first line; 0 for one that is refused."""
        try:
            length = int.from_bytes(base64.b64decode(text[:4], validate=True)[:2], "big")
        except binascii.Error:
            return 0
        return -(-(length + 2) // 3) * 4 if 2 < length <= self._largest + 2 else 0

    def _whole(self) -> bytes | None:
        text, self._wanted = bytes(self._text), 0
        self._text.clear()
        try:
            block = base64.b64decode(text, validate=True)
        except binascii.Error:
            block = b""
        length, frame, crc = int.from_bytes(block[:2], "big"), block[2:-2], block[-2:]
        if len(block) < OVERHEAD or length != len(block) - 2 or binascii.crc_hqx(frame, 0).to_bytes(2, "big") != crc:
            self.damaged += 1
            return None
        return frame
