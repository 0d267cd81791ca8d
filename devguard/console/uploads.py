"""Files that a browser sends: streamed to a private folder, counted against limits while they come.

What a file is called is text for people, never part of a path. Size, disk and pace are looked at before and while it is
written; whatever happens the folder is gone afterwards, after a crash at the next start. multipart/form-data: RFC 7578.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from devguard.console.guard import TOKEN_FIELD, TOKEN_HEADER, check_token
from devguard.console.settings import MIB, Settings
from devguard.custody.files import file_error
from devguard.errors import DevguardError, LinkError, Malformed, Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # a type of its stub alone

_LONGEST_NAME: Final = 120
_MOST_FIELDS: Final = 40
_LONGEST_FIELD: Final = 8 * 1024
_LOOK: Final = 8 * MIB  # bytes written between two looks at the disk
_BATCH: Final = MIB
_DRAIN: Final = 32 * MIB  # what is read of a refused upload so that the browser hears the refusal
_DRAIN_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Received:
    """One file. `name`: as the browser called it, for people to read; `path`: where it lies for now."""

    name: str
    path: Path
    size: int


@dataclass(slots=True)
class Upload:
    """What a form brought: its files by field (those that were chosen), and its other fields. `folder`: private, and
    gone when the upload is."""

    folder: Path
    files: dict[str, Received] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    def one(self, name: str) -> Received:
        """The file of a field; `Malformed("console.upload")` where none was chosen."""
        if name not in self.files:
            raise Malformed("console.upload", "no file was chosen")
        return self.files[name]


def sweep(settings: Settings) -> None:
    """Take away what a crash has left. Only at the start, by the one console that serves this home."""
    shutil.rmtree(_folder(settings), ignore_errors=True)


def _folder(settings: Settings) -> Path:
    return settings.folder / "uploads"


def check_room(settings: Settings, wanted: int) -> None:
    """`LinkError("console.disk")` when `wanted` more bytes would take what is kept free for records."""
    free = shutil.disk_usage(settings.folder).free
    if wanted + settings.limits.reserve > free:
        raise LinkError(
            "console.disk",
            f"{wanted} bytes to come, {free} free, of which {settings.limits.reserve} are kept for records",
        )


@asynccontextmanager
async def uploaded(request: Request, settings: Settings, names: tuple[str, ...]) -> AsyncIterator[Upload]:
    """The upload of a request, whose files may have the field names `names`; gone when the block is left.

    Raises `console.csrf`, `console.upload`, `console.upload-size`, `console.upload-slow`, `console.disk`.
    """
    folder = None
    try:
        _check_announced(request, settings)
        folder = Path(tempfile.mkdtemp(prefix="u-", dir=settings.home.make(_folder(settings))))
        try:
            upload = await _received(request, settings, folder, names)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise LinkError("console.disk", "the disk is full") from None
            raise file_error(folder, error) from None
        yield upload
    except DevguardError:
        await _drain(request)
        raise
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _check_announced(request: Request, settings: Settings) -> None:
    announced = request.headers.get("content-length")
    if announced is None:
        check_room(settings, 0)
        return
    if not announced.isdigit() or int(announced) > settings.limits.upload:
        raise Refused("console.upload-size", f"{announced[:20]} bytes; at most {settings.limits.upload} are taken")
    check_room(settings, int(announced))


async def _received(request: Request, settings: Settings, folder: Path, names: tuple[str, ...]) -> Upload:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Malformed("console.upload", "not a form with files")
    form = _Form(request, settings, folder, names)
    parser = MultipartParser(boundary, form.callbacks())
    pace = _Pace(settings)
    try:
        async for chunk in _chunks(request, settings):
            pace.took(len(chunk))
            parser.write(chunk)
            await form.poured()
        parser.finalize()
        form.finished()
    except (MultipartParseError, ValueError) as error:
        raise Malformed("console.upload", f"the form does not parse: {error}") from None
    finally:
        form.close()
    return form.upload


async def _chunks(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """The body as it comes; silence and a browser that goes away end it."""
    stream = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), settings.limits.silence)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise LinkError(
                "console.upload-slow", f"nothing came for {settings.limits.silence:.0f} s; nothing was kept"
            ) from None
        except ClientDisconnect:
            raise LinkError("console.upload-slow", "the browser went away before the file was whole") from None
        yield chunk


async def _drain(request: Request) -> None:
    """Read on a little after a refusal: a browser that is still sending does not listen."""
    taken, loop = 0, asyncio.get_running_loop()
    end = loop.time() + _DRAIN_SECONDS
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout_at(end):
            async for chunk in request.stream():
                taken += len(chunk)
                if taken > _DRAIN or loop.time() > end:
                    return


class _Pace:
    """Bytes against the limit, and against the clock after a grace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._start, self._count = settings.ticks(), 0

    def took(self, count: int) -> None:
        self._count += count
        limits, passed = self._settings.limits, self._settings.ticks() - self._start
        if self._count > limits.upload:
            raise Refused("console.upload-size", f"more than {limits.upload} bytes")
        if passed > limits.grace and self._count < passed * limits.slowest:
            raise LinkError("console.upload-slow", f"{self._count} bytes in {passed:.0f} s; nothing was kept")


