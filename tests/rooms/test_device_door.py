"""Bad input at the door of two real devices: replayed, reflected, crossed, downgraded, garbage in EAD, another's name.

Each with the code that the bench or the device gives, and with devices that afterwards are as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from devguard import wire
from devguard.cose.sign import Signer
from devguard.device.node import FREE_HANDSHAKES, MAX_DELAY
from devguard.errors import DevguardError, DeviceRefused, Refused, RemoteProtocolError
from devguard.grant.claims import Grant
from devguard.session.connect import BUSY_SECONDS, connect, identify
from devguard.session.credentials import KcwtResolver, OwnCredential
from devguard.session.initiator import EdhocInitiator
from devguard.session.script import Receive
from devguard.session.suites import PRODUCTION
from devguard.session.table import State
from devguard.session.update import fetch_report
from devguard.session.verbs import (
    PROTOCOL_VERSIONS,
    Edhoc,
    EdhocFailure,
    Hello,
    KeepAlive,
    Message,
    Offer,
    decode_message,
    encode_message,
)
from sim.bench import TESS, Device, Pipe, bench_for, build, entropy, grant
from sim.hostile import fresh, refusal
from sim.line import VirtualLine
from sim.state import snapshot

Rule = Callable[[bytes], bytes]


class Meddled(Pipe):
    """A line whose plain messages somebody changes: `out` to the device, `back` to the bench."""

    def __init__(self, device: Device, out: Rule = bytes, back: Rule = bytes) -> None:
        super().__init__(device)
        self.out, self.back = out, back
        self.heard: list[bytes] = []

    def deliver(self, message: bytes, *, sealed: bool) -> None:
        if sealed:
            super().deliver(message, sealed=True)
            return
        super().deliver(self.out(message), sealed=False)
        box = self.inbox[False]
        for _ in range(len(box)):
            said = box.popleft()
            self.heard.append(said)
            box.append(self.back(said))


def edhoc_of(message: bytes) -> bytes | None:
    said = decode_message(message, sealed=False)
    return said.message if isinstance(said, Edhoc) else None


def only(number: int, change: Rule) -> Rule:
    """Change the `number`th EDHOC message that passes, counted from 1; leave the rest."""
    seen = [0]

    def rule(message: bytes) -> bytes:
        inner = edhoc_of(message)
        if inner is None:
            return message
        seen[0] += 1
        return encode_message(Edhoc(change(inner))) if seen[0] == number else message

    return rule


def messages(device: Device, one: Grant) -> tuple[list[bytes], list[bytes]]:
    """What bench and device said in a good handshake: (messages 1 and 3, messages 2 and 4)."""
    pipe = Meddled(device)
    pipe.connect(one)
    sent = [inner for message, sealed in pipe.sent if not sealed and (inner := edhoc_of(message)) is not None]
    return sent, [inner for message in pipe.heard if (inner := edhoc_of(message)) is not None]


def two() -> tuple[Device, Device]:
    """Two genuine devices of one vendor."""
    return fresh(), Device(serial="SN-0002", seed="other")


def refused(device: Device, act: Callable[[], Any], code: str) -> None:
    """`act` is refused with that code by whichever side finds it, and the device is what it was."""
    before = snapshot(device)
    with pytest.raises((Refused, RemoteProtocolError, DeviceRefused)) as caught:
        act()
    assert caught.value.code == code
    assert snapshot(device).all_but_log == before.all_but_log


# replayed, reflected, crossed


def test_a_whole_handshake_of_before_played_back_to_the_device() -> None:
    device = fresh()
    sent, _ = messages(device, grant(device))
    before = snapshot(device)
    pipe = Pipe(device)
    pipe.open()
    pipe.ask(Hello(PROTOCOL_VERSIONS), sealed=False)
    assert isinstance(pipe.ask(Edhoc(sent[0]), sealed=False), Edhoc)
    assert refusal(pipe.ask(Edhoc(sent[1]), sealed=False)) == "session.handshake"
    assert pipe.session is None
    assert snapshot(device).all_but_log == before.all_but_log


def test_answers_of_before_played_back_to_the_bench() -> None:
    device = fresh()
    _, heard = messages(device, grant(device))
    for number in (1, 2):
        pipe = Meddled(device, back=only(number, lambda _, number=number: heard[number - 1]))
        refused(device, lambda pipe=pipe: pipe.connect(grant(device)), "session.handshake")


def test_what_the_bench_says_reflected_to_it() -> None:
    device = fresh()
    said: list[bytes] = []

    def note(message: bytes) -> bytes:
        said.append(message)
        return message

    for number in (1, 2):
        said.clear()
        pipe = Meddled(device, out=note, back=only(number, lambda _: edhoc_of(said[-1]) or b""))
        refused(device, lambda pipe=pipe: pipe.connect(grant(device)), "session.handshake")


def test_what_the_device_says_reflected_to_it() -> None:
    device = fresh()
    pipe = Meddled(device)
    pipe.out = only(2, lambda _: edhoc_of(pipe.heard[-1]) or b"")
    refused(device, lambda: pipe.connect(grant(device)), "session.handshake")


def test_a_handshake_crossed_between_two_devices_opens_neither() -> None:
    one, other = two()
    wide = {"serials": frozenset({one.serial, other.serial})}
    for number in (1, 2):
        _, theirs = messages(other, grant(other, **wide))
        crossed = Meddled(one, back=only(number, lambda _, said=theirs[number - 1]: said))
        refused(one, lambda crossed=crossed: crossed.connect(grant(one, **wide)), "session.handshake")
    sent, _ = messages(one, grant(one, **wide))
    crossed = Meddled(other, out=only(2, lambda _: sent[1]))
    refused(other, lambda: crossed.connect(grant(other, **wide)), "session.handshake")


def test_the_other_device_under_the_name_that_was_asked_for() -> None:
    """A relay to another ward's device: it proves its own name, and nothing else of it is believed."""
    one, other = two()
    wide = grant(other, serials=frozenset({one.serial, other.serial}))
    refused(other, lambda: Pipe(other).connect(wide, serial=one.serial), "device.identity")
    refused(other, lambda: Pipe(other).run(identify(bench_for(other, wide, serial=one.serial))), "device.identity")
    again = bench_for(one, wide, device_key=other.identity.signer.key.thumbprint)
    refused(one, lambda: Pipe(one).run(connect(again)), "device.identity")


