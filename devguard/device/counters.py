"""What a device must never forget or take back, kept outside the slots.

Monotonic: security version, installed sequence, clock floor, grant epoch, trust version, the audit chain. Beside
them: grants spent, the nonce a grant may have to carry, erase times, the sealed verdict of the running image,
the judged image that waits for its trial, a download under way. `Counters` is a value: every function gives a new
one, and a `CounterStore` saves it whole or not at all. Rules: devguard formats, "Grant" and "Flash and boot".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Protocol

from devguard.device.audit import AuditEvent, AuditRing
from devguard.device.header import SlotHeader
from devguard.errors import LocalProtocolError
from devguard.grant.claims import Grant
from devguard.grant.uses import Spent, spend_use

HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Staging:
    """An encoded image under way: it may continue for this encoding, size in bytes and SHA-256 only. `offset` bytes are
    durable at the end of the slot's image area; until `erased` that place is not ready for any."""

    encoding: int
    size: int
    digest: bytes
    offset: int
    erased: bool


@dataclass(frozen=True, slots=True)
class Download:
    """A payload under way: it may continue for this manifest digest and size only. `offset` bytes are durable;
    until `erased` the slot is not ready for any. `dirty`: what was decoded from `staging` has been written over the
    image area, and nobody has found it to be the image."""

    manifest_digest: bytes
    size: int
    offset: int
    erased: bool
    dirty: bool = False
    staging: Staging | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last update ended: its manifest digest, the refusal code or None for installed, device time."""

    manifest_digest: bytes
    code: str | None
    time: int


@dataclass(frozen=True, slots=True)
class Counters:
    """One device's durable state outside its slots. Times in seconds since the epoch, UTC.

    `installed_digest`, `installed_manifest`: image and manifest of the release confirmed last, whatever runs since;
    `epoch_reset`: the trust version from which on the root has set the grant epoch back, and to what;
    `sealed`: the confirmed image the device runs; `previous`: the confirmed one before, while its slot stands;
    `pending`: the judged image that waits for its trial or is in it; `settings_before`, `history_before`: digests of
    the therapy's settings and history when the last offer was accepted.
    """

    security_version: int = 0
    installed_sequence: int = 0
    installed_digest: bytes | None = None
    installed_manifest: bytes | None = None
    clock_floor: int = 0
    grant_epoch: int = 0
    trust_version: int = 0
    spent: Mapping[bytes, Spent] = field(default_factory=lambda: MappingProxyType({}))
    nonce: bytes | None = None
    audit: AuditRing = field(default_factory=AuditRing)
    erase_times: tuple[int, ...] = ()
    failed_handshakes: int = 0
    sealed: SlotHeader | None = None
    previous: SlotHeader | None = None
    pending: SlotHeader | None = None
    download: Download | None = None
    outcome: Outcome | None = None
    settings_before: bytes | None = None
    history_before: bytes | None = None
    epoch_reset: tuple[int, int] | None = None

    def event(self, time: int, name: str, code: str | None = None, subject: bytes = b"") -> Counters:
        """With one event more in the audit ring."""
        return replace(self, audit=self.audit.append(AuditEvent(time, name, code, subject)))

    def with_clock_floor(self, floor: int) -> Counters:
        """With the clock floor raised to `floor` (the step limit is the grant room's rule)."""
        return self._raised("clock_floor", floor)

    def with_grant_epoch(self, epoch: int) -> Counters:
        """With the grant epoch raised to `epoch`."""
        return self._raised("grant_epoch", epoch)

    def with_trust_version(self, version: int) -> Counters:
        """With the trust document's version raised to `version`."""
        return self._raised("trust_version", version)

    def under_trust(self, version: int) -> Counters:
        """With that trust document held: its version, and the grant epoch back where its root has said so."""
        counters = self._raised("trust_version", max(version, self.trust_version))
        if self.epoch_reset is None or version < self.epoch_reset[0]:
            return counters
        return replace(counters, grant_epoch=min(self.grant_epoch, self.epoch_reset[1]), epoch_reset=None)

    def with_nonce(self, nonce: bytes) -> Counters:
        """With a fresh device nonce; the one before is no longer good."""
        return replace(self, nonce=nonce)

    def with_spent(self, chain: tuple[Grant, ...], manifest_digest: bytes) -> Counters:
        """With one use of the grant, and of those it was delegated from, spent on that release.

        The same release again is a resumption and costs nothing; `Refused("grant.replay")` when the uses are gone or
        the list is full (`grant.uses.spend_use` has the rules).
        """
        spent = spend_use(chain, self.spent, manifest_digest, self.clock_floor)
        return self if spent == self.spent else replace(self, spent=MappingProxyType(spent))

    def with_failed_handshakes(self, count: int) -> Counters:
        """With the run of failed handshakes set (0 after a good one)."""
        return replace(self, failed_handshakes=count)

    def _raised(self, name: str, value: int) -> Counters:
        if value < getattr(self, name):
            raise LocalProtocolError("device.state", f"{name} {getattr(self, name)} may not go back to {value}")
        changed: dict[str, int] = {name: value}
        return replace(self, **changed)  # type: ignore[arg-type]  # the three names above are all ints


def recent_erasures(counters: Counters, now: int) -> tuple[int, ...]:
    """Slot erasures of the last hour. One from the future counts as of now: a clock set back buys nothing."""
    return tuple(sorted(min(time, now) for time in counters.erase_times if now - min(time, now) < HOUR))


def seconds_to_wait(erasures: tuple[int, ...], budget: int, now: int) -> int:
    """Seconds until the budget allows one more erasure; 0: now."""
    return 0 if len(erasures) < budget else max(1, erasures[len(erasures) - budget] + HOUR - now)


def check_no_regression(before: Counters, after: Counters) -> None:
    """Raises `LocalProtocolError` when `after` takes back what `before` had: the last guard of every store."""
    for name in ("security_version", "installed_sequence", "clock_floor", "grant_epoch", "trust_version"):
        least = _least_epoch(before, after) if name == "grant_epoch" else getattr(before, name)
        if getattr(after, name) < least:
            message = f"{name} {getattr(before, name)} may not go back to {getattr(after, name)}"
            raise LocalProtocolError("device.state", message)
    if after.audit.count < before.audit.count:
        raise LocalProtocolError("device.state", "the audit chain may not get shorter")
    for cti, entry in before.spent.items():
        now = after.spent.get(cti)
        if (now is None and entry.expires > after.clock_floor) or (now is not None and now.uses < entry.uses):
            raise LocalProtocolError("device.state", "a spent grant may not be forgotten before it expires")


def _least_epoch(before: Counters, after: Counters) -> int:
    """The epoch goes back with a newer trust document only, and only where that was noted before it was kept."""
    return before.under_trust(max(before.trust_version, after.trust_version)).grant_epoch


class CounterStore(Protocol):
    """Keeps one device's counters. `save` is atomic and durable, and refuses regressions."""

    def load(self) -> Counters: ...

    def save(self, counters: Counters) -> None: ...


class MemoryCounterStore:
    """A `CounterStore` in memory, for engines joined in one process."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters or Counters()

    def load(self) -> Counters:
        return self._counters

    def save(self, counters: Counters) -> None:
        check_no_regression(self._counters, counters)
        self._counters = counters
