"""Whether a device is as this station's last record of it says; where it is not, what differs. Pure.

A device changes by what its stations do and by what they do not. What a station has begun itself explains the release
that runs; everything else that only an update, a root or a factory can move, and that moved or went back, was somebody
else: another station, another tool, or a hand at the flash.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


class State(Protocol):
    """What of a signed report is compared; see `session.report.Report`."""

    @property
    def version(self) -> str: ...
    @property
    def image_digest(self) -> bytes: ...
    @property
    def manifest_digest(self) -> bytes | None: ...
    @property
    def sequence(self) -> int: ...
    @property
    def security_version(self) -> int: ...
    @property
    def trust_version(self) -> int: ...
    @property
    def clock_floor(self) -> int: ...
    @property
    def settings_digest(self) -> bytes: ...
    @property
    def history_digest(self) -> bytes: ...
    @property
    def log_head(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs: its name in the report, what was on record and what is found, as text."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} on record, {self.after} found"


def changes(before: State, after: State, begun: Collection[bytes] = ()) -> tuple[Change, ...]:
    """What no record explains. `before`: of the last report on record; `begun`: manifest digests of updates that this
    station has begun since."""
    found = []
    explained = after.manifest_digest is not None and after.manifest_digest in begun
    if not explained:
        found += _differing(before, after, "version", "image_digest", "manifest_digest", "sequence", "security_version")
    for name in ("sequence", "security_version", "trust_version", "clock_floor"):
        old, new = getattr(before, name), getattr(after, name)
        if new < old and not any(one.name == name for one in found):
            found.append(Change(name, str(old), str(new)))
    if before.settings_digest != after.settings_digest and before.history_digest == after.history_digest:
        # Where the therapy's own history moved, a clinician has been at the device; an update never is one.
        found += _differing(before, after, "settings_digest")
    if before.log_head == after.log_head:
        # Every report is asked for in a session, and every session is an event of the device's own log.
        found.append(Change("log_head", before.log_head.hex()[:16], "the same, after a session"))
    return tuple(found)


def _differing(before: State, after: State, *names: str) -> list[Change]:
    return [
        Change(name, _text(getattr(before, name)), _text(getattr(after, name)))
        for name in names
        if getattr(before, name) != getattr(after, name)
    ]


def _text(value: object) -> str:
    return value.hex()[:16] if isinstance(value, bytes) else "none" if value is None else str(value)
