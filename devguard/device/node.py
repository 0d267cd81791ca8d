"""The device's own judgement: what a conversation may do to it. Every answer is made from its own state.

Implements `session.device_side.DevicePort` from the same pure rooms the bench uses (manifest, trust, verdict,
grant), with the device's trust document, counters and clock floor. Nothing the bench says of itself is believed.
All checks of an offer come before the first sector is erased. Source: devguard architecture, law 4; formats, "Grant".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer
from devguard.device.bootloader import Bootloader, BootResult, BootState
from devguard.device.counters import CounterStore
from devguard.device.flash import FlashMemory
from devguard.device.header import SlotHeader
from devguard.device.models import Model
from devguard.device.therapy import Therapy
from devguard.errors import DevguardError, Refused
from devguard.grant.check import CheckedGrant, DeviceView, check_grant, check_pair
from devguard.grant.claims import Action, read_grant
from devguard.grant.uses import advanced_epoch, advanced_floor, spend_use
from devguard.manifest.envelope import parse_offer
from devguard.manifest.model import Clock
from devguard.session.approval import ApprovalRequest, check_approval
from devguard.session.credentials import OwnCredential
from devguard.session.report import Report, sign_report
from devguard.session.verbs import NONCE_SIZE, PROTOCOL_VERSION, Accept, HelloReply
from devguard.trust.document import TrustDocument
from devguard.verdict.judge import Release, Target, judge

FREE_HANDSHAKES: Final = 3
MAX_DELAY: Final = 4.0
NO_VERSION: Final = "factory"
SECONDARY: Final = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a provisioned device is. `credentials`: its credential for each EDHOC suite; `signer` signs its reports."""

    serial: str
    revision: str
    site: str | None
    credentials: Mapping[int, OwnCredential]
    signer: Signer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a device senses: the time (seconds since the epoch, used only by models with a clock), uptime, battery."""

    clock: Callable[[], int]
    uptime: Callable[[], float]
    battery_percent: Callable[[], int]
    random: Callable[[int], bytes]
    self_test: Callable[[], bool]


class DeviceNode:
    """One powered device. `boot` after every reset; then it answers conversations."""

    def __init__(
        self,
        model: Model,
        identity: Identity,
        trust: TrustDocument,
        flash: FlashMemory,
        store: CounterStore,
        therapy: Therapy,
        surroundings: Surroundings,
    ) -> None:
        self.model = model
        self.identity = identity
        self.trust = trust
        self.therapy = therapy
        self._flash = flash
        self._store = store
        self._around = surroundings
        self._delay_until = 0.0
        self._forget()
        self._boot = Bootloader(flash, model, store)

    def _forget(self) -> None:
        self._first: CheckedGrant | None = None
        self._second: tuple[bytes, CheckedGrant] | None = None
        self._accepted: tuple[Release, bytes] | None = None

    # boot

    def boot(self) -> BootResult:
        """Reset: whatever was under way is forgotten, the bootloader decides what runs, a trial is settled."""
        self._forget()
        result = self._start()
        if result.state is BootState.TRIAL:
            if self._boot.self_test(self._around.self_test):
                result = self._boot.confirm(self.now())
            else:
                result = self._start()
        return result

    def _start(self) -> BootResult:
        self._boot = Bootloader(self._flash, self.model, self._store)
        counters = self._store.load()
        floor = advanced_floor(counters.clock_floor, self.trust.issued)
        counters = counters.with_clock_floor(floor)
        if counters.trust_version < self.trust.version:
            counters = counters.with_trust_version(self.trust.version)
        if counters.nonce is None:
            counters = counters.with_nonce(self._around.random(NONCE_SIZE))
        self._store.save(counters)
        return self._boot.boot(self._judge_slot, self.now())

    def _judge_slot(self, header: SlotHeader, envelope: bytes) -> None:
        """The bootloader's question: is this envelope still a release for this very device, and of this image."""
        release = self._judge(envelope, Target(self.model.facts, self.identity.serial, self.identity.revision))
        if (release.manifest_digest, release.digest) != (header.manifest_digest, header.digest):
            raise Refused("image.digest", "the slot's envelope is of another image")

    def now(self) -> int:
        """The device's time: max(clock, floor), or the floor where it has no clock."""
        floor = self._store.load().clock_floor
        return max(self._around.clock(), floor) if self.model.facts.clock is Clock.RTC else floor

    def _steady(self) -> int:
        """Time that passes even on a device without a clock: for budgets, never for a grant."""
        return self.now() if self.model.facts.clock is Clock.RTC else self.now() + int(self._around.uptime())

    # the conversation

    def hello(self) -> HelloReply:
        """What anybody at the port may know."""
        nonce = self._store.load().nonce or bytes(NONCE_SIZE)
        suites = tuple(self.identity.credentials)
        return HelloReply(PROTOCOL_VERSION, str(self._boot.result.state), suites, nonce)

    def credentials(self) -> Mapping[int, OwnCredential]:
        """The device's credential for each EDHOC suite."""
        return self.identity.credentials

    def handshake_begins(self) -> None:
        """Back-off before public-key work after failed handshakes: 0, 0, 0, 1, 2, 4, 4 ... seconds, for everybody."""
        wait = self._delay_until - self._around.uptime()
        if wait > 0:
            raise Refused("device.busy", f"after failed handshakes the device waits {wait:.1f} s")
        self._forget()

    def handshake_failed(self) -> None:
        """Count a failed handshake and set the delay before the next."""
        counters = self._store.load()
        failed = counters.failed_handshakes + 1
        self._store.save(counters.with_failed_handshakes(min(failed, 1 << 16)))
        if failed > FREE_HANDSHAKES:
            self._delay_until = self._around.uptime() + min(MAX_DELAY, 2.0 ** (failed - FREE_HANDSHAKES - 1))

    def judge_technician(self, cwt: bytes) -> CoseKey:
        """Check the grant; its holder's key must then sign message_3."""
        self._first = self._check(cwt)
        return self._first.holder

    def authorised(self) -> None:
        """The technician has proved the key: what the authority signed may move clock floor and epoch."""
        first = self._granted()
        counters = self._store.load().with_failed_handshakes(0)
        if first.moves:
            counters = counters.with_clock_floor(advanced_floor(counters.clock_floor, first.grant.issued))
            counters = counters.with_grant_epoch(advanced_epoch(counters.grant_epoch, first.grant.scope.epoch))
        self._store.save(counters.event(self.now(), "session", None))

    def _granted(self) -> CheckedGrant:
        if self._first is None:
            raise Refused("session.order", "no technician has been authorised")
        return self._first

    def _check(self, cwt: bytes) -> CheckedGrant:
        grant = read_grant(cwt)
        counters = self._store.load()
        nonces = {counters.nonce} if counters.nonce is not None else set()
        if grant.scope.device_nonce is not None and grant.cti in counters.spent:
            nonces.add(grant.scope.device_nonce)  # its nonce is used up; what it began it may finish
        view = DeviceView(
            model=self.model.name,
            serial=self.identity.serial,
            site=self.identity.site,
            clock=self.model.facts.clock,
            epoch=counters.grant_epoch,
            nonces=frozenset(nonces),
            spent=counters.spent,
        )
        return check_grant(grant, trust=self.trust, now=self.now(), device=view, action=Action.UPDATE, holder=None)

    def approve(self, approval: bytes, grant: bytes) -> None:
        """A second technician's grant is checked here; the approval itself when the offer it names is known."""
        second = self._check(grant)
        check_pair(self._granted(), second)
        self._second = (approval, second)

    def _check_approval(self, approval: bytes, second: CheckedGrant, session_id: bytes, manifest: bytes) -> None:
        first = self._granted()
        expected = ApprovalRequest(
            session_id,
            self.identity.serial,
            manifest,
            first.action.value,
            hashlib.sha256(first.grant.untagged).digest(),
            0,
        )
        now = self.now() if self.model.facts.clock is Clock.RTC else None
        digest = hashlib.sha256(second.grant.untagged).digest()
        check_approval(approval, expected=expected, holder=second.holder, second_grant_digest=digest, now=now)

    def offer(self, envelope: bytes, session_id: bytes) -> Accept:
        """Judge the release and everything around it; only then erase, spend the grant's use and accept."""
        first = self._granted()
        first.still_valid(self.now())
        release = self._judge(envelope, self._target())
        first.covers(release)
        self._check_nonce_use(first, release)
        self._check_quorum(release, session_id)
        self._check_state(release)
        if len(release.components) != 1:
            raise Refused(
                "device.slot", f"the release has {len(release.components)} components, the device one slot pair"
            )
        offset = self._boot.prepare(release.manifest_digest, release.size, self._steady())
        self._spend(first, release)
        self._accepted = (release, envelope)
        link, running = self.model.link, self._boot.result.header
        source = running.digest if running is not None else bytes(32)
        return Accept(SECONDARY, link.receive_window, link.segment_max, offset, source)

    def _target(self) -> Target:
        """What the device is and runs. A release that was installed and lost may come again; nothing older may."""
        counters, running = self._store.load(), self._boot.result.header
        floor, digest = counters.installed_sequence, running.manifest_digest if running is not None else None
        if running is None or running.sequence < floor:
            floor, digest = floor - 1, None
        return Target(
            model=self.model.facts,
            serial=self.identity.serial,
            revision=self.identity.revision,
            installed_sequence=floor if counters.sealed is not None and floor >= 0 else None,
            installed_digest=digest,
            security_version=counters.security_version,
            installed_version=running.version if running is not None else None,
        )

    def _judge(self, envelope: bytes, target: Target) -> Release:
        return judge(parse_offer(envelope), trust=self.trust, now=self.now(), target=target, payload=None).require()

    def _check_nonce_use(self, grant: CheckedGrant, release: Release) -> None:
        spent = self._store.load().spent.get(grant.grant.cti)
        if grant.grant.scope.device_nonce is not None and spent and spent.manifest_digest != release.manifest_digest:
            raise Refused("grant.replay", "the grant's nonce was used up by another release")

    def _check_quorum(self, release: Release, session_id: bytes) -> None:
        if self.model.facts.technicians < 2 and not release.requirements.two_technicians:
            return
        if self._second is None:
            raise Refused("grant.quorum", "two different technicians must approve; one has")
        approval, second = self._second
        second.still_valid(self.now())
        second.covers(release)
        self._check_nonce_use(second, release)
        check_pair(self._granted(), second)
        self._check_approval(approval, second, session_id, release.manifest_digest)

    def _check_state(self, release: Release) -> None:
        """Therapy, battery and trial: asked at the offer, and again at commit."""
        # Whatever a manifest leaves out, an update never meets a therapy that is under way.
        if not self.therapy.idle:
            raise Refused("device.therapy-active", "therapy is being delivered")
        percent = self._around.battery_percent()
        capacity = self.model.facts.battery_capacity_mwh
        wanted = release.requirements.minimum_battery_mwh or 0
        floor = self.model.minimum_battery_percent
        if percent < floor or percent * capacity < wanted * 100:
            raise Refused(
                "device.battery",
                f"battery at {percent} %, the update asks for {max(floor, -(-wanted * 100 // capacity))} %",
            )

    def _spend(self, first: CheckedGrant, release: Release) -> None:
        counters = self._store.load()
        for checked in (first, *((self._second[1],) if self._second else ())):
            used = spend_use(checked.chain, counters.spent, release.manifest_digest, counters.clock_floor)
            counters = replace(counters, spent=used)
            if checked.grant.scope.device_nonce is not None and checked.grant.scope.device_nonce == counters.nonce:
                counters = counters.with_nonce(self._around.random(NONCE_SIZE))
        counters = replace(counters, settings_before=self.therapy.settings_digest())
        self._store.save(counters.event(self.now(), "accepted", None, release.manifest_digest))

    def data(self, offset: int, payload: bytes) -> int:
        """Program the payload; the offset that would survive a power cut now."""
        self._boot.write(offset, payload)
        return self._boot.durable_offset()

    def commit(self, manifest_digest: bytes) -> None:
        """Hash the slot against the judged release and mark it for its trial."""
        if self._accepted is None:
            raise Refused("session.order", "nothing was accepted")
        release, envelope = self._accepted
        if manifest_digest != release.manifest_digest:
            raise Refused("session.order", "commit names another release than the one accepted")
        self._granted().still_valid(self.now())
        self._check_state(release)
        facts = release.components[0]
        header = SlotHeader.of(
            size=release.size,
            digest_algorithm=facts.digest_algorithm,
            digest=release.digest,
            manifest_digest=release.manifest_digest,
            sequence=release.sequence,
            security_version=release.security_version,
            version=release.version,
            envelope=envelope,
        )
        self._boot.finish(header, envelope)
        self._boot.mark_pending(self.now())

    def lost(self) -> None:
        """The link is gone: make durable what has arrived, forget the session."""
        self._boot.pause()
        self._forget()

    def refused(self, error: DevguardError) -> None:
        """Note a refusal in the device's own log."""
        self._store.save(self._store.load().event(self.now(), "refused", error.code[:64]))

    def report(self, challenge: bytes) -> bytes:
        """The signed report of what runs now."""
        return sign_report(self.state(challenge), self.identity.signer)

    def state(self, challenge: bytes) -> Report:
        """What the device says of itself."""
        counters, result = self._store.load(), self._boot.result
        header = result.header
        return Report(
            model=self.model.name,
            serial=self.identity.serial,
            version=header.version if header is not None else NO_VERSION,
            image_digest=header.digest if header is not None else bytes(32),
            manifest_digest=header.manifest_digest if header is not None else None,
            sequence=counters.installed_sequence,
            security_version=counters.security_version,
            boot_state=self._boot_state(),
            confirmed=header is not None and counters.sealed == header,
            flags=result.flags,
            trust_version=counters.trust_version,
            grant_epoch=counters.grant_epoch,
            clock_floor=counters.clock_floor,
            spent_grants=len(counters.spent),
            settings_digest=self.therapy.settings_digest(),
            settings_before=counters.settings_before,
            history_digest=self.therapy.history_digest,
            battery_percent=self._around.battery_percent(),
            log_head=counters.audit.head,
            challenge=challenge,
        )

    def _boot_state(self) -> str:
        """How the last update ended, where this boot does not say: a reverted trial stays visible."""
        state, outcome = self._boot.result.state, self._store.load().outcome
        if state is BootState.CONFIRMED and outcome is not None and outcome.code == "device.self-test":
            return str(BootState.REVERTED)
        return str(state)
