"""The emulated device behind a line: idle and long sessions, keys that change hands, engines that die under it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from builders import make_signer
from devguard.device.emulator import IDLE_SECONDS, SESSION_SECONDS, EmulatedDevice
from devguard.errors import DevguardError, DeviceRefused, LinkError, LocalProtocolError
from devguard.link.events import Channel, Closed, Event, Failed, Message, Opened, PlainLost
from devguard.link.frames import Kind, encode_frame, encode_header
from devguard.session.connect import connect, greet
from devguard.session.script import Flush, Receive, Send
from devguard.session.table import State
from devguard.session.update import fetch_report
from devguard.session.verbs import (
    Accept,
    Commit,
    Data,
    Done,
    Durable,
    Hello,
    HelloReply,
    KeepAlive,
    Offer,
    Reboot,
    RefusedReply,
    ReportRequest,
    Verb,
    decode_message,
    encode_message,
)
from rooms.link_support import Faults
from sim.bench import (
    TOM,
    Device,
    Pipe,
    bench_for,
    build,
    entropy,
    grant,
    update,
)
from sim.line import VirtualLine
from sim.state import snapshot


class Wire:
    """Stands in for the link engine: what it is sent is kept, and it can be made to fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[Channel, bytes]] = []
        self.failed: Failed | None = None
        self.idle = True
        self.sealed_heard = 0.0
        self.gone: set[Channel] = set()

    def send(self, channel: Channel, message: bytes, now: float) -> None:
        if self.failed is not None:
            raise self.failed.error()
        if channel in self.gone:
            raise LocalProtocolError("link.protocol", f"there is no {channel.value} channel")
        self.sent.append((channel, message))

    def attach(self, protector: Any, now: float) -> None:
        self.gone.discard(Channel.SEALED)

    def detach(self) -> None:
        self.gone.add(Channel.SEALED)


class Emulated(EmulatedDevice):
    """An emulated device whose engines are `Wire`s."""

    def _new_engine(self) -> Any:
        return Wire()


