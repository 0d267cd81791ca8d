"""Where a shelf's bytes come from: a folder (a USB stick, a share) or a web server. Nothing here believes them.

A source gives the bytes of a path below the shelf, or None where there are none. Sizes are capped by who reads;
time is capped here. A folder's files must be regular files: a pipe on a stick would hang the bench.
"""

from __future__ import annotations

import http.client
import io
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from devguard.custody.files import file_error, open_regular
from devguard.errors import DevguardError, LinkError, Malformed
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.pace import Pace, PacedReader

_ABSENT: Final = frozenset({403, 404, 410})


class Source(Protocol):
    """A place with a shelf."""

    @property
    def label(self) -> str:
        """What a person calls it: a path or a URL."""

    def open(self, path: str) -> Iterator[bytes] | None:
        """The bytes of `path`, a checked path below the shelf; None where there is no such file.

        Raises `LinkError("shelf.unreachable")`, `LinkError("shelf.slow")`, `file.unreadable`.
        """


def source_of(text: str, limits: Limits = LIMITS) -> Source:
    """The source a person names: an http(s) URL, a file URL, or a folder. `Malformed("file.missing")` for a folder
    that is not there, `Malformed("shelf.malformed")` for another kind of URL."""
    parts = urllib.parse.urlsplit(text) if "://" in text else None
    if parts is not None and parts.scheme in ("http", "https") and parts.hostname:
        return WebSource(text, limits)
    if parts is not None and parts.scheme != "file":
        raise Malformed("shelf.malformed", f"{text[:120]!r} is neither a folder nor an http(s) URL")
    folder = Path(urllib.parse.unquote(parts.path) if parts is not None else text)
    if not folder.is_dir():
        raise Malformed("file.missing", f"{folder} is not a folder")
    return FolderSource(folder, limits)


class FolderSource:
    """A shelf in a folder."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self._folder = folder
        self._limits = limits

    @property
    def label(self) -> str:
        """The folder."""
        return str(self._folder.absolute())

    def open(self, path: str) -> Iterator[bytes] | None:
        """Regular files only."""
        try:
            descriptor = open_regular(self._folder / path)
        except Malformed as error:
            if error.code == "file.missing":
                return None
            raise
        return self._read(descriptor, path)

    def _read(self, descriptor: int, path: str) -> Iterator[bytes]:
        try:
            while chunk := os.read(descriptor, self._limits.chunk):
                yield chunk
        except OSError as error:
            raise file_error(self._folder / path, error) from None
        finally:
            os.close(descriptor)


class WebSource:
    """A shelf on a web server, through urllib: proxies of the environment count, redirects stay http(s)."""

    def __init__(self, url: str, limits: Limits = LIMITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._base = url.rstrip("/") + "/"
        self._limits = limits
        self._clock = clock
        director = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            _Plain(self._connection(http.client.HTTPConnection)),
            _Secure(self._connection(http.client.HTTPSConnection)),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            director.add_handler(handler)
        self._director = director

    @property
    def label(self) -> str:
        """The URL."""
        return self._base

    def open(self, path: str) -> Iterator[bytes] | None:
        """One request."""
        return self.open_url(self._base + urllib.parse.quote(path))

    def open_url(self, url: str) -> Iterator[bytes] | None:
        """As `open`, for a whole URL."""
        request = urllib.request.Request(url, headers={"User-Agent": "devguard"})  # noqa: S310 (only http handlers)
        with _coded(url):
            try:
                answer = self._director.open(request, timeout=self._limits.silence)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in _ABSENT:
                    return None
                raise LinkError("shelf.unreachable", f"{url}: HTTP status {error.code}") from None
            if answer is None:
                raise LinkError("shelf.unreachable", f"{url}: no way to ask for it")
        return self._read(answer, url)

    def _read(self, answer: Any, url: str) -> Iterator[bytes]:
        with answer:
            while True:
                with _coded(url):
                    chunk = answer.read1(self._limits.chunk)
                if not chunk:
                    return
                yield chunk

    def _connection(self, kind: Any) -> Callable[..., http.client.HTTPConnection]:
        limits, clock = self._limits, self._clock

        class _Response(http.client.HTTPResponse):
            def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
                super().__init__(sock, *args, **kwargs)
                self.fp = io.BufferedReader(PacedReader(self.fp.detach(), Pace(limits, clock)))

        def make(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            connection: http.client.HTTPConnection = kind(*args, **kwargs)
            connection.response_class = _Response
            return connection

        return make


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, make: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._make = make

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, make: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._make = make

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req)


class _coded:  # noqa: N801 (reads as a statement)
    """Network errors in our own words."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
            error = error.reason
        if error is None or isinstance(error, DevguardError):
            return
        if isinstance(error, TimeoutError):
            raise LinkError("shelf.slow", f"{self._url}: silent for too long") from None
        if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
            raise LinkError("shelf.unreachable", f"{self._url}: {error or type(error).__name__}") from None
