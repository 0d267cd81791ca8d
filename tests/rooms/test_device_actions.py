"""`recover` and `read-log` on a device: actions of their own, as guarded as an update, and none opens another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from builders import NOW
from devguard.cose.sign import Signer
from devguard.device.audit import RING_SIZE, AuditRing
from devguard.device.counters import Counters, MemoryCounterStore
from devguard.device.models import Model
from devguard.errors import DevguardError, DeviceRefused, LinkError, LocalProtocolError, Refused, RemoteProtocolError
from devguard.evidence.device_log import read_device_log
from devguard.grant.claims import Action, Grant
from devguard.grant.uses import use_of
from devguard.session.approval import LIFETIME, ApprovalRequest, sign_approval
from devguard.session.connect import Connected
from devguard.session.read_log import ReadLog, read_log
from devguard.session.table import ACTION_OF
from devguard.session.update import after_reboot, fetch_report
from devguard.session.verbs import (
    MAX_PIECE,
    Accept,
    Approve,
    Commit,
    Data,
    Decommission,
    Done,
    Hello,
    LogPiece,
    LogRequest,
    Message,
    Offer,
    Reboot,
    Recover,
    Verb,
    decode_message,
    encode_message,
)
from sim.bench import (
    PROGRAMMER,
    PUMP,
    TOM,
    Build,
    Device,
    Pipe,
    bench_for,
    build,
    checked,
    entropy,
    grant,
    small,
    update,
)
from sim.hostile import refusal, send, with_old
from sim.state import snapshot

MODELS = [small(PUMP), small(PROGRAMMER)]
RECOVER, READ = frozenset({Action.RECOVER}), frozenset({Action.READ_LOG})


def both(device: Device, action: Action, *, by: str | None = None) -> Callable[[Any], tuple[bytes, bytes]] | None:
    """The second technician's yes, where the model asks for one; `by`: to another action than the one asked for."""
    if device.model.facts.technicians < 2:
        return None
    second = grant(device, TOM, actions=frozenset({action}))
    digest = hashlib.sha256(second.untagged).digest()
    return lambda wish: (sign_approval(replace(wish, action=by or wish.action), TOM.signer, digest), second.untagged)


def pushed(device: Device, what: Build, action: Action = Action.UPDATE, **fields: Any) -> None:
    """An honest push or recovery, to the end."""
    session = update(device, what, action=action, approver=both(device, action), **fields)
    Pipe(device).run(session.push())
    report, _ = Pipe(device).run(fetch_report(session.bench))
    after_reboot(session.release, report)
    device.fresh_hour()


def two_releases(model: Model) -> tuple[Device, Build, Build]:
    """A device that runs release 2, with release 1 behind it."""
    device = Device(model=model)
    old, new = build(device, "1.0.0", 1, 3000), build(device, "1.1.0", 2, 9000)
    pushed(device, old)
    pushed(device, new)
    return device, old, new


def harm(device: Device, *slots: str, at: int = 700) -> None:
    """One flipped bit in the image of these slots."""
    for name in slots:
        device.backend.data[getattr(device.model.layout, name).image + at] ^= 0x10


def steady(device: Device) -> tuple[Any, ...]:
    """What no recovery may move."""
    counters = device.counters
    monotonic = (counters.security_version, counters.installed_sequence, counters.trust_version, counters.grant_epoch)
    return *monotonic, snapshot(device).therapy


def ask(device: Device, actions: frozenset[Action], message: Message, **fields: Any) -> Any:
    pipe = Pipe(device)
    pipe.connect(grant(device, actions=actions, **fields))
    return pipe.ask(message)


# recover


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize(
    ("slots", "boots", "state"),
    [
        (("primary",), True, "fallback"),
        (("primary", "secondary"), True, "recovery"),
        (("primary",), False, "confirmed"),
        (("secondary",), True, "confirmed"),
    ],
    ids=["fell-back", "nothing-runs", "found-running", "no-way-back"],
)
def test_the_release_confirmed_last_comes_back_whole(
    model: Model, slots: tuple[str, ...], boots: bool, state: str
) -> None:
    device, _, new = two_releases(model)
    before = steady(device)
    harm(device, *slots)
    if boots:
        device.power_cycle()
    assert device.node.hello().boot_state == state
    pushed(device, new, Action.RECOVER)
    assert device.runs(new)
    assert device.node.state(bytes(16)).flags == ()
    assert steady(device) == before
    assert [event.name for event in device.counters.audit.events].count("recover-accepted") == 1
    assert refusal(ask(device, RECOVER, Recover(new.offer))) == "device.intact"


