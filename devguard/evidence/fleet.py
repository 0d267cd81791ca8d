"""What runs where, folded from the records of a log while it is verified: one row a device, one a release.

Memory grows with devices and releases, never with records. A device's row is its last signed report; a release is
known here once it was verified or pushed, or a device reported it. Details that such records carry say until when a
release and its parts are supported. Reads nothing and judges no signature: whoever walks the log does, and hands the
reports over once their signature holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from devguard.evidence.export import rfc3339
from devguard.evidence.record import Entry, Record
from devguard.manifest.version import to_array

DAY: Final = 86_400
SEQUENCE: Final = "sequence"
SUPPORTED: Final = "supported-until"
PARTS: Final = "parts-supported-until"
"""Details of a record about a release: its sequence number; epoch seconds at which its support ends; those at which the
support of the first of its parts ends, a space, and that part."""
KNOWN_BY: Final = frozenset({"release.verify", "release.push", "release.push-begun", "shelf.get"})
_WORDS: Final = (b"release.", b"device.", b"shelf.get")


@dataclass(slots=True)
class Described:
    """What a record says of a release: its sequence number; epoch seconds at which its support ends; those at which the
    support of the first of its parts ends, and that part. None where it does not say."""

    sequence: int | None = None
    supported_until: int | None = None
    parts: tuple[int, str | None] | None = None


def described(record: Record) -> Described:
    """What a record says of the release that it names."""
    found = Described()
    for name, text in record.details.items():
        number, _, rest = text.partition(" ")
        if name not in (SEQUENCE, SUPPORTED, PARTS) or not (number.isascii() and number.isdigit()):
            continue
        if name == SEQUENCE:
            found.sequence = int(number)
        elif name == SUPPORTED:
            found.supported_until = int(number)
        else:
            found.parts = int(number), rest or None
    return found


class Running(Protocol):
    """What of a signed report goes into a row; see `session.report.Report`."""

    @property
    def serial(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def manifest_digest(self) -> bytes | None: ...


@dataclass(slots=True)
class Known:
    """A release that is known here. `since`: epoch seconds at which it first was, None where nothing dates that;
    `supported_until`, `parts_until`: epoch seconds, None where nobody said; `first_part`: the part that ends first."""

    model: str
    version: str
    sequence: int | None = None
    since: int | None = None
    supported_until: int | None = None
    parts_until: int | None = None
    first_part: str | None = None

    def newer_than(self, other: Known) -> bool:
        """By sequence number where both are known, else by version; False where neither can be compared."""
        if self.sequence is not None and other.sequence is not None:
            return self.sequence > other.sequence
        mine, others = to_array(self.version), to_array(other.version)
        if mine is None or others is None:
            return False
        width = max(len(mine), len(others))
        return mine + (0,) * (width - len(mine)) > others + (0,) * (width - len(others))


@dataclass(slots=True)
class Sighting:
    """One device. `report`: the last that it signed, None where it signed none here; `index`, `time`: of the record
    that carries it, or of the last that names the device; `sites`: those of the last grant a push to it was under."""

    serial: str
    index: int
    time: int
    report: Running | None = None
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a device is behind: the newest release, how many releases are newer than its own, and for how many whole
    days one has been known here (None where nothing dates that)."""

    newest: Known
    versions: int
    days: int | None


@dataclass(slots=True)
class Fleet:
    """The fold. `devices` by serial; `releases` by model and version."""

    devices: dict[str, Sighting] = field(default_factory=dict)
    releases: dict[tuple[str, str], Known] = field(default_factory=dict)

    def visit(self, entry: Entry) -> None:
        """Take one entry in; most are told from their bytes to be about neither a device nor a release."""
        if any(word in entry.body for word in _WORDS):
            self.record(entry.index, entry.record)

    def record(self, index: int, record: Record) -> None:
        """What a record says besides a report."""
        if record.device is not None and record.device not in self.devices:
            self.devices[record.device] = Sighting(record.device, index, record.time)
        elif record.device is not None and self.devices[record.device].report is None:
            self.devices[record.device].index, self.devices[record.device].time = index, record.time
        if record.ok and record.action in KNOWN_BY and record.release is not None:
            model, _, version = record.release.partition(" ")
            if model and version:
                self._describe(self.know(model, version, since=record.time), record)

    def reported(self, index: int, record: Record, report: Running) -> None:
        """A report whose signature holds."""
        sites = self.devices[report.serial].sites if report.serial in self.devices else ()
        self.devices[report.serial] = Sighting(report.serial, index, record.time, report, sites)
        if report.manifest_digest is not None:
            self.know(report.model, report.version, sequence=report.sequence, since=record.time)

    def visited(self, serial: str, sites: tuple[str, ...]) -> None:
        """A push to a device, under a grant for these sites."""
        if serial in self.devices:
            self.devices[serial].sites = sites

    def know(self, model: str, version: str, *, sequence: int | None = None, since: int | None = None) -> Known:
        """A release that is known from `since` at the latest."""
        one = self.releases.setdefault((model, version), Known(model, version))
        one.sequence = sequence if sequence is not None else one.sequence
        if since is not None:
            one.since = since if one.since is None else min(one.since, since)
        return one

    @staticmethod
    def _describe(one: Known, record: Record) -> None:
        said = described(record)
        one.sequence = one.sequence if said.sequence is None else said.sequence
        one.supported_until = one.supported_until if said.supported_until is None else said.supported_until
        one.parts_until, one.first_part = (one.parts_until, one.first_part) if said.parts is None else said.parts

    def running(self, device: Sighting) -> Known | None:
        """The release a device runs; None where it signed no report. One of a factory, without a manifest, is known
        by its version alone."""
        report = device.report
        if report is None:
            return None
        return self.releases.get((report.model, report.version)) or Known(report.model, report.version)

    def lag(self, device: Sighting, now: int) -> Lag | None:
        """How far behind it is; None where its release is the newest that is known here, or it signed no report."""
        mine = self.running(device)
        newer = [] if mine is None else list(self._newer(mine))
        if not newer:
            return None
        newest = newer[0]
        for one in newer:
            newest = one if one.newer_than(newest) else newest
        dates = [one.since for one in newer if one.since is not None]
        return Lag(newest, len(newer), max(0, now - min(dates)) // DAY if dates else None)

    def _newer(self, mine: Known) -> Iterator[Known]:
        return (one for one in self.releases.values() if one.model == mine.model and one.newer_than(mine))


def red(lag: Lag | None, behind: int, ends: Mapping[str, int | None], part: str | None, now: int) -> list[str]:
    """Why a device wants looking after; nothing where it does not.

    behind: seconds from which on a newer release that is known here counts. ends: when support ends of its `release`,
    its `model` and the first of its `parts`, epoch seconds; part: that part.
    """
    late = lag is not None and lag.days is not None and lag.days * DAY >= behind
    found = [f"{lag.days} days behind {lag.newest.version}"] if lag is not None and late else []
    named = {"release": "its release", "model": "its model", "parts": part or "a part"}
    past = [(named[name], end) for name, end in ends.items() if end is not None and end <= now]
    return found + [f"support of {what} ended on {rfc3339(end)[:10]}" for what, end in past]
