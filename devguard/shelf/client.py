"""A bench's reader of a shelf: refresh, list, get. Everything it gives out, the tuf client has verified.

`refresh` takes new metadata and trust documents from a source; `listing` verifies again, without any network, what
is kept; `release` refreshes, then hands out one envelope. Whether an envelope is good is the verdict's to say, not
the shelf's. Source: TUF 1.0.34 section 5 (the client's workflow).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from devguard.errors import Refused
from devguard.shelf.faults import coded
from devguard.shelf.fetch import TARGETS, ShelfFetcher
from devguard.shelf.freshness import Freshness
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.names import BINS, bin_role, line_of, prefixed, release_target
from devguard.shelf.source import Source
from devguard.shelf.state import State
from devguard.shelf.store import Stage, Store
from devguard.shelf.view import View, check_root
from devguard.trust.document import read_trust

_METADATA = re.compile(r"metadata/(?:[0-9]+\.)?(.+)\.json")
_NEVER = "no shelf was refreshed here yet", "run devguard shelf refresh --from PLACE"


@dataclass(frozen=True, slots=True)
class Row:
    """One release on the shelf. `sequence` is what the shelf says of it; the verdict reads the envelope's own."""

    model: str
    version: str
    sequence: int | None
    size: int


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh found. `trust_version`: the newest trust document on the shelf, 0 for none."""

    freshness: Freshness
    received: int
    trust_version: int
    new_roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a refresh has verified and not kept yet. `documents`: every trust document of the shelf, by version;
    `keep`: keep it all, durable on return. Without that call nothing is kept."""

    found: Refreshed
    documents: Mapping[int, bytes]
    keep: Callable[[], None]


Accept = Callable[[Offer], None]


def taken(offer: Offer) -> None:
    """Keep whatever was verified."""
    offer.keep()


class Kept:
    """The source that has only what is kept already: verifying without a network."""

    label = "what is kept"

    def __init__(self, state: State) -> None:
        self._state = state

    def open(self, path: str) -> Iterator[bytes] | None:
        """The file without its version; no root beyond those kept."""
        found = _METADATA.fullmatch(path)
        data = self._state.roles.get(found[1]) if found else None
        return None if data is None else iter((data,))

    def close(self) -> None:
        """Nothing is kept open."""


