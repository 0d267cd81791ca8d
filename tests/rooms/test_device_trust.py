"""The verb `trust` on a device: root rules alone, one purpose only, whole or not at all."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import DAY, NOW, Vendor, make_signer, reissue, trust_roles
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_TRUST, sign_many
from devguard.device import storage
from devguard.device.models import load_model
from devguard.device.node import FREE_HANDSHAKES, Surroundings
from devguard.device.provision import open_node, provision
from devguard.device.storage import DeviceDirectory
from devguard.errors import DevguardError, DeviceRefused, Refused
from devguard.session.connect import connect
from devguard.session.table import State
from devguard.session.trust_push import pieces, push_trust
from devguard.session.update import fetch_report
from devguard.session.verbs import (
    Accept,
    Approve,
    Commit,
    Data,
    Done,
    KeepAlive,
    Offer,
    Reboot,
    RefusedReply,
    TrustChain,
)
from devguard.trust import codec
from devguard.trust.document import read_trust
from devguard.trust.rotate import Change, sign_successor, successor
from sim.bench import SERIAL, TOM, Device, Pipe, bench_for, build, entropy, grant, small, vendor_of
from sim.state import snapshot

LONG = 400 * DAY


def rotated(vendor: Vendor, *, issued: int = NOW - 100, **fields: Any) -> Vendor:
    """The vendor's next version; `authority` gives it another technician authority and no other."""
    seats = vendor.seats
    if fields.pop("authority", None):
        seats = tuple(
            (seat, make_signer(seat.algorithm, "new authority"))
            if seat.role is RoleName.TECHNICIAN_AUTHORITY
            else (seat, key)
            for seat, key in seats
        )
    thresholds = {name: role.threshold for name, role in vendor.trust.roles.items()}
    change = Change(roles=trust_roles(seats, thresholds), **fields)
    doc = successor(vendor.trust, change, issued=issued, expires=NOW + LONG)
    roots = [key for seat, key in vendor.seats if seat.role is RoleName.ROOT]
    data = sign_successor(vendor.trust, doc, roots)
    return Vendor(data, read_trust(data), seats)


def newer(device: Device, **fields: Any) -> tuple[Vendor, Any]:
    """(the vendor with a new authority, a grant by it)."""
    new = rotated(device.vendor, authority=True, **fields)
    one = grant(device, signers=[new.signer(RoleName.TECHNICIAN_AUTHORITY)])
    return new, one


def refusal(answer: object) -> str:
    assert isinstance(answer, RefusedReply), answer
    return answer.code


def test_a_new_authority_brings_its_document_and_goes_on_in_the_same_session() -> None:
    device = Device()
    new, one = newer(device)
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, one)))
    assert pipe.state is State.LIMITED
    assert [type(pipe.ask(piece)) for piece in pieces([new.trust_bytes])] == [Done]
    assert pipe.state is State.AUTHORISED
    assert (device.node.trust.digest, device.counters.trust_version) == (new.trust.digest, 2)


def test_a_limited_session_does_nothing_else() -> None:
    device = Device()
    _, one = newer(device)
    before = snapshot(device)
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, one)))
    for message in (Offer(build(device).offer), KeepAlive()):
        assert refusal(pipe.ask(message)) == "key.unknown"
    assert pipe.state is State.LIMITED
    assert snapshot(device).all_but_log == before.all_but_log
    assert snapshot(device).failed == before.failed + 1
    with pytest.raises(DeviceRefused) as refused:
        Pipe(device).run(fetch_report(bench_for(device, one)))
    assert refused.value.code == "key.unknown"


def test_limited_sessions_are_slowed_like_failed_handshakes() -> None:
    device = Device()
    _, one = newer(device)
    for _ in range(FREE_HANDSHAKES + 1):
        Pipe(device).run(connect(bench_for(device, one)))
    with pytest.raises(DeviceRefused) as refused:
        Pipe(device).run(connect(bench_for(device, one)))
    assert refused.value.code == "device.busy"