def test_damaged_papers_are_put_right() -> None:
    device, old = with_old()
    device.backend.data[device.model.layout.primary.envelope + 9] ^= 1
    device.power_cycle()
    assert device.node.state(bytes(16)).flags == ("slot.envelope",)
    pushed(device, old, Action.RECOVER)
    assert device.node.state(bytes(16)).flags == ()


def test_a_recovery_goes_on_where_the_cable_was_pulled_and_a_use_is_spent_once() -> None:
    device, _, new = two_releases(small(PUMP))
    harm(device, "primary")
    device.power_cycle()
    once = grant(device, actions=frozenset({Action.RECOVER, Action.UPDATE}), max_uses=1)
    pipe = Pipe(device)
    pipe.connect(once)
    assert isinstance(pipe.ask(Recover(new.offer)), Accept)
    pipe.ask(Data(0, new.image[:5000]))
    pipe.lose()
    device.power_cycle()
    pipe.connect(once)
    accept = pipe.ask(Recover(new.offer))
    assert isinstance(accept, Accept)
    assert accept.resume_offset == 4864
    pipe.ask(Data(4864, new.image[4864:]))
    assert pipe.ask(Commit(new.manifest_digest)) == Done(int(Verb.COMMIT))
    assert pipe.ask(Reboot()) == Done(int(Verb.REBOOT))
    assert device.runs(new)
    device.fresh_hour()
    assert {entry.uses for entry in device.counters.spent.values()} == {1}
    pipe.connect(once)
    assert refusal(pipe.ask(Offer(build(device, "1.2.0", 3).offer))) == "grant.replay"


def test_the_use_of_an_update_is_none_of_a_recovery_of_the_same_release() -> None:
    device, _ = with_old()
    new = build(device)
    once = grant(device, actions=frozenset({Action.RECOVER, Action.UPDATE}), max_uses=1)
    pipe = Pipe(device)
    pipe.connect(once)
    assert isinstance(send(pipe, new), Done)
    device.fresh_hour()
    harm(device, "primary")
    device.power_cycle()
    pipe.connect(once)
    assert refusal(pipe.ask(Recover(new.offer))) == "grant.replay"


def test_only_the_very_release_confirmed_last() -> None:
    device, old, new = two_releases(small(PUMP))
    harm(device, "primary")
    device.power_cycle()
    for wrong in (
        old,
        build(device, "1.2.0", 3),
        build(device, "1.1.0", 2, image_seed="another image"),
        build(device, "1.1.0", 2, summary="the same image, another manifest"),
    ):
        before = snapshot(device)
        assert refusal(ask(device, RECOVER, Recover(wrong.offer))) == "version.rollback"
        assert snapshot(device).all_but_log == before.all_but_log
    assert isinstance(ask(device, RECOVER, Recover(new.offer)), Accept)


def test_nothing_to_recover_is_refused() -> None:
    device = Device()
    assert refusal(ask(device, RECOVER, Recover(build(device, "1.0.0", 1).offer))) == "device.intact"
    device, old = with_old()
    assert refusal(ask(device, RECOVER, Recover(old.offer))) == "device.intact"


def test_an_update_never_puts_a_lost_release_back_and_still_brings_a_newer_one() -> None:
    device, _, new = two_releases(small(PUMP))
    harm(device, "primary", "secondary")
    device.power_cycle()
    assert refusal(ask(device, frozenset({Action.UPDATE}), Offer(new.offer))) == "grant.action"
    newer = build(device, "1.2.0", 3)
    pushed(device, newer)
    assert device.runs(newer)


def test_a_release_that_was_revoked_since_is_not_put_back() -> None:
    device, _, new = two_releases(small(PUMP))
    harm(device, "primary")
    device.node.trust = replace(device.node.trust, revoked_releases=frozenset({new.manifest_digest}))
    device.node.boot()
    assert refusal(ask(device, RECOVER, Recover(new.offer))) == "release.revoked"


