"""What stands before every page: the Host header, the table of ways, the session, the role, the token, the size.

One ASGI wrapper around the whole application. What it lets through carries `request.state.session`, `.way`, `.t` and
`.form`. Refusals are answers with a code, like everywhere.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devguard.console.headers import guarded_send
from devguard.console.i18n import Translator, chosen
from devguard.console.people import Register
from devguard.console.render import refusal
from devguard.console.sessions import Session, Sessions
from devguard.console.settings import Settings
from devguard.console.table import WAYS, Body, Way
from devguard.console.tokens import Tokens
from devguard.errors import DevguardError, LinkError, Malformed, Refused

LANGUAGE_COOKIE: Final = "devguard-language"
TOKEN_HEADER: Final = "x-csrf-token"  # noqa: S105 (a name)
TOKEN_FIELD: Final = "csrf"  # noqa: S105
_SAFE: Final = frozenset({"GET"})
_MOST_FIELDS: Final = 200


@dataclass(slots=True)
class Guard:
    """The wrapper. `app` is the application, which looks at none of this again."""

    app: ASGIApp
    settings: Settings
    sessions: Sessions
    ways: tuple[Way, ...] = WAYS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Websockets are not spoken here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = guarded_send(send, tls=self.settings.tls)
        request = Request(scope, receive)
        headers = request.headers
        cookies = _cookies(headers)
        request.state.t = Translator(chosen(cookies.get(LANGUAGE_COOKIE), headers.get("accept-language", "")))
        request.state.session, request.state.loopback = None, self.settings.loopback
        try:
            self._check_host(headers)
            way = self._way(request)
            request.state.way = way
            session = self._bearer(headers) if way.api else None
            session = session or self._session(cookies.get(self.settings.cookie), way)
            request.state.session = session
            _check_role(way, session)
            if way.method not in _SAFE:
                if session is None or not session.bearer:
                    self._check_origin(headers)
                receive = await self._check_body(request, way, session, receive)
        except DevguardError as error:
            await refusal(request, error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """A name that some page made point at this machine is not ours (DNS rebinding)."""
        host = headers.get("host", "").lower()
        if host not in self.settings.hosts:
            raise Refused("console.host", "the request names another host than this console's")

    def _way(self, request: Request) -> Way:
        method, path = request.method, request.scope["path"]
        there = [way for way in self.ways if _pattern(way.path).match(path)]
        if not there:
            raise Malformed("console.missing", "there is no such page")
        found = next((way for way in there if way.method == method), None)
        if found is None:
            request.state.allowed = ", ".join(sorted({way.method for way in there}))
            raise Malformed("console.method", "that is not how this page is asked for")
        return found

    def _session(self, cookie: str | None, way: Way) -> Session | None:
        session = self.sessions.find(cookie, passive=way.passive)
        if session is not None and session.registered:
            role = Register(self.settings.folder).role_of(session.person)
            if role is None:
                self.sessions.close(cookie)
                return None
            session.role = role
        return session

    def _bearer(self, headers: Headers) -> Session | None:
        """Who asks with a token (RFC 6750); None where no token was sent. One that is not good never falls back to a
        cookie."""
        given = headers.get("authorization")
        if given is None:
            return None
        scheme, _, secret = given.partition(" ")
        now = self.settings.ticks()
        token = None
        if scheme.lower() == "bearer":
            token = Tokens(self.settings.folder).find(secret.strip(), self.settings.clock())
        if token is None:
            raise Refused("console.login", "the token is none of this console's, or not any more")
        return Session(token.name, token.role, "", now, now, bearer=True)

    def _check_origin(self, headers: Headers) -> None:
        """A changing request comes from a page of this console: the browser says so, in one header or the other."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is None and origin is None:
            raise Refused("console.csrf", "the browser does not say which page the request comes from")
        if site not in (None, "same-origin") or (origin is not None and not self._own(origin, headers)):
            raise Refused("console.csrf", "the request comes from a page of somebody else")

    def _own(self, origin: str, headers: Headers) -> bool:
        scheme = "https" if self.settings.tls else "http"
        return origin.lower() == f"{scheme}://{headers.get('host', '').lower()}"

    async def _check_body(self, request: Request, way: Way, session: Session | None, receive: Receive) -> Receive:
        """The token, and for all but uploads the whole body in bounds, to be read again by the page."""
        request.state.form = {}
        token = request.headers.get(TOKEN_HEADER)
        if way.body is Body.UPLOAD:
            return receive  # its first part is the token, and who reads the parts asks for it: console.uploads
        data = await self._read(request, receive)
        if way.body is Body.FORM:
            request.state.form = _form(request.headers, data)
            token = token or request.state.form.pop(TOKEN_FIELD, None)
        if session is not None:
            check_token(session, token)
        return _again(data)

    async def _read(self, request: Request, receive: Receive) -> bytes:
        limit, data, more = self.settings.limits.form, bytearray(), True
        announced = request.headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > limit:
            raise Refused("console.upload-size", f"a form takes at most {limit} bytes")
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise LinkError("console.upload-slow", "the browser went away before the request was whole")
            data += message.get("body", b"")
            more = message.get("more_body", False)
            if len(data) > limit:
                raise Refused("console.upload-size", f"a form takes at most {limit} bytes")
        return bytes(data)


def check_token(session: Session, token: str | None) -> None:
    """`Refused("console.csrf")` for a changing request without the session's own token; a bearer's is its own."""
    if session.bearer:
        return
    if token is None or not hmac.compare_digest(session.csrf.encode(), token.encode(errors="replace")):
        raise Refused("console.csrf", "the form is not of this session; open the page again")


def _check_role(way: Way, session: Session | None) -> None:
    if way.role is None:
        return
    if session is None:
        raise Refused("console.login", "nobody is signed in here, or the session has ended")
    if session.role < way.role:
        raise Refused("console.role", f"{session.role.label} is not {way.role.label}")


_PATTERNS: Final[dict[str, re.Pattern[str]]] = {}


def _pattern(path: str) -> re.Pattern[str]:
    if path not in _PATTERNS:
        _PATTERNS[path] = compile_path(path)[0]
    return _PATTERNS[path]


def _cookies(headers: Headers) -> dict[str, str]:
    jar = SimpleCookie()
    for line in headers.getlist("cookie"):
        for item in line.split(";"):  # one that does not parse must not take the others with it
            try:
                jar.load(item)
            except CookieError:
                continue
    return {name: morsel.value for name, morsel in jar.items()}


def _form(headers: Headers, data: bytes) -> dict[str, str]:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Malformed("console.request", "the form is not urlencoded")
    try:
        return dict(
            parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
        )
    except ValueError:
        raise Malformed("console.request", "the form does not parse") from None


def _again(data: bytes) -> Receive:
    """A `receive` that gives a body which was read already, once; then the browser's silence."""
    left: Iterator[Message] = iter(
        ({"type": "http.request", "body": data, "more_body": False}, {"type": "http.disconnect"})
    )

    async def receive() -> Message:
        return next(left, {"type": "http.disconnect"})

    return receive