@pytest.mark.parametrize(
    ("fields", "code"), [({"expires": NOW - 10}, "grant.expired"), ({"epoch": 99}, "grant.revoked")]
)
def test_any_other_fault_of_the_grant_opens_no_session(fields: dict[str, Any], code: str) -> None:
    device = Device(model=small("pacemaker-programmer"))
    new = rotated(device.vendor, authority=True)
    if "expires" in fields:
        fields = {"now": NOW - 3600, **fields}
    one = grant(device, signers=[new.signer(RoleName.TECHNICIAN_AUTHORITY)], **fields)
    with pytest.raises(DeviceRefused) as refused:
        Pipe(device).run(connect(bench_for(device, one)))
    assert refused.value.code == code


def test_an_expired_document_is_replaced() -> None:
    device = Device(
        model=small("pacemaker-programmer"), vendor=vendor_of("short", issued=NOW - 20 * DAY, expires=NOW - 5 * DAY)
    )
    new = rotated(device.vendor)
    one = grant(device)
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, one)))
    assert refusal(pipe.ask(Offer(build(device).offer))) == "trust.expired"
    pipe.lose()
    identity = Pipe(device).run(
        push_trust(replace(bench_for(device, one), trust=new.trust), [device.vendor.trust_bytes, new.trust_bytes])
    )
    assert identity.serial == SERIAL
    report, _ = Pipe(device).run(fetch_report(bench_for(device, one, trust=new.trust)))
    assert report.trust_version == 2


@pytest.mark.parametrize("what", ["gap", "fork", "stranger", "garbage", "too long", "expired", "older"])
def test_a_bad_chain_changes_nothing(what: str) -> None:
    device = Device(model=small("pacemaker-programmer"))
    two = rotated(device.vendor)
    three = rotated(two)
    chain, code = {
        "gap": ([three.trust_bytes], "trust.gap"),
        "fork": ([reissue(device.vendor.seats, {RoleName.ROOT: 2}, grant_epoch=1).trust_bytes], "trust.rollback"),
        "stranger": ([vendor_of("mallory", version=2).trust_bytes], "trust.signature"),
        "garbage": ([b"garbage"], "trust.malformed"),
        "too long": ([bytes(70_000)], "trust.malformed"),
        "expired": ([rotated(replace(device.vendor), issued=NOW - DAY).trust_bytes], None),
        "older": ([two.trust_bytes, device.vendor.trust_bytes], "trust.rollback"),
    }[what]
    before, held = snapshot(device), device.node.trust
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, grant(device))))
    if code is None:
        device.clock = NOW + 2 * LONG
        code = "trust.expired"
    answers = [pipe.ask(piece) for piece in pieces(chain)]
    assert refusal(next(one for one in answers if isinstance(one, RefusedReply))) == code
    assert device.node.trust is held
    assert snapshot(device).kept[2] == before.kept[2]


def test_what_was_approved_under_the_old_document_is_void() -> None:
    device = Device()
    one = grant(device)
    new = rotated(device.vendor, revoke=frozenset({device.vendor.signer(RoleName.TECHNICIAN_AUTHORITY).key.thumbprint}))
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, one)))
    for piece in pieces([new.trust_bytes]):
        pipe.ask(piece)
    assert pipe.state is State.LIMITED
    assert refusal(pipe.ask(Offer(build(device).offer))) == "key.revoked"


def other_conversation_brings(device: Device, new: Vendor) -> None:
    """Somebody else hands the device a newer document, while a conversation is under way elsewhere."""
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, grant(device))))
    assert [type(pipe.ask(piece)) for piece in pieces([new.trust_bytes])] == [Done]
    assert device.node.trust.digest == new.trust.digest


@pytest.mark.parametrize("step", ["offer", "approve", "commit", "reboot", "chain"])
def test_what_was_checked_under_a_document_that_changed_meanwhile_is_void(step: str) -> None:
    device = Device()
    new, what = rotated(device.vendor), build(device)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    if step in ("commit", "reboot"):
        assert isinstance(pipe.ask(Offer(what.offer)), Accept)
        for at in range(0, len(what.image), 4096):
            pipe.ask(Data(at, what.image[at : at + 4096]))
    if step == "reboot":
        assert isinstance(pipe.ask(Commit(what.manifest_digest)), Done)
    if step == "chain":
        assert isinstance(pipe.ask(TrustChain(rotated(device.vendor, grant_epoch=3).trust_bytes, 1)), Done)
    other_conversation_brings(device, new)
    pending = device.counters.pending
    last = {
        "offer": Offer(what.offer),
        "approve": Approve(b"approval", grant(device, TOM).untagged),
        "commit": Commit(what.manifest_digest),
        "reboot": Reboot(),
        "chain": TrustChain(rotated(rotated(device.vendor, grant_epoch=3)).trust_bytes, 2),
    }[step]
    assert refusal(pipe.ask(last)) == "session.order"
    assert device.counters.pending == pending
    assert (pending is not None) is (step == "reboot")
    assert device.node.trust.digest == new.trust.digest


