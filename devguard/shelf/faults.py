"""What the tuf package refuses, in devguard's codes. No foreign exception crosses the room's door.

The exception says what kind of rule was broken, the file asked for last says where: the same kind of error is a
rollback in a timestamp and a mix in a targets file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import StorageError
from tuf.api import exceptions
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError

from devguard.custody.files import file_error
from devguard.errors import DevguardError, LinkError, Malformed, Refused
from devguard.shelf.fetch import ShelfFetcher


@contextmanager
def coded(fetcher: ShelfFetcher, folder: Path) -> Iterator[None]:
    """Run a step of the tuf client; `folder` is its metadata folder. Raises `DevguardError` and nothing else:

    `shelf.signature`, `shelf.malformed`, `shelf.freeze`, `shelf.mix`, `shelf.endless`, `shelf.unreachable`,
    `version.rollback`, `trust.rollback` and `trust.gap` (of the root), `file.unreadable`, and what a source raises.
    """
    try:
        yield
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        raise _coded(error, fetcher, folder) from error
    except OSError as error:
        raise file_error(folder, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed("shelf.malformed", f"{_last(fetcher)}: {type(error).__name__}") from error


def _last(fetcher: ShelfFetcher) -> str:
    return fetcher.asked[-1] if fetcher.asked else "the pinned root"


def _coded(error: Exception, fetcher: ShelfFetcher, folder: Path) -> DevguardError:
    where, what = _last(fetcher), str(error)
    if isinstance(error, exceptions.DownloadLengthMismatchError):
        return Refused("shelf.endless", f"{where}: {what}")
    if isinstance(error, exceptions.SlowRetrievalError):
        return LinkError("shelf.slow", f"{where}: {what}")
    if isinstance(error, exceptions.DownloadError):
        return LinkError("shelf.unreachable", f"{where}: {what}")
    if isinstance(error, DeserializationError):
        return Malformed("shelf.malformed", f"{where}: {what}")
    if isinstance(error, exceptions.UnsignedMetadataError):
        return Refused("shelf.signature", f"{where}: {what}")
    if isinstance(error, exceptions.ExpiredMetadataError):
        return Refused("shelf.freeze", what)
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        kind = "image.digest" if where.startswith("targets/") else "shelf.mix"
        return Refused(kind, f"{where}: {what}")
    if isinstance(error, exceptions.BadVersionNumberError):
        return _version(where, what, fetcher, folder)
    return Refused("shelf.mix", f"{where}: {what}")


def _version(where: str, what: str, fetcher: ShelfFetcher, folder: Path) -> DevguardError:
    if re.fullmatch(r"metadata/\d+\.root\.json", where):
        found = _number(fetcher.last)
        asked = int(where.partition("/")[2].partition(".")[0])
        return Refused("trust.gap" if found > asked else "trust.rollback", f"{where}: {what}")
    if where.endswith("timestamp.json"):
        return Refused("version.rollback", f"{where}: {what}")
    if where.endswith("snapshot.json") and _number(fetcher.last) == _announced(folder):
        return Refused("version.rollback", f"{where}: {what}")
    return Refused("shelf.mix", f"{where}: {what}")


def _number(data: bytes) -> int:
    """The version that unverified metadata claims, for telling refusals apart; 0 where it claims none."""
    try:
        return int(Metadata[Any].from_bytes(data).signed.version)
    except DeserializationError:
        return 0


def _announced(folder: Path) -> int:
    """The version of the snapshot that the verified timestamp announces."""
    try:
        signed = Metadata[Any].from_file(str(folder / "timestamp.json")).signed
        return int(signed.snapshot_meta.version)
    except (DeserializationError, StorageError):
        return 0
