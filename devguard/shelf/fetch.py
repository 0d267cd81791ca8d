"""The tuf client's way to a source: every path checked before it is asked for, every byte counted.

The tuf package caps what it takes of a file; this says by name which file was the last, which is how a refusal is
told apart (`faults`).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Final

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from devguard.errors import Refused
from devguard.shelf.limits import Limits
from devguard.shelf.names import check_path
from devguard.shelf.source import Source

BASE: Final = "shelf:///"
METADATA: Final = f"{BASE}metadata/"
TARGETS: Final = f"{BASE}targets/"
_REMEMBERED: Final = 1 << 20


class ShelfFetcher(FetcherInterface):
    """A fetcher over one `Source`. `received`: bytes so far; `asked`: paths in order; `last`: bytes of the last
    metadata file, as they came, for telling refusals apart and for nothing else."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limit = limits.metadata_size
        self._metadata = 0
        self.received = 0
        self.asked: list[str] = []
        self._last = bytearray()

    @property
    def last(self) -> bytes:
        """The last metadata file."""
        return bytes(self._last)

    def _fetch(self, url: str) -> Iterator[bytes]:
        # A generator on purpose: the tuf package would wrap what is raised before the first byte.
        path = check_path(urllib.parse.unquote(url.removeprefix(BASE)))
        self.asked.append(path)
        self._last.clear()
        chunks = self._source.open(path)
        if chunks is None:
            raise DownloadHTTPError(f"{path} is not there", 404)
        for chunk in chunks:
            self.received += len(chunk)
            if path.startswith("metadata/"):
                self._remember(chunk)
            yield chunk

    def _remember(self, chunk: bytes) -> None:
        self._metadata += len(chunk)
        if self._metadata > self._limit:
            raise Refused("shelf.endless", f"more than {self._limit} bytes of metadata from the shelf")
        if len(self._last) < _REMEMBERED:
            self._last += chunk  # in place: a copy each time would let one-byte chunks cost hours


def updater_config(limits: Limits) -> UpdaterConfig:
    """The tuf client's limits from ours."""
    return UpdaterConfig(
        max_root_rotations=limits.root_rotations,
        max_delegations=limits.delegations,
        root_max_length=limits.root_size,
        timestamp_max_length=limits.timestamp_size,
        snapshot_max_length=limits.snapshot_size,
        targets_max_length=limits.targets_size,
        prefix_targets_with_hash=True,
    )
