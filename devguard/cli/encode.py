"""A process of its own that makes smaller forms of an image, so that one that takes too long can be ended.

Standard input: the size of the source (8 bytes, big endian; 0: none), source, image. Standard output: for each form,
as soon as it is made, its encoding (1 byte), its size (8 bytes) and its bytes. It reads no file and opens no port.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from devguard.image.delta import can_patch, compress, make_patch
from devguard.session.verbs import Encoding

_SIZE: Final = 8


def encode(source: bytes, image: bytes, seconds: float) -> Iterator[tuple[Encoding, bytes]]:
    """The forms of `image` that were made within `seconds`; a patch only where there is a `source`."""
    command = [sys.executable, "-m", "devguard.cli.encode"]
    given = len(source).to_bytes(_SIZE, "big") + source + image
    try:
        # The program is this one, and what it is given are bytes on its standard input.
        done = subprocess.run(command, input=given, capture_output=True, timeout=seconds, check=False)  # noqa: S603
        made = done.stdout
    except subprocess.TimeoutExpired as late:
        made = late.stdout or b""
    except OSError:
        return  # no process can be started: then the image is sent as it is
    yield from _forms(made)


def _forms(made: bytes) -> Iterator[tuple[Encoding, bytes]]:
    """What was written whole."""
    at = 0
    while len(made) >= at + 1 + _SIZE:
        start = at + 1 + _SIZE
        end = start + int.from_bytes(made[at + 1 : start], "big")
        if end > len(made):
            return
        yield Encoding(made[at]), made[start:end]
        at = end


def _make(given: BinaryIO, out: BinaryIO) -> None:
    size = int.from_bytes(given.read(_SIZE), "big")
    source = given.read(size)
    image = given.read()
    if source and can_patch():
        _put(out, Encoding.DELTA, make_patch(source, image))
    _put(out, Encoding.COMPRESSED, compress(image))


def _put(out: BinaryIO, encoding: Encoding, data: bytes) -> None:
    out.write(bytes([encoding]) + len(data).to_bytes(_SIZE, "big") + data)
    out.flush()


if __name__ == "__main__":
    _make(sys.stdin.buffer, sys.stdout.buffer)
