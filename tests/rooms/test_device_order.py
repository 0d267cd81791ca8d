"""Anything in any order: the device follows its table; what is not in it ends the conversation and changes nothing."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from devguard.errors import DevguardError
from devguard.image.delta import compress
from devguard.session import verbs
from devguard.session.connect import connect
from devguard.session.factory_verbs import (
    Enrol,
    EnrolCredentials,
    EnrolKeys,
    EnrolTaken,
    EnrolTrust,
    Erasure,
    ErasureReply,
)
from devguard.session.table import TABLE, State, after_refusal
from devguard.session.verbs import (
    FACTORY,
    Accept,
    Approve,
    Certificate,
    Close,
    Commit,
    Data,
    Decommission,
    Done,
    Durable,
    Edhoc,
    EdhocFailure,
    Encoding,
    Ending,
    Hello,
    HelloReply,
    KeepAlive,
    LogPiece,
    LogRequest,
    Offer,
    Reboot,
    Recover,
    RefusedReply,
    ReportReply,
    ReportRequest,
    Transfer,
    TrustChain,
    Verb,
    encode_message,
)
from sim.bench import (
    TOM,
    Build,
    Device,
    Pipe,
    bench_for,
    build,
    grant,
)
from sim.hostile import (
    fresh,
    refusal,
    send,
    with_old,
)
from sim.state import snapshot


@pytest.mark.parametrize(
    ("piece", "code"),
    [
        (Data(1, b"x"), "session.order"),
        (Data(4096, b"x"), "session.order"),
        (Data(2**40, b"x"), "session.order"),
        (Data(0, bytes(9001)), "image.size"),
    ],
    ids=["gap", "sector gap", "far", "past the end"],
)
def test_data_that_does_not_follow_ends_the_session(piece: Data, code: str) -> None:
    device, old = with_old()
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)
    before = snapshot(device)
    assert refusal(pipe.ask(piece)) == code
    assert pipe.state is State.CLOSED
    assert snapshot(device).all_but_log == before.all_but_log
    assert device.runs(old)


def test_data_may_not_go_back_nor_come_twice() -> None:
    for again in (0, 4095):
        device, old = with_old()
        pipe = Pipe(device)
        pipe.connect(grant(device))
        assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)
        assert isinstance(pipe.ask(Data(0, bytes(4096))), Durable)
        before = snapshot(device)
        assert refusal(pipe.ask(Data(again, bytes(4096)))) == "session.order"
        assert snapshot(device).essence == before.essence
        assert device.runs(old)


def test_a_commit_before_all_bytes_have_come_is_refused() -> None:
    device, old = with_old()
    new = build(device)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert isinstance(pipe.ask(Offer(new.offer)), Accept)
    assert isinstance(pipe.ask(Data(0, new.image[:-1])), Durable)
    before = snapshot(device)
    assert refusal(pipe.ask(Commit(new.manifest_digest))) == "image.size"
    assert snapshot(device).essence == before.essence
    assert device.counters.pending is None
    assert device.runs(old)


def test_a_commit_of_another_release_is_refused() -> None:
    device, old = with_old()
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert isinstance(send(pipe, build(device), commit=False), Durable)
    assert refusal(pipe.ask(Commit(bytes(32)))) == "session.order"
    assert device.runs(old)


WORDS: dict[Verb, Any] = {
    Verb.APPROVE: lambda device: Approve(b"\x00", grant(device, TOM).untagged),
    Verb.OFFER: lambda device: Offer(build(device).offer),
    Verb.DATA: lambda device: Data(0, b"x"),
    Verb.TRANSFER: lambda device: Transfer(int(Encoding.COMPRESSED), len(small_form(device)), small_digest(device)),
    Verb.COMMIT: lambda device: Commit(build(device).manifest_digest),
    Verb.REBOOT: lambda device: Reboot(),
    Verb.REPORT: lambda device: ReportRequest(bytes(16)),
    Verb.TRUST_CHAIN: lambda device: TrustChain(b"\x00", int(Ending.CHAIN)),
    Verb.KEEP_ALIVE: lambda device: KeepAlive(),
    Verb.CLOSE: lambda device: Close(),
    Verb.RECOVER: lambda device: Recover(build(device).offer),
    Verb.LOG: lambda device: LogRequest(bytes(16), 0),
    Verb.LOG_PIECE: lambda device: LogPiece(1, b"x"),
    Verb.DECOMMISSION: lambda device: Decommission(bytes(16)),
    Verb.CERTIFICATE: lambda device: Certificate(b"x"),
    Verb.ENROL: lambda device: Enrol(device.model.name, "revA", "SN-9", "", bytes(16)),
    Verb.ENROL_KEYS: lambda device: EnrolKeys((b"x",)),
    Verb.ENROL_TRUST: lambda device: EnrolTrust(b"x", 1),
    Verb.ENROL_CREDENTIALS: lambda device: EnrolCredentials((b"x",)),
    Verb.ENROL_TAKEN: lambda device: EnrolTaken(40),
    Verb.ERASURE: lambda device: Erasure(),
    Verb.ERASURE_REPLY: lambda device: ErasureReply(b"x"),
    Verb.DONE: lambda device: Done(10),
    Verb.ACCEPT: lambda device: Accept(1, 1, 1, 0, bytes(32)),
    Verb.REFUSED: lambda device: RefusedReply("device.busy", "", ""),
    Verb.DURABLE: lambda device: Durable(1),
    Verb.REPORT_REPLY: lambda device: ReportReply(b"x"),
    Verb.HELLO: lambda device: Hello((1,)),
    Verb.HELLO_REPLY: lambda device: HelloReply(1, "", (3,), bytes(16)),
    Verb.EDHOC: lambda device: Edhoc(b"\x00"),
    Verb.EDHOC_FAILURE: lambda device: EdhocFailure(b"", "device.busy", ""),
}


def small_form(device: Device) -> bytes:
    return compress(build(device).image)


def small_digest(device: Device) -> bytes:
    return hashlib.sha256(small_form(device)).digest()


PLAIN_STATES = (State.WAITING, State.GREETED, State.ANSWERED)


def arrive(device: Device, state: State) -> Pipe:
    """A pipe whose conversation stands in `state`."""
    pipe = Pipe(device)
    if state in PLAIN_STATES:
        pipe.open()
        script = connect(bench_for(device, grant(device)))
        next(script)
        message = script.send(None)
        for _ in range(PLAIN_STATES.index(state)):
            answer = encode_message(pipe.ask(message.message, sealed=False))
            script.send(None)
            message = script.send(answer)
        return pipe
    pipe.connect(grant(device))
    if state is State.STAGING:
        assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)
        assert isinstance(pipe.ask(WORDS[Verb.TRANSFER](device)), Durable)
    if state in (State.RECEIVING, State.JUDGED):
        assert isinstance(send(pipe, build(device), commit=False), Durable)
    if state is State.JUDGED:
        assert pipe.ask(Commit(build(device).manifest_digest)) == Done(int(Verb.COMMIT))
    return pipe


NOBODY = (State.BLANK, State.NAMED)  # of a device that is not enrolled: test_device_enrolment
HERE = [state for state in State if state not in (State.CLOSED, *NOBODY)]
WRONG = [(state, verb) for state in HERE for verb in Verb if (state, verb) not in TABLE]


# What a limited session hears is in test_device_trust: it answers with the code of the grant that limits it.
@pytest.mark.parametrize("state", [state for state in HERE if state is not State.LIMITED])
def test_every_verb_the_table_does_not_allow_ends_the_conversation_and_changes_nothing(state: State) -> None:
    origin, old = with_old()
    assert set(WORDS) == set(Verb)
    for verb in (verb for wrong, verb in WRONG if wrong is state):
        device = origin.copy()
        pipe = arrive(device, state)
        conversation = pipe.plain if state in PLAIN_STATES else pipe.session
        assert conversation is not None
        assert conversation.state is state
        before = snapshot(device)
        sealed = state not in PLAIN_STATES
        expected = "device.provisioned" if verb in FACTORY and not sealed else "session.order"
        assert refusal(pipe.ask(WORDS[verb](device), sealed=sealed)) == expected, verb
        assert conversation.state is State.CLOSED
        assert snapshot(device).all_but_log == before.all_but_log, verb
        assert pipe.ask(WORDS[verb](device), sealed=sealed) is None
        if state is not State.JUDGED:
            assert device.runs(old)


class Conversations(RuleBasedStateMachine):
    """Anything in any order: the device follows its table, and runs the old image or the one that was pushed."""

    @initialize()
    def begin(self) -> None:
        self.device, self.old = _template()[0].copy(), _template()[1]
        self.new = build(self.device)
        self.pipe = Pipe(self.device)
        self.pipe.connect(grant(self.device))
        self.therapy = snapshot(self.device).therapy
        self.offset = 0

    @rule(verb=st.sampled_from([verb for verb in Verb if verb is not Verb.EDHOC_FAILURE]))
    def say(self, verb: Verb) -> None:
        session, state, before = self.pipe.session, self.pipe.state, snapshot(self.device)
        message = WORDS[verb](self.device)
        if verb is Verb.DATA and state is State.RECEIVING:
            self.offset = self.device.counters.download.offset
            message = Data(self.offset, self.new.image[self.offset :] or b"x")
        if verb is Verb.DATA and state is State.STAGING:
            begun = self.device.counters.download.staging.offset
            message = Data(begun, small_form(self.device)[begun : begun + 5000] or b"x")
        answer = self.pipe.ask(message)
        if session is None:
            assert answer is None
            assert snapshot(self.device) == before
        elif (state, verb) not in TABLE:
            assert refusal(answer) == "session.order"
            assert session.state is State.CLOSED
            assert snapshot(self.device).all_but_log == before.all_but_log
        elif isinstance(answer, RefusedReply):
            assert session.state in (after_refusal(state, verb), State.CLOSED)
        else:
            assert session.state is TABLE[state, verb]

    @rule()
    def come_back(self) -> None:
        self.device.fresh_hour()
        self.pipe.lose()
        self.pipe.connect(grant(self.device))

    @rule()
    def reset(self) -> None:
        self.pipe.lose()
        self.device.power_cycle()

    @rule(data=st.binary(max_size=40))
    def babble(self, data: bytes) -> None:
        session, before = self.pipe.session, snapshot(self.device)
        self.pipe.ask(data)
        assert session is None or session.state is State.CLOSED or data[1:2] in b"\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x13"
        assert snapshot(self.device).essence == before.essence or self.pipe.session is None

    @invariant()
    def whole(self) -> None:
        state = self.device.node.state(bytes(16))
        assert state.manifest_digest in (self.old.manifest_digest, self.new.manifest_digest)
        assert state.confirmed
        assert snapshot(self.device).therapy == self.therapy


_made: list[tuple[Device, Build]] = []


def _template() -> tuple[Device, Build]:
    if not _made:
        _made.append(with_old())
    return _made[0]


TestConversations = Conversations.TestCase


TestConversations.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("sealed", [True, False])
def test_garbage_is_refused_or_ignored_and_never_more(sealed: bool) -> None:
    origin, old = with_old()
    source = random.Random(11)
    good = encode_message(Offer(build(origin).offer))
    device = origin
    for number in range(40):
        device = origin.copy()
        data = (
            bytearray(good[: source.randrange(len(good))])
            if number % 3
            else bytearray(source.randbytes(source.randrange(64)))
        )
        if data:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        pipe = Pipe(device)
        if sealed:
            pipe.connect(grant(device))
        else:
            pipe.open()
        before = snapshot(device)
        answer = pipe.ask(bytes(data), sealed=sealed)
        assert answer is None or isinstance(answer, (RefusedReply, EdhocFailure))
        assert snapshot(device).all_but_log == before.all_but_log
    assert device.runs(old)


def test_a_truncated_handshake_message_is_refused_at_every_length() -> None:
    device = fresh()
    good = arrive(device, State.GREETED)
    script = connect(bench_for(device, grant(device)))
    next(script)
    hello = script.send(None).message
    answer = encode_message(greeted(device, hello))
    script.send(None)
    message_1 = verbs.decode_message(script.send(answer).message, sealed=False).message
    for size in range(1, len(message_1)):
        device.up += 5.0
        pipe = Pipe(device)
        pipe.open()
        pipe.ask(hello, sealed=False)
        assert refusal(pipe.ask(Edhoc(message_1[:size]), sealed=False)) == "session.handshake"
    assert good.session is None
    device.up += 5.0
    Pipe(device).connect(grant(device))


def greeted(device: Device, hello: bytes) -> Any:
    pipe = Pipe(device)
    pipe.open()
    return pipe.ask(hello, sealed=False)


def test_errors_of_the_bench_are_devguards_own() -> None:
    with pytest.raises(DevguardError):
        Pipe(fresh()).connect(grant(Device(serial="SN-0002")))
