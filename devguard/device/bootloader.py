"""Decides what runs: finishes swaps, starts trials, reverts, falls back, confirms.

At any power cut the device boots the old or the new image, whole. What was judged stands in the counters, outside
the slots: `pending` for an image that waits for its trial, `sealed` for the one that was confirmed; a slot that
says anything else does not run. The security counter moves only after confirm. Expiry and revocation stop
installs, never boots: for an image that was sealed they are flags, for a therapy device that does not start is
the worse failure (devguard formats, "Flash and boot"; SUIT draft-37 section 8.3 for what `verify` makes sure of).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from devguard.device.audit import AuditEvent
from devguard.device.counters import CounterStore, Outcome
from devguard.device.download import SlotWriter
from devguard.device.flash import FlashMemory
from devguard.device.header import SlotHeader
from devguard.device.journal import Journal, SwapEntry, SwapKind
from devguard.device.layout import Mark, Slot
from devguard.device.models import Model
from devguard.device.slots import Slots
from devguard.device.swap import run_swap
from devguard.errors import DevguardError, Refused

Verify = Callable[[SlotHeader, bytes], None]
"""Judges a slot's header against its envelope copy: returns, or raises a `DevguardError` with the code."""

Hold = Callable[[], str | None]
"""Asked when `verify` has just passed an image to install: the code of what stands against this moment, or None."""


class BootState(enum.StrEnum):
    """How the device came up. EMPTY: nothing was ever confirmed. RECOVERY: nothing here may run."""

    EMPTY = "empty"
    CONFIRMED = "confirmed"
    TRIAL = "trial"
    REVERTED = "reverted"
    FALLBACK = "fallback"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class BootResult:
    """What runs now (None: nothing), how it came to that, flags for the report, and the events of this boot.

    Flags are refusal codes of `verify` for an image that runs all the same, and slot.header, slot.envelope (the copy
    was altered, the image was not), version.older (an older image than was once confirmed) and update.waiting (a judged
    image is there, and this was no moment to install it).
    """

    header: SlotHeader | None
    state: BootState
    flags: tuple[str, ...]
    events: tuple[AuditEvent, ...]