def test_pieces_are_put_together_and_bounded() -> None:
    device = Device()
    new = rotated(device.vendor)
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, grant(device))))
    data = new.trust_bytes
    for at in range(0, len(data), 1000):
        last = at + 1000 >= len(data)
        assert isinstance(pipe.ask(TrustChain(data[at : at + 1000], 2 if last else 0)), Done)
    assert device.node.trust.version == 2


# The grant epoch: grants raise it, the root alone sets it back.


def at_epoch(epoch: int, held: int = 20) -> Device:
    """A device whose document asks for `held`, and whose grants have raised its own epoch to `epoch`."""
    device = Device(vendor=vendor_of("epochs", grant_epoch=held))
    device.store.save(device.counters.with_grant_epoch(epoch))
    return device


def test_the_root_sets_the_grant_epoch_back_and_grants_of_the_older_epoch_hold_again() -> None:
    device = at_epoch(25)
    lowered = rotated(device.vendor, lowered_epoch=3)
    old = grant(device, epoch=7)
    with pytest.raises(DeviceRefused) as refused:
        Pipe(device).connect(old)
    assert refused.value.code == "grant.revoked"
    Pipe(device).run(push_trust(bench_for(device, grant(device, epoch=25)), [lowered.trust_bytes]))
    # The grant that brought the document is judged again under it; far above what is in force now, it moves nothing.
    assert device.counters.grant_epoch == 3
    device.vendor = lowered
    device.power_cycle()
    assert device.counters.grant_epoch == 3
    Pipe(device).connect(old)
    assert device.counters.grant_epoch == 7


@pytest.mark.parametrize(("epoch", "after"), [(25, 3), (2, 2)])
def test_a_lower_epoch_anywhere_in_a_chain_counts_and_never_raises(epoch: int, after: int) -> None:
    device = at_epoch(epoch)
    lowered = rotated(device.vendor, lowered_epoch=3)
    raised = rotated(lowered, issued=NOW - 50, grant_epoch=19)
    attendant = device.node.attend()
    attendant.trust_chain(lowered.trust_bytes, 1)
    with contextlib.suppress(DevguardError):
        attendant.trust_chain(raised.trust_bytes, 2)
    assert device.node.trust.digest == raised.trust.digest
    assert device.counters.grant_epoch == after


def test_a_newer_document_of_the_same_epoch_revokes_nothing_back() -> None:
    device = at_epoch(25)
    new = rotated(device.vendor)
    Pipe(device).run(push_trust(bench_for(device, grant(device, epoch=25)), [new.trust_bytes]))
    assert device.counters.grant_epoch == 25


# On disk: a cut at any write leaves the old document or the new one.


class Cut(Exception):
    """The power went."""


def enrolled(path: Path, vendor: Vendor) -> None:
    with DeviceDirectory(path, load_model("insulin-pump")) as directory:
        provision(
            directory, serial="P-1", revision="revA", site=None, trust=vendor.trust_bytes,
            authority=vendor.signer(RoleName.DEVICE_AUTHORITY), issuer="Dana Factory", now=NOW, random=entropy("enrol"),
        )  # fmt: skip


def opened(directory: DeviceDirectory) -> Any:
    around = Surroundings(lambda: NOW, lambda: 0.0, lambda: 90, entropy("node"), lambda: True)
    node = open_node(directory, around, directory.load_therapy())
    node.boot()
    return node


