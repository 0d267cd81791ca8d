"""Uses, times and epochs that somebody plays again: after power loss, after a restore, on another device, from 2200.

Each sentence of issue 6, "Replay", is a test here or is named in one of `test_device_grants` and `test_review_device`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import DAY, NOW, Vendor, make_signer, trust_roles
from devguard.cose.roles import RoleName
from devguard.device.counters import Counters
from devguard.errors import DevguardError, DeviceRefused
from devguard.grant.check import check_grant
from devguard.grant.claims import Action
from devguard.grant.uses import FLOOR_STEP
from devguard.session.connect import connect
from devguard.session.table import State
from devguard.session.trust_push import push_trust
from devguard.session.verbs import Accept, Done, Offer, Verb
from devguard.trust.document import read_trust
from devguard.trust.rotate import Change, sign_successor, successor
from sim.bench import HOUR, PROGRAMMER, PUMP, TESS, TOM, Device, Pipe, bench_for, build, checked, grant, push, small
from sim.hostile import THIEF, approve, delegated, fresh, refused_handshake, refused_offer, send
from sim.state import snapshot

YEAR = 365 * DAY
MODELS = (PUMP, PROGRAMMER)


def device_of(model: str) -> Device:
    return Device(model=small(model))


# counted


def test_two_uses_are_two_releases_however_often_the_power_goes() -> None:
    device = Device()
    one = grant(device, max_uses=2)
    for number in (1, 2):
        what = build(device, f"1.{number}.0", number + 1)
        for cut in (1, 2, 3):  # taken up again and again: always the same use
            pipe = Pipe(device)
            pipe.connect(one)
            answer = pipe.ask(Offer(what.offer))
            assert isinstance(answer, Accept), (number, cut)
            pipe.lose()
            device.power_cycle()
            device.fresh_hour()
        pipe = Pipe(device)
        pipe.connect(one)
        assert send(pipe, what) == Done(int(Verb.REBOOT))
        device.fresh_hour()
        assert device.runs(what)
        assert device.counters.spent[one.cti].uses == number
    assert refused_offer(device, build(device, "1.3.0", 4), one) == "grant.replay"


class PowerGone(Exception):
    """The power went."""


@pytest.mark.parametrize("kept", [False, True], ids=["lost", "kept"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_cut_at_any_save_of_an_offer_never_buys_a_second_release(at: int, kept: bool) -> None:
    device = fresh()
    one = grant(device, max_uses=1)
    first, other = build(device), build(device, "1.2.0", 3)
    pipe = Pipe(device)
    pipe.connect(one)
    saves, save = iter(range(1, 99)), device.store.save

    def failing(counters: Counters) -> None:
        """The power goes at save number `at`: before it is on disk, or just after."""
        now = next(saves)
        if now < at or (now == at and kept):
            save(counters)
        if now == at:
            raise PowerGone

    device.store.save = failing  # type: ignore[method-assign]
    with pytest.raises(PowerGone):  # an offer makes three saves; nothing was accepted before the last
        pipe.ask(Offer(first.offer))
    device.store.save = save  # type: ignore[method-assign]
    device.power_cycle()
    device.fresh_hour()
    spent = one.cti in device.counters.spent
    assert spent is (at == 3 and kept)
    pipe = Pipe(device)
    pipe.connect(one)
    assert isinstance(pipe.ask(Offer(first.offer)), Accept)  # what was begun may be finished either way
    pipe.lose()
    assert refused_offer(device, other, one) == "grant.replay"


def test_a_station_put_back_from_backup_buys_no_second_use() -> None:
    """Its memory says that nothing was spent; the device's does not."""
    device = Device()
    one = grant(device, max_uses=1)
    push(device, build(device, "1.0.0", 1), one)
    device.fresh_hour()
    other = build(device, "1.1.0", 2)
    assert checked(device, one).device.spent == {}  # an honest bench that forgot
    with pytest.raises(DeviceRefused) as refused:
        push(device, other, one)
    assert refused.value.code == "grant.replay"


@pytest.mark.parametrize("max_uses", [1, None])
def test_a_grant_is_no_good_on_another_device(max_uses: int | None) -> None:
    """Swapped on the bench, or taken next door: what one device spent, another never has to know."""
    device, other = Device(), Device(serial="SN-0002", seed="other")
    one = grant(device, max_uses=max_uses)
    assert refused_handshake(other, one) == "grant.scope"
    push(device, build(device, "1.0.0", 1), one)
    assert refused_handshake(other, one) == "grant.scope"


