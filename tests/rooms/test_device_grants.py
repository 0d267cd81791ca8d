"""A hostile bench's grants: every one that does not allow it is refused, and a refusal changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW
from devguard.grant.claims import Grant, read_grant
from devguard.grant.uses import SPENT_LIMIT, Spent
from devguard.manifest.description import Safety
from devguard.session.approval import LIFETIME
from devguard.session.update import fetch_report
from devguard.session.verbs import (
    Accept,
    Approve,
    Commit,
    Done,
    Durable,
    Offer,
    Verb,
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
    bench_for,
    build,
    grant,
    small,
    vendor_of,
)
from sim.hostile import (
    THIEF,
    approve,
    delegated,
    fresh,
    refusal,
    refused_handshake,
    refused_offer,
    send,
    with_old,
)
from sim.state import snapshot


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"serials": frozenset({"SN-0002"})}, "grant.scope"),
        ({"models": frozenset({"insulin-pump"})}, "grant.scope"),
        ({"sites": frozenset({"elsewhere"})}, "grant.scope"),
        ({"actions": frozenset()}, "grant.action"),
        ({"trained_until": NOW - 1}, "grant.training"),
        ({"hours": (0, 1)}, "grant.scope"),
        ({"now": NOW - 20 * HOUR, "expires": NOW - 12 * HOUR}, "grant.expired"),
        ({"not_before": NOW + 60}, "grant.not-yet"),
        ({"epoch": 4}, "grant.revoked"),
        ({"epoch": 22}, "grant.revoked"),
        ({"subject": "Thea Authority"}, "grant.signature"),
    ],
)
def test_a_grant_that_does_not_allow_it_ends_the_handshake(fields: dict[str, Any], code: str) -> None:
    device = Device(model=small(PROGRAMMER), vendor=vendor_of("epochs", grant_epoch=5))
    assert refused_handshake(device, grant(device, **{"epoch": 5, **fields})) == code


def test_a_grant_with_a_claim_that_nobody_signed_is_refused() -> None:
    device = fresh()
    one = grant(device, serials=frozenset({"SN-0002"}))
    raw = bytes(one.untagged).replace(b"SN-0002", device.serial.encode())
    assert refused_handshake(device, read_grant(raw)) == "grant.signature"


def test_a_grant_without_its_holders_key_is_worth_nothing() -> None:
    device = fresh()
    assert refused_handshake(device, grant(device), THIEF) == "session.handshake"


def test_a_revoked_technician_key_is_refused() -> None:
    vendor = vendor_of("revokes", revoked=frozenset({TESS.signer.key.thumbprint}))
    device = Device(vendor=vendor)
    assert refused_handshake(device, grant(device)) == "key.revoked"


def test_clock_floor_and_epoch_move_only_when_the_key_is_proved() -> None:
    device = Device(vendor=vendor_of("epochs", grant_epoch=5))
    ahead = grant(device, epoch=9, now=NOW + 4 * HOUR, expires=NOW + 10 * HOUR)
    before = device.counters
    assert refused_handshake(device, ahead, THIEF) == "session.handshake"
    assert (device.counters.clock_floor, device.counters.grant_epoch) == (before.clock_floor, before.grant_epoch)
    Pipe(device).connect(ahead)
    assert (device.counters.clock_floor, device.counters.grant_epoch) == (NOW + 4 * HOUR, 9)
    device.power_cycle()
    assert (
        refused_handshake(device, grant(device, epoch=5, now=NOW + 5 * HOUR, expires=NOW + 8 * HOUR)) == "grant.revoked"
    )


def test_a_delegated_grant_moves_neither_clock_nor_epoch_and_still_pushes() -> None:
    device = fresh()
    parent = grant(device)
    child = delegated(parent, TESS, TOM, now=NOW + HOUR)
    before = device.counters
    pipe = Pipe(device)
    pipe.connect(child, TOM)
    assert device.counters.clock_floor == before.clock_floor  # only what an authority signed directly tells the time
    assert device.counters.grant_epoch == before.grant_epoch
    assert send(pipe, build(device)) == Done(int(Verb.REBOOT))


def test_a_grant_is_asked_again_at_the_offer_and_at_commit() -> None:
    device = Device(model=replace(small(PROGRAMMER), facts=replace(small(PROGRAMMER).facts, technicians=1)))
    new = build(device)
    pipe = Pipe(device)
    pipe.connect(grant(device, expires=NOW + 600))
    device.clock = NOW + 600
    before = snapshot(device)
    assert refusal(pipe.ask(Offer(new.offer))) == "grant.expired"
    assert snapshot(device).all_but_log == before.all_but_log
    device.clock = NOW + 500
    assert isinstance(send(pipe, new, commit=False), Durable)
    device.clock = NOW + 601
    assert refusal(pipe.ask(Commit(new.manifest_digest))) == "grant.expired"
    assert device.counters.pending is None
    assert device.runs(None)


def test_a_grant_for_one_release_pushes_no_other() -> None:
    device = fresh()
    wanted = build(device)
    one = grant(device, any_release=False, release_digest=wanted.manifest_digest)
    assert refused_offer(device, build(device, "1.3.0", 3), one) == "grant.scope"
    pipe = Pipe(device)
    pipe.connect(one)
    assert send(pipe, wanted) == Done(int(Verb.REBOOT))


def test_a_counted_grant_is_spent_on_one_release_and_survives_reset() -> None:
    device = fresh()
    one = grant(device, max_uses=1)
    first, other = build(device), build(device, "1.2.0", 3)
    pipe = Pipe(device)
    pipe.connect(one)
    assert isinstance(pipe.ask(Offer(first.offer)), Accept)
    pipe.lose()
    device.power_cycle()
    assert refused_offer(device, other, one) == "grant.replay"
    pipe = Pipe(device)
    pipe.connect(one)
    assert send(pipe, first) == Done(int(Verb.REBOOT))
    assert device.counters.spent[one.cti].uses == 1


def test_a_full_list_of_spent_grants_refuses_before_the_slot_is_erased() -> None:
    device = fresh()
    spent = {index.to_bytes(16, "little"): Spent(bytes(32), 1, NOW + 9 * HOUR) for index in range(SPENT_LIMIT)}
    device.store.save(replace(device.counters, spent=spent))
    assert refused_offer(device, build(device), grant(device, max_uses=1)) == "grant.replay"


def nonce_of(device: Device) -> bytes:
    return device.node.hello().nonce


@pytest.fixture
def strict() -> Device:
    """A pump whose trust document asks for grants that carry its nonce."""
    return Device(vendor=vendor_of("strict", require_device_nonce=True))


def test_a_device_that_asks_for_its_nonce_takes_no_grant_without(strict: Device) -> None:
    assert refused_handshake(strict, grant(strict)) == "grant.replay"
    other = Device(vendor=strict.vendor, serial="SN-0002", seed="other")
    assert refused_handshake(strict, grant(strict, device_nonce=nonce_of(other))) == "grant.replay"


def test_a_nonce_is_good_for_one_release_which_may_be_finished(strict: Device) -> None:
    nonce = nonce_of(strict)
    one = grant(strict, device_nonce=nonce)
    first, other = build(strict), build(strict, "1.2.0", 3)
    pipe = Pipe(strict)
    pipe.connect(one)
    assert isinstance(pipe.ask(Offer(first.offer)), Accept)
    assert nonce_of(strict) != nonce
    pipe.lose()
    strict.power_cycle()
    assert refused_offer(strict, other, one) == "grant.replay"
    assert refused_handshake(strict, grant(strict, device_nonce=nonce)) == "grant.replay"
    pipe = Pipe(strict)
    pipe.connect(one)
    assert send(pipe, first) == Done(int(Verb.REBOOT))
    report, _ = pipe.run(fetch_report(bench_for(strict, one)))
    assert report.manifest_digest == first.manifest_digest
    strict.fresh_hour()
    assert refused_offer(strict, other, one) == "grant.replay"


@pytest.fixture
def programmer() -> Device:
    return with_old(model=small(PROGRAMMER))[0]


def paired(
    device: Device, second: Grant | None, *, first: Grant | None = None, what: Build | None = None, **change: Any
) -> str:
    """An offer with that second grant and an approval changed as told; the refusal's code, nothing touched."""
    what, first = what or build(device), first or grant(device)
    pipe = Pipe(device)
    session = pipe.connect(first)
    before = snapshot(device)
    if second is not None:
        approve(pipe, session, device, what, first, second, **change)
    code = refusal(pipe.ask(Offer(build(device).offer)))
    assert snapshot(device).all_but_log == before.all_but_log
    return code