class _Form:
    """The parts of one form as the parser finds them. Bytes of files wait in memory, a batch at most, to be poured."""

    def __init__(self, request: Request, settings: Settings, folder: Path, names: tuple[str, ...]) -> None:
        self.upload = Upload(folder)
        self._session = request.state.session
        self._settings, self._folder, self._names = settings, folder, names
        self._header, self._value = bytearray(), bytearray()
        self._field, self._filename, self._data = "", "", bytearray()
        self._file: BinaryIO | None = None
        self._written = self._looked = self._parts = 0
        self._whole = False
        self._trusted = self._session is None
        if (token := request.headers.get(TOKEN_HEADER)) is not None and self._session is not None:
            check_token(self._session, token)
            self._trusted = True

    def callbacks(self) -> MultipartCallbacks:
        """For the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(self._value, data[start:end]),
            "on_header_end": self._head,
            "on_headers_finished": self._open,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._ended,
        }

    async def poured(self) -> None:
        """Write what waits, away from the loop."""
        if self._file is not None and len(self._data) >= _BATCH:
            await run_in_threadpool(self._pour)

    def finished(self) -> None:
        """`Malformed("console.upload")` for a form that stopped in the middle; `console.csrf` without its token."""
        if not self._whole:
            raise Malformed("console.upload", "the form ends in the middle")
        if not self._trusted:
            check_token(self._session, None)

    def close(self) -> None:
        """Whatever happened."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_FIELDS:
            raise Malformed("console.upload", f"a form with more than {_MOST_FIELDS} parts")
        self._field = self._filename = ""
        self._data.clear()

    def _add(self, to: bytearray, data: bytes) -> None:
        to += data
        if len(to) > _LONGEST_FIELD:
            raise Malformed("console.upload", "a part of the form has a header without end")

    def _head(self) -> None:
        name, value = bytes(self._header).lower(), bytes(self._value)
        self._header.clear()
        self._value.clear()
        if name == b"content-disposition":
            kind, options = parse_options_header(value)
            if kind != b"form-data":
                raise Malformed("console.upload", "a part of the form is none")
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
            self._filename = shown_name(options[b"filename"]) if b"filename" in options else ""

    def _open(self) -> None:
        """A part begins. A file is not begun before the token was seen."""
        if self._field in self._names:
            if not self._trusted:
                check_token(self._session, None)
            if self._field in self.upload.files:
                raise Malformed("console.upload", "one field of the form has two files")
            if self._filename:
                self._file = (self._folder / f"{len(self.upload.files)}.upload").open("xb")
                self._written = self._looked = 0

    def _take(self, data: bytes) -> None:
        self._data += data
        if self._file is None and len(self._data) > _LONGEST_FIELD:
            raise Malformed("console.upload", "a field of the form is too long")

    def _end(self) -> None:
        if self._file is not None:
            self._pour()
            path = Path(self._file.name)
            self.close()
            self.upload.files[self._field] = Received(self._filename, path, self._written)
        elif self._field == TOKEN_FIELD and self._session is not None:
            check_token(self._session, self._data.decode("utf-8", "replace"))
            self._trusted = True
        elif self._field and self._field not in self._names:
            self.upload.fields[self._field] = self._data.decode("utf-8", "replace")

    def _ended(self) -> None:
        self._whole = True

    def _pour(self) -> None:
        if self._file is None:
            return
        self._written += len(self._data)
        if self._written - self._looked >= _LOOK:
            check_room(self._settings, len(self._data))
            self._looked = self._written
        self._file.write(self._data)
        self._data.clear()


def shown_name(raw: bytes) -> str:
    """A file's name as people see it: its last part, what cannot be seen made visible, cut. "" stays ""."""
    name = os.path.basename(raw.decode("utf-8", "replace").replace("\\", "/").rstrip("/"))
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    return name[:_LONGEST_NAME] or ("file" if raw else "")