def test_a_therapy_under_way_and_a_low_battery_stop_a_recovery_too() -> None:
    device, _, new = two_releases(small(PUMP))
    harm(device, "primary")
    device.power_cycle()
    device.battery = 10
    assert refusal(ask(device, RECOVER, Recover(new.offer))) == "device.battery"
    device.battery = 90
    device.therapy.start_bolus(5000, NOW)
    assert refusal(ask(device, RECOVER, Recover(new.offer))) == "device.therapy-active"


def test_a_recovery_that_fails_its_self_test_leaves_what_ran() -> None:
    device, old, new = two_releases(small(PUMP))
    harm(device, "primary")
    device.self_test = lambda: False
    device.power_cycle()
    session = update(device, new, action=Action.RECOVER)
    Pipe(device).run(session.push())
    assert device.runs(old)
    assert device.counters.installed_sequence == 2


# actions


@pytest.mark.parametrize("verb", list(ACTION_OF), ids=lambda verb: verb.name)
@pytest.mark.parametrize("action", list(Action))
def test_a_grant_for_one_action_opens_no_other(action: Action, verb: Verb) -> None:
    device, _, new = two_releases(small(PUMP))
    harm(device, "primary")
    device.power_cycle()
    newer = build(device, "1.2.0", 3)
    message: Message = {
        Verb.OFFER: Offer(newer.offer),
        Verb.RECOVER: Recover(new.offer),
        Verb.LOG: LogRequest(bytes(16), 0),
        Verb.DECOMMISSION: Decommission(bytes(16)),
    }[verb]
    before = snapshot(device)
    answer = ask(device, frozenset({action}), message)
    if ACTION_OF[verb] is action is Action.DECOMMISSION:
        assert refusal(answer) == "grant.quorum"  # it is always two persons'
    elif ACTION_OF[verb] is action:
        assert isinstance(answer, (Accept, LogPiece))
    else:
        assert refusal(answer) == "grant.action"
        assert snapshot(device).all_but_log == before.all_but_log


def test_the_device_asks_twice_whether_the_grant_names_the_action() -> None:
    """The table says no before the verb is looked at; the verb itself says no again."""
    device, old = with_old()
    attendant = device.node.attend()
    attendant.judge_technician(grant(device, actions=READ).untagged)
    attendant.authorised(bytes(32))
    for act in (
        lambda: attendant.allow(Action.UPDATE),
        lambda: attendant.offer(build(device).offer),
        lambda: attendant.recover(old.offer),
    ):
        with pytest.raises(Refused, match=r"grant\.action"):
            act()


@pytest.mark.parametrize("action", [Action.RECOVER, Action.READ_LOG])
def test_two_technicians_where_the_model_asks_and_both_for_that_very_action(action: Action) -> None:
    device, _, new = two_releases(small(PROGRAMMER))
    harm(device, "primary")
    device.power_cycle()
    subject = new.manifest_digest if action is Action.RECOVER else use_of(action, b"")
    message: Message = Recover(new.offer) if action is Action.RECOVER else LogRequest(bytes(16), 0)
    first = grant(device, actions=frozenset({action}))

    def answer(named: str, over: bytes, second: Grant | None) -> Any:
        pipe = Pipe(device)
        session = pipe.connect(first)
        if second is not None:
            _approve(pipe, session, device, first, second, named, over)
        return pipe.ask(message)

    second = grant(device, TOM, actions=frozenset({action}))
    assert refusal(answer("", b"", None)) == "grant.quorum"
    assert refusal(answer("update", subject, second)) == "grant.quorum"
    assert refusal(answer(str(action), bytes(32), second)) == "grant.quorum"
    assert isinstance(answer(str(action), subject, second), (Accept, LogPiece))


def _approve(
    pipe: Pipe, session: Connected, device: Device, first: Grant, second: Grant, action: str, subject: bytes
) -> None:
    digest = hashlib.sha256(first.untagged).digest()
    request = ApprovalRequest(session.session_id, device.serial, subject, action, digest, device.clock + LIFETIME)
    signed = sign_approval(request, TOM.signer, hashlib.sha256(second.untagged).digest())
    assert pipe.ask(Approve(signed, second.untagged)) == Done(int(Verb.APPROVE))


