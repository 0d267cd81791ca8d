"""A bench and a device in one process: no port, no real time, nothing on disk.

`Device` is a provisioned `DeviceNode` over flash and counters in memory, with clock, battery and self-test in the
test's hand. `Pipe` hands messages straight to its conversations, as an emulator does. See `line` for frames and faults.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from builders import (
    NOW,
    Vendor,
    make_envelope,
    make_image,
    make_signer,
    make_vendor,
    measure_images,
    sign_envelope,
)
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.custody.memory import MemorySigner
from devguard.device.counters import Counters, MemoryCounterStore
from devguard.device.flash import FlashMemory, MemoryBackend
from devguard.device.layout import Layout
from devguard.device.models import Model, load_model
from devguard.device.node import DeviceNode, Identity, Surroundings
from devguard.device.therapy import new_therapy
from devguard.errors import DevguardError, LinkError
from devguard.grant.check import CheckedGrant, DeviceView, check_grant
from devguard.grant.claims import ANY, Action, Grant, Scope, issue_grant, read_grant
from devguard.grant.credential import issue_credential
from devguard.manifest.description import ComponentDescription
from devguard.manifest.envelope import Envelope, sever
from devguard.session.connect import Bench, Connected, connect
from devguard.session.conversation import Conversation
from devguard.session.credentials import OwnCredential, by_suite
from devguard.session.device_side import Ended, Keys, RebootNow, Reply
from devguard.session.script import Attach, Flush, OpenPlain, Receive, Script, Send
from devguard.session.suites import PRODUCTION
from devguard.session.table import State
from devguard.session.update import UpdateSession
from devguard.session.verbs import Message, decode_message, encode_message
from devguard.verdict.judge import Release, Target, judge

T = TypeVar("T")
HOUR = 3600
SERIAL = "SN-0001"
SITE = "ward-4"
LAYOUT = Layout(slot_size=96 * 1024, sector_size=4096, page_size=256, write_size=4, envelope_size=16 * 1024)
PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"


@functools.cache
def small(name: str) -> Model:
    """A model with slots of 96 KiB, so that a whole update takes milliseconds."""
    model = load_model(name)
    return replace(model, layout=LAYOUT, facts=replace(model.facts, image_capacity=LAYOUT.image_capacity))


@functools.cache
def vendor_of(seed: str = "sim", **fields: Any) -> Vendor:
    """A vendor, made once for each seed and set of trust fields."""
    return make_vendor(seed, **fields)


def entropy(seed: str) -> Callable[[int], bytes]:
    """A reproducible source whose calls all differ."""
    calls = itertools.count()
    return lambda size: hashlib.shake_256(f"{seed}/{next(calls)}".encode()).digest(size)


@dataclass(frozen=True)
class Technician:
    """A person at the bench and the key they hold."""

    name: str
    signer: MemorySigner


TESS = Technician("Tess Technician", make_signer(Algorithm.ESP256, "tess"))
TOM = Technician("Tom Technician", make_signer(Algorithm.ED25519, "tom"))
TINA = Technician("Tina Technician", make_signer(Algorithm.ESP256, "tina"))


@dataclass
class Device:
    """One provisioned device in memory."""

    model: Model = field(default_factory=lambda: small(PUMP))
    vendor: Vendor = field(default_factory=vendor_of)
    serial: str = SERIAL
    clock: int = NOW
    up: float = 0.0
    battery: int = 90
    charging: bool = False
    self_test: Callable[[], bool] = lambda: True
    seed: str = "device"

    def __post_init__(self) -> None:
        self.backend = MemoryBackend(self.model.layout.flash.size)
        self.random = entropy(self.seed)
        self.store = MemoryCounterStore(
            Counters(clock_floor=self.vendor.trust.issued, trust_version=self.vendor.trust.version)
        )
        self.therapy = new_therapy(self.model)
        self.identity = self._identity()
        self.power_cycle()

    def _identity(self) -> Identity:
        facts, owns = self.model.facts, []
        authority = self.vendor.signer(RoleName.DEVICE_AUTHORITY)
        for algorithm in (Algorithm.ESP256, Algorithm.ED25519):
            signer = make_signer(algorithm, f"{self.seed}/{self.serial}")
            cwt = issue_credential(
                authority,
                issuer="Dana Factory",
                vendor=facts.vendor,
                model=facts.name,
                revision=facts.revisions[0],
                serial=self.serial,
                key=signer.key,
                now=NOW - 10,
            )
            owns.append(OwnCredential.kcwt(cwt, signer))
        return Identity(self.serial, facts.revisions[0], SITE, by_suite(PRODUCTION, *owns), owns[0].sign)

    def power_cycle(self) -> None:
        """Power off and on: only flash, counters and therapy stay."""
        around = Surroundings(
            clock=lambda: self.clock,
            uptime=lambda: self.up,
            battery_percent=lambda: self.battery,
            random=self.random,
            self_test=lambda: self.self_test(),
            charging=lambda: self.charging,
        )
        flash = FlashMemory(self.model.layout.flash, self.backend)
        trust = self.vendor.trust
        self.node = DeviceNode(self.model, self.identity, trust, flash, self.store, self.therapy, around)
        self.node.boot()

    @property
    def counters(self) -> Counters:
        return self.store.load()

    def fresh_hour(self) -> None:
        """Forget the erasures: an hour has passed."""
        self.store.save(replace(self.counters, erase_times=()))

    def runs(self, build: Build | None) -> bool:
        """Whether after a power cycle the device runs that build, confirmed (None: no image at all)."""
        self.power_cycle()
        state = self.node.state(bytes(16))
        return state.manifest_digest == (build.manifest_digest if build else None) and state.confirmed == bool(build)

    def view(self, *, serial: str | None = None) -> DeviceView:
        """What a bench knows of it."""
        facts = self.model.facts
        return DeviceView(facts.name, serial or self.serial, SITE, facts.clock, self.counters.grant_epoch, None)

    def copy(self) -> Device:
        """Another device in the same state."""
        other = replace(self)
        other.backend.data[:] = self.backend.data
        other.store = MemoryCounterStore(self.counters)
        other.therapy.state = self.therapy.state
        other.power_cycle()
        return other


@dataclass(frozen=True)
class Build:
    """A signed release, as a bench holds it. `images`: of each component by id, in the order in which they are sent."""

    envelope: Envelope
    images: Mapping[str, bytes]
    model: Model

    @property
    def image(self) -> bytes:
        """What is sent: the image, or the images back to back."""
        return b"".join(self.images.values())

    @property
    def offer(self) -> bytes:
        return sever(self.envelope)

    @property
    def manifest_digest(self) -> bytes:
        return self.envelope.manifest_digest


@functools.cache
def _build(vendor: Vendor, model: Model, size: int, seed: str, fields: tuple[tuple[str, Any], ...]) -> Build:
    given = dict(fields)
    signers = given.pop("signers", vendor.release_signers)
    images = split_image(make_image(size, seed), model.facts.components)
    serials = given.pop("serials", ())
    parts = tuple(ComponentDescription(name, f"{name}.bin", "raw", serials, ()) for name in images)
    envelope = make_envelope(images, model=model.facts, components=parts, **given)
    return Build(sign_envelope(envelope, signers), images, model)


def split_image(image: bytes, components: Sequence[str]) -> dict[str, bytes]:
    """The image cut into one for each component; every cut lies inside a page."""
    cut = len(image) // 3
    pieces = [image] if len(components) == 1 else [image[:-cut], image[-cut:]]
    return dict(zip(components, pieces, strict=True))


def build(device: Device, version: str = "1.1.0", sequence: int = 2, size: int = 9000, **fields: Any) -> Build:
    """A release for the device's model by its vendor (or `vendor`); `fields` as for `builders.describe`.

    `size` is that of all its images together.
    """
    vendor = fields.pop("vendor_keys", device.vendor)
    fields |= {"version": version, "sequence": sequence}
    seed = fields.pop("image_seed", version)
    try:
        return _build(vendor, device.model, size, seed, tuple(sorted(fields.items())))
    except TypeError:  # a field that does not hash
        return _build.__wrapped__(vendor, device.model, size, seed, tuple(fields.items()))


fresh_number = itertools.count(1)


def grant(device: Device, technician: Technician = TESS, *, signers: Any = None, **fields: Any) -> Grant:
    """A grant for the technician on the device for any release; `fields`: of the scope and of `issue_grant`."""
    times = {
        name: fields.pop(name)
        for name in ("now", "expires", "not_before", "cti", "subject", "holder")
        if name in fields
    }
    scope = {
        "models": frozenset({device.model.name}),
        "serials": frozenset({device.serial}),
        "sites": frozenset({ANY}),
        "actions": frozenset({Action.UPDATE}),
        "epoch": device.vendor.trust.grant_epoch,
        "any_release": True,
        **fields,
    }
    given = {
        "issuer": "Thea Authority",
        "subject": technician.name,
        "holder": technician.signer.key,
        "now": NOW,
        "expires": NOW + 8 * HOUR,
        "cti": next(fresh_number).to_bytes(16, "big"),
        **times,
    }
    authority = [device.vendor.signer(RoleName.TECHNICIAN_AUTHORITY)] if signers is None else signers
    return read_grant(issue_grant(authority, scope=Scope(**scope), **given))


def bench_for(device: Device, one: Grant, technician: Technician = TESS, **fields: Any) -> Bench:
    """A bench with that grant and key."""
    given = {"trust": device.vendor.trust, "now": NOW, "random": entropy(f"bench/{next(fresh_number)}")}
    return Bench(**{**given, "grant": one.untagged, "signer": technician.signer, **fields})


def judged(device: Device, what: Build, **fields: Any) -> Release:
    """The bench's verdict on a build, its payload measured."""
    given: Mapping[str, Any] = {"payload": measure_images(what.images), "target": Target(model=device.model.facts)}
    return judge(what.envelope, trust=device.vendor.trust, now=NOW, **{**given, **fields}).require()


