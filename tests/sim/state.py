"""What a device keeps, as a value: for tests that compare before and after."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sim.bench import Device


@dataclass(frozen=True)
class Snapshot:
    """What a device keeps. `log` and `failed` may move with a refusal, `secondary` and `work` with accepted data."""

    primary: str
    secondary: str
    kept: tuple[object, ...]
    work: tuple[object, ...]
    boot: str
    therapy: tuple[bytes, bytes]
    failed: int
    log: int

    @property
    def all_but_log(self) -> tuple[object, ...]:
        """Everything that a refusal may not change."""
        return self.primary, self.secondary, self.kept, self.work, self.boot, self.therapy

    @property
    def essence(self) -> tuple[object, ...]:
        """Everything that a broken download may not change either."""
        return self.primary, self.kept, self.boot, self.therapy


def snapshot(device: Device) -> Snapshot:
    """The device's state as a value."""
    counters, slots = device.counters, device.model.layout
    size, data = slots.slot_size, device.backend.data
    kept = (
        counters.security_version,
        counters.installed_sequence,
        counters.trust_version,
        counters.sealed,
        counters.clock_floor,
        counters.grant_epoch,
    )
    work = (dict(counters.spent), counters.nonce, counters.erase_times, counters.previous, counters.pending)
    work += (counters.download, counters.outcome, counters.settings_before)
    return Snapshot(
        hashlib.sha256(data[:size]).hexdigest(),
        hashlib.sha256(data[size:]).hexdigest(),
        kept,
        work,
        device.node.hello().boot_state,
        (device.therapy.settings_digest(), device.therapy.history_digest),
        counters.failed_handshakes,
        counters.audit.count,
    )