def test_a_second_grant_for_another_action_is_no_second_technician() -> None:
    device, _ = with_old(model=small(PROGRAMMER))
    pipe = Pipe(device)
    pipe.connect(grant(device, actions=READ))
    assert refusal(pipe.ask(Approve(b"\x00", grant(device, TOM).untagged))) == "grant.quorum"


# read-log


def read(device: Device, one: Grant | None = None, pipe: Pipe | None = None) -> ReadLog:
    one = one or grant(device, actions=READ)
    script = read_log(
        bench_for(device, one), checked(device, one, action=Action.READ_LOG), both(device, Action.READ_LOG)
    )
    return (pipe or Pipe(device)).run(script)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_log_leads_to_the_head_that_the_report_signs(model: Model) -> None:
    device, _, _ = two_releases(model)
    found = read(device)
    ring = device.counters.audit
    assert [(one.time, one.name, one.code, one.subject) for one in found.log.events] == [
        (one.time, one.name, one.code, one.subject) for one in ring.events
    ]
    assert (found.log.count, found.log.base, found.log.head) == (ring.count, ring.base, ring.head)
    assert found.report.log_head == ring.head
    assert found.log.events[-1].name == "log-read"
    assert found.log.serial == device.serial


def test_a_long_log_travels_in_bounded_pieces() -> None:
    device, _ = with_old()
    for number in range(2 * RING_SIZE):
        device.store.save(device.counters.event(NOW + number, "a" * 60, "b" * 60, bytes(64)))
    pipe = Pipe(device)
    sizes: list[int] = []
    inner = pipe.deliver

    def deliver(message: bytes, *, sealed: bool) -> None:
        inner(message, sealed=sealed)
        sizes.extend(len(one) for one in pipe.inbox[True])

    pipe.deliver = deliver
    found = read(device, pipe=pipe)
    assert len(found.log.events) == RING_SIZE
    assert not found.log.whole
    assert found.log.count == device.counters.audit.count
    assert len(sizes) > 6
    assert max(sizes) < MAX_PIECE + 32


def test_one_use_reads_in_one_session_and_in_no_other() -> None:
    device, _ = with_old()
    once = grant(device, actions=READ, max_uses=1)
    pipe = Pipe(device)
    pipe.connect(once)
    assert isinstance(pipe.ask(LogRequest(bytes(16), 0)), LogPiece)
    assert isinstance(pipe.ask(LogRequest(bytes(16), 0)), LogPiece)
    device.power_cycle()
    assert refusal(ask_again(device, once)) == "grant.replay"


def ask_again(device: Device, one: Grant) -> Any:
    pipe = Pipe(device)
    pipe.connect(one)
    return pipe.ask(LogRequest(bytes(16), 0))


def test_a_nonce_is_used_up_by_reading_and_expiry_ends_it() -> None:
    device, _ = with_old(model=small(PROGRAMMER))
    nonce = device.node.hello().nonce
    one = grant(device, actions=READ, device_nonce=nonce)
    with pytest.raises(DeviceRefused, match=r"grant\.quorum"):
        Pipe(device).run(read_log(bench_for(device, one), checked(device, one, action=Action.READ_LOG)))
    read(device, one)
    assert device.node.hello().nonce != nonce
    with pytest.raises(DeviceRefused, match=r"grant\.replay"):
        read(device, one)
    late = grant(device, actions=READ)
    pipe = Pipe(device)
    pipe.connect(late)
    device.clock = NOW + 13 * 3600
    assert refusal(pipe.ask(LogRequest(bytes(16), 0))) == "grant.expired"


@pytest.mark.parametrize("offset", [1, 2048, 32 * 1024])
def test_a_log_begins_at_its_first_byte(offset: int) -> None:
    device, _ = with_old()
    before = snapshot(device)
    assert refusal(ask(device, READ, LogRequest(bytes(16), offset))) == "session.order"
    assert snapshot(device).all_but_log == before.all_but_log