def checked(device: Device, one: Grant, technician: Technician = TESS, **fields: Any) -> CheckedGrant:
    """The bench's check of a grant."""
    given: Mapping[str, Any] = {"device": device.view(), "action": Action.UPDATE, "holder": technician.signer.key}
    return check_grant(one, trust=device.vendor.trust, now=NOW, **{**given, **fields})


def update(
    device: Device,
    what: Build,
    one: Grant | None = None,
    technician: Technician = TESS,
    action: Action = Action.UPDATE,
    **fields: Any,
) -> UpdateSession:
    """An honest push (or recovery), ready to run."""
    one = one or grant(device, technician, actions=frozenset({action}))
    session = UpdateSession(
        judged(device, what),
        checked(device, one, technician, action=action),
        bench_for(device, one, technician),
        what.offer,
        io.BytesIO(what.image),
    )
    for name, value in fields.items():
        setattr(session, name, value)
    return session


class Pipe:
    """Joins bench scripts to a device's conversations message by message, with the emulator's rules and no link."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.plain: Conversation | None = None
        self.session: Conversation | None = None
        self.inbox: dict[bool, deque[bytes]] = {True: deque(), False: deque()}
        self.sent: list[tuple[bytes, bool]] = []
        self.cut_after: int | None = None

    def open(self) -> None:
        """A new connection: a new attempt."""
        self.plain = self.device.node.converse(self.device.random)
        self.inbox[False].clear()

    def lose(self) -> None:
        """The cable goes."""
        self.device.node.lost()
        self.plain = self.session = None
        for box in self.inbox.values():
            box.clear()

    def deliver(self, message: bytes, *, sealed: bool) -> None:
        """One message of the bench."""
        self.sent.append((message, sealed))
        conversation = self.session if sealed else self.plain
        if conversation is None:
            return
        for action in conversation.heard(message, sealed=sealed):
            if isinstance(action, Reply):
                self.inbox[action.sealed].append(action.message)
            elif isinstance(action, Keys):
                self.device.node.lost()
                self.session = conversation
            elif isinstance(action, RebootNow):
                self.plain = self.session = None
                self.device.node.boot()
            elif isinstance(action, Ended) and conversation is self.session:
                self.session = None
                self.device.node.lost()

    def run(self, script: Script[T]) -> T:
        """A script's result; a device that is silent is a link time-out."""
        value: Any = None
        failure: DevguardError | None = None
        while True:
            try:
                step = script.throw(failure) if failure is not None else script.send(value)
            except StopIteration as done:
                result: T = done.value
                return result
            value, failure = None, None
            if isinstance(step, OpenPlain):
                self.open()
            elif isinstance(step, Send):
                if self.cut_after is not None and len(self.sent) >= self.cut_after:
                    self.lose()
                    failure = LinkError("link.port", "the cable was pulled")
                else:
                    self.deliver(step.message, sealed=step.sealed)
            elif isinstance(step, Receive):
                if self.inbox[step.sealed]:
                    value = self.inbox[step.sealed].popleft()
                elif not step.optional:
                    failure = LinkError("link.timeout", "the device is silent")
            else:
                assert isinstance(step, (Attach, Flush))

    def ask(self, message: Message | bytes, *, sealed: bool = True) -> Message | None:
        """Say one thing, whatever it is; the device's answer, None for silence."""
        data = message if isinstance(message, bytes) else encode_message(message)
        self.deliver(data, sealed=sealed)
        box = self.inbox[sealed]
        return decode_message(box.popleft(), sealed=sealed) if box else None

    def connect(self, one: Grant, technician: Technician = TESS, **fields: Any) -> Connected:
        """A session, made as an honest bench makes it."""
        return self.run(connect(bench_for(self.device, one, technician, **fields)))

    @property
    def state(self) -> State:
        """Where the session stands on the device."""
        return self.session.state if self.session is not None else State.CLOSED


def push(device: Device, what: Build, one: Grant | None = None, technician: Technician = TESS, **fields: Any) -> Pipe:
    """An honest push over a pipe, trial and confirmation included."""
    pipe = Pipe(device)
    pipe.run(update(device, what, one, technician, **fields).push())
    return pipe
