"""Stylesheet, script and icon. The URL changes with the content, so a browser may keep them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from devguard.console.render import static
from devguard.errors import Malformed


async def asset(request: Request) -> Response:
    """One of the console's own files."""
    try:
        data, kind, _ = static(request.path_params["name"])
    except KeyError:
        raise Malformed("console.missing", "there is no such file") from None
    return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=31536000, immutable"})
