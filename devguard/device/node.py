"""One powered device: its boots, its time, its trust document, its counters, its signed report.

What a conversation may do to it is decided by an `Attendant`, one for each conversation. Source: devguard
architecture, law 4; formats, "Flash and boot".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer
from devguard.device.attendant import ACCEPTED, Attendant
from devguard.device.bootloader import Bootloader, BootResult, BootState
from devguard.device.counters import Counters, CounterStore
from devguard.device.erase import ERASED
from devguard.device.flash import FlashMemory
from devguard.device.header import SlotHeader
from devguard.device.models import Model
from devguard.device.recover import is_lost
from devguard.device.therapy import TherapyView
from devguard.errors import DevguardError, LocalProtocolError, Refused
from devguard.evidence.device_log import DeviceEvent, DeviceLog, sign_device_log
from devguard.grant.uses import advanced_floor
from devguard.manifest.envelope import parse_offer
from devguard.manifest.model import Clock
from devguard.session.credentials import OwnCredential
from devguard.session.device_side import DeviceConversation
from devguard.session.erasure import Erased
from devguard.session.report import Report, RunningPart, sign_report
from devguard.session.verbs import ACTIONS_VERSION, NONCE_SIZE, PROTOCOL_VERSION, HelloReply
from devguard.trust.document import TrustDocument
from devguard.verdict.judge import Release, Target, judge

FREE_HANDSHAKES: Final = 3
FREE_OFFERS: Final = 8
MAX_DELAY: Final = 4.0
COUNTED_HANDSHAKES: Final = 16
NOTED_REFUSALS: Final = 16
NO_VERSION: Final = "factory"


def handshake_delay(failed: int) -> float:
    """Seconds before the next handshake after `failed` failed ones in a row: 0, 0, 0, 0, 1, 2, 4, 4, ..."""
    if failed <= FREE_HANDSHAKES:
        return 0.0
    return min(MAX_DELAY, 2.0 ** min(failed - FREE_HANDSHAKES - 1, 8))  # far beyond the cap; any number may have failed


def back_off(counters: Counters) -> float:
    """Seconds before the next handshake, as far as the counters tell: after handshakes that failed, and after offers
    since the last confirmed update, refused or taken and given up. Whoever holds a good grant cannot make a device
    check signatures without end either."""
    since = takewhile(lambda event: event.name != "confirmed", reversed(counters.audit.events))
    taken = tuple(ACCEPTED.values())
    offers = sum(event.name in taken or (event.name == "refused" and event.subject != b"") for event in since)
    return handshake_delay(max(counters.failed_handshakes, offers - FREE_OFFERS + FREE_HANDSHAKES))


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
    """What a device senses: the time (seconds since the epoch, used only by models with a clock), uptime, battery, and
    whether that is being charged."""

    clock: Callable[[], int]
    uptime: Callable[[], float]
    battery_percent: Callable[[], int]
    random: Callable[[int], bytes]
    self_test: Callable[[], bool]
    charging: Callable[[], bool] = lambda: False


class DeviceNode:
    """One powered device. `boot` after every reset; then it answers conversations."""

    def __init__(
        self,
        model: Model,
        identity: Identity,
        trust: TrustDocument,
        flash: FlashMemory,
        store: CounterStore,
        therapy: TherapyView,
        surroundings: Surroundings,
        keep_trust: Callable[[bytes], object] = len,
        erase: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """`keep_trust` makes a new trust document durable, whole or not at all; `len`: a device in memory. `erase`
        makes nobody of the device and gives the certificate over what it is told; None: it cannot be erased."""
        self.model = model
        self.identity = identity
        self.trust = trust
        self.therapy = therapy
        self._flash = flash
        self.store = store
        self.around = surroundings
        self._keep_trust = keep_trust
        self._erase = erase
        self.erased = False
        # What the delay follows from outlives a power cut, and so does the delay.
        self._delay_until = surroundings.uptime() + back_off(store.load())
        self._judged: Release | None = None
        self.loader = Bootloader(flash, model, store)

    # boot

    def boot(self) -> BootResult:
        """Reset: whatever was under way is forgotten, the bootloader decides what runs, a trial is settled."""
        result = self._start()
        if result.state is not BootState.TRIAL:
            return result
        return self._settle_trial() or self._start()

    def _settle_trial(self) -> BootResult | None:
        """The trial image confirmed, or None: the next start reverts it."""
        if not self.loader.self_test(self._tests_well):
            return None
        try:
            return self.loader.confirm(self.now())
        except Refused as error:
            self.store.save(self.store.load().event(self.now(), "confirm-failed", error.code))
            return None

    def _tests_well(self) -> bool:
        """The self-test of a trial. An image that changes therapy settings has failed it, whatever else it does well:
        no update is a way to change them."""
        before = self.therapy.settings_digest()
        passed = self.around.self_test()
        if self.therapy.settings_digest() == before:
            return passed
        self.store.save(self.store.load().event(self.now(), "settings-changed", "device.self-test"))
        return False

    def _start(self) -> BootResult:
        self.loader = Bootloader(self._flash, self.model, self.store)
        counters = self.store.load()
        floor = advanced_floor(counters.clock_floor, self.trust.issued)
        counters = counters.with_clock_floor(floor).under_trust(self.trust.version)
        if counters.nonce is None:
            counters = counters.with_nonce(self.around.random(NONCE_SIZE))
        self.store.save(counters)
        return self.loader.boot(self._judge_slot, self.now(), self._hold)

    def _judge_slot(self, header: SlotHeader, envelope: bytes) -> None:
        """The bootloader's question: is this envelope still a release for this very device, and of this image."""
        release = self.judge(envelope, Target(self.model.facts, self.identity.serial, self.identity.revision))
        if release.manifest_digest != header.manifest_digest or not header.is_of(release.components):
            raise Refused("image.digest", "the slot's envelope is of another image")
        self._judged = release

    def _hold(self) -> str | None:
        """What stands against installing the release that was judged last, now: a device switched off and on in the
        middle of a therapy goes on with what it has."""
        if self._judged is None:
            raise LocalProtocolError("session.order", "no release has been judged")
        try:
            self.check_ready(self._judged)
        except Refused as error:
            return error.code
        return None

    def check_ready(self, release: Release) -> None:
        """Therapy, alarms and battery: asked at the offer, at commit, at the reboot, and by the boot that installs."""
        # Whatever a manifest leaves out, an update never meets a therapy that is under way.
        if not self.therapy.idle:
            raise Refused("device.therapy-active", "therapy is being delivered")
        if alarms := self.therapy.alarms:
            raise Refused("device.alarm", f"an alarm is open: {', '.join(alarms)}")
        percent = self.around.battery_percent()
        capacity = self.model.facts.battery_capacity_mwh
        wanted = release.requirements.minimum_battery_mwh or 0
        floor = self.model.minimum_battery_percent
        if percent < floor or percent * capacity < wanted * 100:
            raise Refused(
                "device.battery",
                f"battery at {percent} %, the update asks for {max(floor, -(-wanted * 100 // capacity))} %",
            )
        if self.around.charging():
            raise Refused("device.charging", f"the battery, at {percent} %, is being charged")

    def now(self) -> int:
        """The device's time: max(clock, floor), or the floor where it has no clock."""
        floor = self.store.load().clock_floor
        return max(self.around.clock(), floor) if self.model.facts.clock is Clock.RTC else floor

    def steady(self) -> int:
        """Time that passes even on a device without a clock: for budgets, never for a grant."""
        return self.now() if self.model.facts.clock is Clock.RTC else self.now() + int(self.around.uptime())

    # what every conversation may ask

    def converse(self, random: Callable[[int], bytes]) -> DeviceConversation:
        """The device's side of one connection."""
        return DeviceConversation(self.attend(), random)

    def attend(self) -> Attendant:
        """The device's side of one conversation; what it learns of a technician stays with it alone."""
        return Attendant(self)

    def hello(self) -> HelloReply:
        """What anybody at the port may know."""
        nonce = self.store.load().nonce or bytes(NONCE_SIZE)
        suites = tuple(self.identity.credentials)
        return HelloReply(PROTOCOL_VERSION, str(self.loader.result.state), suites, nonce)

    def handshake_begins(self) -> None:
        """Back-off before public-key work after failed handshakes: 0, 0, 0, 1, 2, 4, 4 ... seconds, for everybody; and
        from the ninth offer without a confirmed update on."""
        if self.erased:
            raise Refused("device.decommissioned", "the device has erased itself; the factory enrols it anew")
        wait = self._delay_until - self.around.uptime()
        if wait > 0:
            raise Refused("device.busy", f"after failed attempts the device waits {wait:.1f} s")

    def handshake_failed(self) -> None:
        """Count a failed handshake and set the delay before the next."""
        counters = self.store.load()
        failed = counters.failed_handshakes + 1
        if failed <= COUNTED_HANDSHAKES:  # the delay has long reached its cap; no stranger wears the store with more
            counters = counters.with_failed_handshakes(failed)
            self.store.save(counters)
        self._delay_until = self.around.uptime() + back_off(counters)

    def target(self) -> Target:
        """What the device is, and what it has confirmed last, whether or not that runs."""
        counters, running = self.store.load(), self.loader.result.header
        return Target(
            model=self.model.facts,
            serial=self.identity.serial,
            revision=self.identity.revision,
            installed_sequence=counters.installed_sequence if counters.sealed is not None else None,
            installed_digest=counters.installed_manifest,
            security_version=counters.security_version,
            installed_version=running.version if running is not None else None,
            installed_components={},  # it knows no version of a part that no release brings, so none is new enough
        )

    def judge_offer(self, envelope: bytes) -> Release:
        """The release in an offer, to be installed for the first time."""
        try:
            return self.judge(envelope, self.target())
        except Refused as error:
            if error.code != "version.current" or not is_lost(self.loader, self.store.load()):
                raise
            what = "that release was confirmed here and is damaged: to put it back is recover, and no update"
            hint = "ask for a grant that allows recover, then `devguard device recover`"
            raise Refused("grant.action", what, hint) from None

    def judge(self, envelope: bytes, target: Target) -> Release:
        return judge(parse_offer(envelope), trust=self.trust, now=self.now(), target=target, payload=None).require()

    def adopt(self, data: bytes, document: TrustDocument, epoch: int | None = None) -> None:
        """Hold a newer trust document, already judged. It is durable before anything acts on it; cut off in between,
        the next boot raises the counters to it. `epoch`: what the root has set the grant epoch back to, noted first,
        so that the document brings it into force wherever the power goes."""
        counters = self.store.load()
        if document.version < counters.trust_version:
            raise Refused("trust.rollback", f"version {document.version} is older than one this device has held")
        if epoch is not None:
            self.store.save(replace(counters, epoch_reset=(document.version, epoch)))
        self._keep_trust(data)
        self.trust = document
        counters = self.store.load().under_trust(document.version)
        counters = counters.with_clock_floor(advanced_floor(counters.clock_floor, document.issued))
        self.store.save(counters.event(self.now(), "trust", None, document.digest))

    def decommission(self, challenge: bytes) -> bytes:
        """Erase what makes this device somebody's; its certificate. Whoever calls has asked everybody."""
        if self._erase is None:
            raise Refused("device.state", "this device keeps nothing that could be erased")
        audit, identity = self.store.load().audit, self.identity
        owns = {own.sign.key.thumbprint: own for own in identity.credentials.values() if own.sign is not None}
        said = Erased(
            model=self.model.name,
            revision=identity.revision,
            serial=identity.serial,
            time=self.now(),
            challenge=challenge,
            erased=ERASED,
            log_count=audit.count,
            log_head=audit.head,
            keys=tuple(sorted(owns)),
            credential=owns[identity.signer.key.thumbprint].cred,
        )
        self.erased = True
        return self._erase(said.encode())

    def lost(self) -> None:
        """The link is gone: make durable what has arrived."""
        self.loader.pause()

    def refused(self, error: DevguardError, *, proved: bool = True, offered: bytes = b"") -> None:
        """Note a refusal in the device's own log; `offered`: the manifest digest of the release, where it was an offer.

        `proved`: somebody's key was proved in this conversation. Of what anybody at the port provokes, only so many are
        noted after the last event of another kind, and then each code once; that it backed off, once at a time. So
        strangers cannot push the rest out of the ring, nor wear the store, and nor can a bench that waits its turn.
        """
        counters, code = self.store.load(), error.code[:64]
        latest = [event.code for event in takewhile(lambda one: one.name == "refused", reversed(counters.audit.events))]
        again = not proved and code == "device.busy" and latest[:1] == [code]
        if proved or (len(latest) < NOTED_REFUSALS and not again) or code not in latest:
            counters = counters.event(self.now(), "refused", code, offered)
            self.store.save(counters)
        if offered:
            self._wait(counters)

    def offer_taken(self) -> None:
        """An offer was accepted, and noted: most are, and then given up, where somebody drains the battery."""
        self._wait(self.store.load())

    def _wait(self, counters: Counters) -> None:
        self._delay_until = max(self._delay_until, self.around.uptime() + back_off(counters))

    def signer_beside(self, key: CoseKey) -> Signer:
        """The device's own key of the kind of `key`: what a session with that key has proved, and no other."""
        owns = (own.sign for own in self.identity.credentials.values())
        return next((one for one in owns if one.key.algorithm is key.algorithm), self.identity.signer)

    def signed_log(self, challenge: bytes, signer: Signer | None = None) -> bytes:
        """The audit ring, signed over the challenge, by the device's first key where no other is named."""
        ring = self.store.load().audit
        events = tuple(DeviceEvent(one.time, one.name, one.code, one.subject) for one in ring.events)
        name, serial = self.model.name, self.identity.serial
        log = DeviceLog(name, serial, self.now(), ring.count, ring.base, events, challenge)
        return sign_device_log(log, signer or self.identity.signer)

    def report(self, challenge: bytes, version: int = ACTIONS_VERSION, signer: Signer | None = None) -> bytes:
        """The signed report of what runs now, as a bench of that version of the protocol reads it, by the device's
        first key where no other is named."""
        state = self.state(challenge)
        if version < ACTIONS_VERSION:
            state = replace(state, history_before=None)
        return sign_report(state, signer or self.identity.signer)

    def state(self, challenge: bytes) -> Report:
        """What the device says of itself."""
        counters, result = self.store.load(), self.loader.result
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
            flags=(*result.flags, *self.therapy.damage),
            trust_version=counters.trust_version,
            grant_epoch=counters.grant_epoch,
            clock_floor=counters.clock_floor,
            spent_grants=len(counters.spent),
            settings_digest=self.therapy.settings_digest(),
            settings_before=counters.settings_before,
            history_digest=self.therapy.history_digest,
            history_before=counters.history_before,
            battery_percent=self.around.battery_percent(),
            log_head=counters.audit.head,
            challenge=challenge,
            components=tuple(RunningPart(part.id, part.digest, part.size) for part in header.parts) if header else (),
        )

    def _boot_state(self) -> str:
        """How the last update ended, where this boot does not say: a reverted trial stays visible."""
        state, outcome = self.loader.result.state, self.store.load().outcome
        settled = state in (BootState.CONFIRMED, BootState.EMPTY)  # empty: it was the first image that failed
        if settled and outcome is not None and outcome.code == "device.self-test":
            return str(BootState.REVERTED)
        return str(state)
