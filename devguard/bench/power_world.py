"""The world of the power-cut bench: one device as a value, its releases, its technicians, its chain of trust.

A `State` is all that outlives a power cut. `Machine` is one power-on over it: the real `DeviceNode` and `Attendant`,
driven as a conversation would drive them, with real signatures and without a line. What a machine does depends on
its state alone, so the same state always gives the same run.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from devguard.bench.power_flash import Flash, TrackedBackend, TrackedFlash
from devguard.bench.stage import NOW, SERIAL, Build, Stage, stream
from devguard.cose.roles import RoleName
from devguard.device.attendant import Attendant
from devguard.device.cells import Cells
from devguard.device.counters import Counters, check_no_regression
from devguard.device.flash import FlashGeometry, FlashMemory, Operation, Tear
from devguard.device.header import SlotHeader
from devguard.device.layout import Layout
from devguard.device.models import Model
from devguard.device.node import MAX_DELAY, DeviceNode, Surroundings
from devguard.device.therapy import decode_therapy, new_therapy
from devguard.image.delta import patch_in_place
from devguard.manifest.envelope import sever
from devguard.session.approval import ApprovalRequest, sign_approval
from devguard.session.verbs import Accept, Encoding, Ending
from devguard.trust.document import TrustDocument, read_trust
from devguard.trust.rotate import Change, sign_successor, successor
from devguard.verdict.judge import Release, Target

HOUR: Final = 3601
_SESSION: Final = hashlib.sha256(b"a session of the power-cut bench").digest()
_APPROVAL_SECONDS: Final = 300
MANY_SECTORS: Final = 1024
RUNNING: Final = 1  # the release a device runs when a scene begins, by its number
FALLING: Final = 2
TARGET: Final = 3
NEXT: Final = 4
VERSIONS: Final = 6
FIRST_SECURE: Final = 3  # the first release with a higher security version
_ALIKE: Final = 7  # `TARGET` differs from `RUNNING` in one byte of so many: in every page, and a patch of it is small


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a device keeps: flash, counters, the number of its trust document in the world's chain, therapy."""

    flash: Flash
    counters: Counters
    trust: int
    therapy: bytes


