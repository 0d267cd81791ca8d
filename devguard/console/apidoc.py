"""What the OpenAPI description says of a way of the API, and the shapes that the ways answer with.

The shapes are those of the command line's `--json` where it has one; `docs/http-api.md` says which. FastAPI makes the
description from the handlers' types; what every way has in common is added here.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Query
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.routing import BaseRoute

from devguard.console.shapes import Nothing
from devguard.console.table import Way

VERSION: Final = "1"


class FaultBody(BaseModel):
    """Why not: a stable code (see `docs/refusal-codes.md`), what was found, what to do."""

    code: str
    message: str
    hint: str


class Fault(BaseModel):
    """A refusal, as the command line's `--json` prints it."""

    error: FaultBody


MEANS: Final = {
    400: "The request does not parse, or a parameter is none of those described here.",
    401: "No token, or one that is not good (any more).",
    403: "The role of the token does not allow this, or devguard refused it.",
    404: "There is no such thing.",
    408: "The upload stopped, or came too slowly.",
    409: "What the answer would stand on does not hold or is not there: evidence log, ledger or trust document.",
    413: "The body is larger than is taken.",
    421: "The request names another host than the console's own.",
    429: "Too many at once, or too many that failed.",
    500: "A bug in devguard.",
    503: "A file, disk or database cannot be read now; trying again may help.",
    507: "The disk has no room.",
}
_ALWAYS: Final = (400, 401, 403, 409, 421, 500, 503)
SECURITY: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"session": []}]
Handler = Callable[..., Any]


def documented(
    *more: int, body: dict[str, Any] | None = None, text: str | None = None, tag: str = ""
) -> Callable[[Handler], Handler]:
    """Mark a handler with what its types do not say: further statuses, a body of its own, an answer that is text of
    that media type."""

    def mark(handler: Handler) -> Handler:
        handler.documented = (more, body, text, tag)  # type: ignore[attr-defined]
        return handler

    return mark


def no_parameters(asked: Annotated[Nothing, Query()]) -> None:
    """Refuse any parameter, for a way that has none."""


def described(way: Way, handler: Handler) -> dict[str, Any]:
    """The options of `FastAPI.add_api_route` for a way."""
    more, body, text, tag = getattr(handler, "documented", ((), None, None, ""))
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": Fault, "description": MEANS[status]} for status in sorted({*_ALWAYS, *more})
    }
    if text is not None:
        responses[200] = {"content": {text: {"schema": {"type": "string"}}}, "description": "The text."}
    extra: dict[str, Any] = {"security": SECURITY if way.role is not None else []}
    if body is not None:
        extra["requestBody"] = body
    doc = (handler.__doc__ or "").strip()
    return {
        "responses": responses,
        "openapi_extra": extra,
        "summary": doc.partition("\n")[0].rstrip("."),
        "description": doc,
        "operation_id": handler.__name__,
        "tags": [tag] if tag else None,
        "dependencies": [] if "asked" in signature(handler).parameters else [Depends(no_parameters)],
    }


def openapi(app: FastAPI, routes: list[BaseRoute]) -> dict[str, Any]:
    """The whole description."""
    found: dict[str, Any] = get_openapi(
        title="devguard",
        version=VERSION,
        summary="What a devguard console knows, for programs.",
        description="Read-only; `verify` keeps nothing. A token: `devguard serve token NAME --role viewer`.",
        routes=routes,
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            if operation["responses"].get("200", {}).get("content", {}).keys() > {"application/json"}:
                del operation["responses"]["200"]["content"]["application/json"]
    found["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "Made by `devguard serve token`."},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": app.state.console.settings.cookie,
            "description": "A signed-in browser; a changing request carries its `X-CSRF-Token` too.",
        },
    }
    return found