def test_a_power_cut_at_any_write_leaves_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = vendor_of("epochs", grant_epoch=20)
    new = rotated(vendor, lowered_epoch=3)
    real, seen = storage.write_atomic, set()
    for cut_at in range(6):
        for after in (False, True):
            path = tmp_path / f"{cut_at}-{after}"
            enrolled(path, vendor)
            with DeviceDirectory(path, load_model("insulin-pump")) as directory:
                node, count = opened(directory), [0]
                node.store.save(node.store.load().with_grant_epoch(25))

                def cutting(*args: Any, cut_at: int = cut_at, after: bool = after, count: list[int] = count) -> None:
                    count[0] += 1
                    if count[0] > cut_at:
                        if after:
                            real(*args)
                        raise Cut
                    real(*args)

                monkeypatch.setattr(storage, "write_atomic", cutting)
                with contextlib.suppress(Cut):
                    node.adopt(new.trust_bytes, new.trust, 3)
                monkeypatch.setattr(storage, "write_atomic", real)
            with DeviceDirectory(path, load_model("insulin-pump")) as directory:
                node = opened(directory)
                assert node.trust.digest in (vendor.trust.digest, new.trust.digest)
                assert directory.counters.load().trust_version == node.trust.version
                assert directory.counters.load().grant_epoch == (25 if node.trust.version == 1 else 3)
                seen.add(node.trust.version)
    assert seen == {1, 2}


def test_a_stored_document_that_was_put_back_is_noticed(tmp_path: Path) -> None:
    vendor = vendor_of()
    enrolled(tmp_path, vendor)
    new = rotated(vendor)
    with DeviceDirectory(tmp_path, load_model("insulin-pump")) as directory:
        opened(directory).adopt(new.trust_bytes, new.trust)
        directory.save_trust(vendor.trust_bytes)
    with DeviceDirectory(tmp_path, load_model("insulin-pump")) as directory, pytest.raises(Refused) as refused:
        opened(directory)
    assert refused.value.code == "trust.rollback"


def test_the_bench_knows_a_device_by_an_older_authority_unless_it_was_revoked() -> None:
    device = Device()
    old = device.vendor.signer(RoleName.DEVICE_AUTHORITY)
    seats = tuple(
        (s, make_signer(s.algorithm, "factory 2") if s.role is RoleName.DEVICE_AUTHORITY else k)
        for s, k in device.vendor.seats
    )
    thresholds = {name: role.threshold for name, role in device.vendor.trust.roles.items()}
    chain = [device.vendor.trust_bytes]
    stolen = reissue(seats, thresholds, version=2, revoked=[old.key.thumbprint])
    bench = replace(bench_for(device, grant(device)), trust=stolen.trust, older=(device.vendor.trust,))
    with pytest.raises(DevguardError) as refused:
        Pipe(device).run(push_trust(bench, [*chain, stolen.trust_bytes]))
    assert refused.value.code in ("key.revoked", "key.unknown")
    new = reissue(seats, thresholds, version=2)
    bench = replace(bench, trust=new.trust)
    assert Pipe(device).run(push_trust(bench, [*chain, new.trust_bytes])).serial == SERIAL


def test_a_document_years_ahead_of_the_grant_beside_it_is_refused_without_a_clock_too() -> None:
    """The device has no clock, but the authority that let this technician in had one, hours ago at most."""
    device = Device()
    ahead = replace(device.vendor.trust, version=2, issued=NOW + 80 * LONG, expires=NOW + 81 * LONG)
    roots = [key for seat, key in device.vendor.seats if seat.role is RoleName.ROOT]
    wild = sign_many(roots, codec.encode_payload(ahead), typ=TYP_TRUST).encode()
    pipe = Pipe(device)
    pipe.run(connect(bench_for(device, grant(device))))
    assert refusal([pipe.ask(piece) for piece in pieces([wild])][-1]) == "trust.not-yet"
    assert device.node.trust.version == 1
    soon = rotated(device.vendor, issued=NOW + DAY)
    assert {type(pipe.ask(piece)) for piece in pieces([soon.trust_bytes])} == {Done}
    # By whom nobody vouches yet, nothing is known of the time: root rules alone, or a device in a drawer stays out.
    other, one = newer(Device())
    held = Device()
    pipe = Pipe(held)
    pipe.run(connect(bench_for(held, one)))
    assert pipe.state is State.LIMITED
    assert {type(pipe.ask(piece)) for piece in pieces([wild])} == {Done}
    assert other.trust.version == held.node.trust.version == 2