class Shelf:
    """The shelf as one bench follows it, its state in `folder`."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.store = Store(folder, limits)
        self._limits = limits

    def refresh(
        self,
        source: Source,
        now: int,
        accept: Accept = taken,
        *,
        root: bytes | None = None,
    ) -> Refreshed:
        """Take what is new. `accept` is shown it before anything is kept, and refuses by raising, before or after it
        called `Offer.keep`. `root`: pinned when this is the first refresh and it succeeds.

        Raises what `faults.coded` lists, `shelf.missing`, `shelf.pinned`, `shelf.not-yet`, `trust.rollback`.
        """
        pinned = root is not None and self._pin(root)
        done = False
        try:
            with self.store.staged() as stage:
                view = View(stage.metadata, self.store.pinned(), source, self._limits)
                fresh, changed = self._update(view, stage, now)
                documents = self._trust(view, stage)
                found = Refreshed(fresh, view.fetcher.received, max(documents, default=0), changed)
                offer = Offer(
                    found, documents, lambda: stage.commit(view.verified, view.lines(), documents, source.label)
                )
                try:
                    accept(offer)
                    done = stage.committed
                finally:
                    if not done:
                        stage.undo()
        finally:
            if pinned and not done:
                self.store.unpin()
        return found

    def _pin(self, root: bytes) -> bool:
        check_root(root)
        return self.store.pin(root)

    def listing(self, now: int) -> tuple[Freshness, list[Row]]:
        """Every release that is kept, each signature and expiry verified again, nothing asked of anybody."""
        with self.kept(now) as (view, fresh):
            rows = [
                Row(model, version, _sequence(info), info.length)
                for model in view.lines()
                for version, info in view.releases(model).items()
            ]
        return fresh, sorted(rows, key=lambda row: (row.model, row.sequence or 0, row.version))

    @contextmanager
    def kept(self, now: int) -> Iterator[tuple[View, Freshness]]:
        """A verified view of what is kept; nothing is written. `Refused("shelf.missing")` before the first refresh."""
        with self.store.staged() as stage:
            if stage.kept is None:
                raise Refused("shelf.missing", *_NEVER)
            stage.lay(stage.kept.roles)
            view = View(stage.metadata, self.store.pinned(), Kept(stage.kept), self._limits)
            fresh = view.refresh(now)
            for model in view.lines():
                view.load(model)
            yield view, fresh

    @contextmanager
    def release(
        self,
        source: Source,
        model: str,
        version: str,
        now: int,
        accept: Accept = taken,
    ) -> Iterator[IO[bytes]]:
        """The envelope of one release in an unnamed file, length and hashes verified, at position 0.

        The shelf is refreshed first, so a release that was taken off it is not found: `Refused("shelf.missing")`.
        """
        path = release_target(model, version)
        self.refresh(source, now, accept)
        with self.kept(now) as (kept, _):
            info = kept.find(path)
        if info is None:
            raise Refused(
                "shelf.missing", f"{model} {version} is not on the shelf", "devguard shelf list shows what is"
            )
        with open_target(ShelfFetcher(source, self._limits), info, self._limits.release_size) as file:
            yield file

    def trust_document(self, version: int) -> bytes:
        """A trust document that a refresh kept."""
        state = self.store.state()
        data = None if state is None else state.trust.get(version)
        if data is None:
            raise Refused("shelf.missing", *_NEVER)
        return data

    def freshness(self) -> Freshness | None:
        """How fresh what is kept is, as it was when it was stored; None before the first refresh."""
        return self.store.freshness()

    def _update(self, view: View, stage: Stage, now: int) -> tuple[Freshness, tuple[str, ...]]:
        """Refresh, then load every role that changed; all of them when what delegates to them did."""
        before = view.snapshot() if stage.kept is not None else {}
        fresh = view.refresh(now)
        after = view.snapshot()
        every = stage.before.newest_root != view.root_bytes() or before.get("targets") != after.get("targets")
        changed = tuple(name for name, info in after.items() if before.get(name) != info)
        bins: dict[str, set[str | None]] = {}
        for role in changed:
            if role != "targets":
                model, digit = line_of(role)
                bins.setdefault(model, set()).add(digit)
        for model in view.lines():
            named = bins.get(model, set())
            digits = BINS if every or None in named else "".join(sorted(one for one in named if one))
            if digits:
                wanted = {model, *(bin_role(model, digit) for digit in digits)}
                stage.lay(role for role in wanted if before.get(role) == after.get(role))
                view.load(model, digits)
        return fresh, changed

    def _trust(self, view: View, stage: Stage) -> dict[int, bytes]:
        """Every trust document of the shelf, new ones fetched; none that was there may be gone or another."""
        kept, listed = stage.before.trust, view.trust_documents()
        if max(kept, default=0) > max(listed, default=0):
            raise Refused("trust.rollback", "the newest trust document is gone from the shelf")
        found: dict[int, bytes] = {}
        for version, info in sorted(listed.items()):
            data = kept.get(version)
            if data is None:
                found[version] = self._fetch_trust(view, version, info)
                continue
            try:
                info.verify_length_and_hashes(data)
            except LengthOrHashMismatchError:
                raise Refused("trust.rollback", f"version {version} of the trust document became another") from None
            found[version] = data
        return found

    def _fetch_trust(self, view: View, version: int, info: TargetFile) -> bytes:
        with open_target(view.fetcher, info, self._limits.trust_size) as file:
            data = file.read()
        if read_trust(data).version != version:
            raise Refused("shelf.mix", f"{info.path} holds another version of the trust document")
        return data


@contextmanager
def open_target(fetcher: ShelfFetcher, info: TargetFile, limit: int) -> Iterator[IO[bytes]]:
    """A target's bytes in an unnamed file, verified, at position 0.

    Raises `shelf.endless` when the shelf announces more than `limit`, `shelf.malformed` without a SHA-256,
    `image.digest` for other bytes than announced, and what a source raises.
    """
    if info.length > limit:
        raise Refused("shelf.endless", f"{info.path[:120]}: {info.length} bytes announced; at most {limit} are taken")
    path = TARGETS + prefixed(info.path, info.hashes)
    with ExitStack() as stack:
        with coded(fetcher, Path(tempfile.gettempdir())):
            file = stack.enter_context(fetcher.download_file(path, info.length))
            info.verify_length_and_hashes(file)
            file.seek(0)
        yield file


def _sequence(info: TargetFile) -> int | None:
    custom: Any = info.custom
    value = custom.get("sequence") if isinstance(custom, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
