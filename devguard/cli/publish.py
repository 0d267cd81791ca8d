"""`devguard release publish`: put a signed release on a shelf. The same as `devguard shelf publish`."""

from __future__ import annotations

from devguard.cli.shelf_make import publish

__all__ = ["publish"]
