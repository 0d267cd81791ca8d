"""Where a shelf's bytes come from: a folder (a USB stick, a share) or a web server. Nothing here believes them.

A source gives the bytes of a path below the shelf, or None where there are none. Sizes are capped by who reads;
time is capped in `web`. A folder's files must be regular files: a pipe on a stick would hang the bench.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from devguard.custody.files import file_error, open_regular
from devguard.errors import Malformed
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.web import WebSource


class Source(Protocol):
    """A place with a shelf."""

    @property
    def label(self) -> str:
        """What a person calls it: a path or a URL."""

    def open(self, path: str) -> Iterator[bytes] | None:
        """The bytes of `path`, a checked path below the shelf; None where there is no such file.

        Raises `LinkError("shelf.unreachable")`, `LinkError("shelf.slow")`, `file.unreadable`.
        """

    def close(self) -> None:
        """Let go of what is kept open between files. It can still be read afterwards."""


def source_of(text: str, limits: Limits = LIMITS) -> Source:
    """The source a person names: an http(s) URL, a file URL, or a folder. `Malformed("file.missing")` for a folder
    that is not there, `Malformed("shelf.malformed")` for another kind of URL, or one with a password: where a shelf
    was found is kept and recorded."""
    parts = _split(text) if "://" in text else None
    if parts is not None and parts.scheme in ("http", "https") and parts.hostname:
        if parts.username is not None or parts.password is not None:
            raise Malformed("shelf.malformed", f"the URL of a shelf on {parts.hostname} holds a user name or password")
        return WebSource(text, limits)
    if parts is not None and parts.scheme != "file":
        raise Malformed("shelf.malformed", f"{text[:120]!r} is neither a folder nor an http(s) URL")
    folder = Path(urllib.parse.unquote(parts.path) if parts is not None else text)
    if not folder.is_dir():
        raise Malformed("file.missing", f"{folder} is not a folder")
    return FolderSource(folder, limits)


class FolderSource:
    """A shelf in a folder."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self._folder = folder
        self._limits = limits

    @property
    def label(self) -> str:
        """The folder."""
        return str(self._folder.absolute())

    def open(self, path: str) -> Iterator[bytes] | None:
        """Regular files only."""
        try:
            descriptor = open_regular(self._folder / path)
        except Malformed as error:
            if error.code == "file.missing":
                return None
            raise
        return self._read(descriptor, path)

    def close(self) -> None:
        """Nothing is kept open."""

    def _read(self, descriptor: int, path: str) -> Iterator[bytes]:
        try:
            while chunk := os.read(descriptor, self._limits.chunk):
                yield chunk
        except OSError as error:
            raise file_error(self._folder / path, error) from None
        finally:
            os.close(descriptor)


def _split(text: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(text)
    except ValueError as error:
        raise Malformed("shelf.malformed", f"{text[:120]!r} is no URL: {error}") from None
