"""The first page: what can be done here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from devguard.console.render import page


async def show(request: Request) -> Response:
    """What can be done here, by this person."""
    return page(request, "start.html")