def test_a_counted_grant_cannot_be_made_for_two_devices() -> None:
    device = Device()
    for serials in (frozenset({"SN-0001", "SN-0002"}), frozenset({"*"})):
        with pytest.raises(DevguardError, match=r"grant\.malformed"):
            grant(device, max_uses=1, serials=serials)


def test_a_counted_grant_that_was_handed_on_is_one_count() -> None:
    device = fresh()
    parent = grant(device, max_uses=1)
    child = delegated(parent, TESS, TOM)
    pipe = Pipe(device)
    pipe.connect(child, TOM)
    assert isinstance(pipe.ask(Offer(build(device).offer)), Accept)
    pipe.lose()
    assert refused_offer(device, build(device, "1.2.0", 3), parent) == "grant.replay"


# time


def far(device: Device, when: int, **fields: Any) -> Any:
    """A grant of the thief's, by a stolen authority key whose clock stands wherever they like."""
    return grant(device, THIEF, now=when, expires=when + 8 * HOUR, **fields)


def test_one_far_date_moves_a_floor_by_thirty_days_and_no_more() -> None:
    device = Device()  # a pump: it has no clock to contradict anybody
    before = device.counters.clock_floor
    Pipe(device).connect(far(device, NOW + 300 * DAY), THIEF)
    assert device.counters.clock_floor == before + FLOOR_STEP
    pipe = Pipe(device)
    pipe.connect(far(device, NOW + 170 * YEAR), THIEF)  # beyond the trust document's life: it may bring a newer one
    assert pipe.state is State.LIMITED
    assert device.counters.clock_floor == before + FLOOR_STEP
    programmer = device_of(PROGRAMMER)
    assert refused_handshake(programmer, far(programmer, NOW + DAY), THIEF) == "grant.not-yet"
    assert programmer.counters.clock_floor < NOW


def pushed_ahead(model: str) -> Device:
    """A device whose time a thief has carried to the end of its trust document's life, step by step."""
    device = device_of(model)
    last = device.vendor.trust.expires - 9 * HOUR
    while device.counters.clock_floor < last:
        when = min(device.counters.clock_floor + FLOOR_STEP, last)
        device.clock = when  # even the clock, where there is one
        Pipe(device).connect(far(device, when), THIEF)
    device.clock = NOW
    return device


def next_version(vendor: Vendor, expires: int) -> Vendor:
    """The root's answer: the stolen authority out, another in, and a document that lives longer than the lie."""
    seats = tuple(
        (seat, make_signer(seat.algorithm, "new authority"))
        if seat.role is RoleName.TECHNICIAN_AUTHORITY
        else (seat, key)
        for seat, key in vendor.seats
    )
    stolen = vendor.signer(RoleName.TECHNICIAN_AUTHORITY).key.thumbprint
    thresholds = {name: role.threshold for name, role in vendor.trust.roles.items()}
    change = Change(roles=trust_roles(seats, thresholds), revoke=frozenset({stolen}))
    doc = successor(vendor.trust, change, issued=NOW, expires=expires)
    data = sign_successor(vendor.trust, doc, [key for seat, key in vendor.seats if seat.role is RoleName.ROOT])
    return Vendor(data, read_trust(data), seats)


@pytest.mark.parametrize("model", MODELS)
def test_a_device_that_lives_in_the_future_is_brought_back_by_the_root_threshold(model: str) -> None:
    """No grant of today passes there any more. The root's next document and a grant dated ahead do."""
    device = pushed_ahead(model)
    floor = device.counters.clock_floor
    assert floor > NOW + 300 * DAY
    assert refused_handshake(device, grant(device)) == "grant.expired"
    stolen = device.vendor.signer(RoleName.TECHNICIAN_AUTHORITY)
    new = next_version(device.vendor, NOW + 10 * YEAR)
    authority = [new.signer(RoleName.TECHNICIAN_AUTHORITY)]
    ahead = grant(device, signers=authority, now=NOW, not_before=floor, expires=floor + 8 * HOUR)
    with pytest.raises(DevguardError, match=r"grant\.not-yet"):  # an honest bench goes by its own clock ...
        checked_by(device, new, ahead, NOW)
    checked_by(device, new, ahead, floor)  # ... until it is told the device's (--device-clock)
    bench = replace(bench_for(device, ahead), trust=new.trust, older=(device.vendor.trust,))
    Pipe(device).run(push_trust(bench, [device.vendor.trust_bytes, new.trust_bytes]))
    assert device.node.trust.version == 2
    device.vendor = new
    what = build(device, "1.0.0", 1, vendor_keys=device.vendor)
    pipe = Pipe(device)
    session = pipe.connect(ahead)
    second = grant(device, TOM, signers=authority, now=NOW, not_before=floor, expires=floor + 8 * HOUR)
    approve(pipe, session, device, what, ahead, second, expires=floor + 600)
    assert send(pipe, what) == Done(int(Verb.REBOOT))
    assert device.counters.clock_floor == floor  # nothing moved it on
    assert device.runs(what)
    old = grant(device, THIEF, signers=[stolen], now=NOW, not_before=floor, expires=floor + 8 * HOUR)
    assert refused_handshake(device, old, THIEF) == "key.revoked"


