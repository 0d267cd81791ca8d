"""What of a device's stored state an attack must not change: read from its directory, without its lock.

For oracles that compare before and after: slots, counters and therapy settings. Left out is what may move without
harm: the audit ring, the count of failed handshakes, the clock floor (time, moved by genuine grants only) and what
the therapy has delivered meanwhile.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from devguard.device.audit import AuditRing
from devguard.device.counters_codec import encode_counters
from devguard.device.models import Model
from devguard.device.storage import FileBackend, read_stored


@dataclass(frozen=True, slots=True)
class Snapshot:
    """SHA-256 of the flash, of the counters that must hold, of the therapy settings; and the audit chain's length."""

    flash: bytes
    counters: bytes
    settings: bytes
    audit_count: int

    def same_state(self, other: Snapshot) -> bool:
        """Whether slots, counters and settings are equal; the audit chain may have grown."""
        return (self.flash, self.counters, self.settings) == (other.flash, other.counters, other.settings)


def take(path: Path, model: Model) -> Snapshot:
    """The state of the device in `path` as it stands on disk; `Refused("device.state")` when it does not parse."""
    counters, therapy = read_stored(path, model)
    steady = replace(counters, audit=AuditRing(), failed_handshakes=0, clock_floor=0)
    flash = FileBackend(path / "flash.bin", model.layout.flash.size)
    try:
        running = hashlib.sha256(flash.read(0, flash.size))
    finally:
        flash.close()
    return Snapshot(
        running.digest(),
        hashlib.sha256(encode_counters(steady)).digest(),
        therapy.settings_digest(),
        counters.audit.count,
    )
