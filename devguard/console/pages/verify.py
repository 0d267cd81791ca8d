"""Verify: drop a file, read the verdict. `devguard verify` on a private copy that is gone afterwards."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from devguard.console.app import console_of
from devguard.console.render import page
from devguard.console.uploads import Upload, uploaded
from devguard.errors import CODES, DevguardError, Malformed

_ASKED: Final = ("model", "serial", "installed")
_LONGEST: Final = 128


async def show(request: Request) -> Response:
    """The form."""
    return page(request, "verify.html", limit=console_of(request).settings.limits.upload)


async def verdict(request: Request) -> Response:
    """The verdict on what was sent."""
    console = console_of(request)
    async with uploaded(request, console.settings, ("file", "envelope")) as upload:
        args, shown = command(upload)
        answer = await console.commands.ask(args, shown=shown)
    data = answer.data
    if not isinstance(data.get("checks"), list):
        answer.require()
        raise Malformed("console.request", "the command gave no verdict")
    refused = None if data.get("accepted") is True else refusal_in(data)
    return page(
        request,
        "verdict.html",
        name=upload.one("file").name,
        size=upload.one("file").size,
        verdict=data,
        refused=refused,
        cause=CODES[refused.code].cause if refused is not None and refused.code in CODES else None,
        command=answer.shown,
    )


def command(upload: Upload) -> tuple[list[str], list[str]]:
    """The arguments, and the same with the names that the person knows in place of our copies."""
    file, envelope = upload.one("file"), upload.files.get("envelope")
    asked = [
        f"--{name}={value}" for name in _ASKED if (value := upload.fields.get(name, "").strip()) and checked(value)
    ]
    args, shown = ["verify", *asked], ["verify", *asked]
    if envelope is not None:
        args, shown = [*args, f"--envelope={envelope.path}"], [*shown, f"--envelope={envelope.name}"]
    return [*args, str(file.path)], [*shown, file.name]


def checked(value: str) -> str:
    """A value that a person typed, fit for a command's argument; `Malformed("console.request")`."""
    if len(value) > _LONGEST or not value.isprintable():
        raise Malformed("console.request", f"a field has more than {_LONGEST} characters, or some that cannot be seen")
    return value


def refusal_in(data: dict[str, Any]) -> DevguardError:
    """Why a verdict refuses: the check that decided, with the hint of its code."""
    code = str(data.get("code"))
    decided = next((one for one in data["checks"] if not one["ok"] and one.get("code") == code), None)
    return DevguardError(code, str(decided["detail"]) if decided else code)