def test_one_technician_is_not_enough(programmer: Device) -> None:
    assert paired(programmer, None) == "grant.quorum"


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": bytes(32)},
        {"serial": "SN-0002"},
        {"manifest_digest": bytes(32)},
        {"action": "recover"},
        {"first_grant": bytes(32)},
        {"expires": NOW},
        {"expires": NOW + LIFETIME + 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_approval_of_anything_else_is_no_approval(programmer: Device, change: dict[str, Any]) -> None:
    assert paired(programmer, grant(programmer, TOM), **change) == "grant.quorum"


def test_an_approval_by_another_key_is_refused(programmer: Device) -> None:
    code = paired(programmer, grant(programmer, TOM), signer=TINA.signer)
    assert code in ("signature.invalid", "signature.algorithm", "key.unknown")


def test_a_second_grant_that_does_not_cover_the_release_is_refused(programmer: Device) -> None:
    narrow = grant(programmer, TOM, any_release=False, sequences=(7, 9))
    assert paired(programmer, narrow) == "grant.scope"


@pytest.mark.parametrize("who", ["same person", "same key", "other serial", "expired", "garbage"])
def test_a_second_grant_that_is_no_second_person_is_refused_at_once(programmer: Device, who: str) -> None:
    second = {
        "same person": grant(programmer, TOM, subject=TESS.name.upper()),
        "same key": grant(programmer, TOM, holder=TESS.signer.key),
        "other serial": grant(programmer, TOM, serials=frozenset({"SN-0002"})),
        "expired": grant(programmer, TOM, now=NOW - 9 * HOUR, expires=NOW - HOUR),
    }.get(who)
    pipe = Pipe(programmer)
    pipe.connect(grant(programmer))
    before = snapshot(programmer)
    code = refusal(pipe.ask(Approve(b"\x00", second.untagged if second else b"\x00")))
    expected = {"other serial": "grant.scope", "expired": "grant.expired", "garbage": "grant.malformed"}
    assert code == expected.get(who, "grant.quorum")
    assert snapshot(programmer).all_but_log == before.all_but_log


def test_nobody_makes_their_own_second_technician_by_delegation(programmer: Device) -> None:
    first = grant(programmer)
    invented = delegated(first, TESS, TOM)
    pipe = Pipe(programmer)
    pipe.connect(first)
    assert refusal(pipe.ask(Approve(b"\x00", invented.untagged))) == "grant.quorum"
    also_invented = delegated(first, TESS, TINA)
    pipe = Pipe(programmer)
    pipe.connect(also_invented, TINA)
    assert refusal(pipe.ask(Approve(b"\x00", invented.untagged))) == "grant.quorum"
    pipe = Pipe(programmer)
    pipe.connect(invented, TOM)
    assert refusal(pipe.ask(Approve(b"\x00", first.untagged))) == "grant.quorum"


def test_a_delegate_of_another_technician_may_be_the_second(programmer: Device) -> None:
    new, first = build(programmer), grant(programmer)
    second = delegated(grant(programmer, TINA), TINA, TOM)
    pipe = Pipe(programmer)
    session = pipe.connect(first)
    approve(pipe, session, programmer, new, first, second)
    assert send(pipe, new) == Done(int(Verb.REBOOT))


def test_nobody_can_use_up_a_second_technicians_grant_without_their_key() -> None:
    device = fresh()  # a pump asks for one technician, so nobody looks at the approval
    second = grant(device, TOM, max_uses=1, any_release=False, sequences=(7, 9))
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert pipe.ask(Approve(b"\x00", second.untagged)) == Done(int(Verb.APPROVE))
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)
    assert second.cti not in device.counters.spent


def test_a_release_may_ask_for_two_technicians_on_any_model() -> None:
    device = fresh()
    both = build(device, safety=Safety(None, True, True))
    assert refused_offer(device, both) == "grant.quorum"
    one = grant(device)
    pipe = Pipe(device)
    approve(pipe, pipe.connect(one), device, both, one, grant(device, TOM))
    assert send(pipe, both) == Done(int(Verb.REBOOT))


def test_a_second_technician_does_not_outlive_the_session_that_named_them(programmer: Device) -> None:
    first, new = grant(programmer), build(programmer)
    pipe = Pipe(programmer)
    session = pipe.connect(first)
    approve(pipe, session, programmer, new, first)
    pipe.connect(first)
    assert refusal(pipe.ask(Offer(new.offer))) == "grant.quorum"