def test_what_a_stranger_adds_meanwhile_is_read_too() -> None:
    device, _ = with_old()
    pipe, stranger = Pipe(device), Pipe(device)
    inner, done = pipe.deliver, []

    def deliver(message: bytes, *, sealed: bool) -> None:
        if message[1] == Verb.REPORT and not done:
            done.append(True)
            stranger.open()
            stranger.ask(Data(0, b"x"), sealed=False)
        inner(message, sealed=sealed)

    pipe.deliver = deliver
    found = read(device, pipe=pipe)
    assert done
    assert [one.name for one in found.log.events][-3:] == ["log-read", "refused", "log-read"]
    assert found.report.log_head == found.log.head


# a device that lies


class Liar(Pipe):
    """A device whose pieces are changed on their way by whoever is in it."""

    def __init__(self, device: Device, change: Callable[[LogPiece], LogPiece]) -> None:
        super().__init__(device)
        self.change = change

    def deliver(self, message: bytes, *, sealed: bool) -> None:
        super().deliver(message, sealed=sealed)
        box = self.inbox[True]
        if box and isinstance(piece := decode_message(box[-1], sealed=True), LogPiece):
            box[-1] = encode_message(self.change(piece))


@pytest.mark.parametrize(
    "change",
    [
        lambda piece: replace(piece, piece=piece.piece[:-1]),
        lambda piece: replace(piece, total=piece.total + 1),
        lambda piece: replace(piece, piece=piece.piece + b"\x00"),
    ],
    ids=["short", "other-size", "long"],
)
def test_pieces_of_another_size_are_refused(change: Callable[[LogPiece], LogPiece]) -> None:
    device, _ = with_old()
    with pytest.raises(RemoteProtocolError, match=r"session\.order"):
        read(device, pipe=Liar(device, change))


def test_a_changed_byte_anywhere_is_refused() -> None:
    device, _ = with_old()
    whole = len(read(device).signed_log)
    for at in range(0, whole, 37):
        liar = Liar(device, lambda piece, at=at: replace(piece, piece=_flipped(piece.piece, at % MAX_PIECE)))
        with pytest.raises(DevguardError) as caught:
            read(device, pipe=liar)
        assert caught.value.code.partition(".")[0] in ("wire", "signature", "key", "session")


def _flipped(data: bytes, at: int) -> bytes:
    return bytes(byte ^ (number == at) for number, byte in enumerate(data))


def test_a_log_of_another_question_is_refused() -> None:
    device, _ = with_old()
    old = device.node.signed_log(entropy("another challenge")(16))
    with pytest.raises(Refused, match=r"session\.replay"):
        read(device, pipe=Liar(device, lambda _: LogPiece(len(old), old)))


def _shortened(counters: Counters) -> AuditRing:
    """The ring as it was two events ago."""
    ring = AuditRing()
    for event in counters.audit.events[:-2]:
        ring = ring.append(event)
    return ring


def test_a_log_that_leaves_out_what_the_report_counts_is_refused() -> None:
    device, _ = with_old()
    node = device.node
    honest = node.signed_log

    def without_the_last(challenge: bytes, *signer: Signer | None) -> bytes:
        device.store, kept = (
            MemoryCounterStore(replace(device.counters, audit=_shortened(device.counters))),
            device.store,
        )
        node.store = device.store
        signed = honest(challenge, *signer)
        node.store = device.store = kept
        return signed

    node.signed_log = without_the_last
    with pytest.raises(Refused, match=r"device\.log"):
        read(device)


def test_a_grant_checked_for_something_else_reads_no_log() -> None:
    device, _ = with_old()
    one = grant(device)
    with pytest.raises(LocalProtocolError):
        next(read_log(bench_for(device, one), checked(device, one)))


def test_a_device_of_before_is_not_asked_what_it_does_not_know() -> None:
    device, old = with_old()
    pipe = Pipe(device)
    inner = pipe.deliver

    def deliver(message: bytes, *, sealed: bool) -> None:
        inner(encode_message(Hello((2, 1))) if message[1] == Verb.HELLO else message, sealed=sealed)

    pipe.deliver = deliver
    with pytest.raises(LinkError, match=r"link\.protocol"):
        read(device, pipe=pipe)
    with pytest.raises(LinkError, match=r"link\.protocol"):
        pipe.run(update(device, old, action=Action.RECOVER).push())


def test_what_was_read_verifies_later_by_the_device_s_key_alone() -> None:
    device, _ = with_old()
    found = read(device)
    again = read_device_log(found.signed_log, device.identity.signer.key)
    assert again == found.log
