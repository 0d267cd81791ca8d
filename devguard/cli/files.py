"""Opening what a person named: release files, images, the files a description points at.

A release is opened once; what is judged, copied and sent comes from that one descriptor, never from a second look
at the path. A description's paths stay inside its folder, links included.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from devguard.custody.files import file_error, open_regular, read_limited
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.grant.claims import Grant
    from devguard.grant.request import GrantRequest
    from devguard.manifest.envelope import Envelope

GRANT_LIMIT: Final = 16 * 1024
_COPY_CHUNK: Final = 1 << 20


class _Positioned(io.RawIOBase):
    """`size` bytes with a position of their own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move within the bytes."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at


class SliceReader(_Positioned):
    """`size` bytes of an open file from `offset`, with a position of its own."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        super().__init__(size)
        self._descriptor = descriptor
        self._offset = offset

    def readinto(self, buffer: Any) -> int:
        """Read at the slice's own position; 0 at its end."""
        wanted = min(len(buffer), max(0, self._size - self._at))
        if wanted == 0:
            return 0
        count = os.preadv(self._descriptor, [memoryview(buffer)[:wanted]], self._offset + self._at)
        self._at += count
        return count


class JoinedReader(_Positioned):
    """Several readers back to back, each of a known size, as one; a reader that ends early ends all."""

    def __init__(self, parts: Sequence[tuple[BinaryIO, int]]) -> None:
        super().__init__(sum(size for _, size in parts))
        self._parts = tuple(parts)

    def readinto(self, buffer: Any) -> int:
        """Read at the position of the whole, at most to the end of the reader it lies in; 0 at the end."""
        start = 0
        for reader, size in self._parts:
            inside = self._at - start
            if inside < size:
                reader.seek(inside)
                data = reader.read(min(len(buffer), size - inside))
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
            start += size
        return 0


def open_input(path: Path) -> BinaryIO:
    """A regular file, opened once for reading; `file.missing` / `file.unreadable`."""
    return os.fdopen(open_regular(path), "rb")


def read_grant_file(path: Path) -> Grant:
    """The grant in a file, read and not judged; what `read_limited` and `read_grant` raise."""
    from devguard.grant.claims import read_grant

    return read_grant(read_limited(path, GRANT_LIMIT))


def read_request_file(path: Path) -> GrantRequest:
    """The grant request in a file, its proof of possession checked; what `read_limited` and `read_request` raise."""
    from devguard.custody.files import read_limited
    from devguard.grant.request import read_request

    return read_request(read_limited(path, GRANT_LIMIT))


def read_if_there(path: Path, limit: int) -> bytes | None:
    """What is in a file, at most `limit` bytes; None where there is none. Raises what else `read_limited` raises."""
    try:
        return read_limited(path, limit)
    except DevguardError as error:
        if error.code != "file.missing":
            raise
        return None


def payload_reader(file: BinaryIO, envelope: Envelope, name: str) -> SliceReader | None:
    """The integrated payload `name` of an envelope read from `file`; None where the envelope has none."""
    payload = envelope.payloads.get(name)
    return None if payload is None else SliceReader(file.fileno(), payload.offset, payload.size)


def private_copy(path: Path) -> BinaryIO:
    """An unnamed private copy of a file, so that nobody can change it between verification and sending."""
    source = open_input(path)
    copy = tempfile.TemporaryFile(prefix="devguard-")  # noqa: SIM115 (the caller owns it)
    try:
        while chunk := source.read(_COPY_CHUNK):
            copy.write(chunk)
        copy.flush()
    except OSError as error:
        copy.close()
        raise Refused("file.unreadable", f"cannot copy {path}: {error.strerror}") from error
    finally:
        source.close()
    copy.seek(0)
    return copy


def remove(path: Path) -> None:
    """Take away a file that may be there; `file.unreadable` when the system says no."""
    try:
        path.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise file_error(path, error) from None


def inside(folder: Path, relative: str) -> Path:
    """`relative` inside `folder`, every link followed and still inside; `description.path` / `file.missing`."""
    try:
        real = (folder / relative).resolve(strict=True)
        root = folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise file_error(folder / relative, error if isinstance(error, OSError) else ValueError(str(error))) from None
    if not real.is_relative_to(root):
        raise Malformed("description.path", f"{relative} leads out of {folder}")
    return real
