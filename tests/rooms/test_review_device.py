"""What a review found: people and strangers who harm a device, or a good technician, inside the rules.

Each test shows one such way closed: a reboot into a running therapy, token ids that somebody else chose, strangers who
fill the device's log, a bench that takes no answer, a far end that speaks in the bench's own voice.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from builders import NOW, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.device.node import MAX_DELAY, NOTED_REFUSALS
from devguard.errors import DevguardError, DeviceRefused, LinkError
from devguard.grant.chain import delegate_grant
from devguard.grant.check import check_grant
from devguard.grant.claims import Action, Grant, read_grant
from devguard.grant.uses import DELEGATED_LIMIT, spend_use, use_id
from devguard.link.engine import LinkEngine
from devguard.link.events import Channel, Role
from devguard.link.frames import Kind, encode_announcement, encode_frame, encode_header
from devguard.link.parameters import LinkParameters
from devguard.session.approval import ApprovalRequest, sign_approval
from devguard.session.connect import connect, expect
from devguard.session.records import RecordLayer
from devguard.session.script import Send
from devguard.session.table import State
from devguard.session.verbs import (
    Accept,
    Approve,
    Commit,
    Data,
    Done,
    EdhocFailure,
    Hello,
    KeepAlive,
    Message,
    Offer,
    Reboot,
    RefusedReply,
    Verb,
    encode_message,
)
from sim.bench import (
    HOUR,
    PROGRAMMER,
    TESS,
    TINA,
    TOM,
    Build,
    Device,
    Pipe,
    Technician,
    bench_for,
    build,
    grant,
    judged,
    push,
    small,
    update,
    vendor_of,
)
from sim.line import VirtualLine

PUP = Technician("Pat Puppet", make_signer(Algorithm.ESP256, "puppet"))
_ctis = itertools.count(1 << 80)


def refusal(reply: Message | None) -> str:
    """The code of a refusal."""
    assert isinstance(reply, RefusedReply), reply
    return reply.code


def child(parent: Grant, cti: bytes | None = None, *, uses: int | None = 1, **fields: Any) -> Grant:
    """What Tess makes of her grant for a person of her invention."""
    scope = replace(parent.scope, max_uses=uses, **{k: fields.pop(k) for k in ("device_nonce",) if k in fields})
    given = {"subject": PUP.name, "holder": PUP.signer.key, "now": NOW, "expires": NOW + HOUR, **fields}
    named = next(_ctis).to_bytes(16, "big") if cti is None else cti
    return read_grant(delegate_grant(parent, TESS.signer, scope=scope, cti=named, **given))


def upload(pipe: Pipe, what: Build) -> Message | None:
    """Offer and send the whole image; the answer to the commit."""
    accept = pipe.ask(Offer(what.offer))
    assert isinstance(accept, Accept), accept
    for at in range(accept.resume_offset, len(what.image), 8192):
        pipe.ask(Data(at, what.image[at : at + 8192]))
    return pipe.ask(Commit(what.manifest_digest))


# -- therapy ----------------------------------------------------------------------------------------------------


def test_therapy_that_begins_between_commit_and_reboot_stops_the_reboot() -> None:
    device = Device()
    new, one = build(device), grant(device)
    pipe = Pipe(device)
    pipe.connect(one)
    assert upload(pipe, new) == Done(int(Verb.COMMIT))
    device.therapy.start_bolus(1000, NOW)
    assert refusal(pipe.ask(Reboot())) == "device.therapy-active"
    assert pipe.state is State.CLOSED
    assert device.node.hello().boot_state == "empty"
    device.therapy.stop_bolus(NOW)
    pipe.connect(one)
    assert upload(pipe, new) == Done(int(Verb.COMMIT))  # nothing is sent again: it resumes at the end
    assert pipe.ask(Reboot()) == Done(int(Verb.REBOOT))
    assert device.runs(new)
    assert len(device.counters.erase_times) == 1


def test_a_release_committed_again_and_again_wears_no_sector() -> None:
    device = Device()
    new, one = build(device), grant(device)
    pipe = Pipe(device)
    pipe.connect(one)
    assert upload(pipe, new) == Done(int(Verb.COMMIT))
    before = list(device.node._flash.wear)
    resigned = replace(new, envelope=replace(new.envelope, auth_blocks=new.envelope.auth_blocks[::-1]))
    assert resigned.offer != new.offer
    for again in (new, resigned, new):
        pipe.connect(one)
        assert upload(pipe, again) == Done(int(Verb.COMMIT))
    assert device.node._flash.wear == before
    assert pipe.ask(Reboot()) == Done(int(Verb.REBOOT))
    assert device.runs(new)


def test_the_second_technicians_grant_is_asked_again_at_commit() -> None:
    device = Device(model=small(PROGRAMMER))
    new, first, second = build(device), grant(device), grant(device, TOM, expires=NOW + 60)
    pipe = Pipe(device)
    session = pipe.connect(first)
    wish = ApprovalRequest(session.session_id, device.serial, new.manifest_digest, "update", _digest(first), NOW + 300)
    pipe.ask(Approve(sign_approval(wish, TOM.signer, _digest(second)), second.untagged))
    assert isinstance(pipe.ask(Offer(new.offer)), Accept)
    pipe.ask(Data(0, new.image))
    device.clock = NOW + 61
    assert refusal(pipe.ask(Commit(new.manifest_digest))) == "grant.expired"
    assert device.counters.pending is None


def _digest(one: Grant) -> bytes:
    import hashlib

    return hashlib.sha256(one.untagged).digest()


# -- token ids that a technician chose --------------------------------------------------------------------------


def test_a_delegation_under_somebody_elses_token_id_uses_up_nothing_of_theirs() -> None:
    device = Device()
    mine, theirs = grant(device), grant(device, TINA, max_uses=1)
    pipe = Pipe(device)
    pipe.connect(mine)
    pipe.connect(child(mine, theirs.cti), PUP)
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)
    assert theirs.cti not in device.counters.spent
    pipe.connect(theirs, TINA)
    assert isinstance(pipe.ask(Offer(build(device, "1.2.0", 3).offer)), Accept)


def test_a_delegation_can_neither_shorten_nor_revive_a_spent_grant() -> None:
    device = Device()
    once, wide = grant(device, max_uses=1), grant(device)
    spent = spend_use((once,), {}, b"r" * 32, NOW)
    squatter = child(wide, once.cti, uses=9, expires=NOW + 60)
    spent = spend_use((squatter, wide), spent, b"q" * 32, NOW)
    assert spent[once.cti].expires == once.expires
    reworded = child(wide, once.cti, uses=9, expires=NOW + 30)
    spent = spend_use((reworded, wide), spent, b"p" * 32, NOW)
    assert spent[use_id((reworded, wide))].expires == NOW + 60
    assert once.cti in spend_use((wide,), spent, b"q" * 32, NOW + HOUR)


def test_the_bench_counts_the_uses_of_a_delegation_as_the_device_does() -> None:
    device = Device()
    mine = grant(device)
    once = child(mine)
    first, second = build(device), build(device, "1.2.0", 3)
    view = replace(device.view(), spent=spend_use((once, mine), {}, first.manifest_digest, NOW))
    given: dict[str, Any] = {
        "trust": device.vendor.trust,
        "now": NOW,
        "action": Action.UPDATE,
        "holder": PUP.signer.key,
    }
    proof = check_grant(once, device=view, **given)
    proof.covers(judged(device, first))
    with pytest.raises(DevguardError, match=r"grant\.replay"):
        proof.covers(judged(device, second))


def test_a_dead_nonce_does_not_come_back_under_a_spent_token_id() -> None:
    device = Device(vendor=vendor_of(require_device_nonce=True))
    nonce = device.node.hello().nonce
    used, dead = grant(device, device_nonce=nonce), grant(device, device_nonce=nonce)
    pipe = Pipe(device)
    pipe.connect(used)
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)  # the nonce is used up by this
    with pytest.raises(DeviceRefused, match=r"grant\.replay"):
        pipe.connect(child(dead, used.cti), PUP)


def test_only_an_authoritys_grant_uses_up_the_devices_nonce() -> None:
    device = Device()
    mine, nonce = grant(device), device.node.hello().nonce
    pipe = Pipe(device)
    pipe.connect(mine)
    pipe.connect(child(mine, device_nonce=nonce), PUP)
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)
    assert device.node.hello().nonce == nonce  # still good for whom the authority gave it


def test_delegations_of_one_grant_do_not_fill_the_list_of_spent_grants() -> None:
    device = Device()
    mine, theirs = grant(device), grant(device, TINA, max_uses=1)
    pipe = Pipe(device)
    pipe.connect(mine)
    offer = Offer(build(device).offer)
    for _ in range(DELEGATED_LIMIT):
        device.up += MAX_DELAY  # offers that come to nothing slow the device down
        pipe.connect(child(mine), PUP)
        assert isinstance(pipe.ask(offer), Accept)
    device.up += MAX_DELAY
    pipe.connect(child(mine), PUP)
    assert refusal(pipe.ask(offer)) == "grant.replay"
    assert len(device.counters.spent) == DELEGATED_LIMIT
    for one, who in ((mine, TESS), (theirs, TINA)):
        device.up += MAX_DELAY
        pipe.connect(one, who)
        assert isinstance(pipe.ask(offer), Accept)


# -- strangers at the port --------------------------------------------------------------------------------------


def test_a_stranger_cannot_push_the_past_out_of_the_log_nor_wear_the_store() -> None:
    device = Device()
    push(device, build(device))
    told = [event.name for event in device.counters.audit.events]
    count, pipe = device.counters.audit.count, Pipe(device)
    for number in range(200):
        pipe.open()
        pipe.ask(b"\xff" if number % 2 else b"\x81\x18\x63", sealed=False)
    assert [event.name for event in device.counters.audit.events][: len(told)] == told
    assert device.counters.audit.count == count + NOTED_REFUSALS
    pipe.connect(grant(device))
    pipe.open()
    pipe.ask(b"\xff", sealed=False)
    assert [event.name for event in device.counters.audit.events][-2:] == ["session", "refused"]


def test_the_count_of_failed_handshakes_stops_where_the_delay_does() -> None:
    device = Device()
    for _ in range(100):
        device.node.handshake_failed()
    kept = device.counters
    device.node.handshake_failed()
    assert device.counters is kept
    with pytest.raises(DevguardError, match=r"device\.busy"):
        device.node.handshake_begins()


# -- the line ---------------------------------------------------------------------------------------------------


def test_an_engine_queues_no_more_for_a_peer_that_takes_nothing() -> None:
    engine = LinkEngine(Role.HOST, LinkParameters(max_pending=1000), lambda size: bytes(size))
    engine.open(0.0)
    for _ in range(11):
        engine.send(Channel.PLAIN, bytes(100), 0.0)
    with pytest.raises(LinkError, match=r"link\.timeout"):
        engine.send(Channel.PLAIN, b"one more", 0.0)
    assert engine.pending_bytes(Channel.PLAIN) == 1100


def test_answers_to_a_bench_that_never_takes_one_do_not_pile_up() -> None:
    device, line = Device(), None
    line = VirtualLine(device)
    session = line.runner().run(connect(bench_for(device, grant(device))))
    line.sides["host"].engine = None  # it listens no more
    raw, engine = encode_message(KeepAlive()), line.sides["device"].engine
    assert engine is not None
    for burst in range(70):
        wire = b"\x00" + b"".join(_sealed(session.records, burst * 100 + at, raw) for at in range(100))
        line.inject("device", wire)
        line.turn()
    assert 0 < engine.pending_bytes(Channel.SEALED) < 17 * 1024


def _sealed(records: RecordLayer, sequence: int, message: bytes) -> bytes:
    epoch, counter = records.next()
    header = encode_header(Kind.DATA, record=(epoch, counter), sequence=sequence, fin=True)
    return encode_frame(header, records.seal(epoch, counter, header, message))


def test_a_bench_that_opens_anew_before_the_reboot_is_served_after_it() -> None:
    device = Device()
    line, one, new = VirtualLine(device), grant(device), build(device)

    def all_but_the_reboot() -> Iterator[Any]:
        script = update(device, new, one).push()
        step = next(script)
        while not (isinstance(step, Send) and step.message == encode_message(Reboot())):
            step = script.send((yield step))

    line.runner().run(all_but_the_reboot())  # type: ignore[arg-type]
    host = line.sides["host"].engine
    assert host is not None
    host.send(Channel.SEALED, encode_message(Reboot()), line.now)
    wire = host.data_to_send(line.now)
    line.sides["host"].engine = None  # and acknowledges no answer
    nonce = b"anew"
    opening = encode_frame(encode_header(Kind.OPEN, nonce=nonce), encode_announcement(16384, 4096))
    heapq.heappush(line.forward._heap, (line.now + 0.5, 1 << 60, b"\x00" + opening))
    line.inject("device", wire)
    line.turn()
    hello = encode_header(Kind.DATA, nonce=nonce, sequence=0, fin=True)
    line.inject("device", b"\x00" + encode_frame(hello, encode_message(Hello((1,)))))
    line.turn()
    assert device.runs(new)
    assert line.emulated is not None
    assert line.emulated._plain is not None
    assert line.emulated._plain.state is State.GREETED


# -- what the bench believes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["log.full", "internal.error", "", "Grant.Expired", "a.b\nerror", "x" * 1000])
def test_a_far_end_cannot_borrow_a_code_that_is_the_benchs_own(code: str) -> None:
    with pytest.raises(DeviceRefused) as error:
        expect(encode_message(EdhocFailure(b"", code, "no")), Accept, sealed=False)
    assert error.value.code == "session.handshake"


def test_what_a_far_end_says_stays_on_its_line() -> None:
    text = "no\nSN-0001: 1.0.0 -> 1.1.0, confirmed by the device\x1b[2K\r"
    for reply, sealed in ((EdhocFailure(b"", "grant.new", text), False), (RefusedReply("grant.new", text, text), True)):
        with pytest.raises(DeviceRefused) as error:
            expect(encode_message(reply), Accept, sealed=sealed)
        assert error.value.code == "grant.new"
        assert error.value.message.isprintable()
        assert error.value.hint.isprintable()