def checked_by(device: Device, vendor: Vendor, one: Any, now: int) -> None:
    check_grant(one, trust=vendor.trust, now=now, device=device.view(), action=Action.UPDATE, holder=None)


def test_a_clock_that_ran_away_and_was_set_right_costs_nothing() -> None:
    programmer = device_of(PROGRAMMER)
    programmer.clock = NOW + 80 * YEAR
    assert refused_handshake(programmer, grant(programmer)) == "grant.expired"
    programmer.power_cycle()
    programmer.clock = NOW
    pipe = Pipe(programmer)
    pipe.run(connect(bench_for(programmer, grant(programmer))))
    assert pipe.state is State.AUTHORISED


@pytest.mark.parametrize(
    "clock", [0, 2**31 - 1, 2**31, 2**32 - 1, 2**32], ids=["1970", "2038", "2038+", "2106", "2106+"]
)
def test_no_clock_makes_a_device_take_what_is_not_good_now(clock: int) -> None:
    programmer = device_of(PROGRAMMER)
    programmer.clock = clock
    one = grant(programmer, now=NOW - 9 * HOUR, expires=NOW - HOUR)
    before = snapshot(programmer)
    with pytest.raises(DeviceRefused) as refused:
        Pipe(programmer).connect(one)
    if clock > NOW:
        assert refused.value.code == "grant.expired"
    assert snapshot(programmer).all_but_log == before.all_but_log


def test_a_pump_in_a_drawer_takes_a_fresh_grant_years_later() -> None:
    device = Device()
    later = device.vendor.trust.expires - DAY
    pipe = Pipe(device)
    pipe.connect(grant(device, now=later, expires=later + 8 * HOUR))
    assert pipe.state is State.AUTHORISED


def test_a_recorded_grant_is_refused_once_the_floor_has_passed_it() -> None:
    device = Device()
    recorded = grant(device)
    Pipe(device).connect(grant(device, now=NOW + 9 * HOUR, expires=NOW + 17 * HOUR))
    assert refused_handshake(device, recorded) == "grant.expired"


# epochs


def test_a_new_epoch_seen_once_kills_every_older_grant_there_and_no_other_device() -> None:
    device, other = Device(), Device(serial="SN-0002", seed="other")
    leaver = grant(device, serials=frozenset({"*"}))
    Pipe(device).connect(grant(device, TOM, epoch=1), TOM)
    assert refused_handshake(device, leaver) == "grant.revoked"
    device.power_cycle()
    assert refused_handshake(device, leaver) == "grant.revoked"
    pipe = Pipe(other)
    pipe.connect(leaver)
    assert pipe.state is State.AUTHORISED  # until it sees the epoch, or the grant ends: at most twelve hours


@pytest.mark.parametrize("how", ["proved by nobody", "delegated"])
def test_an_epoch_moves_only_on_an_authoritys_word(how: str) -> None:
    device = Device()
    if how == "proved by nobody":
        assert refused_handshake(device, grant(device, TOM, epoch=1), THIEF) == "session.handshake"
    else:
        Pipe(device).connect(delegated(grant(device), TESS, TOM), TOM)
    assert device.counters.grant_epoch == 0


def test_a_far_epoch_by_a_stolen_authority_shuts_nobody_out() -> None:
    device = Device()
    assert refused_handshake(device, far(device, NOW, epoch=2**32 - 1), THIEF) == "grant.revoked"
    Pipe(device).connect(far(device, NOW, epoch=16), THIEF)
    assert device.counters.grant_epoch == 16
    pipe = Pipe(device)
    pipe.connect(grant(device, epoch=17))  # an honest authority goes on from there
    assert pipe.state is State.AUTHORISED