def test_the_grant_of_one_device_shown_to_the_other() -> None:
    one, other = two()
    refused(other, lambda: Pipe(other).connect(grant(one)), "grant.scope")


def test_a_report_of_the_other_device_in_this_session() -> None:
    one, other = two()
    wide = grant(one, serials=frozenset({one.serial, other.serial}))
    one.node.report = other.node.report
    with pytest.raises(DevguardError) as caught:
        Pipe(one).run(fetch_report(bench_for(one, wide)))
    assert caught.value.code in ("key.unknown", "signature.invalid", "device.identity")


# downgraded


def handshake(suites: tuple[int, ...], selected: int, signer: Signer, one: Grant) -> EdhocInitiator:
    return EdhocInitiator(
        suites=suites,
        selected=selected,
        credential=OwnCredential.kcwt(one.untagged, signer),
        resolver=KcwtResolver(lambda _: signer.key),
        random=entropy("downgrade"),
    )


@pytest.mark.parametrize("suite", [0, 2, 6, 24, 25, -1, 255])
def test_a_suite_with_a_short_tag_or_none_that_is_known_is_refused_by_the_device(suite: int) -> None:
    device = fresh()
    before = snapshot(device)
    pipe = Pipe(device)
    pipe.open()
    pipe.ask(Hello(PROTOCOL_VERSIONS), sealed=False)
    good = handshake((3, 5), 3, TESS.signer, grant(device)).message_1()
    method, _, *rest = wire.decode(b"\x84" + good)
    message_1 = b"".join(map(wire.encode, (method, suite, *rest)))
    answer = pipe.ask(Edhoc(message_1), sealed=False)
    assert isinstance(answer, EdhocFailure)
    assert answer.code == "session.handshake"
    if answer.message and wire.decode(b"\x82" + answer.message)[0] == 2:
        proposed = wire.decode(b"\x82" + answer.message)[1]
        assert set(proposed if isinstance(proposed, list) else [proposed]) <= set(PRODUCTION)
    assert snapshot(device).all_but_log == before.all_but_log


@pytest.mark.parametrize("proposed", [0, 2, [2, 0], [3, 2], 6], ids=str)
def test_a_proposal_of_weaker_suites_ends_the_session_at_the_bench(proposed: Any) -> None:
    device = fresh()
    error = wire.encode(2) + wire.encode(proposed)
    pipe = Meddled(device, back=only(1, lambda _: error))
    refused(device, lambda: pipe.connect(grant(device)), "session.handshake")
    assert len([1 for message, _ in pipe.sent if edhoc_of(message) is not None]) == 1  # it tries nothing weaker


def test_suites_struck_out_on_the_way_are_found_by_the_transcript() -> None:
    device = fresh()

    def weaker(message_1: bytes) -> bytes:
        method, suites, *rest = wire.decode(b"\x84" + message_1)
        assert suites == 3
        return b"".join(map(wire.encode, (method, [3, 5], *rest)))

    pipe = Meddled(device, out=only(1, weaker))
    refused(device, lambda: pipe.connect(grant(device)), "session.handshake")


def test_hello_s_list_of_suites_changes_nothing() -> None:
    """It is informative; whoever forges it gains nothing."""
    device = fresh()

    def forged(message: bytes) -> bytes:
        items = wire.decode(message)
        return wire.encode([*items[:3], [0, 2], *items[4:]]) if items[0] == 3 else message

    pipe = Meddled(device, back=forged)
    session = pipe.connect(grant(device))
    assert session.hello.suites == (0, 2)
    assert session.records.session_id == pipe.session._records.session_id


# garbage in EAD