def cells_of(layout: Layout, flash: Flash) -> Cells:
    """The cells of a chip in that state."""
    cells = Cells(layout.flash.size // layout.sector_size, layout.sector_size, seed=flash.seed)
    cells.weak = dict(flash.weak)
    return cells


class Watcher(Protocol):
    """Stands beside a machine and is told of every durable step before it happens; may raise `PowerCut`."""

    def flash(self, operation: Operation, address: int, data: bytes) -> Tear | None: ...

    def save(self, counters: Counters) -> None: ...

    def trust(self, number: int) -> None: ...


class WatchedFlash(TrackedFlash):
    """Flash whose watcher also sees what is about to be written."""

    def __init__(self, geometry: FlashGeometry, backend: TrackedBackend, cells: Cells, watcher: Watcher) -> None:
        super().__init__(geometry, backend, lambda *_: self._tear_next, cells)
        self._watcher = watcher
        self._tear_next: Tear | None = None

    def erase(self, offset: int) -> None:
        """See `FlashMemory.erase`."""
        self._tear_next = self._watcher.flash(Operation.ERASE, offset, b"")
        super().erase(offset)

    def program(self, offset: int, data: bytes) -> None:
        """See `FlashMemory.program`."""
        self._tear_next = self._watcher.flash(Operation.PROGRAM, offset, data)
        super().program(offset, data)


class Node(DeviceNode):
    """A device node that judges each release once: the verdict room is pure, so the same question has one answer."""

    verdicts: dict[tuple[object, ...], Release]

    def judge(self, envelope: bytes, target: Target) -> Release:
        """See `DeviceNode.judge`."""
        asked = (envelope, self.trust.digest, self.now(), repr(target))
        if asked not in self.verdicts:
            self.verdicts[asked] = super().judge(envelope, target)
        return self.verdicts[asked]


class World:
    """A model with releases of one size, numbered from 0, and trust documents, numbered from 0."""

    def __init__(self, model: Model, image_size: int) -> None:
        self.model = model
        self.stage = Stage(model, f"power/{model.name}", lambda: 0.0)
        self.builds: list[Build] = []
        for number in range(VERSIONS):
            self.builds.append(self._build(image_size, number))
        self.offers = [sever(build.envelope) for build in self.builds]
        self.chain: list[tuple[TrustDocument, bytes]] = [(self.stage.trust, b"")]
        for _ in range(2):
            self.chain.append(self._next_document())
        self.grants = [self.stage.grant(number).untagged for number in range(model.facts.technicians)]
        self.verdicts: dict[tuple[object, ...], Release] = {}
        self._sectors: dict[bytes, bytes] = {}

    def _build(self, size: int, number: int) -> Build:
        # The first ones share a security version: the image before has to be one that may still run.
        security = 1 if number < FIRST_SECURE else 2
        image = stream(f"power/{number}")(size)
        if number == TARGET:
            before = self.builds[RUNNING].image
            image = b"".join(image[at : at + 1] + before[at + 1 : at + _ALIKE] for at in range(0, size, _ALIKE))
        return self.stage.build(size, f"1.{number}.0", number + 1, security_version=security, image=image)

    @functools.cached_property
    def patch(self) -> bytes:
        """What makes `TARGET` of `RUNNING`."""
        return patch_in_place(self.builds[RUNNING].image, self.builds[TARGET].image)

    def _next_document(self) -> tuple[TrustDocument, bytes]:
        before = self.chain[-1][0]
        document = successor(before, Change(), issued=before.issued + 60)
        data = sign_successor(before, document, [self.stage.signer(str(RoleName.ROOT))])
        return read_trust(data), data

    def sectors(self) -> dict[bytes, bytes]:
        """Sectors that have been written, each once."""
        if len(self._sectors) > MANY_SECTORS:
            self._sectors.clear()
        return self._sectors

    def blank(self) -> State:
        """A device fresh from the factory."""
        layout = self.model.layout
        sectors = (b"\xff" * layout.sector_size,) * (layout.flash.size // layout.sector_size)
        counters = self.stage.node.store.load()
        return State(Flash(sectors), counters, 0, new_therapy(self.model).encode())

    def number_of(self, header: SlotHeader | None) -> int | None:
        """Which release a slot header is of."""
        digests = [build.envelope.manifest_digest for build in self.builds]
        return digests.index(header.manifest_digest) if header and header.manifest_digest in digests else None


@dataclass(slots=True)
class Conduct:
    """How the device and the world around it behave in a run. `hours`: since the day began; `healthy`: what the
    self-test says; `at_self_test` is called when it starts."""

    hours: int = 0
    healthy: bool = True
    at_self_test: Callable[[], None] = lambda: None


class Machine:
    """One power-on over a `State`. `watcher` sees every durable step; `noise`: how words that a cut leaves half way
    will turn out."""

    def __init__(
        self, world: World, state: State, conduct: Conduct, watcher: Watcher | None = None, *, noise: str | None = None
    ) -> None:
        self.world = world
        self.conduct = conduct
        self.trust = state.trust
        self._watcher = watcher
        self._waited = 0.0
        self._counters = state.counters
        layout = world.model.layout
        self.backend = TrackedBackend(state.flash, layout.sector_size, world.sectors())
        self.cells = cells_of(layout, state.flash)
        self._seed = noise or state.flash.seed
        self.therapy = decode_therapy(state.therapy, world.model)
        self.node = Node(
            world.model,
            world.stage.node.identity,
            world.chain[state.trust][0],
            self._flash(layout.flash),
            self,
            self.therapy,
            self._surroundings(),
            self._keep_trust,
        )
        self.node.verdicts = world.verdicts

    def _flash(self, geometry: FlashGeometry) -> FlashMemory:
        if self._watcher is None:
            return TrackedFlash(geometry, self.backend, None, self.cells)
        return WatchedFlash(geometry, self.backend, self.cells, self._watcher)

    def _surroundings(self) -> Surroundings:
        after = HOUR * self.conduct.hours
        return Surroundings(
            lambda: NOW + after, lambda: after + self._waited, lambda: 100, stream("machine"), self._self_test
        )

    def _self_test(self) -> bool:
        self.conduct.at_self_test()
        return self.conduct.healthy

    def load(self) -> Counters:
        """The counters as last saved."""
        return self._counters

    def save(self, counters: Counters) -> None:
        """A `CounterStore` whose every save is a durable step."""
        check_no_regression(self._counters, counters)
        if self._watcher is not None:
            self._watcher.save(counters)
        self._counters = counters

    def _keep_trust(self, data: bytes) -> None:
        number = next(number for number, (_, known) in enumerate(self.world.chain) if known == data)
        if self._watcher is not None:
            self._watcher.trust(number)
        self.trust = number

    def state(self) -> State:
        """What would outlive a cut now."""
        flash = Flash(self.backend.sectors(), tuple(sorted(self.cells.weak.items())), self._seed)
        return State(flash, self._counters, self.trust, self.therapy.encode())

    # what benches do to it

    def greet(self) -> Attendant:
        """A session of the first technician, who has waited as long as a device may ask, and has proved the key."""
        self._waited += MAX_DELAY
        attendant = self.node.attend()
        attendant.handshake_begins()
        attendant.judge_technician(self.world.grants[0])
        attendant.authorised(_SESSION)
        return attendant

    def push(self, number: int, *, patched: bool = False) -> None:
        """Offer a release, send what the device asks for, commit. The reboot is a power-on of its own. `patched`: as a
        patch, where the device runs what it is against."""
        attendant, build = self.greet(), self.world.builds[number]
        if self.world.model.facts.technicians > 1:
            attendant.approve(self._approval(build), self.world.grants[1])
        accept = attendant.offer(self.world.offers[number])
        data, start = build.image, accept.resume_offset
        if patched and start < len(data) and self._takes_patch(accept):
            data = self.world.patch
            start = attendant.transfer(Encoding.DELTA, len(data), hashlib.sha256(data).digest())
        for at in range(start, len(data), accept.segment):
            attendant.data(at, data[at : at + accept.segment])
        attendant.commit(build.envelope.manifest_digest)
        attendant.reboot()

    def _takes_patch(self, accept: Accept) -> bool:
        running = self.world.builds[RUNNING].measured.whole.digest
        return Encoding.DELTA in accept.encodings and accept.source_digest == running

    def _approval(self, build: Build) -> bytes:
        first, second = (hashlib.sha256(grant).digest() for grant in self.world.grants)
        expires = NOW + HOUR * self.conduct.hours + _APPROVAL_SECONDS
        request = ApprovalRequest(_SESSION, SERIAL, build.envelope.manifest_digest, "update", first, expires)
        return sign_approval(request, self.world.stage.signer("Second Technician"), second)

    def rotate(self, number: int) -> None:
        """Hand over the documents up to that number."""
        attendant = self.greet()
        for one in range(1, number + 1):
            attendant.trust_chain(self.world.chain[one][1], Ending.CHAIN if one == number else Ending.DOCUMENT)
