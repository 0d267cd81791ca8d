"""Whether a release may go out with what is known of its parts.

A part that a known exploited hole touches refuses (`release.vulnerable`) unless a signed statement says that it is not
affected, and why, or that the hole is fixed in it. "Affected" and "under investigation" are honest answers and no way
past the refusal. Holes that nobody is known to exploit are listed and refuse nothing. Pure: files, keys and the clock
are the caller's. Source: devguard issue "what is inside"; regulation item 13.7 (known exploited first).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devguard.errors import Refused
from devguard.sbom.bom import Bill
from devguard.sbom.match import Hole, holes
from devguard.sbom.snapshot import Advisories, Catalogue, check_fresh
from devguard.sbom.vex import Statement, Status, newest


@dataclass(frozen=True, slots=True)
class Finding:
    """One hole that touches, or may touch, one part, and the last signed word on it."""

    hole: Hole
    statement: Statement | None

    @property
    def settled(self) -> bool:
        """Whether somebody stated that the release is not harmed by it."""
        return self.statement is not None and self.statement.status in (Status.NOT_AFFECTED, Status.FIXED)

    @property
    def refuses(self) -> bool:
        """Known to be exploited, and not settled."""
        return self.hole.exploited is not None and not self.settled

    @property
    def text(self) -> str:
        """One line for people."""
        said = self.statement.text if self.statement is not None else "no statement"
        return f"{self.hole.exploited or self.hole.id} touches {self.hole.part.label}: {said}; {self.hole.why}"


@dataclass(frozen=True, slots=True)
class Inside:
    """What was found in a bill, by which snapshots. True when nothing refuses. `unsupported`: refs of parts whose end
    of support has passed; `undated`: of those whose bill gives none."""

    bill: Bill
    findings: tuple[Finding, ...]
    knowledge: tuple[str, ...]
    unsupported: tuple[str, ...]
    undated: tuple[str, ...]

    @property
    def refusing(self) -> tuple[Finding, ...]:
        """The findings that refuse."""
        return tuple(one for one in self.findings if one.refuses)

    def __bool__(self) -> bool:
        return not self.refusing

    def require(self) -> None:
        """Return when nothing refuses; `Refused("release.vulnerable")` with the first finding that does."""
        refusing = self.refusing
        if refusing:
            more = f", and {len(refusing) - 1} more" if len(refusing) > 1 else ""
            raise Refused("release.vulnerable", f"{refusing[0].text}{more}")


def look_inside(
    bill: Bill,
    catalogue: Catalogue,
    *,
    now: int,
    advisories: Sequence[Advisories] = (),
    statements: Iterable[Statement] = (),
) -> Inside:
    """Judge `bill` at `now` (epoch seconds) by snapshots and statements, all read already.

    Raises `Refused("sbom.stale")` for a snapshot that is too old to go by. A statement counts for a hole under any of
    its names.
    """
    knowledge = [check_fresh(f"known exploited, catalogue {catalogue.version}", catalogue.released, now)]
    knowledge += [check_fresh(f"{len(one.entries)} OSV record(s)", one.released, now) for one in advisories]
    said = newest(statements)
    findings = tuple(
        Finding(hole, _last(said[name, hole.part.ref] for name in sorted(hole.names) if (name, hole.part.ref) in said))
        for hole in holes(bill, catalogue, advisories)
    )
    ended = [part.ref for part in bill.parts if part.end_of_support is not None and now >= part.end_of_support]
    undated = [part.ref for part in bill.parts if part.end_of_support is None]
    return Inside(bill, findings, tuple(knowledge), tuple(ended), tuple(undated))


def _last(said: Iterable[Statement]) -> Statement | None:
    """The newest of what was said under several names; of one second the worse."""
    words = list(said)
    return max(words, key=lambda one: (one.issued, one.status is Status.AFFECTED)) if words else None


def signed_bill(bill: Bill | None, signed: bytes | None) -> Bill:
    """`bill`, when it is the one that the manifest's `signed` SHA-256 names.

    Raises `Refused`: `sbom.missing` when the release names none, or the file was not brought; `sbom.digest` otherwise.
    """
    if signed is None:
        raise Refused("sbom.missing", "the release names no bill of materials, so nothing says what is inside")
    if bill is None:
        raise Refused(
            "sbom.missing", f"the bill of materials {signed.hex()[:16]}... was not given", "give it: --sbom FILE"
        )
    if bill.digest != signed:
        raise Refused(
            "sbom.digest", f"the bill is {bill.digest.hex()[:16]}..., the release signs {signed.hex()[:16]}..."
        )
    return bill
