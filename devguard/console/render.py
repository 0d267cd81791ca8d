"""Templates: one environment, autoescaped, undefined names refused; and the way a refusal is shown.

A template gets `t` (a text by its key), `lang`, `session`, `role`, `csrf`, `path`, `nav`, `asset` and what the page
hands in. Texts stand in the catalogues only; a test finds the ones that do not.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from devguard.console.i18n import LANGUAGES, Translator
from devguard.console.sessions import Session
from devguard.console.table import NAVIGATION, Role, Way
from devguard.errors import CODES, DevguardError, Exit

STATIC: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_STATUS: Final = {
    "console.login": 401,
    "console.role": 403,
    "console.csrf": 403,
    "console.host": 421,
    "console.missing": 404,
    "console.method": 405,
    "console.request": 400,
    "console.upload": 400,
    "console.upload-size": 413,
    "console.upload-slow": 408,
    "console.disk": 507,
    "console.busy": 409,
    "console.rate": 429,
    "console.run": 404,
    "console.slow": 503,
    "incident.unknown": 404,
    "campaign.unknown": 404,
    "log.missing": 404,
}
_GROUND: Final = ("log", "ledger", "trust", "memory")  # what every answer stands on, by the first word of a code
_BY_EXIT: Final = {Exit.REFUSED: 403, Exit.MALFORMED: 400, Exit.RETRY: 503, Exit.DEVICE: 403, Exit.INTERNAL: 500}


@cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=PackageLoader("devguard.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.filters["moment"] = moment
    made.filters["iso"] = iso
    return made


def moment(seconds: float) -> str:
    """A time for people, in UTC as everywhere in devguard."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(seconds: float) -> str:
    """A time for <time datetime>."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def static(name: str) -> tuple[bytes, str, str]:
    """(bytes, media type, version) of a file that the console serves; KeyError for any other name."""
    kind = STATIC[name]
    data = files("devguard.console").joinpath("static", name).read_bytes()
    return data, kind, hashlib.sha256(data).hexdigest()[:16]


def asset(name: str) -> str:
    """The URL of a static file; it changes with its content, so that browsers may keep it."""
    return f"/static/{name}?v={static(name)[2]}"


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page, in the language of its reader."""
    return HTMLResponse(rendered(request, template, **values), status)


def rendered(request: Request, template: str, **values: Any) -> str:
    """A template's text; for pages and for the parts that arrive by server-sent events."""
    t: Translator = request.state.t
    session: Session | None = request.state.session
    given = {
        "t": t,
        "lang": t.language,
        "languages": LANGUAGES,
        "session": session,
        "role": session.role if session else None,
        "Role": Role,
        "csrf": session.csrf if session else "",
        "path": request.url.path,
        "nav": [entry for entry in NAVIGATION if session and session.role >= entry.role],
        "asset": asset,
        "loopback": request.state.loopback,
    }
    return environment().get_template(template).render({**given, **values})


def status_of(error: DevguardError) -> int:
    """The HTTP status of a refusal; docs/http-api.md has the map."""
    if error.code in _STATUS:
        return _STATUS[error.code]
    if error.exit_status is not Exit.RETRY and error.code.partition(".")[0] in _GROUND:
        return 409
    return _BY_EXIT.get(error.exit_status, 403)


def refusal(request: Request, error: DevguardError) -> Response:
    """A refusal as the one who asked can read it: a page, or the contract's JSON."""
    way: Way | None = getattr(request.state, "way", None)
    status = status_of(error)
    api = way.api if way is not None else request.url.path.startswith("/api/")
    if api or "application/json" in request.headers.get("accept", ""):
        fault = {"code": error.code, "message": error.message, "hint": error.hint}
        answer: Response = JSONResponse({"error": fault}, status)
    else:
        info = CODES.get(error.code)
        answer = page(request, "refusal.html", status, error=error, cause=info.cause if info else None)
    if (allowed := getattr(request.state, "allowed", None)) is not None:
        answer.headers["Allow"] = allowed
    if status == 401 and api:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
