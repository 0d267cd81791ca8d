"""All orders of verbs against the table as reference model: the device is the model, in every sequence.

Whole up to length five when slow: a tree in which a closed conversation is a leaf, for a closed one hears nothing. A
seeded sample of walks in the quick run. What is said is what an honest bench would say next, so that the deep states
are reached; garbage and wrong contents are `test_device_order`'s. Source: attack H05 of the catalogue.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from devguard.device.models import Model
from devguard.grant.claims import ANY
from devguard.image.delta import compress
from devguard.session.device_side import MAX_REFUSALS
from devguard.session.table import TABLE, State, after_refusal
from devguard.session.verbs import (
    Approve,
    Close,
    Commit,
    Data,
    Decommission,
    Done,
    Encoding,
    Ending,
    KeepAlive,
    LogRequest,
    Message,
    Offer,
    Reboot,
    Recover,
    RefusedReply,
    ReportRequest,
    Transfer,
    TrustChain,
    Verb,
    verb_of,
)
from sim.bench import PROGRAMMER, PUMP, TOM, Build, Device, Pipe, build, grant, small
from sim.hostile import approve, refusal, with_old
from sim.state import snapshot

LENGTH = 5
WALKS = 60
# One of those the table never allows in a session stands for all of them; that they are alike, test_device_order shows.
STRANGE = Done(10)


@dataclass
class World:
    """A device in a session, and what its bench has in its hands."""

    device: Device
    pipe: Pipe
    old: Build
    new: Build
    packed: bytes
    second: bytes
    well: set[str]  # what a device kept that came up well, whatever had been said before

    @classmethod
    def make(cls, model: Model) -> World:
        device, old = with_old(model=model)
        pipe, one = Pipe(device), grant(device, actions=frozenset({ANY}))
        new = build(device, size=5000)
        approve(pipe, pipe.connect(one), device, new, one)
        return cls(device, pipe, old, new, compress(new.image), grant(device, TOM).untagged, set())

    def fork(self) -> World:
        """The same moment again. What never changes is shared."""
        node, attendant = self.device.node, self.pipe.session._port  # type: ignore[union-attr]
        fixed: list[Any] = [self.device.vendor, self.device.model, self.device.identity, node.trust, self.old, self.new]
        fixed += [attendant._first, attendant._shown, attendant._second, self.pipe.session._records]
        fixed += [self.pipe.session._edhoc, self.device.vendor.trust]
        fixed += [*attendant._accepted[2], attendant._accepted[0]] if attendant._accepted else []
        fixed += [self.packed, self.well, node._judged, node.around, self.device.counters, self.device.therapy.state]
        return copy.deepcopy(self, {id(one): one for one in fixed if one is not None})

    @property
    def words(self) -> list[Message]:
        """What could be said now, each verb once; data go on where the download stands."""
        download = self.device.counters.download
        state = self.pipe.state
        packed, digest = self.packed, hashlib.sha256(self.packed).digest()
        begun = download.staging.offset if download is not None and download.staging is not None else 0
        at = download.offset if download is not None else 0
        data = Data(begun, packed[begun:] or b"x") if state is State.STAGING else Data(at, self.new.image[at:] or b"x")
        return [
            Approve(b"\x00", self.second),
            Offer(self.new.offer),
            Recover(self.new.offer),
            data,
            Transfer(int(Encoding.COMPRESSED), len(packed), digest),
            Commit(self.new.manifest_digest),
            Reboot(),
            ReportRequest(bytes(16)),
            LogRequest(bytes(16), 0),
            KeepAlive(),
            TrustChain(b"\x00", int(Ending.CHAIN)),
            Decommission(bytes(16)),
            Close(),
            STRANGE,
        ]

    def step(self, message: Message, refused: int) -> tuple[bool, int]:
        """Say it, and hold the device against the model: (whether the session is over, refusals so far)."""
        session, verb = self.pipe.session, verb_of(message)
        assert session is not None
        state, before = session.state, snapshot(self.device)
        answer = self.pipe.ask(message)
        if (state, verb) not in TABLE:
            assert refusal(answer) == "session.order", (state, verb)
            assert session.state is State.CLOSED
            assert snapshot(self.device).all_but_log == before.all_but_log
        elif isinstance(answer, RefusedReply):
            refused += 1
            wanted = State.CLOSED if refused >= MAX_REFUSALS else after_refusal(state, verb)
            allowed = (
                {wanted} if state is State.AUTHORISED else {wanted, State.CLOSED}
            )  # what is malformed ends it there
            assert session.state in allowed
            assert snapshot(self.device).essence == before.essence
        else:
            assert session.state is TABLE[state, verb], (state, verb)
            assert verb is not Verb.COMMIT or self._whole()
        return session.state is State.CLOSED, refused

    def _whole(self) -> bool:
        """A commit is taken only of exactly the bytes that were judged."""
        pending = self.device.counters.pending
        if pending is None:
            return False
        loader = self.device.node.loader
        return pending.manifest_digest == self.new.manifest_digest and loader.slots.whole(
            self.device.model.layout.secondary, pending
        )

    def ends_well(self) -> None:
        """Whatever was said: the old image or the new one runs, whole, and the therapy is what it was."""
        self.pipe.lose()
        kept = repr(snapshot(self.device).all_but_log)
        if kept in self.well:
            return
        self.well.add(kept)
        self.device.power_cycle()
        state = self.device.node.state(bytes(16))
        assert state.manifest_digest in (self.old.manifest_digest, self.new.manifest_digest)
        assert state.confirmed


def explore(world: World, depth: int, refused: int, seen: Counter[tuple[State, Verb]]) -> int:
    """Every sequence from here, `depth` more verbs long; how many there were."""
    if depth == 0:
        world.ends_well()
        return 1
    count = 0
    for number in range(len(world.words)):
        next_one = world.fork()
        message = next_one.words[number]
        seen[next_one.pipe.state, verb_of(message)] += 1
        closed, refusals = next_one.step(message, refused)
        if closed or next_one.pipe.session is None:
            next_one.ends_well()
            count += 1
        else:
            count += explore(next_one, depth - 1, refusals, seen)
    return count


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    return {name: World.make(small(name)) for name in (PUMP, PROGRAMMER)}


@pytest.mark.parametrize("model", [PUMP, PROGRAMMER])
def test_a_sample_of_walks_through_the_table(worlds: dict[str, World], model: str) -> None:
    chance, reached = random.Random(model), Counter[State]()
    for _ in range(WALKS):
        world, refused, over = worlds[model].fork(), 0, False
        while not over and world.pipe.session is not None and sum(reached.values()) < 10_000:
            reached[world.pipe.state] += 1
            words = world.words
            likely = [one for one in words if (world.pipe.state, verb_of(one)) in TABLE]
            over, refused = world.step(chance.choice(likely if chance.random() < 0.9 else words), refused)
            if chance.random() < 0.2:
                break
        world.ends_well()
    assert {State.AUTHORISED, State.RECEIVING, State.STAGING, State.JUDGED} <= set(reached)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "length", "least"), [(PUMP, LENGTH, 40_000), (PROGRAMMER, LENGTH - 1, 5_000)])
def test_every_sequence_of_that_length(worlds: dict[str, World], model: str, length: int, least: int) -> None:
    """One shorter for the programmer, whose table is the same and whose second technician has spoken before."""
    seen: Counter[tuple[State, Verb]] = Counter()
    count = explore(worlds[model].fork(), length, 0, seen)
    deep = {State.AUTHORISED, State.RECEIVING, State.STAGING, *({State.JUDGED} if length == LENGTH else ())}
    assert {(state, verb) for state, verb in TABLE if state in deep} <= set(seen)
    assert count > least
