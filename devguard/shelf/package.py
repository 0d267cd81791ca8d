"""Whether the `tuf` package is here. The rest of devguard works without it; the shelf does not."""

from __future__ import annotations

import importlib.util

from devguard.errors import Refused


def need_tuf() -> None:
    """Return when the `tuf` package can be imported, else `Refused("shelf.package")` with the way to install it."""
    if importlib.util.find_spec("tuf") is None:
        raise Refused("shelf.package", "the shelf needs the tuf package, which is not installed here")