class Bootloader:
    """The bootloader of one device; make a new one after every reset. Not thread-safe."""

    def __init__(self, flash: FlashMemory, model: Model, store: CounterStore) -> None:
        self._flash = flash
        self._layout = model.layout
        self._trial_boots = model.trial_boots
        self._store = store
        self.slots = Slots(flash, model.layout)
        self._journal = Journal(flash, model.layout)
        self._writer = SlotWriter(self.slots, store, model.erase_budget_per_hour)
        self._now = 0
        self._events: list[AuditEvent] = []
        self._tested = self._waits = False
        self._result: BootResult | None = None

    # -- boot ---------------------------------------------------------------------------------------------------

    def boot(self, verify: Verify, now: int | None = None, hold: Hold = lambda: None) -> BootResult:
        """Brings the device up; never raises for what it finds in the slots.

        `now` is the device's time for its records (default: the clock floor). Order: finish an interrupted swap;
        install a pending image that passes `verify`, unless `hold` says why it has to wait (decision 0016); start or
        end a trial; else run what was sealed.
        """
        self._now = self._store.load().clock_floor if now is None else now
        self._events, self._tested, self._waits = [], False, False
        try:
            header, state = self._decide(verify, hold)
        except Refused as error:
            if error.code != "device.slot":
                raise
            # The flash no longer takes what brings an image back: nothing is run that nobody has confirmed.
            self._commit("flash-failed", error.code)
            header, state = None, BootState.RECOVERY
        flags = self._flags(header, verify) if header else ()
        self._result = BootResult(header, state, flags, tuple(self._events))
        return self._result

    def _decide(self, verify: Verify, hold: Hold) -> tuple[SlotHeader | None, BootState]:
        came: BootState | None = None
        entry = self._journal.resume()
        if entry is not None:
            self._commit("swap-resumed")
            came = self._complete(entry)
        came = self._install(verify, hold) or came
        header, state = self._trial()
        if state is BootState.TRIAL:
            return header, state
        self._drop_stale_pending()
        header, found = self._sealed()
        return header, found if found is not BootState.CONFIRMED else state or came or BootState.CONFIRMED

    @property
    def result(self) -> BootResult:
        """What the last boot (or confirm) gave; `Refused("session.order")` before the first."""
        if self._result is None:
            raise Refused("session.order", "the device has not booted")
        return self._result

    def _complete(self, entry: SwapEntry) -> BootState | None:
        """Finishes an open swap and judges it before the entry is closed."""
        failed_at = run_swap(self._flash, self._layout, self._journal, entry)
        if failed_at is not None:
            extent = (entry.image_size, entry.envelope_size)
            return self._complete(
                self._journal.begin(SwapKind.UNDO, *extent, entry.outgoing, entry.incoming, failed_at)
            )
        if entry.kind is SwapKind.INSTALL:
            pending = self._store.load().pending
            primary = self._layout.primary
            if pending and pending.digest == entry.incoming and self.slots.whole(primary, pending):
                self._journal.close(entry)
                return None
            self._commit("swap-refused", "image.digest", pending.manifest_digest if pending else b"")
            return self._revert(entry.image_size, entry.envelope_size, entry.outgoing, entry.incoming)
        secondary = self._layout.secondary
        if entry.kind is SwapKind.REVERT:
            self._give_up("device.self-test" if self.slots.trials(secondary) else "image.digest")
        elif entry.kind is SwapKind.UNDO:
            self._give_up("device.slot")
        self.slots.spoil(secondary)
        self._journal.close(entry)
        return BootState.FALLBACK if entry.kind is SwapKind.FALLBACK else BootState.REVERTED

    def _revert(self, image_size: int, envelope_size: int, incoming: bytes, outgoing: bytes) -> BootState | None:
        return self._complete(self._journal.begin(SwapKind.REVERT, image_size, envelope_size, incoming, outgoing))

    def _install(self, verify: Verify, hold: Hold) -> BootState | None:
        """Swaps in the pending image if one waits and passes every check; otherwise marks it bad."""
        counters, slot = self._store.load(), self._layout.secondary
        pending = counters.pending
        if not self._waiting(slot):
            return None
        if pending and self.slots.header(self._layout.primary) == pending != self.slots.header(slot):
            return None  # it is in its place already; what lies here now is the image before it
        code = self._refusal(slot, verify)
        if code or pending is None:
            self.slots.spoil(slot)
            self._give_up(code or "image.digest")
            return None
        held, sealed = hold(), counters.sealed  # where nothing else can run, there is nothing to wait for
        if held is not None and (sealed is None or self.slots.holds(self._layout.primary, sealed)):
            self._wait(pending, held)
            return None
        if counters.download is not None:
            self._store.save(replace(counters, download=None))
        image, envelope = self._extent(pending)
        outgoing = sealed.digest if sealed else b""
        try:
            entry = self._journal.begin(SwapKind.INSTALL, image, envelope, pending.digest, outgoing)
        except Refused as error:
            self.slots.spoil(slot)
            self._give_up(error.code)
            return None
        return self._complete(entry)

    def _wait(self, pending: SlotHeader, code: str) -> None:
        """Leaves the image for a later boot, noted once: somebody may switch the device off and on all day."""
        self._waits, latest = True, self._store.load().audit.events[-1:]
        if [(event.name, event.subject) for event in latest] != [("update-waits", pending.manifest_digest)]:
            self._commit("update-waits", code, pending.manifest_digest)

    def _waiting(self, slot: Slot) -> bool:
        marked = self.slots.marked
        done = marked(slot, Mark.BAD) or marked(slot, Mark.CONFIRMED) or self.slots.trials(slot) > 0
        return marked(slot, Mark.PENDING) and not done

    def _refusal(self, slot: Slot, verify: Verify) -> str | None:
        """Why the image in `slot` may not be installed; None: it is the judged one and still allowed."""
        counters = self._store.load()
        pending = counters.pending
        if pending is None or self.slots.header(slot) != pending or not self.slots.holds(slot, pending):
            return "image.digest"
        if not self._allowed(pending) or pending.sequence < counters.installed_sequence:
            return "version.rollback"
        envelope = self.slots.envelope(slot, pending)
        if envelope is None:
            return "image.digest"
        try:
            verify(pending, envelope)
        except DevguardError as error:
            return error.code
        return None

    def _allowed(self, header: SlotHeader) -> bool:
        """The one rollback check: at install, at trial, at every boot and at fallback."""
        return header.security_version >= self._store.load().security_version

    def _trial(self) -> tuple[SlotHeader | None, BootState | None]:
        """Starts the trial of the image in the primary slot, or ends one that was not confirmed."""
        pending, primary = self._store.load().pending, self._layout.primary
        if pending is None or self.slots.header(primary) != pending:
            return None, None
        trials = self.slots.trials(primary)
        whole = self.slots.whole(primary, pending) and self._allowed(pending)
        if whole and self.slots.marked(primary, Mark.CONFIRMED):
            self._seal(pending)
            return pending, None
        if whole and trials < self._trial_boots and self._begin_trial(trials):
            self._commit("trial-started", None, pending.manifest_digest)
            return pending, BootState.TRIAL
        sealed = self._store.load().sealed
        return None, self._revert(*self._extent(pending), sealed.digest if sealed else b"", pending.digest)

    def _begin_trial(self, trials: int) -> bool:
        """Counts the attempt; False where the flash does not take the mark: an uncounted trial may never end."""
        self._journal.settle()
        try:
            self.slots.mark(self._layout.primary, Mark.TRIAL, trials)
        except Refused:
            return False
        return True

    def _drop_stale_pending(self) -> None:
        """A judged record whose image stands nowhere any more: cut before its mark, or damaged in its trial."""
        pending = self._store.load().pending
        if pending is None or self._waits:
            return
        secondary = self._layout.secondary
        if self.slots.header(secondary) == pending and not self.slots.trials(secondary):
            self._commit("pending-dropped", None, pending.manifest_digest, pending=None)
        else:
            self._give_up("image.digest")

    def _give_up(self, code: str) -> None:
        pending = self._store.load().pending
        if pending is not None:
            outcome = Outcome(pending.manifest_digest, code, self._now)
            name = "update-reverted" if code == "device.self-test" else "update-refused"
            self._commit(name, code, pending.manifest_digest, pending=None, download=None, outcome=outcome)

    def _sealed(self) -> tuple[SlotHeader | None, BootState]:
        """Runs what was sealed, from the best slot that proves to hold it."""
        counters, primary, secondary = self._store.load(), self._layout.primary, self._layout.secondary
        if counters.sealed is None:
            return None, BootState.EMPTY
        for header in (counters.sealed, counters.previous):
            if header is None or not self._allowed(header):
                continue
            if self.slots.whole(primary, header):
                return header, self._adopt(header)
            if self.slots.whole(secondary, header):
                extent = (header.size, header.envelope_size)
                outgoing = counters.sealed.digest
                self._complete(self._journal.begin(SwapKind.FALLBACK, *extent, header.digest, outgoing))
                if self.slots.whole(primary, header):
                    self._adopt(header)
                    return header, BootState.FALLBACK
        # No slot is whole. An image that is proven by the sealed digest still runs: only its papers were damaged.
        if self._allowed(counters.sealed) and self.slots.holds(primary, counters.sealed):
            return counters.sealed, BootState.CONFIRMED
        self._commit("nothing-to-boot", "image.digest", counters.sealed.manifest_digest)
        return None, BootState.RECOVERY

    def _adopt(self, header: SlotHeader) -> BootState:
        """Seals the fallback image in place of the damaged one; the floors stay where they were."""
        counters = self._store.load()
        if header == counters.sealed:
            return BootState.CONFIRMED
        self._commit("fallback", "image.digest", header.manifest_digest, sealed=header, previous=None)
        return BootState.FALLBACK

    def _flags(self, header: SlotHeader, verify: Verify) -> tuple[str, ...]:
        primary, flags = self._layout.primary, []
        if self.slots.header(primary) != header:
            flags.append("slot.header")
        envelope = self.slots.envelope(primary, header)
        if envelope is None:
            flags.append("slot.envelope")
        else:
            try:
                verify(header, envelope)
            except DevguardError as error:
                flags.append(error.code)
        if header.sequence < self._store.load().installed_sequence:
            flags.append("version.older")
        if self._waits:
            flags.append("update.waiting")
        return tuple(flags)

    # -- trial --------------------------------------------------------------------------------------------------

    def self_test(self, check: Callable[[], bool]) -> bool:
        """Runs the device's self-test in a trial boot; the slot is hashed again first. False: reset and revert."""
        result = self.result
        if result.state is not BootState.TRIAL or result.header is None:
            raise Refused("session.order", "a self-test belongs to a trial boot")
        self._tested = self.slots.whole(self._layout.primary, result.header) and check()
        if not self._tested:
            self._commit("self-test-failed", "device.self-test", result.header.manifest_digest)
        return self._tested

    def confirm(self, now: int | None = None) -> BootResult:
        """Makes the trial image the one to stay: mark first, then seal it and burn the security counter.

        `Refused("device.unconfirmed")` before the self-test has passed, `Refused("session.order")` outside a trial.
        """
        result = self.result
        if result.state is not BootState.TRIAL or result.header is None:
            raise Refused("session.order", f"nothing to confirm: the device is {result.state}")
        if not self._tested:
            raise Refused("device.unconfirmed", "the trial image has not passed its self-test")
        self._now = self._now if now is None else now
        self.slots.mark(self._layout.primary, Mark.CONFIRMED)
        self._seal(result.header)
        self._result = replace(result, state=BootState.CONFIRMED, events=tuple(self._events))
        return self._result

    def _seal(self, header: SlotHeader) -> None:
        counters = self._store.load()
        self._commit(
            "confirmed",
            None,
            header.manifest_digest,
            security_version=max(counters.security_version, header.security_version),
            installed_sequence=max(counters.installed_sequence, header.sequence),
            installed_digest=header.digest,
            installed_manifest=header.manifest_digest,
            sealed=header,
            previous=counters.previous if counters.sealed == header else counters.sealed,
            pending=None,
            download=None,
            outcome=Outcome(header.manifest_digest, None, self._now),
        )

    # -- update -------------------------------------------------------------------------------------------------

    def prepare(self, manifest_digest: bytes, size: int, now: int) -> int:
        """`SlotWriter.prepare`, refused while an unconfirmed image is on trial (device.unconfirmed)."""
        if self.result.state is BootState.TRIAL:
            raise Refused("device.unconfirmed", "the device runs a trial image; it must confirm or revert first")
        self._now = now
        self._journal.settle()
        return self._writer.prepare(manifest_digest, size, now)

    def stage(self, encoding: int, size: int, digest: bytes) -> int:
        """`SlotWriter.stage`."""
        return self._writer.stage(encoding, size, digest)

    def unpack(self) -> None:
        """`SlotWriter.unpack`, against the image that runs."""
        self._writer.unpack(self.result.header)

    def write(self, offset: int, data: bytes) -> None:
        """`SlotWriter.write`."""
        self._writer.write(offset, data)

    def pause(self) -> None:
        """`SlotWriter.pause`: call it when the link is lost."""
        self._writer.pause()

    def durable_offset(self) -> int:
        """`SlotWriter.durable_offset`."""
        return self._writer.durable_offset()

    def finish(self, header: SlotHeader, envelope: bytes) -> None:
        """`SlotWriter.finish`; refuses a header below the security counter (version.rollback)."""
        if not self._allowed(header):
            floor = self._store.load().security_version
            raise Refused("version.rollback", f"security version {header.security_version}, the counter is at {floor}")
        self._writer.finish(header, envelope)

    def mark_pending(self, now: int | None = None) -> None:
        """`SlotWriter.mark_pending`: the next boot tries the image."""
        self._writer.mark_pending(self._now if now is None else now)

    def _extent(self, header: SlotHeader) -> tuple[int, int]:
        """Image and envelope bytes that a swap must move so that both images arrive whole."""
        sealed = self._store.load().sealed
        if sealed is None:
            return header.size, header.envelope_size
        return max(header.size, sealed.size), max(header.envelope_size, sealed.envelope_size)

    def _commit(self, name: str, code: str | None = None, subject: bytes = b"", **changes: Any) -> None:
        """Saves `changes` and the event that explains them in one atomic step."""
        counters = replace(self._store.load(), **changes).event(self._now, name, code, subject)
        self._store.save(counters)
        self._events.append(counters.audit.events[-1])
