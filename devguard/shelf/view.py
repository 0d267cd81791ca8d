"""One look at a shelf through the tuf client: what it verified, in the form a devguard shelf must have.

The tuf package proves that metadata is authentic, current and consistent. A shelf's own profile is narrower than
TUF: product lines under the top-level targets, sixteen hash bins under each, releases in bins only, trust documents
in the top-level targets only. Whatever steps out of it refuses, so that a stolen line key reaches no further than
its line. Source: TUF 1.0.34 section 5; devguard formats, "Trust document".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.ngclient.updater import Updater

from devguard.custody.files import read_limited
from devguard.errors import Malformed, Refused
from devguard.shelf.faults import coded
from devguard.shelf.fetch import METADATA, ShelfFetcher, updater_config
from devguard.shelf.freshness import TOP, Freshness, freshness_of, signed_part
from devguard.shelf.limits import Limits
from devguard.shelf.names import BINS, bin_digit, bin_role, check_line, line_of, probe, release_version, trust_version
from devguard.shelf.source import Source

P = ParamSpec("P")
R = TypeVar("R")


def _judged(method: Callable[Concatenate[View, P], R]) -> Callable[Concatenate[View, P], R]:
    """The tuf client does not check every type of what it verified; whatever is of another is malformed."""

    @functools.wraps(method)
    def judged(self: View, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with coded(self.fetcher, self.folder):
            return method(self, *args, **kwargs)

    return judged


def check_root(data: bytes) -> None:
    """Return when `data` is a root that its own keys have signed; `shelf.malformed`, `shelf.signature`."""
    try:
        one = Metadata[Root].from_bytes(data)
        one.signed.verify_delegate("root", one.signed_bytes, one.signatures)
    except UnsignedMetadataError as error:
        raise Refused("shelf.signature", str(error)) from None
    except (RepositoryError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise Malformed("shelf.malformed", f"this is no root of a shelf: {error}") from None


class View:
    """What one run of the tuf client verified in `folder`, its metadata folder. `verified`: roles other than root."""

    def __init__(self, folder: Path, pinned: bytes, source: Source, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.fetcher = ShelfFetcher(source, limits)
        self.verified: set[str] = set()
        self._parsed: dict[str, dict[str, Any]] = {}
        with coded(self.fetcher, folder):
            self._updater = Updater(
                str(folder), METADATA, fetcher=self.fetcher, config=updater_config(limits), bootstrap=pinned
            )

    @_judged
    def refresh(self, now: int) -> Freshness:
        """Verify root, timestamp, snapshot and targets, newest first; errors as `coded`, and the profile's.

        `Refused("shelf.not-yet")` when the shelf speaks from after `now`: then a clock is wrong, and expiry means
        nothing. `Refused("shelf.freeze")` too when it has expired by `now`: the tuf client asks the system's clock.
        """
        with coded(self.fetcher, self.folder):
            self._updater.refresh()
        self._parsed.clear()
        self.verified.update(role for role in TOP if role != "root")
        fresh = freshness_of({role: self._signed(role) for role in TOP})
        if not self._signed("root").get("consistent_snapshot"):
            raise Malformed("shelf.malformed", "the shelf has no consistent snapshots")
        if fresh.issued is not None and fresh.issued > now + self.limits.clock_leeway:
            raise Refused("shelf.not-yet", f"the shelf was signed {fresh.issued - now} s in the future")
        if fresh.expires <= now:
            raise Refused("shelf.freeze", f"the shelf's metadata expired {now - fresh.expires} s ago")
        self.lines()
        return fresh

    def find(self, target: str) -> TargetFile | None:
        """What the shelf says of a target, metadata loaded on the way."""
        with coded(self.fetcher, self.folder):
            return self._updater.get_targetinfo(target)

    @_judged
    def lines(self) -> tuple[str, ...]:
        """The product lines."""
        delegations = self._signed("targets").get("delegations")
        if delegations is None:
            return ()
        roles = delegations.get("roles")
        if roles is None or len(roles) > self.limits.lines:
            raise Malformed("shelf.malformed", "the delegations of the shelf's targets are not product lines")
        for role in roles:
            name = check_line(role["name"])
            if role.get("paths") != [f"{name}/*"] or "path_hash_prefixes" in role or role["terminating"] is not True:
                raise Malformed("shelf.malformed", f"the product line {name} is delegated more than its own releases")
        return tuple(role["name"] for role in roles)

    @_judged
    def trust_documents(self) -> dict[int, TargetFile]:
        """Trust documents by version: what the top-level targets role itself lists, and no other role."""
        listed = self._signed("targets")["targets"]
        if len(listed) > self.limits.trust_documents:
            raise Refused("shelf.name", f"the shelf lists {len(listed)} trust documents")
        found = {trust_version(path): info for path, info in self._files("targets")}
        if None in found:
            raise Refused("shelf.name", "the shelf's top-level targets list something that is no trust document")
        return {version: info for version, info in found.items() if version is not None}

    @_judged
    def load(self, model: str, digits: str = BINS) -> None:
        """Load and check a product line and some of its bins."""
        for number, digit in enumerate(digits):
            if self.find(probe(model, digit)) is not None:
                raise Refused("shelf.name", f"{model} lists something that is no release")
            if number == 0:
                self._check_line(model)
            self._check_bin(model, digit)
            self.verified.update((model, bin_role(model, digit)))

    @_judged
    def releases(self, model: str) -> dict[str, TargetFile]:
        """Releases of a loaded product line, by version."""
        bins = (bin_role(model, digit) for digit in BINS)
        return {release_version(model, path): info for role in bins for path, info in self._files(role)}

    def root_bytes(self) -> bytes:
        """The newest root."""
        return read_limited(self.folder / "root.json", self.limits.root_size)

    @_judged
    def snapshot(self) -> Mapping[str, Mapping[str, Any]]:
        """What the snapshot says of every targets role (version, length, hashes), by role; those kept from before,
        until `refresh` has verified newer ones. `Refused("shelf.name")` for a role no shelf has."""
        found = {name.removesuffix(".json"): info for name, info in self._signed("snapshot")["meta"].items()}
        for role in found.keys() - {"targets"}:
            line_of(role)
        return found

    @_judged
    def snapshot_version(self) -> int:
        """The snapshot's own version."""
        return int(self._signed("snapshot")["version"])

    def _check_line(self, model: str) -> None:
        line = self._signed(model)
        roles = (line.get("delegations") or {}).get("roles") or ()
        found = {role["name"]: role.get("path_hash_prefixes") for role in roles}
        if (
            line["targets"]
            or any("paths" in role for role in roles)
            or found != {bin_role(model, digit): [digit] for digit in BINS}
        ):
            raise Malformed("shelf.malformed", f"the product line {model} is not made of its bins")

    def _check_bin(self, model: str, digit: str) -> None:
        bin_ = self._signed(bin_role(model, digit))
        if "delegations" in bin_:
            raise Malformed("shelf.malformed", f"a bin of {model} delegates further")
        for path in bin_["targets"]:
            release_version(model, path)
            if bin_digit(path) != digit:
                raise Malformed("shelf.malformed", f"{path} is in the wrong bin")

    def _files(self, role: str) -> Iterable[tuple[str, TargetFile]]:
        return ((path, TargetFile.from_dict(dict(info), path)) for path, info in self._signed(role)["targets"].items())

    def _signed(self, role: str) -> dict[str, Any]:
        """The signed part of what the tuf client verified and stored, or of what was kept from before.

        Reading it once more with the client's whole machinery would cost as much as verifying it.
        """
        known = self._parsed.get(role)
        if known is None:
            if role not in TOP:
                line_of(role)
            data = read_limited(self.folder / f"{role}.json", self.limits.targets_size)
            known = self._parsed[role] = signed_part(data, role)
        return known