def eads() -> list[tuple[str, bytes]]:
    """Items after the end of message_1 that no application profile of ours has."""
    item = wire.encode
    return [
        ("padding", item(0) + item(b"\x00" * 40)),
        ("critical", item(-1) + item(b"")),
        ("label", item(1)),
        ("text", item("x")),
        ("huge", item(7) + item(bytes(4000))),
        ("many", b"".join(item(number) + item(b"x") for number in range(30))),
        ("torn", b"\x58"),
        ("length", b"\x5b" + b"\xff" * 8),
        ("nested", b"\x81" * 4000),
    ]


@pytest.mark.parametrize("garbage", [data for _, data in eads()], ids=[name for name, _ in eads()])
def test_ead_with_garbage_is_refused_on_both_sides(garbage: bytes) -> None:
    device = fresh()
    out = Meddled(device, out=only(1, lambda message: message + garbage))
    refused(device, lambda: out.connect(grant(device)), "session.handshake")
    device.up += 5
    back = Meddled(device, back=only(1, lambda message: message + garbage))
    refused(device, lambda: back.connect(grant(device)), "session.handshake")
    device.up += 5
    Pipe(device).connect(grant(device))


# nothing in clear, nothing twice


def test_no_verb_of_a_session_is_heard_in_clear_and_no_answer_in_clear_is_believed() -> None:
    device = fresh()
    pipe = Pipe(device)
    pipe.open()
    pipe.ask(Hello(PROTOCOL_VERSIONS), sealed=False)
    assert refusal(pipe.ask(Offer(build(device).offer), sealed=False)) == "session.order"
    good = grant(device)

    class Fallback(Pipe):
        """Somebody answers in clear what was asked under keys."""

        def deliver(self, message: bytes, *, sealed: bool) -> None:
            super().deliver(message, sealed=sealed)
            if sealed and self.inbox[True]:
                self.inbox[False].append(self.inbox[True].popleft())

    with pytest.raises(DevguardError) as caught:
        Fallback(device).run(fetch_report(bench_for(device, good)))
    assert caught.value.code == "link.timeout"  # what comes on the open channel is not even looked at
    for said in (encode_message(KeepAlive()), encode_message(Offer(b"x"))):
        with pytest.raises(RemoteProtocolError, match=r"session\.order"):
            decode_message(said, sealed=False)


# the back-off


def test_ten_thousand_failed_handshakes_and_a_clinician_is_in_within_five_seconds() -> None:
    """Over a line, with the clock of the line: nobody retries by hand."""
    device = fresh()
    device.store.save(device.counters.with_failed_handshakes(10_000))
    device.node.handshake_failed()
    line = VirtualLine(device)
    began = line.now
    line.runner().run(connect(bench_for(device, grant(device))))
    assert line.now - began <= MAX_DELAY + 1.0 <= BUSY_SECONDS + 0.5
    assert device.counters.failed_handshakes == 0


def test_a_device_that_is_busy_for_ever_is_given_up_after_five_seconds() -> None:
    device = fresh()
    device.store.save(device.counters.with_failed_handshakes(FREE_HANDSHAKES + 4))
    device.node.handshake_failed()
    waits: list[float] = []
    script = connect(bench_for(device, grant(device)))
    pipe = Pipe(device)
    value: Any = None
    with pytest.raises(DeviceRefused, match=r"device\.busy"):
        while True:
            step = script.send(value)
            value = None
            if isinstance(step, Receive):
                if step.optional:
                    waits.append(step.timeout)
                else:
                    value = pipe.inbox[step.sealed].popleft()
            else:
                pipe.run(_one(step))
    assert sum(waits) == BUSY_SECONDS
    assert device.counters.failed_handshakes == FREE_HANDSHAKES + 5  # nobody was made to wait longer by it


def _one(step: Any) -> Any:
    yield step


def test_who_stands_in_the_delay_costs_the_device_no_public_key_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from devguard.session.responder import EdhocResponder

    device = fresh()
    device.store.save(device.counters.with_failed_handshakes(FREE_HANDSHAKES + 4))
    device.node.handshake_failed()
    monkeypatch.setattr(EdhocResponder, "read_message_1", lambda *_: pytest.fail("it worked"))
    sent = handshake((3,), 3, TESS.signer, grant(device)).message_1()
    for _ in range(20):
        pipe = Pipe(device)
        pipe.open()
        pipe.ask(Hello(PROTOCOL_VERSIONS), sealed=False)
        assert refusal(pipe.ask(Edhoc(sent), sealed=False)) == "device.busy"


def test_a_conversation_has_ended_for_good_after_five_denials() -> None:
    device = fresh()
    pipe = Pipe(device)
    pipe.connect(grant(device, actions=frozenset({"read-log"})))
    said: Message = Offer(build(device).offer)
    for number in range(5):
        assert pipe.state is State.AUTHORISED, number
        assert refusal(pipe.ask(said)) == "grant.action"
    assert pipe.state is State.CLOSED
    assert pipe.ask(KeepAlive()) is None