class Feed(Pipe):
    """A pipe into an emulated device: events in batches of the test's choice."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.now = 0.0
        self.batches: list[list[Event]] = []
        self.emulated = Emulated(device.node, self, entropy("feed"))  # type: ignore[arg-type]

    def clock(self) -> float:
        return self.now

    def pump(self, engine: Any, timeout: float) -> list[Event]:
        self.now += 0.01
        return self.batches.pop(0) if self.batches else []

    @property
    def engine(self) -> Wire:
        return self.emulated._engine  # type: ignore[return-value]

    def feed(self, *batches: list[Event]) -> None:
        """Let the device hear these batches, one after the other."""
        self.batches += batches
        wires = [self.engine]
        for _ in range(len(batches) + 1):
            turns: Iterator[bool] = iter((False, True))
            self.emulated.serve(lambda turns=turns: next(turns))
            wires += [self.engine] if self.engine is not wires[-1] else []
        self.session = self.emulated._session
        for wire in wires:
            for channel, message in wire.sent:
                self.inbox[channel is Channel.SEALED].append(message)
            wire.sent.clear()

    def open(self) -> None:
        self.inbox[False].clear()
        self.feed([Opened(bytes(4))])

    def deliver(self, message: bytes, *, sealed: bool) -> None:
        self.feed([Message(Channel.SEALED if sealed else Channel.PLAIN, message)])


def sealed(message: Any) -> Message:
    return Message(Channel.SEALED, encode_message(message))


def plain(message: Any) -> Message:
    return Message(Channel.PLAIN, encode_message(message))


def test_what_came_under_the_old_keys_is_not_heard_in_the_new_session() -> None:
    device = Device()
    pipe = Feed(device)
    pipe.connect(grant(device, any_release=False, sequences=(7, 9)))
    relayed = connect(bench_for(device, grant(device, TOM), TOM))
    next(relayed)
    pipe.open()
    step = relayed.send(None)
    for _ in ("hello", "message_1"):
        pipe.deliver(step.message, sealed=False)
        relayed.send(None)
        step = relayed.send(pipe.inbox[False].popleft())
    before = snapshot(device)
    pipe.feed([Message(Channel.PLAIN, step.message), sealed(Offer(build(device).offer)), Closed()])
    assert pipe.session is not None
    assert pipe.session.state is State.AUTHORISED
    assert not pipe.inbox[True]
    assert snapshot(device).all_but_log == before.all_but_log
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)


def test_a_limited_session_takes_the_line_from_nobody_who_has_a_good_grant() -> None:
    device = Device()
    pipe = Feed(device)
    pipe.connect(grant(device))
    good, attached = pipe.session, pipe.engine
    stranger = grant(device, TOM, signers=[make_signer(seed="an authority nobody knows")])
    with pytest.raises(DeviceRefused, match=r"device\.busy"):
        pipe.run(connect(bench_for(device, stranger, TOM)))
    assert (pipe.session, pipe.engine) == (good, attached)
    assert pipe.ask(KeepAlive()) == Done(int(Verb.KEEP_ALIVE))


def test_one_session_at_a_time_and_a_good_grant_ends_a_limited_one() -> None:
    device = Device()
    pipe = Feed(device)
    stranger = grant(device, TOM, signers=[make_signer(seed="an authority nobody knows")])
    pipe.run(connect(bench_for(device, stranger, TOM)))
    limited = pipe.session
    assert limited is not None
    assert limited.state is State.LIMITED
    pipe.run(connect(bench_for(device, stranger, TOM)))  # another limited one may take its place
    assert pipe.session is not limited
    pipe.connect(grant(device))
    assert pipe.session is not None
    assert pipe.session.state is State.AUTHORISED
    assert pipe.ask(KeepAlive()) == Done(int(Verb.KEEP_ALIVE))


def test_an_engine_that_dies_with_a_question_in_its_hands_is_replaced() -> None:
    device = Device()
    for code in ("session.tampered", "link.timeout"):
        pipe = Feed(device)
        pipe.connect(grant(device))
        dead = pipe.engine
        dead.failed = Failed(code, "the line")
        pipe.feed([sealed(ReportRequest(bytes(16))), sealed(KeepAlive()), dead.failed])
        assert pipe.engine is not dead
        assert pipe.session is None
        pipe.connect(grant(device))
        assert pipe.ask(KeepAlive()) == Done(int(Verb.KEEP_ALIVE))


def test_a_question_on_a_channel_that_is_gone_harms_nobody() -> None:
    device = Device()
    pipe = Feed(device)
    pipe.connect(grant(device))
    pipe.engine.gone.add(Channel.PLAIN)
    pipe.feed([Opened(bytes(4)), plain(Hello((1,))), PlainLost("link.timeout", "gone")])
    assert pipe.ask(KeepAlive()) == Done(int(Verb.KEEP_ALIVE))


def test_what_is_said_in_the_clear_ends_no_session() -> None:
    device = Device()
    pipe = Feed(device)
    pipe.connect(grant(device))
    pipe.feed([plain(Hello((1,))), Message(Channel.PLAIN, b"\xff"), sealed(KeepAlive())])
    assert decode_message(pipe.inbox[True].popleft(), sealed=True) == Done(int(Verb.KEEP_ALIVE))
    assert not pipe.inbox[False]


@pytest.mark.parametrize("event", [Failed("session.tampered", "x"), Failed("link.timeout", "x")])
def test_an_engine_that_dies_while_the_last_answer_leaves_is_replaced(event: Failed) -> None:
    device = Device()
    pipe = Feed(device)
    pipe.connect(grant(device))
    dead = pipe.engine
    dead.idle = False
    pipe.feed([sealed(Offer(b"x")), sealed(Data(0, b"x"))], [event])  # the second is out of order and ends the session
    pipe.now += 5.0
    pipe.feed([])
    assert pipe.engine is not dead
    pipe.connect(grant(device))


def test_a_bench_that_comes_back_while_the_last_answer_leaves_is_heard() -> None:
    device = Device()
    pipe = Feed(device)
    pipe.connect(grant(device))
    pipe.engine.idle = False
    pipe.feed([sealed(Data(0, b"x"))], [Opened(bytes(4)), plain(Hello((1,))), sealed(KeepAlive())])
    pipe.now += 5.0
    pipe.feed([])
    assert isinstance(decode_message(pipe.inbox[True].popleft(), sealed=True), RefusedReply)
    assert not pipe.inbox[True]
    assert isinstance(decode_message(pipe.inbox[False].popleft(), sealed=False), HelloReply)


def test_after_a_reboot_nothing_of_the_old_line_is_heard() -> None:
    device = Device()
    pipe = Feed(device)
    pipe.connect(grant(device))
    what = build(device)
    assert isinstance(pipe.ask(Offer(what.offer)), Accept)
    pipe.ask(Data(0, what.image))
    pipe.ask(Commit(what.manifest_digest))
    old = pipe.engine
    pipe.feed([sealed(Reboot()), Opened(bytes(4)), plain(Hello((1,))), Failed("link.timeout", "x")])
    assert decode_message(pipe.inbox[True].popleft(), sealed=True) == Done(int(Verb.REBOOT))
    assert pipe.engine is not old
    assert not pipe.inbox[False]
    assert device.runs(what)


# -- time -----------------------------------------------------------------------------------------------------------


def ask(message: Any, timeout: float = 20.0) -> Any:
    """One question in a script."""
    yield Send(encode_message(message), sealed=True)
    return decode_message((yield Receive(sealed=True, timeout=timeout)), sealed=True)


def pause(seconds: float) -> Any:
    """Say nothing for a while."""
    yield Receive(sealed=True, timeout=seconds, optional=True)


def test_thirty_idle_seconds_end_a_session_and_what_had_come_stays() -> None:
    device = Device()
    line, what, one = VirtualLine(device), build(device), grant(device)

    def idle(seconds: float) -> Any:
        yield from connect(bench_for(device, one))
        accepted = yield from ask(Offer(what.offer))
        assert isinstance(accepted, Accept)
        assert accepted.resume_offset == (0 if seconds < IDLE_SECONDS else 4096 // 256 * 256)
        at = accepted.resume_offset
        assert isinstance((yield from ask(Data(at, what.image[at : at + 4096]))), Durable)
        yield from pause(seconds)
        yield Send(encode_message(KeepAlive()), sealed=True)
        return (yield Receive(sealed=True, timeout=5.0, optional=True))

    assert line.runner().run(idle(IDLE_SECONDS - 2)) is not None
    assert line.runner().run(idle(IDLE_SECONDS + 2)) is None
    session = update(device, what, one)
    runner = line.runner()
    runner.run(session.push())
    assert device.runs(what)


def test_a_message_that_takes_longer_than_thirty_seconds_to_come_keeps_its_session() -> None:
    device, faults = Device(), Faults(baud=2400)
    line, what, one = VirtualLine(device, faults=faults), build(device, size=8000), grant(device)

    def slow() -> Any:
        yield from connect(bench_for(device, one))
        assert isinstance((yield from ask(Offer(what.offer), 120.0)), Accept)
        began = line.now
        assert isinstance((yield from ask(Data(0, what.image), 120.0)), Durable)
        assert line.now - began > IDLE_SECONDS
        return True

    assert line.runner().run(slow())


def test_chatter_in_the_clear_keeps_no_session_alive() -> None:
    device = Device()
    line = VirtualLine(device)

    def chatter() -> Any:
        yield from connect(bench_for(device, grant(device)))
        for _ in range(4):
            yield from pause(10.0)
            yield Send(encode_message(Hello((1,))), sealed=False)
        yield Send(encode_message(KeepAlive()), sealed=True)
        return (yield Receive(sealed=True, timeout=5.0, optional=True))

    assert line.runner().run(chatter()) is None


def test_four_hours_end_a_session_whatever_it_does() -> None:
    device = Device()
    line = VirtualLine(device)

    def long(seconds: float) -> Any:
        yield from connect(bench_for(device, grant(device)))
        began = lasted = line.now
        while line.now < began + seconds:
            yield Send(encode_message(KeepAlive()), sealed=True)
            if (yield Receive(sealed=True, timeout=5.0, optional=True)) is None:
                break
            lasted = line.now
            yield Flush()
            line.clock.now += 25.0
            line.turn()
        return lasted - began

    lasted = line.runner().run(long(SESSION_SECONDS + 200))
    assert SESSION_SECONDS - 60 <= lasted <= SESSION_SECONDS + 2


def test_a_device_goes_on_after_a_tampered_frame() -> None:
    device = Device()
    line = VirtualLine(device)

    def tampered() -> Any:
        yield from connect(bench_for(device, grant(device)))
        yield Flush()
        header = encode_header(Kind.DATA, sequence=0, record=(0, 5))
        line.inject("device", b"\x00" + encode_frame(header, bytes(40)))
        line.turn()
        yield Send(encode_message(KeepAlive()), sealed=True)
        return (yield Receive(sealed=True, timeout=5.0, optional=True))

    assert line.runner().run(tampered()) is None
    report, _ = line.runner().run(fetch_report(bench_for(device, grant(device))))
    assert report.serial == device.serial


def test_nobody_there_is_a_time_out_and_not_a_hang() -> None:
    device = Device()
    line = VirtualLine(device)
    line.faults.cuts = ((0.0, 1e9),)
    before = line.now
    with pytest.raises(LinkError, match=r"link\.timeout"):
        line.runner(open_timeout=3.0).run(greet())
    assert line.now - before < 4.0


def test_a_refused_handshake_leaves_the_device_ready_for_the_next() -> None:
    device = Device()
    line = VirtualLine(device)
    with pytest.raises(DeviceRefused):
        line.runner().run(connect(bench_for(device, grant(device, serials=frozenset({"SN-0002"})))))
    line.runner().run(connect(bench_for(device, grant(device))))
    with pytest.raises(DevguardError):
        line.runner().run(connect(bench_for(device, grant(device), serial="SN-0002")))
