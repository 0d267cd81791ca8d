"""Coming in and going out: the one-time link of the bench, a person's own key, the registration of one."""

from __future__ import annotations

import json
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from devguard.console import passkeys
from devguard.console.app import Console, console_of
from devguard.console.guard import LANGUAGE_COOKIE
from devguard.console.i18n import LANGUAGES
from devguard.console.people import Kind
from devguard.console.render import page
from devguard.console.table import Role
from devguard.errors import DevguardError, LinkError, Malformed, Refused

_YEAR = 365 * 86_400
_MOST_CHALLENGES = 1000


async def enter(request: Request) -> Response:
    """The one-time link: used up, and the browser is signed in. Only where the bench itself is the door."""
    console = console_of(request)
    with_limit(console, request)
    if not console.settings.loopback:
        raise Refused("console.login", "links sign nobody in over the network; everybody has a key of their own")
    try:
        ticket = console.register.take(
            Kind.SIGN_IN, request.query_params.get("ticket", ""), int(console.settings.clock())
        )
    except DevguardError:
        console.failures.count(address(request))
        raise
    return signed_in_as(console, RedirectResponse("/", 303), ticket.person, ticket.role)


async def sign_in(request: Request) -> Response:
    """The page that asks for a key, or says how to get in where nobody has one."""
    register = console_of(request).register
    return page(request, "sign_in.html", registered=bool(register.people()))


async def sign_in_options(request: Request) -> Response:
    """A challenge for the authenticator."""
    console = console_of(request)
    with_limit(console, request)
    return JSONResponse(passkeys.sign_in_options(console.settings.name, new_challenge(console)))


async def signed_in(request: Request) -> Response:
    """The authenticator's answer, verified; the cookie."""
    console = console_of(request)
    with_limit(console, request)
    reply = await body(request)
    name, origin = console.settings.name, console.settings.origin
    try:
        challenge = spent_challenge(console, reply)
        key_id = reply.get("id")
        found = console.register.find(key_id, name) if isinstance(key_id, str) else None
        count = passkeys.proven(reply, found, challenge=challenge, name=name, origin=origin)
    except DevguardError:
        console.failures.count(address(request))
        raise
    if found is None:
        raise Refused("console.login", "that key does not sign anybody in here")
    person, key = found
    console.register.count(key.id, count)
    return signed_in_as(console, JSONResponse({"go": "/"}), person.person, person.role, registered=True)


async def enrol(request: Request) -> Response:
    """The page of an invitation. Looking at it does not use it up."""
    console = console_of(request)
    with_limit(console, request)
    ticket = request.query_params.get("ticket", "")
    found = console.register.look(Kind.ENROL, ticket, int(console.settings.clock()))
    if found is None:
        console.failures.count(address(request))
        raise Refused("console.login", "this link was used already, or its time is over")
    return page(request, "enrol.html", invited=found, ticket=ticket)


async def enrol_options(request: Request) -> Response:
    """A challenge for the authenticator of somebody who was invited."""
    console = console_of(request)
    with_limit(console, request)
    ticket = (await body(request)).get("ticket")
    found = console.register.look(Kind.ENROL, str(ticket), int(console.settings.clock()))
    if found is None:
        console.failures.count(address(request))
        raise Refused("console.login", "this link was used already, or its time is over")
    known = tuple(key for one in console.register.people() if one.person == found.person for key in one.keys)
    name = console.settings.name
    return JSONResponse(passkeys.registration_options(name, found.person, new_challenge(console), known))


async def enrolled(request: Request) -> Response:
    """The new key. What registers it is a command, so that it is on record like every other act."""
    console = console_of(request)
    with_limit(console, request)
    given = await body(request)
    reply = given.get("reply")
    if not isinstance(reply, dict):
        raise Malformed("console.request", "not the answer of an authenticator")
    challenge = spent_challenge(console, reply)
    said = {
        "ticket": str(given.get("ticket")),
        "reply": reply,
        "challenge": challenge.hex(),
        "name": console.settings.name,
        "origin": console.settings.origin,
    }
    answer = await console.commands.ask(["serve", "keep"], given=json.dumps(said).encode())
    if answer.error is not None:
        console.failures.count(address(request))
    answer.require()
    return JSONResponse({"go": "/sign-in"})


async def sign_out(request: Request) -> Response:
    """The session is over, here and at the browser."""
    console = console_of(request)
    console.sessions.close(request.cookies.get(console.settings.cookie))
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(console.settings.cookie, secure=console.settings.tls, httponly=True, samesite="strict")
    answer.headers["Clear-Site-Data"] = '"cache", "storage"'
    return answer


async def language(request: Request) -> Response:
    """Another language, and back to the page."""
    wish, back = request.state.form.get("language", ""), request.state.form.get("back", "/")
    if wish not in LANGUAGES:
        raise Malformed("console.request", "no such language")
    if not back.startswith("/") or back.startswith(("//", "/\\")) or not back.isprintable():
        back = "/"
    answer = RedirectResponse(back, 303)
    secure = console_of(request).settings.tls
    answer.set_cookie(LANGUAGE_COOKIE, wish, max_age=_YEAR, secure=secure, httponly=True, samesite="strict")
    return answer


def signed_in_as(console: Console, answer: Response, person: str, role: Role, *, registered: bool = False) -> Response:
    """`answer`, with the cookie of a new session."""
    cookie = console.sessions.open(person, role, registered=registered)
    answer.set_cookie(
        console.settings.cookie, cookie, path="/", secure=console.settings.tls, httponly=True, samesite="strict"
    )
    return answer


def address(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""


def with_limit(console: Console, request: Request) -> None:
    """`LinkError("console.rate")` after too many sign-ins that failed."""
    if not console.failures.allowed(address(request)):
        raise LinkError("console.rate", "too many sign-ins have failed; wait some minutes")


def new_challenge(console: Console) -> bytes:
    """32 bytes that one reply may answer, soon."""
    now = console.settings.ticks()
    kept = {key: end for key, end in console.challenges.items() if end > now}
    while len(kept) >= _MOST_CHALLENGES:
        del kept[next(iter(kept))]
    challenge = secrets.token_bytes(32)
    kept[challenge] = now + console.settings.limits.challenge
    console.challenges = kept
    return challenge


def spent_challenge(console: Console, reply: object) -> bytes:
    """The challenge that a reply answers, used up; `Refused("console.login")` for one that was not asked."""
    challenge = passkeys.challenge_in(reply)
    end = console.challenges.pop(challenge, None)
    if end is None or end <= console.settings.ticks():
        raise Refused("console.login", "the sign-in took too long, or was answered already")
    return challenge


async def body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; `Malformed("console.request")`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Malformed("console.request", "not JSON")
    try:
        data = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Malformed("console.request", "not JSON") from None
    if not isinstance(data, dict):
        raise Malformed("console.request", "not a JSON object")
    return data
