"""An image that comes encoded: where it waits, what it may cost, how it goes on after a cut. Invariant: nothing but the
judged image is ever marked, a bad patch leaves the release installable, and no sector goes without being counted."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest

from devguard.device.bootloader import Bootloader, BootState
from devguard.device.cells import Cells
from devguard.device.counters import Staging, check_no_regression
from devguard.device.counters_codec import decode_counters, encode_counters
from devguard.device.flash import FlashMemory, Operation, PowerCut, Tear, new_cells
from devguard.device.layout import Mark
from devguard.device.staging import StagingArea, staging_offset
from devguard.errors import Refused
from devguard.image.delta import compress, make_patch
from devguard.session.verbs import Encoding
from device_support import HOWS, NOW, SMALL, Build, Power, Rig, RigStore, make_build, with_running

pytest.importorskip("detools", reason="the extra `delta` is not installed")

OLD = make_build("1.0.0", 1, 800)
LAST = SMALL.secondary.image + 2 * 512  # where an encoded image of up to a sector waits


def grown(old: Build, version: str = "1.1.0", sequence: int = 2) -> Build:
    """The old image with some words changed and some more at its end: two sectors, and a patch of less than one."""
    image = old.image[:300] + b"changed" + old.image[310:] + random.Random(2).randbytes(210)
    plain = make_build(version, sequence, len(image))
    header = replace(plain.header, digest=hashlib.sha256(image).digest(), size=len(image))
    return Build(image, plain.envelope, header)


NEW = grown(OLD)
PATCH = make_patch(OLD.image, NEW.image)
DIGEST = hashlib.sha256(PATCH).digest()


def code_of(call) -> str:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.code


def begin(rig: Rig, patch: bytes = PATCH, encoding: int = Encoding.DELTA, *, digest: bytes | None = None) -> int:
    """Offer and transfer; the offset to go on from."""
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW) < len(NEW.image)
    return rig.boot_loader.stage(encoding, len(patch), digest or hashlib.sha256(patch).digest())


def stage(rig: Rig, patch: bytes = PATCH, encoding: int = Encoding.DELTA, *, digest: bytes | None = None) -> int:
    at = start = begin(rig, patch, encoding, digest=digest)
    while at < len(patch):
        rig.boot_loader.write(at, patch[at : at + 100])
        at += len(patch[at : at + 100])
    return start


def commit(rig: Rig) -> None:
    rig.boot_loader.unpack()
    rig.boot_loader.finish(NEW.header, NEW.envelope)
    rig.boot_loader.mark_pending()


def confirm(rig: Rig) -> None:
    assert rig.boot().header == NEW.header
    assert rig.boot_loader.self_test(lambda: True)
    rig.boot_loader.confirm()
    assert rig.image().startswith(NEW.image)


def erased(rig: Rig) -> list[int]:
    """Every sector that is erased from here on."""
    seen: list[int] = []
    flash, before = rig.boot_loader.slots.flash, rig.boot_loader.slots.flash.fault

    def fault(operation: Operation, address: int, length: int):
        if operation is Operation.ERASE:
            seen.append(address)
        return before(operation, address, length) if before else None

    flash.fault = fault
    return seen


@pytest.mark.parametrize("encoding", Encoding)
def test_an_encoded_image_becomes_the_image_and_nothing_of_it_is_left(encoding: Encoding) -> None:
    rig = with_running(OLD)
    form = PATCH
    if encoding is Encoding.COMPRESSED:
        plain = replace_image(bytes(len(NEW.image)))
        form = compress(plain.image)
        rig.boot_loader.prepare(plain.header.manifest_digest, len(plain.image), NOW)
        rig.boot_loader.stage(encoding, len(form), hashlib.sha256(form).digest())
        rig.boot_loader.write(0, form)
        rig.boot_loader.unpack()
        rig.boot_loader.finish(plain.header, plain.envelope)
        assert rig.image("secondary").startswith(plain.image)
    else:
        assert stage(rig) == 0
        assert rig.boot_loader.durable_offset() == len(PATCH)
        assert set(rig.image("secondary")[: 2 * 512]) == {0xFF}
        commit(rig)
        assert rig.image("secondary").startswith(NEW.image)
        confirm(rig)
    assert set(rig.image("secondary")[2 * 512 :]) == {0xFF}
    assert rig.counters.download is None or rig.counters.download.staging is None
    assert len(rig.counters.erase_times) == 1


def replace_image(image: bytes) -> Build:
    header = replace(NEW.header, digest=hashlib.sha256(image).digest(), size=len(image))
    return Build(image, NEW.envelope, header)


def test_where_it_waits_touches_no_sector_of_the_image() -> None:
    sector, area = SMALL.sector_size, SMALL.image_capacity
    for size in (1, 511, 512, 513, 1024, 1025, area):
        for encoded in (0, 1, 512, 513, 1024, area, area + 1, 2**32 - 1):
            start = staging_offset(SMALL, size, encoded)
            fits = encoded > 0 and -(-size // sector) + -(-encoded // sector) <= area // sector
            assert (start is not None) == fits, (size, encoded)
            if start is not None:
                assert start % sector == 0
                assert start >= size
                assert start + encoded <= area


@pytest.mark.parametrize("encoded", [0, 513, 1536, 2**32 - 1])
def test_what_does_not_fit_is_refused_and_changes_nothing(encoded: int) -> None:
    rig = with_running(OLD)
    rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    before = rig.snapshot()
    assert code_of(lambda: rig.boot_loader.stage(Encoding.DELTA, encoded, DIGEST)) == "device.slot"
    assert code_of(lambda: rig.boot_loader.stage(77, len(PATCH), DIGEST)) == "device.transfer"
    assert rig.snapshot() == before
    rig.boot_loader.write(0, NEW.image)
    commit(rig)
    confirm(rig)


def test_it_is_announced_after_an_offer_and_before_any_byte() -> None:
    rig = with_running(OLD)
    assert code_of(lambda: rig.boot_loader.stage(1, len(PATCH), DIGEST)) == "session.order"
    rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    rig.boot_loader.write(0, NEW.image[:100])
    assert code_of(lambda: rig.boot_loader.stage(1, len(PATCH), DIGEST)) == "session.order"
    begin(rig)
    assert code_of(lambda: rig.boot_loader.stage(1, len(PATCH), DIGEST)) == "session.order"
    assert code_of(lambda: rig.boot_loader.write(1, b"x")) == "session.order"
    assert code_of(lambda: rig.boot_loader.write(0, bytes(len(PATCH) + 1))) == "image.size"
    assert code_of(rig.boot_loader.unpack) == "image.size"
    assert code_of(lambda: rig.boot_loader.finish(NEW.header, NEW.envelope)) == "image.size"


def test_a_lost_link_costs_at_most_a_page_and_only_the_same_bytes_go_on() -> None:
    rig = with_running(OLD)
    begin(rig)
    rig.boot_loader.write(0, PATCH[:100])
    rig.boot_loader.pause()
    rig.reset()
    rig.boot()
    assert begin(rig) == 64
    rig.boot_loader.write(64, PATCH[64:])
    assert rig.boot_loader.durable_offset() == len(PATCH)
    rig.boot()
    assert begin(rig) == len(PATCH)
    commit(rig)
    confirm(rig)
    assert len(rig.counters.erase_times) == 1


@pytest.mark.parametrize("change", ["encoding", "size", "digest"])
def test_another_encoded_image_starts_anew_on_blank_flash(change: str) -> None:
    rig = with_running(OLD)
    begin(rig)
    rig.boot_loader.write(0, PATCH[:100])
    rig.boot_loader.pause()
    rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    wanted = {"encoding": 1, "size": len(PATCH), "digest": DIGEST}
    wanted[change] = {"encoding": 2, "size": len(PATCH) - 1, "digest": bytes(32)}[change]
    gone = erased(rig)
    assert rig.boot_loader.stage(**wanted) == 0
    assert gone == [LAST]
    assert len(rig.counters.erase_times) == 2


def test_the_whole_image_may_follow_an_encoded_one_that_was_begun() -> None:
    rig = with_running(OLD)
    begin(rig)
    rig.boot_loader.write(0, PATCH[:100])
    rig.boot_loader.pause()
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW) == 0
    rig.boot_loader.write(0, NEW.image)
    commit(rig)
    confirm(rig)
    assert len(rig.counters.erase_times) == 1


def test_an_encoded_image_may_follow_part_of_the_whole_one() -> None:
    rig = with_running(OLD)
    rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    rig.boot_loader.write(0, NEW.image[:600])
    rig.boot_loader.pause()
    stage(rig)
    commit(rig)
    confirm(rig)
    assert len(rig.counters.erase_times) == 1


# wrong and hostile


def hostile() -> dict[str, bytes]:
    return {
        "garbage": random.Random(3).randbytes(300),
        "cut short": PATCH[:-20],
        "of another image": make_patch(b"zz" + OLD.image, NEW.image),
        "to another image": make_patch(OLD.image, bytes(7) + NEW.image[7:]),
        "to another size": make_patch(OLD.image, NEW.image + b"x"),
    }


@pytest.mark.parametrize("kind", list(hostile()))
def test_a_bad_patch_is_refused_and_the_release_installs_all_the_same(kind: str) -> None:
    rig = with_running(OLD)
    patch = hostile()[kind]
    stage(rig, patch)
    assert code_of(lambda: commit(rig)) == "device.transfer"
    assert not rig.boot_loader.slots.marked(SMALL.secondary, Mark.BAD)
    assert rig.counters.pending is None
    assert rig.counters.outcome is None or rig.counters.outcome.code is None
    assert decode_counters(encode_counters(rig.counters)) == rig.counters
    assert code_of(lambda: rig.boot_loader.write(0, b"x")) == "session.order"
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW) == 0
    rig.boot_loader.write(0, NEW.image)
    commit(rig)
    confirm(rig)
    assert len(rig.counters.erase_times) <= 2


def test_bytes_that_are_not_those_announced_never_reach_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = with_running(OLD)
    stage(rig, digest=bytes(32))
    monkeypatch.setattr(StagingArea, "decoded", lambda *_: pytest.fail("it was decoded"))
    assert code_of(lambda: commit(rig)) == "device.transfer"
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW) == 0
    assert len(rig.counters.erase_times) == 1  # nothing was written over the image area


def test_without_a_running_image_a_patch_has_nothing_to_read() -> None:
    rig = Rig()
    rig.boot()
    stage(rig)
    assert code_of(lambda: commit(rig)) == "device.transfer"


def test_an_image_compressed_against_nothing_reads_nothing() -> None:
    rig = with_running(OLD)
    stage(rig, PATCH, Encoding.COMPRESSED)
    assert code_of(rig.boot_loader.unpack) == "device.transfer"
    assert rig.counters.download is not None
    assert not rig.counters.download.dirty


def half_decoded() -> Rig:
    """The power went while a patch that gives another image was decoded."""
    rig = with_running(OLD)
    stage(rig, hostile()["to another image"])
    rig.power.cut_at = rig.power.count + 6
    with pytest.raises(PowerCut):
        rig.boot_loader.unpack()
    rig.power = Power()
    rig.boot()
    assert set(rig.image("secondary")[:64]) != {0xFF}
    return rig


@pytest.mark.parametrize("then", ["whole", "encoded"])
def test_what_half_of_a_bad_patch_left_behind_is_nobodys_image(then: str) -> None:
    rig = half_decoded()
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW) == 0
    if then == "whole":
        rig.boot_loader.write(0, NEW.image)
    else:
        assert rig.boot_loader.stage(1, len(PATCH), DIGEST) == 0
        rig.boot_loader.write(0, PATCH)
    commit(rig)
    assert not rig.boot_loader.slots.marked(SMALL.secondary, Mark.BAD)
    confirm(rig)
    assert len(rig.counters.erase_times) == 2


def test_after_a_bad_patch_a_spent_erase_budget_shows_at_the_offer() -> None:
    rig = with_running(OLD)
    stage(rig, hostile()["to another image"])
    assert code_of(lambda: commit(rig)) == "device.transfer"
    rig.counters = replace(rig.counters, erase_times=(NOW, NOW, NOW))
    again_ = lambda: rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)  # noqa: E731
    assert code_of(again_) == "device.busy"


@pytest.mark.parametrize("then", ["same", "smaller", "whole release", "other release"])
def test_what_only_looks_erased_is_erased_again(then: str) -> None:
    rig = with_running(OLD)
    begin(rig)
    download = rig.counters.download
    assert download is not None
    torn = Staging(1, len(PATCH), DIGEST, 0, False)  # the power went in this erase, and its bits may fade
    rig.counters = replace(rig.counters, download=replace(download, staging=torn), erase_times=())
    rig.boot()
    gone = erased(rig)
    if then in ("same", "smaller"):
        begin(rig, PATCH if then == "same" else PATCH[:-1])
    elif then == "other release":
        rig.boot_loader.prepare(bytes(32), 100, NOW)
    else:
        rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
        rig.boot_loader.write(0, NEW.image)
        commit(rig)
    assert gone.count(LAST) == 1
    assert rig.counters.download is None or rig.counters.download.staging != torn


def test_other_bytes_on_resumption_drop_the_encoded_image() -> None:
    rig = with_running(OLD)
    begin(rig)
    rig.boot_loader.write(0, PATCH[:128])
    rig.boot_loader.pause()
    rig.backend.data[LAST + 64 : LAST + 128] = bytes(64)
    rig.counters = replace(
        rig.counters,
        download=replace(rig.counters.download, staging=replace(rig.counters.download.staging, offset=64)),
    )
    rig.boot()
    assert begin(rig) == 64
    assert code_of(lambda: rig.boot_loader.write(64, PATCH[64:])) == "device.transfer"
    assert not rig.boot_loader.slots.marked(SMALL.secondary, Mark.BAD)


def test_hostile_transfers_wear_no_more_than_the_erase_budget() -> None:
    rig = with_running(OLD)
    gone = erased(rig)
    refusals, rng = [], random.Random(9)
    for _ in range(40):
        patch = rng.choice([*hostile().values(), PATCH, PATCH + b"x"])
        try:
            stage(rig, patch)
            rig.boot_loader.unpack()
        except Refused as error:
            refusals.append(error.code)
    assert "device.busy" in refusals
    assert set(refusals) <= {"device.busy", "device.transfer"}
    assert len(rig.counters.erase_times) == 3
    assert max(gone.count(sector) for sector in set(gone)) <= 3
    rig.fresh_hour()
    rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
    rig.boot_loader.write(0, NEW.image)
    commit(rig)
    confirm(rig)


def test_committing_again_erases_nothing_again() -> None:
    rig = with_running(OLD)
    stage(rig)
    commit(rig)
    gone = erased(rig)
    for _ in range(5):
        rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
        commit(rig)
    assert gone == []
    confirm(rig)


# power


def update(rig: Rig) -> None:
    rig.boot()
    stage(rig)
    commit(rig)
    rig.boot()
    assert rig.boot_loader.self_test(lambda: True)
    rig.boot_loader.confirm()
    rig.boot()


def again(rig: Rig, how: str) -> None:
    """The push after a cut, whole or encoded; it has to end in the new image."""
    rig.fresh_hour()
    if how == "whole":
        at = rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW)
        if at < len(NEW.image):
            rig.boot_loader.write(at, NEW.image[at:])
    elif rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW) < len(NEW.image):
        stage(rig)
    commit(rig)
    confirm(rig)


def cut_once(rig: Rig, state: tuple, cut_at: int, how: str, after: str) -> None:
    rig.restore(state, Power(cut_at, how))
    with pytest.raises(PowerCut):
        update(rig)
    check_no_regression(state[1], rig.counters)
    assert decode_counters(encode_counters(rig.counters)) == rig.counters
    settle(rig, after)


def settle(rig: Rig, after: str) -> None:
    """Power is back: what runs is whole, and a push of either kind ends in the new image."""
    rig.power = Power()
    for _ in range(3):
        result = rig.boot()
        running = next(build for build in (OLD, NEW) if build.header == result.header)
        assert rig.image().startswith(running.image)
    assert result.state is BootState.CONFIRMED
    if running is OLD:
        again(rig, after)
    assert rig.boot().header == NEW.header


def sweep(chosen: random.Random | None) -> int:
    rig = with_running(OLD)
    # What stands in the way of the encoded image has to be erased first: that, too, can be cut.
    rig.backend.data[LAST : LAST + 32] = bytes(32)
    state = rig.snapshot()
    rig.restore(state)
    update(rig)
    steps = rig.power.count
    cuts = [(cut, how, after) for cut in range(1, steps + 1) for how in HOWS for after in ("whole", "encoded")]
    for cut, how, after in chosen.sample(cuts, 60) if chosen else cuts:
        cut_once(rig, state, cut, how, after)
    return steps


def test_power_cut_in_an_encoded_update() -> None:
    assert sweep(random.Random(4)) > 100


@pytest.mark.slow
def test_power_cut_at_every_step_of_an_encoded_update() -> None:
    sweep(None)


@pytest.mark.parametrize("how", HOWS)
def test_decoding_goes_on_after_a_cut_anywhere_and_erases_nothing(how: str) -> None:
    rig = with_running(OLD)
    stage(rig)
    state = rig.snapshot()
    rig.restore(state)
    rig.boot()
    begin(rig)
    rig.power.count = 0
    rig.boot_loader.unpack()
    pages = rig.power.count
    assert pages > 10
    for cut in range(1, pages + 1):
        rig.restore(state)
        rig.boot()
        begin(rig)
        rig.power.cut_at, rig.power.how = rig.power.count + cut, how
        with pytest.raises(PowerCut):
            rig.boot_loader.unpack()
        rig.power = Power()
        rig.boot()
        gone = erased(rig)
        assert begin(rig) == len(PATCH)
        rig.boot_loader.unpack()
        assert gone == []
        rig.boot_loader.finish(NEW.header, NEW.envelope)
        assert rig.image("secondary").startswith(NEW.image)
        assert len(rig.counters.erase_times) == 1


class WeakPower(Power):
    """What is cut leaves bits that read differently each time."""

    def fault(self, operation: Operation, address: int, length: int) -> Tear | None:
        return Tear(length // 2 // 4 * 4, 0x5A, weak=True) if self.step() else None


class ChipRig(Rig):
    """A device whose flash cells outlive a reset."""

    cells: Cells | None = None

    def reset(self) -> None:
        super().reset()
        flash = self.model.layout.flash
        self.cells = self.cells or new_cells(flash)
        memory = FlashMemory(flash, self.backend, self.power.fault, self.cells)
        self.boot_loader = Bootloader(memory, self.model, RigStore(self))


def weak_sweep(chosen: random.Random | None) -> None:
    rig = ChipRig()
    rig.boot()
    rig.trial(OLD)
    rig.fresh_hour()
    rig.backend.data[LAST : LAST + 32] = bytes(32)
    state = rig.snapshot()
    rig.restore(state)
    update(rig)
    cuts = [(cut, after) for cut in range(1, rig.power.count + 1) for after in ("whole", "encoded")]
    for cut, after in chosen.sample(cuts, 30) if chosen else cuts:
        rig.cells = None
        rig.restore(state, WeakPower(cut))
        with pytest.raises(PowerCut):
            update(rig)
        settle(rig, after)


def test_bits_left_half_way_in_an_encoded_update() -> None:
    weak_sweep(random.Random(6))


@pytest.mark.slow
def test_bits_left_half_way_at_every_step_of_an_encoded_update() -> None:
    weak_sweep(None)
