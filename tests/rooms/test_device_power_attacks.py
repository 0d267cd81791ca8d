"""Whoever opens a device and writes its flash. Invariant: what runs was judged, or was confirmed before; and what stops
installs, expiry and revocation, never stops a boot."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from builders import NOW, Vendor, changed
from devguard.bench.power import image_size
from devguard.bench.power_flash import Flash
from devguard.bench.power_scenes import after, pushing, start_of
from devguard.bench.power_world import FALLING, NEXT, RUNNING, TARGET, Conduct, Machine, State, World
from devguard.cose.roles import RoleName
from devguard.device.attendant import MAX_OFFERS
from devguard.device.bootloader import BootState
from devguard.device.counters import recent_erasures
from devguard.device.flash import Operation, PowerCut, Tear
from devguard.device.journal import Journal
from devguard.device.models import load_model
from devguard.device.node import COUNTED_HANDSHAKES, FREE_OFFERS, MAX_DELAY
from devguard.errors import DevguardError, Refused
from devguard.session.device_side import MAX_REFUSALS
from devguard.session.report import Report, read_report
from devguard.session.verbs import Accept, Commit, Data, Done, Offer, Verb
from sim.bench import HOUR, Build, Device, Pipe, build, grant, push
from sim.hostile import refusal

PUMP = "insulin-pump"


@functools.cache
def world() -> World:
    return World(load_model(PUMP), image_size(PUMP, 2))


@functools.cache
def running() -> State:
    return start_of(world())


@functools.cache
def committed(number: int = TARGET) -> State:
    return after(world(), running(), pushing(number))


class Stop:
    """Cuts the power after so many flash operations."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.seen: list[int] = []

    def flash(self, _operation: Operation, address: int, _data: bytes) -> Tear | None:
        self.seen.append(address)
        self.left -= 1
        if not self.left:
            raise PowerCut("cut")
        return None

    def save(self, _counters: object) -> None:
        return

    def trust(self, _number: int) -> None:
        return


def in_mid_swap(step: int, state: State | None = None) -> State | None:
    """The state after so many operations of the boot that installs; None when it needs fewer."""
    machine = Machine(world(), state or committed(), Conduct(3), Stop(step))
    try:
        machine.node.boot()
    except PowerCut:
        return machine.state()
    return None


@functools.cache
def steps() -> list[int]:
    """The operation after each write to the journal, in the boot that installs, and every 29th of the others."""
    watch = Stop(0)
    Machine(world(), committed(), Conduct(3), watch).node.boot()
    journal = world().model.layout.journal[0]
    return [
        at
        for at, before in enumerate(watch.seen, start=2)
        if at <= len(watch.seen) and (before >= journal or at % 29 == 0)
    ]


def with_slot_of(state: State, other: State) -> State:
    """The attacker writes the whole secondary slot of another device: header, image, papers, marks."""
    layout = world().model.layout
    first, last = layout.secondary.base // layout.sector_size, layout.scratch // layout.sector_size
    sectors = (*state.flash.sectors[:first], *other.flash.sectors[first:last], *state.flash.sectors[last:])
    return replace(state, flash=Flash(sectors))


def comes_up(state: State, *good: int) -> BootState:
    """Boots twice; what runs is one of `good`, whole, or nothing does."""
    for _ in range(2):
        machine = Machine(world(), state, Conduct(3))
        result = machine.node.boot()
        state = machine.state()
        number = world().number_of(result.header)
        assert number in (*good, None)
        if number is not None:
            image = world().builds[number].image
            assert machine.backend.read(world().model.layout.primary.image, len(image)) == image
        else:
            assert result.state is BootState.RECOVERY
    return result.state


def test_a_signed_image_that_nobody_judged_is_not_swapped_in() -> None:
    """Between commit and reboot, by the whole slot of a device that took another release: newer, or older."""
    for other in (NEXT, FALLING):
        state = with_slot_of(committed(), committed(other))
        machine = Machine(world(), state, Conduct(3))
        assert world().number_of(machine.node.boot().header) == RUNNING
        assert machine.load().outcome is not None
        assert machine.load().outcome.code == "image.digest"
        assert not any(machine.cells.wear)


def test_a_slot_exchanged_in_mid_swap_is_refused_at_boot() -> None:
    """At every step of the journal. Where the attacker has overwritten the old image as well, nothing runs."""
    seen = set()
    for step in steps():
        cut = in_mid_swap(step)
        assert cut is not None
        for other in (NEXT, FALLING):
            seen.add(comes_up(with_slot_of(cut, committed(other)), RUNNING, TARGET))
    assert BootState.CONFIRMED in seen


