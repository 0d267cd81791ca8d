"""One look at a shelf through the tuf client: what it verified, in the form a devguard shelf must have.

The tuf package proves that metadata is authentic, current and consistent. A shelf's own profile is narrower than
TUF: product lines under the top-level targets, sixteen hash bins under each, releases in bins only, trust documents
in the top-level targets only. Whatever steps out of it refuses, so that a stolen line key reaches no further than
its line. Source: TUF 1.0.34 section 5; devguard formats, "Trust document".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets
from tuf.ngclient.updater import Updater

from devguard.custody.files import read_limited
from devguard.errors import Malformed, Refused
from devguard.shelf.faults import coded
from devguard.shelf.fetch import METADATA, ShelfFetcher, updater_config
from devguard.shelf.freshness import Freshness, read_freshness
from devguard.shelf.limits import Limits
from devguard.shelf.names import BINS, bin_digit, bin_role, check_line, line_of, probe, release_version, trust_version
from devguard.shelf.source import Source


def check_root(data: bytes) -> None:
    """Return when `data` is a root that its own keys have signed; `shelf.malformed`, `shelf.signature`."""
    try:
        one = Metadata[Root].from_bytes(data)
        one.signed.verify_delegate("root", one.signed_bytes, one.signatures)
    except UnsignedMetadataError as error:
        raise Refused("shelf.signature", str(error)) from None
    except (RepositoryError, ValueError, AttributeError, KeyError) as error:
        raise Malformed("shelf.malformed", f"this is no root of a shelf: {error}") from None


class View:
    """What one run of the tuf client verified in `folder`, its metadata folder."""

    def __init__(self, folder: Path, pinned: bytes, source: Source, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.fetcher = ShelfFetcher(source)
        self._parsed: dict[str, tuple[bytes, Any]] = {}
        with coded(self.fetcher, folder):
            self._updater = Updater(
                str(folder), METADATA, fetcher=self.fetcher, config=updater_config(limits), bootstrap=pinned
            )

    def refresh(self, now: int) -> Freshness:
        """Verify root, timestamp, snapshot and targets, newest first; errors as `coded`, and the profile's.

        `Refused("shelf.not-yet")` when the shelf speaks from after `now`: then a clock is wrong, and expiry means
        nothing.
        """
        with coded(self.fetcher, self.folder):
            self._updater.refresh()
            root: Root = Metadata[Root].from_file(str(self.folder / "root.json")).signed
        if not root.consistent_snapshot:
            raise Malformed("shelf.malformed", "the shelf has no consistent snapshots")
        fresh = read_freshness(self.folder)
        if fresh.issued is not None and fresh.issued > now + self.limits.clock_leeway:
            raise Refused("shelf.not-yet", f"the shelf was signed {fresh.issued - now} s in the future")
        self.lines()
        return fresh

    def find(self, target: str) -> TargetFile | None:
        """What the shelf says of a target, metadata loaded on the way."""
        with coded(self.fetcher, self.folder):
            return self._updater.get_targetinfo(target)

    def lines(self) -> tuple[str, ...]:
        """The product lines."""
        delegations = self._targets("targets").delegations
        if delegations is None:
            return ()
        if delegations.roles is None or len(delegations.roles) > self.limits.lines:
            raise Malformed("shelf.malformed", "the delegations of the shelf's targets are not product lines")
        for name, role in delegations.roles.items():
            if role.paths != [f"{check_line(name)}/*"] or role.path_hash_prefixes is not None or not role.terminating:
                raise Malformed("shelf.malformed", f"the product line {name} is delegated more than its own releases")
        return tuple(delegations.roles)

    def trust_documents(self) -> dict[int, TargetFile]:
        """Trust documents by version: what the top-level targets role itself lists, and no other role."""
        listed = {trust_version(path): info for path, info in self._targets("targets").targets.items()}
        found = {version: info for version, info in listed.items() if version is not None}
        if len(found) != len(listed) or len(found) > self.limits.trust_documents:
            raise Refused("shelf.name", "the shelf's top-level targets list something that is no trust document")
        return found

    def load(self, model: str, digits: str = BINS) -> None:
        """Load and check a product line and some of its bins."""
        for digit in digits:
            if self.find(probe(model, digit)) is not None:
                raise Refused("shelf.name", f"{model} lists something that is no release")
            self._check_line(model)

    def releases(self, model: str, digits: str = BINS) -> dict[str, TargetFile]:
        """Releases of a loaded product line, by version."""
        found = {}
        for digit in digits:
            bin_ = self._targets(bin_role(model, digit))
            if bin_.delegations is not None:
                raise Malformed("shelf.malformed", f"a bin of {model} delegates further")
            for path, info in bin_.targets.items():
                version = release_version(model, path)
                if bin_digit(path) != digit:
                    raise Malformed("shelf.malformed", f"{path} is in the wrong bin")
                found[version] = info
        return found

    def snapshot(self) -> Mapping[str, int]:
        """Versions of every targets role, by role; those kept from before, until `refresh` has verified newer ones."""
        signed: Snapshot = self._read("snapshot")
        return {name.removesuffix(".json"): info.version for name, info in signed.meta.items()}

    def snapshot_version(self) -> int:
        """The snapshot's own version."""
        return int(self._read("snapshot").version)

    def _check_line(self, model: str) -> None:
        line = self._targets(model)
        roles = line.delegations.roles if line.delegations is not None else None
        whole = roles is not None and {
            name: role.path_hash_prefixes for name, role in roles.items() if role.paths is None
        } == {bin_role(model, digit): [digit] for digit in BINS}
        if line.targets or not whole:
            raise Malformed("shelf.malformed", f"the product line {model} is not made of its bins")

    def _targets(self, role: str) -> Targets:
        signed: Targets = self._read(role)
        return signed

    def _read(self, role: str) -> Any:
        if role not in ("targets", "snapshot"):
            line_of(role)
        data = read_limited(self.folder / f"{role}.json", self.limits.targets_size)
        known = self._parsed.get(role)
        if known is None or known[0] != data:
            with coded(self.fetcher, self.folder):
                known = self._parsed[role] = data, Metadata[Any].from_bytes(data).signed
        return known[1]
