"""A shelf on a web server, over one connection that stays open between requests.

Nothing that answers is believed: time is capped by `pace`, bytes of headers and framing too, bytes of a body by who
reads it; a body is taken as it comes, never unpacked; a redirect is an answer like any other, not followed. Proxies
of the environment count. Source: RFC 9110, RFC 9112 section 9.3 (persistence) and 9.3.1 (retrying requests).
"""

from __future__ import annotations

import base64
import http.client
import io
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

from devguard.errors import DevguardError, LinkError
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.pace import Pace, PacedReader

_ABSENT: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_DRAIN: Final = 1 << 14  # of an answer nobody wants: reading so much is cheaper than another connection
_AGENT: Final = {"User-Agent": "devguard"}


class WebSource:
    """A shelf behind an http(s) URL. `clock`: seconds that only grow. For one thread at a time."""

    def __init__(self, url: str, limits: Limits = LIMITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._base = url.rstrip("/") + "/"
        self._limits = limits
        self._clock = clock
        self._place: tuple[str, str] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._headers: dict[str, str] = {}
        self._whole = False
        self._reading: _Answer | None = None

    @property
    def label(self) -> str:
        """The URL."""
        return self._base

    def open(self, path: str) -> Iterator[bytes] | None:
        """One request."""
        return self.open_url(self._base + urllib.parse.quote(path))

    def open_url(self, url: str) -> Iterator[bytes] | None:
        """As `open`, for a whole URL."""
        with self._coded(url):
            answer = self._ask(urllib.parse.urlsplit(url))
            if answer.status in _ABSENT:
                self._drain(answer)
                return None
        if answer.status != HTTPStatus.OK:
            answer.close()
            self.close()
            raise LinkError("shelf.unreachable", f"{url}: {_explained(answer)}")
        return self._read(answer, url)

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._reading = None

    def _ask(self, url: urllib.parse.SplitResult) -> _Answer:
        """The answer to one request. A kept connection that the server has closed meanwhile is opened once more."""
        place = (url.scheme, url.netloc)
        if place != self._place or self._reading is not None:
            self.close()
        kept = self._connection is not None and self._connection.sock is not None
        try:
            return self._send(url, place)
        except ConnectionError:
            if not kept:
                raise
            self.close()
            return self._send(url, place)

    def _send(self, url: urllib.parse.SplitResult, place: tuple[str, str]) -> _Answer:
        if self._connection is None:
            self._connection, self._headers, self._whole = self._connect(url)
            self._place = place
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        whole = f"{url.scheme}://{url.netloc}{path}"
        self._connection.request("GET", whole if self._whole else path, headers=self._headers)
        answer: Any = self._connection.getresponse()
        self._reading = answer
        return self._reading

    def _connect(self, url: urllib.parse.SplitResult) -> tuple[http.client.HTTPConnection, dict[str, str], bool]:
        """A connection to the server or its proxy, the headers for it, whether it is asked by whole URLs."""
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        host, port = url.hostname or "", url.port
        text = urllib.request.getproxies().get(url.scheme)
        if not text or urllib.request.proxy_bypass(host):
            return self._made(kind(host, port, timeout=self._limits.silence)), _AGENT, False
        proxy = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        if proxy.scheme != "http" or not proxy.hostname:
            raise LinkError("shelf.unreachable", f"a proxy of the kind {proxy.scheme!r} cannot be used here")
        secret = {} if proxy.username is None else {"Proxy-Authorization": _basic(proxy)}
        made = self._made(kind(proxy.hostname, proxy.port or 80, timeout=self._limits.silence))
        if url.scheme == "http":
            return made, {**_AGENT, **secret}, True
        made.set_tunnel(host, port, headers=secret)
        return made, _AGENT, False

    def _made(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        limits, clock = self._limits, self._clock

        class Answer(_Answer):
            def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
                super().__init__(sock, *args, **kwargs)
                self.pace = Pace(limits, clock)
                self.fp = io.BufferedReader(PacedReader(self.fp.detach(), self.pace))

        connection.response_class = Answer
        return connection

    def _read(self, answer: _Answer, url: str) -> Iterator[bytes]:
        try:
            while True:
                with self._coded(url):
                    chunk = answer.read1(self._limits.chunk)
                if not chunk:
                    break
                answer.pace.gave(len(chunk))
                yield chunk
            if answer.length:
                raise LinkError("shelf.unreachable", f"{url}: the answer ended {answer.length} bytes early")
        finally:
            self._finish(answer)

    def _drain(self, answer: _Answer) -> None:
        left = _DRAIN
        while left > 0 and (chunk := answer.read1(left)):
            left -= len(chunk)
        self._finish(answer)

    def _finish(self, answer: _Answer) -> None:
        """Keep the connection only behind an answer that was read to its end."""
        whole = answer.length == 0 or (answer.chunked and answer.isclosed())
        answer.close()
        if self._reading is answer:
            self._reading = None
            if not whole:
                self.close()

    @contextmanager
    def _coded(self, url: str) -> Iterator[None]:
        """Network errors in our own words; after one, the connection is not used again."""
        try:
            yield
        except DevguardError:
            self.close()
            raise
        except TimeoutError:
            self.close()
            raise LinkError("shelf.slow", f"{url}: silent for too long") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise LinkError("shelf.unreachable", f"{url}: {error or type(error).__name__}") from None


class _Answer(http.client.HTTPResponse):
    """An answer whose bytes count against its pace."""

    pace: Pace


def _explained(answer: _Answer) -> str:
    status = f"HTTP status {answer.status}"
    place = answer.headers.get("Location")
    if answer.status in _MOVED and place:
        return f"{status}; it says the shelf is at {place[:200]!r}: give that with --from if you believe it"
    return status


def _basic(proxy: urllib.parse.SplitResult) -> str:
    user, secret = (urllib.parse.unquote(part or "") for part in (proxy.username, proxy.password))
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()
