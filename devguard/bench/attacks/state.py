"""What an attack must leave as it was: the device's state and both logs, as values that can be compared.

Left out of `Snapshot.differences` is what may move without harm: the audit ring (it grows), the run of failed
handshakes and the clock floor (moved forward by genuine grants only). What the therapy has delivered is its own affair;
its settings and its history are not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from devguard.device.audit import AuditEvent, AuditRing
from devguard.device.counters import Counters
from devguard.device.flash import FlashBackend
from devguard.device.models import Model
from devguard.device.therapy import Therapy
from devguard.errors import DevguardError
from devguard.evidence.frame import LEAD, PAGE
from devguard.evidence.log import read_records
from devguard.evidence.record import Record

MAY_MOVE: Final = ("audit", "clock_floor", "failed_handshakes")
_DOWNLOAD: Final = ("secondary", "previous", "download", "outcome", "erase_times", "spent", "nonce", "settings_before")
"""What an accepted offer changes, before anything is committed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at a device. `journal`: of a swap, with its scratch sector. `boot`: what the bootloader goes by: the
    image sealed as running, the one that waits for its trial. `outcome`: how the last update ended."""

    primary: bytes
    secondary: bytes
    journal: bytes
    boot: tuple[object, ...]
    previous: object
    outcome: object
    security_version: int
    installed_sequence: int
    trust_version: int
    trust_document: bytes
    grant_epoch: int
    spent: tuple[object, ...]
    nonce: bytes | None
    erase_times: tuple[int, ...]
    download: object
    settings_before: bytes | None
    settings: bytes
    history: bytes
    audit: AuditRing
    clock_floor: int
    failed_handshakes: int

    def differences(self, other: Snapshot, *, allowed: tuple[str, ...] = ()) -> list[str]:
        """Names of what differs in `other`, a later look; `allowed`: what the row says may."""
        kept = [one.name for one in fields(self) if one.name not in (*MAY_MOVE, *allowed)]
        found = [name for name in kept if getattr(self, name) != getattr(other, name)]
        if other.clock_floor < self.clock_floor:
            found.append("clock_floor")
        if not continues(self.audit, other.audit):
            found.append("audit")
        return found


ACCEPTED_OFFER: Final = _DOWNLOAD
"""For rows whose offer is honest and whose harm comes later: what the device may have written by then."""
INSTALLED: Final = (*_DOWNLOAD, "primary", "journal", "boot", "security_version", "installed_sequence")
"""For rows that harm an honest push so late that the device may have installed it."""


def look(model: Model, backend: FlashBackend, counters: Counters, therapy: Therapy, trust: bytes) -> Snapshot:
    """The device as it is now. `trust`: digest of its trust document."""
    slots = model.layout
    end = slots.secondary.base + slots.secondary.size
    return Snapshot(
        primary=_digest(backend, slots.primary.base, slots.primary.size),
        secondary=_digest(backend, slots.secondary.base, slots.secondary.size),
        journal=_digest(backend, end, backend.size - end),
        boot=(counters.sealed, counters.pending),
        previous=counters.previous,
        outcome=counters.outcome,
        security_version=counters.security_version,
        installed_sequence=counters.installed_sequence,
        trust_version=counters.trust_version,
        trust_document=trust,
        grant_epoch=counters.grant_epoch,
        spent=tuple(sorted(counters.spent.items())),
        nonce=counters.nonce,
        erase_times=counters.erase_times,
        download=counters.download,
        settings_before=counters.settings_before,
        settings=therapy.settings_digest(),
        history=therapy.history_digest,
        audit=counters.audit,
        clock_floor=counters.clock_floor,
        failed_handshakes=counters.failed_handshakes,
    )


def _digest(backend: FlashBackend, start: int, size: int) -> bytes:
    return hashlib.sha256(backend.read(start, size)).digest()


def continues(before: AuditRing, after: AuditRing) -> bool:
    """Whether the later ring only adds to the earlier one, as far as the ring still shows."""
    added = after.count - before.count
    if added < 0 or added > len(after.events):
        return added >= 0  # so much was added that nothing of the old is left to compare
    kept = after.events[: len(after.events) - added]
    return not kept or before.events[-len(kept) :] == kept


def added_events(before: AuditRing, after: AuditRing) -> tuple[AuditEvent, ...]:
    """The device's events since an earlier look."""
    added = after.count - before.count
    return after.events[-added:] if added else ()


@dataclass(frozen=True, slots=True)
class BenchLog:
    """The evidence log of a home: its segments' bytes by name, without the pages its head moves in, and its records."""

    segments: dict[str, bytes]
    records: tuple[Record, ...]

    def added(self, later: BenchLog) -> tuple[Record, ...] | None:
        """The records that `later` has more; None when the old ones are not there byte for byte."""
        for name, data in self.segments.items():
            if not later.segments.get(name, b"").startswith(data):
                return None
        if later.records[: len(self.records)] != self.records:
            return None
        return later.records[len(self.records) :]


def bench_log(folder: Path) -> BenchLog:
    """The log as it lies there; an empty one where there is none. Raises what reading a damaged log raises."""
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("segment-*.log"))} if folder.is_dir() else {}
    segments = {name: data[:PAGE] + data[LEAD:] for name, data in files.items()}
    try:
        records = tuple(read_records(folder))
    except DevguardError as error:
        if error.code != "log.missing":
            raise
        records = ()
    return BenchLog(segments, records)
