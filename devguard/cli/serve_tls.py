"""Where the console listens, under which name, and with which certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from devguard.cli.loopback import LOCAL
from devguard.custody.files import read_limited
from devguard.errors import DevguardError, LinkError, Refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_LIMIT: Final = 1 << 20
_HEAD: Final = 32 * 1024  # bytes of a request's line and headers
_CONNECTIONS: Final = 512


def listen(bind: str, port: int) -> socket.socket:
    """A listening socket; `LinkError("console.bind")`."""
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            "127.0.0.1" if bind == LOCAL else bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, proto)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(128)
    except (OSError, UnicodeError) as error:
        raise LinkError("console.bind", f"cannot listen on {bind} port {port}: {error}") from None
    made.set_inheritable(False)
    return made


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the console is to browsers: its name (the WebAuthn relying party), other names, TLS or none."""

    name: str
    others: tuple[str, ...]
    tls: tuple[Path, Path] | None

    @classmethod
    def load(cls, cert: Path | None, key: Path | None, name: str | None, *, loopback: bool) -> Identity:
        """From what was given; `Refused("console.tls")` beyond loopback without TLS, or for a pair that is none."""
        if cert is None or key is None:
            if cert is not key:
                raise Refused("console.tls", "a certificate and its key go together", "give --tls-cert and --tls-key")
            if not loopback:
                raise Refused("console.tls", "beyond this machine the console is served over TLS only")
            return cls(LOCAL, ("127.0.0.1", "[::1]"), None)
        _check_pair(cert, key)
        names = _names(cert)
        first = name or next((one for one in names if not _is_address(one)), None)
        if first is None:
            raise Refused("console.tls", "the certificate names no host", "say what browsers call it: --name NAME")
        more = (LOCAL, "127.0.0.1", "[::1]") if loopback else ()
        return cls(first.lower(), tuple(one.lower() for one in (*names, *more)), (cert, key))

    def origin(self, port: int) -> str:
        """As browsers spell it."""
        return f"{self._scheme}://{self._with(self.name, port)[-1]}"

    def address(self, host: str, port: int) -> str:
        """What a person opens: the name under TLS, the address on loopback."""
        shown = f"[{host}]" if ":" in host else host
        return self.origin(port) if self.tls else f"{self._scheme}://{self._with(shown, port)[-1]}"

    def hosts(self, port: int) -> frozenset[str]:
        """Every Host header that means this console."""
        return frozenset(one for name in (self.name, *self.others) for one in self._with(name, port))

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"

    def _with(self, name: str, port: int) -> tuple[str, ...]:
        """The name with its port; for the scheme's own port the bare name last, which is how browsers write it."""
        usual = port == (443 if self.tls else 80)
        return (f"{name}:{port}", name) if usual else (f"{name}:{port}",)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _check_pair(cert: Path, key: Path) -> None:
    """The pair loads, and its private half is closed to others."""
    try:
        if os.stat(key).st_mode & 0o007:
            raise Refused("console.tls", f"{key} can be read by everybody on this machine", f"chmod 600 {key}")
        tls_context(cert, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Refused("console.tls", f"certificate and key do not load: {error}") from None


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context


def _names(cert: Path) -> tuple[str, ...]:
    """The names in a certificate (subjectAltName)."""
    from cryptography import x509

    try:
        loaded = x509.load_pem_x509_certificate(read_limited(cert, _LIMIT))
        found = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (ValueError, DevguardError) as error:
        raise Refused("console.tls", f"{cert} cannot be read: {error}") from None
    hosts = [one for one in found.get_values_for_type(x509.DNSName) if "*" not in one]
    addresses = [f"[{one}]" if one.version == 6 else str(one) for one in found.get_values_for_type(x509.IPAddress)]
    return (*hosts, *addresses)


def configured(app: ASGIApp, identity: Identity) -> uvicorn.Config:
    """The server's settings: no access log (a link's ticket is in its URL), no proxy's word, no websockets."""
    config = uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="warning",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_HEAD,
    )
    config.load()
    if identity.tls is not None:
        config.ssl = tls_context(*identity.tls)
    return config


class Patient(H11Protocol):
    """HTTP whose requests have to begin in time: line and headers that drip in hold no connection for ever."""

    seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A browser is there; it has something to say soon, or goes."""
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Some bytes; they are the whole head of a request, or the clock runs."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._end()

    def _wait(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._end()
        elif self._head is None:
            self._head = self.loop.call_later(self.seconds, self.transport.close)

    def _end(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Server(uvicorn.Server):
    """Ends on SIGTERM and SIGINT as asked, with nothing raised again afterwards: that is how a console ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Our own handlers while it serves; what was there before is put back."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
