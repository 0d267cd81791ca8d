"""A hostile bench's sessions: played back, interleaved, out of order or garbage, they change nothing."""

from __future__ import annotations

import hashlib

import pytest

from devguard.device.node import FREE_HANDSHAKES
from devguard.errors import DeviceRefused
from devguard.session.connect import identify
from devguard.session.table import State
from devguard.session.verbs import (
    Commit,
    Done,
    Durable,
    Edhoc,
    Hello,
    HelloReply,
    Offer,
    Reboot,
    Verb,
    encode_message,
)
from sim.bench import (
    TESS,
    TINA,
    TOM,
    Pipe,
    bench_for,
    build,
    grant,
    update,
)
from sim.hostile import (
    THIEF,
    fresh,
    refusal,
    refused_handshake,
    send,
    with_old,
)
from sim.state import snapshot


def test_a_recorded_session_played_back_opens_nothing() -> None:
    device = fresh()
    pipe = Pipe(device)
    pipe.run(update(device, build(device)).push())
    recorded = pipe.sent
    device.fresh_hour()
    replay = Pipe(device)
    replay.open()
    before = snapshot(device)
    hello = replay.ask(recorded[0][0], sealed=False)
    assert isinstance(hello, HelloReply)
    assert isinstance(replay.ask(recorded[1][0], sealed=False), Edhoc)
    assert refusal(replay.ask(recorded[2][0], sealed=False)) == "session.handshake"
    for message, sealed in recorded[3:]:
        assert replay.ask(message, sealed=sealed) is None
    assert snapshot(device).all_but_log == before.all_but_log
    assert replay.session is None


def test_a_handshake_in_the_clear_touches_no_session_that_is_open() -> None:
    device, _ = with_old()
    new = build(device)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert isinstance(send(pipe, new, commit=False), Durable)
    mine = pipe.session
    with pytest.raises(DeviceRefused, match=r"session\.handshake"):
        pipe.connect(grant(device, TOM, holder=TESS.signer.key), THIEF)
    pipe.run(identify(bench_for(device, grant(device), signer=None, grant=None)))
    assert pipe.session is mine
    assert pipe.ask(Commit(new.manifest_digest)) == Done(int(Verb.COMMIT))
    assert pipe.ask(Reboot()) == Done(int(Verb.REBOOT))
    assert device.runs(new)


def test_a_grant_shown_without_its_key_lends_nothing_to_an_open_session() -> None:
    device = fresh()
    narrow = grant(device, any_release=False, sequences=(7, 9))
    wide = grant(device, TINA)
    pipe = Pipe(device)
    pipe.connect(narrow)
    with pytest.raises(DeviceRefused, match=r"session\.handshake"):
        pipe.connect(wide, THIEF)
    before = snapshot(device)
    assert refusal(pipe.ask(Offer(build(device).offer))) == "grant.scope"
    assert snapshot(device).all_but_log == before.all_but_log


@pytest.mark.parametrize(
    "message",
    [encode_message(Hello((1,))), encode_message(Edhoc(b"\x00")), b"\xff\xff", encode_message(Commit(bytes(32)))],
    ids=["hello", "edhoc", "garbage", "commit"],
)
def test_nothing_said_in_the_clear_reaches_a_session(message: bytes) -> None:
    device = fresh()
    pipe = Pipe(device)
    pipe.connect(grant(device))
    before = snapshot(device)
    pipe.deliver(message, sealed=False)
    assert not pipe.inbox[False]
    assert pipe.state is State.AUTHORISED
    assert snapshot(device) == before


def test_what_anybody_may_know_names_neither_serial_nor_version_nor_person() -> None:
    device = fresh()
    pipe = Pipe(device)
    pipe.open()
    hello = encode_message(pipe.ask(Hello((1,)), sealed=False))
    with pytest.raises(DeviceRefused):
        pipe.connect(grant(device, TOM, holder=TESS.signer.key, serials=frozenset({"SN-0002"})))
    for secret in (device.serial, "1.0.0", TESS.name, TOM.name, "SN-0002"):
        assert secret.encode() not in hello
    pipe.open()
    for message in (Hello((1,)), Edhoc(b"\x00")):
        answer = encode_message(pipe.ask(message, sealed=False))
        assert device.serial.encode() not in answer


@pytest.mark.parametrize("versions", [(4,), (0, 4, 5)])
def test_another_protocol_version_is_refused(versions: tuple[int, ...]) -> None:
    pipe = Pipe(fresh())
    pipe.open()
    assert refusal(pipe.ask(Hello(versions), sealed=False)) == "link.protocol"


def test_failed_handshakes_make_everybody_wait_and_a_good_technician_passes_afterwards() -> None:
    device = fresh()
    for _ in range(FREE_HANDSHAKES):
        assert refused_handshake(device, grant(device), THIEF) == "session.handshake"
    for seconds in (1.0, 2.0, 4.0, 4.0):
        assert refused_handshake(device, grant(device), THIEF) == "session.handshake"
        device.up += seconds - 0.01
        failed = device.counters.failed_handshakes
        with pytest.raises(DeviceRefused, match=r"device\.busy"):
            Pipe(device).connect(grant(device))
        assert device.counters.failed_handshakes == failed
        device.up += 0.02
    Pipe(device).connect(grant(device))
    assert device.counters.failed_handshakes == 0


@pytest.mark.parametrize("count", [1027, 1028, 65_535, 65_536])
def test_any_number_of_failed_handshakes_keeps_the_delay_at_four_seconds(count: int) -> None:
    device = fresh()
    device.store.save(device.counters.with_failed_handshakes(count))
    device.node.handshake_failed()
    device.up += 4.0
    Pipe(device).connect(grant(device))


def test_asking_who_the_device_is_is_no_failed_handshake() -> None:
    device = fresh()
    for _ in range(6):
        identity, _ = Pipe(device).run(identify(bench_for(device, grant(device), grant=None, signer=None)))
        assert identity.serial == device.serial
    assert device.counters.failed_handshakes == 0


def test_the_device_s_own_log_names_each_session_and_the_grant_it_was_held_under() -> None:
    """What a bench's log is held against later: a session id that only the two ends of a session know."""
    device = fresh()
    pipe, held = Pipe(device), grant(device)
    ids = []
    for _ in range(2):
        connected = pipe.connect(held)
        ids.append(connected.session_id + hashlib.sha256(bench_for(device, held).grant or b"").digest())
        pipe.open()
    events = [one for one in device.node.store.load().audit.events if one.name == "session"]
    assert [one.subject for one in events[-2:]] == ids
    assert ids[0][:32] != ids[1][:32]
