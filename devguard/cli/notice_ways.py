"""The ways a notice of an incident goes out: an HTTPS webhook, and syslog over UDP, TCP or a Unix socket.

Whoever answers is not believed and not waited for: the status line of the answer is read, up to a deadline, and
nothing else of it; a redirect is an answer like any other that is no yes. A webhook has TLS with a checked certificate,
except on this machine itself. Proxies are not asked. Sources: RFC 9112, RFC 5424, RFC 6587 section 3.4.1.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

from devguard.cli.loopback import on_loopback
from devguard.errors import LinkError, Malformed

SECONDS: Final = 3.0
"""How long one notice may take, connection and answer together."""
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")
_STATUS_LINE: Final = 1024
_DATAGRAM: Final = 2048  # RFC 5424 section 6.1: receivers should take so much
_CODE: Final = "incident.unsent"


class Way(Protocol):
    """One way out."""

    def send(self, body: bytes, identity: str, now: int, /) -> None:
        """Deliver a notice; `LinkError("incident.unsent")`. identity: the same each time it is tried."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A POST to a URL. secret: signs the body; ca: a file of certificates to trust instead of the system's."""

    url: str
    secret: bytes
    kind: str
    ca: Path | None = None

    def send(self, body: bytes, identity: str, now: int) -> None:
        """See `Way`."""
        url, end = urlsplit(self.url), time.monotonic() + SECONDS
        with _coded(self.url), _connected(url, self.ca, end) as connection:
            connection.settimeout(_left(end))
            connection.sendall(self._request(url, body, identity, now) + body)
            status = _status(connection, end)
        if not 200 <= status < 300:
            moved = ", which is not followed" if 300 <= status < 400 else ""
            raise LinkError(_CODE, f"{self.url} answered HTTP status {status}{moved}")

    def _request(self, url: SplitResult, body: bytes, identity: str, now: int) -> bytes:
        signed = hmac.new(self.secret, f"{now}.{identity}.".encode() + body, hashlib.sha256).hexdigest()
        lines = [
            f"POST {url.path or '/'}{'?' + url.query if url.query else ''} HTTP/1.1",
            f"Host: {url.netloc}",
            "User-Agent: devguard",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(body)}",
            f"Devguard-Delivery: {identity}",
            f"Devguard-Time: {now}",
            f"Devguard-Signature: sha256={signed}",
            "Connection: close",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def check_webhook(text: str) -> None:
    """`Malformed("config.malformed")` for a URL that no notice is sent to."""
    try:
        url = urlsplit(text)
        known = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        known = False
    if not known or not text.isascii() or not text.isprintable() or " " in text or url.username or url.fragment:
        raise Malformed("config.malformed", "webhook is not a plain https URL")
    if url.scheme != "https" and not (url.scheme == "http" and on_loopback(url.hostname or "")):
        raise Malformed("config.malformed", "a webhook is reached by https; http is for this machine alone")


@dataclass(frozen=True, slots=True)
class Syslog:
    """A syslog receiver: `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix:///PATH`. It acknowledges nothing."""

    url: str

    def send(self, body: bytes, _identity: str, _now: int, /) -> None:
        """See `Way`."""
        url, end = urlsplit(self.url), time.monotonic() + SECONDS
        with _coded(self.url):
            if url.scheme == "unix":
                _to_socket(url.path, body)
            elif url.scheme == "udp":
                family, kind, proto, _, place = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_DGRAM)[0]
                with socket.socket(family, kind, proto) as one:
                    one.sendto(_cut(body), place)
            else:
                with socket.create_connection((url.hostname or "", url.port or 0), timeout=_left(end)) as one:
                    one.sendall(str(len(body)).encode() + b" " + body)
                    one.shutdown(socket.SHUT_WR)


def check_syslog(text: str) -> None:
    """`Malformed("config.malformed")` for anything but the three forms."""
    try:
        url = urlsplit(text)
        place = url.path if url.scheme == "unix" else url.hostname and url.port
    except ValueError:
        place = None
    if not place or "\x00" in text or url.scheme not in ("udp", "tcp", "unix"):
        raise Malformed("config.malformed", "syslog is udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH")


def _connected(url: SplitResult, ca: Path | None, end: float) -> socket.socket:
    host, secure = url.hostname or "", url.scheme == "https"
    found = socket.create_connection((host, url.port or (443 if secure else 80)), timeout=_left(end))
    if not secure:
        return found
    with contextlib.ExitStack() as stack:
        stack.callback(found.close)
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        found.settimeout(_left(end))
        wrapped = context.wrap_socket(found, server_hostname=host)
        stack.pop_all()
    return wrapped


def _status(connection: socket.socket, end: float) -> int:
    """The status of the answer; nothing behind its first line is read."""
    said = b""
    while b"\n" not in said and len(said) < _STATUS_LINE:
        connection.settimeout(_left(end))
        some = connection.recv(_STATUS_LINE - len(said))
        if not some:
            break
        said += some
    match = _STATUS.match(said)
    if match is None:
        raise LinkError(_CODE, "the answer is not HTTP")
    return int(match[1])


def _to_socket(path: str, body: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.settimeout(SECONDS)
        one.connect(path)
        one.send(_cut(body))


def _cut(body: bytes) -> bytes:
    """As much as a datagram takes, whole characters."""
    return body[:_DATAGRAM].decode("utf-8", "ignore").encode()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


class _coded(contextlib.AbstractContextManager[None]):  # noqa: N801 (read as a verb)
    """Network errors in our own words."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError)):
            why = str(error) or type(error).__name__
            raise LinkError(_CODE, f"{self._where}: {why}") from None