def test_a_journal_that_somebody_wrote_brings_no_other_image() -> None:
    """Bits of the journal flipped one by one in mid-swap, and marks set that no copy stands behind."""
    layout = world().model.layout
    for step in steps()[::3]:
        cut = in_mid_swap(step)
        assert cut is not None
        for address in (
            *range(layout.journal[0], layout.journal[0] + 200, 17),
            *range(layout.journal[1], layout.journal[1] + 330, 29),
        ):
            sector, at = divmod(address, layout.sector_size)
            hit = bytearray(cut.flash.sectors[sector])
            hit[at] ^= 1 << address % 8
            sectors = (*cut.flash.sectors[:sector], bytes(hit), *cut.flash.sectors[sector + 1 :])
            comes_up(replace(cut, flash=Flash(sectors)), RUNNING, TARGET)
        for sector in (address // layout.sector_size for address in layout.journal):
            hit = bytearray(cut.flash.sectors[sector])
            hit[256:280] = bytes(24)
            sectors = (*cut.flash.sectors[:sector], bytes(hit), *cut.flash.sectors[sector + 1 :])
            comes_up(replace(cut, flash=Flash(sectors)), RUNNING, TARGET)


def test_a_journal_entry_for_an_older_image_moves_nothing_in() -> None:
    """The attacker opens an install of what lies in the secondary slot: the image before."""
    machine = Machine(world(), running(), Conduct(3))
    journal = Journal(machine.node._flash, world().model.layout)
    older = world().builds[RUNNING - 1]
    journal.begin(1, len(older.image), 3000, machine.load().previous.digest, machine.load().sealed.digest)
    machine = Machine(world(), machine.state(), Conduct(3))
    result = machine.node.boot()
    assert world().number_of(result.header) == RUNNING
    assert "swap-refused" in [event.name for event in machine.load().audit.events]


# -- what stops installs never stops boots ----------------------------------------------------------------------------


def reported(device: Device) -> Report:
    """What the device says, signed, after it was switched off and on."""
    device.power_cycle()
    challenge = device.random(16)
    key = device.identity.signer.key
    return read_report(device.node.report(challenge), key=key, challenge=challenge, serial=device.serial)


def with_two(**fields: object) -> tuple[Device, Build, Build]:
    """A device that runs release 2 and keeps release 1; `fields` are of release 1."""
    device = Device()
    old, new = build(device, "1.0.0", 1, 5000, **fields), build(device, "1.1.0", 2, 6000)
    for one in (old, new):
        push(device, one)
        device.fresh_hour()
    return device, old, new


def now_trusts(device: Device, vendor: Vendor) -> None:
    """A newer trust document reaches the device."""
    device.vendor = vendor
    device.power_cycle()


def damage(device: Device) -> None:
    device.backend.data[device.model.layout.primary.image + 77] ^= 4


def test_a_running_release_that_is_revoked_goes_on_running_and_says_so() -> None:
    device, old, new = with_two()
    now_trusts(device, changed(device.vendor, version=2, revoked_releases=[new.manifest_digest, old.manifest_digest]))
    report = reported(device)
    assert (report.boot_state, report.confirmed, report.version) == ("confirmed", True, "1.1.0")
    assert report.flags == ("release.revoked",)
    with pytest.raises(DevguardError, match=r"release\.revoked"):
        push(device, new)
    damage(device)
    report = reported(device)
    assert (report.boot_state, report.version) == ("fallback", "1.0.0")
    assert set(report.flags) == {"release.revoked", "version.older"}
    assert reported(device).version == "1.0.0"


def test_a_previous_release_past_its_use_before_is_still_the_fallback() -> None:
    device, old, _ = with_two(use_before=NOW + HOUR)
    now_trusts(device, changed(device.vendor, version=2, issued=NOW + 2 * HOUR))
    damage(device)
    report = reported(device)
    assert (report.boot_state, report.version) == ("fallback", "1.0.0")
    assert set(report.flags) == {"release.expired", "version.older"}
    with pytest.raises(DevguardError, match=r"release\.expired"):
        push(device, old)


def test_a_running_release_past_its_use_before_and_an_expired_trust_document_are_flags() -> None:
    device = Device()
    only = build(device, "1.0.0", 1, 5000, use_before=NOW + HOUR)
    push(device, only)
    now_trusts(device, changed(device.vendor, version=2, issued=NOW - HOUR, expires=NOW + 60))
    device.clock = NOW + 2 * HOUR
    device.store.save(device.counters.with_clock_floor(NOW + 2 * HOUR))
    report = reported(device)
    assert (report.boot_state, report.version, report.confirmed) == ("confirmed", "1.0.0", True)
    assert report.flags
    assert set(report.flags) <= {"release.expired", "trust.expired"}


def test_revocation_between_commit_and_reboot_stops_the_install() -> None:
    device = Device()
    old, new = build(device, "1.0.0", 1, 5000), build(device, "1.1.0", 2, 6000)
    push(device, old)
    device.fresh_hour()
    commit(device, new)
    now_trusts(device, changed(device.vendor, version=2, revoked_releases=[new.manifest_digest]))
    report = reported(device)
    assert (report.version, report.boot_state, report.flags) == ("1.0.0", "confirmed", ())
    assert device.counters.outcome is not None
    assert device.counters.outcome.code == "release.revoked"


def revoked(device: Device, *builds: Build) -> None:
    digests = [one.manifest_digest for one in builds]
    now_trusts(device, changed(device.vendor, version=2, revoked_releases=digests))


def past_its_use(device: Device, *_: Build) -> None:
    now_trusts(device, changed(device.vendor, version=2, issued=NOW + 2 * HOUR))


def trust_expired(device: Device, *_: Build) -> None:
    device.clock = NOW + HOUR
    device.store.save(device.counters.with_clock_floor(NOW + HOUR))
    now_trusts(device, changed(device.vendor, version=2, issued=NOW - HOUR, expires=NOW + 60))


def key_revoked(device: Device, *_: Build) -> None:
    signer = device.vendor.signer(RoleName.RELEASE)
    now_trusts(device, changed(device.vendor, version=2, revoked=[signer.key.thumbprint]))


def below_the_floor(device: Device, *_: Build) -> None:
    now_trusts(device, changed(device.vendor, version=2, floors={device.model.name: 10}))


WHY = {
    "release.revoked": revoked,
    "release.expired": past_its_use,
    "trust.expired": trust_expired,
    "key.revoked": key_revoked,
    "version.rollback": below_the_floor,
}


@pytest.mark.parametrize("place", ["running", "kept for a fallback", "waiting"])
@pytest.mark.parametrize("code", WHY)
def test_expiry_and_revocation_stop_installs_and_never_boots_in_either_slot(code: str, place: str) -> None:
    """The image in the first slot goes on running, the one in the second still replaces it when it is damaged; both are
    flagged. One that was not installed yet is not installed any more."""
    device = Device()
    old, new = (build(device, f"1.{n}.0", n + 1, 5000 + n, use_before=NOW + HOUR) for n in range(2))
    push(device, old)
    device.fresh_hour()
    if place == "waiting":
        commit(device, new)
    else:
        push(device, new)
        device.fresh_hour()
    WHY[code](device, old, new)
    if place == "kept for a fallback":
        damage(device)
    wear = list(device.node._flash.wear)
    report = reported(device)
    assert report.confirmed
    assert report.version == ("1.1.0" if place == "running" else "1.0.0")
    older = {"version.older"} if place == "kept for a fallback" else set()
    assert set(report.flags) == {code} | older
    assert report.boot_state == ("fallback" if older else "confirmed")
    if place == "waiting":
        assert list(device.node._flash.wear) == wear  # nothing was moved, in any direction
        assert device.counters.outcome is not None
        assert (device.counters.outcome.code, device.counters.outcome.manifest_digest) == (code, new.manifest_digest)
        assert device.counters.pending is None
    again = reported(device)
    assert (again.version, again.confirmed, code in again.flags) == (report.version, True, True)


def commit(device: Device, what: Build) -> Pipe:
    """An offer, the whole image, the commit; no reboot."""
    pipe = Pipe(device)
    pipe.connect(grant(device))
    accept = pipe.ask(Offer(what.offer))
    assert isinstance(accept, Accept), accept
    for at in range(accept.resume_offset, len(what.image), 4096):
        pipe.ask(Data(at, what.image[at : at + 4096]))
    assert pipe.ask(Commit(what.manifest_digest)) == Done(int(Verb.COMMIT))
    return pipe


# -- the moment of an install -----------------------------------------------------------------------------------------


def waiting() -> tuple[Device, Build, Build]:
    """A device with a judged image that waits for its next boot."""
    device = Device()
    old, new = build(device, "1.0.0", 1, 5000), build(device, "1.1.0", 2, 6000)
    push(device, old)
    device.fresh_hour()
    commit(device, new)
    return device, old, new


@pytest.mark.parametrize("reason", ["therapy", "battery"])
def test_a_device_switched_off_and_on_in_a_bad_moment_installs_nothing_until_a_better_one(reason: str) -> None:
    device, _, new = waiting()
    if reason == "therapy":
        device.therapy.start_bolus(1000, NOW)
    else:
        device.battery = 5
    before = device.backend.data[:]
    for _ in range(3):
        report = reported(device)
        assert (report.version, report.boot_state, report.confirmed) == ("1.0.0", "confirmed", True)
        assert report.flags == ("update.waiting",)
    assert device.backend.data == before
    waits = [event for event in device.counters.audit.events if event.name == "update-waits"]
    assert [event.code for event in waits] == ["device.therapy-active" if reason == "therapy" else "device.battery"]
    device.battery = 90
    if reason == "therapy":
        device.therapy.stop_bolus(NOW)
    assert device.runs(new)


def test_an_update_does_not_wait_where_nothing_else_can_run() -> None:
    """The battery is low and the image that ran is damaged: a device that does not start is the worse failure."""
    device, _, new = waiting()
    device.battery = 5
    assert reported(device).flags == ("update.waiting",)
    damage(device)
    report = reported(device)
    assert (report.version, report.boot_state, report.confirmed) == ("1.1.0", "confirmed", True)
    assert device.runs(new)


def test_an_update_that_waits_may_be_replaced_or_offered_again() -> None:
    device, _, new = waiting()
    device.therapy.start_bolus(1000, NOW)
    device.power_cycle()
    with pytest.raises(DevguardError, match=r"device\.therapy-active"):
        push(device, new)
    device.therapy.stop_bolus(NOW)
    wear = list(device.node._flash.wear)
    commit(device, new)
    assert device.node._flash.wear == wear
    other = build(device, "1.2.0", 3)
    push(device, other)
    assert device.runs(other)


def test_a_therapy_does_not_stop_an_interrupted_swap_or_a_revert() -> None:
    cut = in_mid_swap(60)
    assert cut is not None
    machine = Machine(world(), cut, Conduct(3))
    machine.therapy.start_bolus(1000, NOW)
    assert world().number_of(machine.node.boot().header) == TARGET


# -- unused space -----------------------------------------------------------------------------------------------------


def test_bits_that_nothing_reads_change_nothing() -> None:
    """Every sector of the flash beyond what header, image and papers of the running slot fill."""
    device, _, new = with_two()
    layout, header = device.model.layout, device.counters.sealed
    assert header is not None
    slot = layout.primary
    used = {
        *range(slot.header, slot.header + 1024),
        *range(slot.image, slot.image + header.size),
        *range(slot.envelope, slot.envelope + header.envelope_size),
    }
    for address in range(0, layout.scratch + layout.sector_size, 257):
        if address not in used:
            device.backend.data[address] ^= 1 << address % 8
    report = reported(device)
    assert (report.version, report.boot_state, report.flags) == ("1.1.0", "confirmed", ())
    device.fresh_hour()
    last = build(device, "1.2.0", 3, 7000)
    push(device, last)
    assert device.runs(last)
    assert new.manifest_digest != last.manifest_digest


# -- wear and battery -------------------------------------------------------------------------------------------------


def test_hostile_offers_wear_no_sector_beyond_the_budget() -> None:
    """A technician with a good grant offers two releases by turns, for three hours, with resets between."""
    device = Device()
    push(device, build(device, "1.0.0", 1, 5000))
    builds = [build(device, f"2.{n}.0", 5 + n, 30_000) for n in range(2)]
    cells = device.node._flash.cells
    start, codes = list(cells.wear), set()
    for turn in range(45):
        device.up = 240.0 * turn
        if turn % 7 == 0:
            device.power_cycle()
            device.node._flash.cells = cells
            device.up += MAX_DELAY
        pipe = Pipe(device)
        pipe.connect(grant(device))
        reply = pipe.ask(Offer(builds[turn % 2].offer))
        codes.add("" if isinstance(reply, Accept) else refusal(reply))
        if isinstance(reply, Accept):
            pipe.ask(Data(0, builds[turn % 2].image[:8192]))
    assert codes == {"", "device.busy"}
    budget = device.model.erase_budget_per_hour
    assert max(now - then for now, then in zip(cells.wear, start, strict=True)) <= 3 * budget
    assert len(recent_erasures(device.counters, device.node.steady())) <= budget


def test_the_delay_after_failed_handshakes_outlives_a_power_cut_and_ends_within_five_seconds() -> None:
    device = Device()
    for _ in range(40):
        device.node.handshake_failed()
    assert device.counters.failed_handshakes == COUNTED_HANDSHAKES
    for _ in range(3):
        device.up = 0.0
        device.power_cycle()
        with pytest.raises(Refused, match=r"waits"):
            device.node.handshake_begins()
        device.up = MAX_DELAY
        device.node.handshake_begins()
    assert MAX_DELAY < 5
    pipe = Pipe(device)
    pipe.connect(grant(device))
    device.up = 0.0
    device.power_cycle()
    device.node.handshake_begins()


@pytest.mark.parametrize("reset", [False, True], ids=["on all the time", "switched off and on"])
@pytest.mark.parametrize("taken", [False, True], ids=["refused", "taken and given up"])
def test_offers_that_come_to_nothing_again_and_again_are_looked_at_less_and_less(
    reset: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A technician with a good grant offers an older release, or a good one without ever sending it, for two minutes,
    as often in a session as the device lets and as fast: the signatures of one session in four seconds are checked. A
    colleague waits no longer than that."""
    device = Device()
    push(device, build(device, "1.0.0", 5, 5000))
    older, good, one = build(device, "0.9.0", 2), build(device, "1.1.0", 6), grant(device)
    checks, judge = [0], type(device.node).judge
    cells = device.node._flash.cells
    start = list(cells.wear)

    def counted(node: object, envelope: bytes, target: object) -> object:
        checks[0] += 1
        return judge(node, envelope, target)  # type: ignore[arg-type]

    monkeypatch.setattr(type(device.node), "judge", counted)
    seconds = 120
    for tick in range(2 * seconds):
        device.up = tick / 2
        if reset and tick % 31 == 30:
            device.power_cycle()
            device.node._flash.cells = cells
        try:
            device.node.handshake_begins()
        except Refused:
            continue
        attendant = device.node.attend()
        attendant.judge_technician(one.untagged)
        attendant.authorised(bytes(32))
        if taken:
            for _ in range(MAX_OFFERS):
                attendant.offer(good.offer)
            with pytest.raises(Refused, match=r"offers in one conversation") as refused:
                attendant.offer(good.offer)
            assert refused.value.code == "device.busy"
            continue
        for _ in range(MAX_REFUSALS):
            with pytest.raises(Refused, match=r"sequence") as refused:
                attendant.offer(older.offer)
            attendant.refused(refused.value)
    in_one = MAX_OFFERS if taken else MAX_REFUSALS
    assert seconds / MAX_DELAY / 2 < checks[0] <= FREE_OFFERS + in_one * (5 + seconds / MAX_DELAY)
    wear = [now - then for now, then in zip(cells.wear, start, strict=True)]
    assert max(wear) <= 1 if taken else not any(wear)
    device.up += MAX_DELAY
    device.fresh_hour()
    push(device, good)
    assert device.runs(good)
    device.power_cycle()
    device.node.handshake_begins()  # a confirmed update ends it


def test_a_bad_cable_is_resumed_as_often_as_it_takes() -> None:
    """Each of thirty conversations brings one segment further: each begins within four seconds of the last."""
    device = Device()
    push(device, build(device, "1.0.0", 5, 5000))
    good, waited = build(device, "1.1.0", 6, 60_000), []
    for _ in range(30):
        begun = device.up
        while True:
            try:
                device.node.handshake_begins()
                break
            except Refused:
                device.up += 0.5
        waited.append(device.up - begun)
        pipe = Pipe(device)
        pipe.connect(grant(device))
        reply = pipe.ask(Offer(good.offer))
        assert isinstance(reply, Accept)
        pipe.ask(Data(reply.resume_offset, good.image[reply.resume_offset : reply.resume_offset + 1024]))
        device.node.lost()
    assert waited[:8] == [0.0] * 8
    assert 0 < max(waited) <= MAX_DELAY
    assert reply.resume_offset > 0


def test_strangers_at_the_port_neither_wear_the_flash_nor_the_store() -> None:
    """An hour of handshakes as fast as the device lets them, switched off and on as often as the stranger likes."""
    device = Device()
    saves, served = [0], 0
    real = device.store.save

    def save(counters: object) -> None:
        saves[0] += 1
        real(counters)  # type: ignore[arg-type]

    device.store.save = save  # type: ignore[method-assign]
    wear, seconds = list(device.node._flash.wear), 3600
    for second in range(seconds):
        device.up = float(second)
        if second % 60 == 59:
            device.power_cycle()
        try:
            device.node.handshake_begins()
        except Refused:
            continue
        served += 1
        device.node.handshake_failed()
        device.node.refused(Refused("key.unknown", "a stranger"), proved=False)
    assert served <= 4 + seconds / MAX_DELAY
    assert saves[0] <= COUNTED_HANDSHAKES + 20 + seconds // 60
    assert wear == list(device.node._flash.wear)[: len(wear)]
