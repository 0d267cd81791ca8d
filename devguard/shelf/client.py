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

from devguard.custody.files import read_limited, write_atomic
from devguard.errors import Malformed, Refused
from devguard.shelf.faults import coded
from devguard.shelf.fetch import TARGETS, ShelfFetcher
from devguard.shelf.freshness import Freshness, read_freshness
from devguard.shelf.limits import LIMITS, Limits
from devguard.shelf.names import BINS, line_of, prefixed, release_target
from devguard.shelf.source import Source
from devguard.shelf.store import Stage, Store
from devguard.shelf.view import View
from devguard.trust.document import read_trust

_VERSIONED = re.compile(r"metadata/[0-9]+\.(.+)")


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


class Kept:
    """The source that has only what is kept already: verifying without a network."""

    def __init__(self, metadata: Path, limits: Limits) -> None:
        self._metadata = metadata
        self._limits = limits

    @property
    def label(self) -> str:
        """The folder."""
        return str(self._metadata)

    def open(self, path: str) -> Iterator[bytes] | None:
        """The file without its version; no root beyond those kept."""
        name = _VERSIONED.sub(r"metadata/\1", path)
        file = self._metadata.parent / name
        if not path.startswith("metadata/") or name.endswith("/root.json") or not file.is_file():
            return None
        return iter((read_limited(file, self._limits.targets_size),))


class Shelf:
    """The shelf as one bench follows it, its state in `folder`."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.store = Store(folder, limits)
        self._limits = limits

    def refresh(
        self, source: Source, now: int, accept: Callable[[Mapping[int, bytes]], None] | None = None
    ) -> Refreshed:
        """Take what is new. `accept` is shown every trust document by version before anything is kept, and refuses
        by raising. Raises what `faults.coded` lists, `shelf.missing`, `shelf.not-yet`, `trust.rollback`.
        """
        with self.store.staged() as stage:
            view = View(stage.metadata, self.store.pinned(), source, self._limits)
            fresh, changed = self._update(view, now)
            documents = self._trust(view, stage)
            if accept is not None:
                accept(documents)
            stage.commit()
            self.store.remember(source.label)
            return Refreshed(fresh, view.fetcher.received, max(documents, default=0), changed)

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
            current = self.store.current()
            if current is None:
                raise Refused(
                    "shelf.missing", "no shelf was refreshed here yet", "run devguard shelf refresh --from PLACE"
                )
            view = View(stage.metadata, self.store.pinned(), Kept(current / "metadata", self._limits), self._limits)
            fresh = view.refresh(now)
            for model in view.lines():
                view.load(model)
            yield view, fresh

    @contextmanager
    def release(self, source: Source, model: str, version: str, now: int) -> Iterator[IO[bytes]]:
        """The envelope of one release in an unnamed file, length and hashes verified, at position 0.

        The shelf is refreshed first, so a release that was taken off it is not found: `Refused("shelf.missing")`.
        """
        path = release_target(model, version)
        self.refresh(source, now)
        with self.kept(now) as (kept, _):
            info = kept.find(path)
        if info is None:
            raise Refused(
                "shelf.missing", f"{model} {version} is not on the shelf", "devguard shelf list shows what is"
            )
        with open_target(ShelfFetcher(source), info, self._limits.release_size) as file:
            yield file

    def trust_document(self, version: int) -> bytes:
        """A trust document that a refresh kept."""
        current = self.store.current()
        if current is None:
            raise Refused("shelf.missing", "no shelf was refreshed here yet", "run devguard shelf refresh --from PLACE")
        return read_limited(current / "trust" / f"{version}.trust", self._limits.trust_size)

    def freshness(self) -> Freshness | None:
        """How fresh what is kept is, as it was when it was stored; None before the first refresh."""
        current = self.store.current()
        return None if current is None else read_freshness(current / "metadata")

    def _update(self, view: View, now: int) -> tuple[Freshness, tuple[str, ...]]:
        """Refresh, then load every role that changed; all of them when what delegates to them did."""
        before = _versions(view)
        fresh = view.refresh(now)
        after = view.snapshot()
        current = self.store.current()
        roots = None if current is None else read_freshness(current / "metadata").root_version
        every = roots != fresh.root_version or before.get("targets") != after.get("targets")
        changed = tuple(name for name, version in after.items() if before.get(name) != version)
        for model in view.lines():
            named = {line_of(role)[1] for role in changed if role != "targets" and line_of(role)[0] == model}
            digits = BINS if every or None in named else "".join(sorted(one for one in named if one))
            if digits:
                view.load(model, digits)
                view.releases(model, digits)
        return fresh, changed

    def _trust(self, view: View, stage: Stage) -> dict[int, bytes]:
        """Every trust document of the shelf, new ones fetched; none that was there may be gone or another."""
        kept = {int(path.stem): path for path in stage.trust.glob("*.trust") if path.stem.isdigit()}
        listed = view.trust_documents()
        if max(kept, default=0) > max(listed, default=0):
            raise Refused("trust.rollback", f"the shelf once had version {max(kept)} of the trust document")
        found = {}
        for version, info in listed.items():
            path = kept.get(version)
            if path is not None:
                data = read_limited(path, self._limits.trust_size)
                try:
                    info.verify_length_and_hashes(data)
                except LengthOrHashMismatchError:
                    raise Refused("trust.rollback", f"version {version} of the trust document became another") from None
            else:
                data = self._fetch_trust(view, version, info)
                write_atomic(stage.trust / f"{version}.trust", data)
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
    digest = info.hashes.get("sha256")
    if digest is None or not re.fullmatch("[0-9a-f]{64}", digest):
        raise Malformed("shelf.malformed", f"{info.path[:120]} has no SHA-256 on the shelf")
    with ExitStack() as stack:
        with coded(fetcher, Path(tempfile.gettempdir())):
            file = stack.enter_context(fetcher.download_file(TARGETS + prefixed(info.path, digest), info.length))
            info.verify_length_and_hashes(file)
            file.seek(0)
        yield file


def _versions(view: View) -> Mapping[str, int]:
    """The role versions kept before this refresh; nothing where nothing was kept."""
    return view.snapshot() if (view.folder / "snapshot.json").is_file() else {}


def _sequence(info: TargetFile) -> int | None:
    custom: Any = info.custom
    value = custom.get("sequence") if isinstance(custom, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
