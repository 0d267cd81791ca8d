"""The extra `web`: asked for before anything of it is imported."""

from __future__ import annotations

import importlib.util
import os
from typing import Final

from devguard.errors import Refused

_NEEDED: Final = (
    ("fastapi", "fastapi"),
    ("jinja2", "jinja2"),
    ("python_multipart", "python-multipart"),
    ("segno", "segno"),
    ("sse_starlette", "sse-starlette"),
    ("uvicorn", "uvicorn"),
    ("webauthn", "webauthn"),
)


def need_web() -> None:
    """Return when the console can be served; `Refused("console.package")` naming what is not installed."""
    if os.name != "posix":
        raise Refused("console.package", "the console holds its runs by means of POSIX systems", "serve it on one")
    lacking = [name for module, name in _NEEDED if importlib.util.find_spec(module) is None]
    if lacking:
        raise Refused("console.package", f"not installed: {', '.join(lacking)}")
