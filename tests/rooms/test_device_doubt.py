"""Flash that looks blank and is not. Invariant: whatever downloads were begun and cut off, in any order, the next one
finds flash that holds what it is given; and no sector is erased that was neither written nor in doubt."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from devguard.device.bootloader import Bootloader, BootState
from devguard.device.cells import Cells
from devguard.device.flash import FlashMemory, Operation, PowerCut, Tear, new_cells
from devguard.device.header import SlotHeader
from devguard.errors import Refused
from devguard.image.delta import compress
from devguard.session.verbs import Encoding
from device_support import SMALL, Build, Rig, RigStore, make_build, small_model

LAYOUT = replace(SMALL, slot_size=13 * 512, envelope_size=3 * 512)  # eight sectors of image, three of papers
SECONDARY = LAYOUT.secondary
ENCODED = 1500  # an image of so many bytes fits beside its encoded form
Operations = list[tuple[Operation, int]]


def release(number: int, size: int, papers: int) -> Build:
    """A build whose envelope copy has `papers` bytes; no two of them begin a sector alike."""
    plain = make_build(f"1.{number}.0", number, size)
    envelope = plain.envelope + random.Random(number).randbytes(papers - len(plain.envelope))
    digest = SlotHeader.of_envelope(envelope)
    return replace(plain, envelope=envelope, header=replace(plain.header, envelope_size=papers, envelope_digest=digest))


@dataclass
class Chip(Rig):
    """A device whose cells outlive a reset. `cut`: whether the power goes at this operation on the secondary slot; the
    first word is then left undecided, or one in the middle."""

    cut: Callable[[Operation, int], bool] = lambda operation, address: False
    word: int = 0
    seen: Operations = field(default_factory=list)
    cells: Cells | None = None

    def reset(self) -> None:
        super().reset()
        self.cells = self.cells or new_cells(LAYOUT.flash)
        flash = FlashMemory(LAYOUT.flash, self.backend, self._fault, self.cells)
        self.boot_loader = Bootloader(flash, self.model, RigStore(self))

    def _fault(self, operation: Operation, address: int, length: int) -> Tear | None:
        self.seen.append((operation, address))
        cut = SECONDARY.base <= address < LAYOUT.scratch and self.cut(operation, address)
        return Tear(min(4 * self.word, length - 4), 0, weak=True) if cut else None

    def send(self, build: Build, *, encoded: bool = False, part: float = 1.0) -> None:
        """Offer, and so much of the image in one form or the other; the whole of it is committed."""
        loader, image = self.boot_loader, build.image
        at = loader.prepare(build.header.manifest_digest, len(image), 0)
        if encoded and at < len(image):
            image = compress(image)
            at = loader.stage(Encoding.COMPRESSED, len(image), hashlib.sha256(image).digest())
        loader.write(at, image[at : max(at, int(len(image) * part))])
        if part == 1.0:
            loader.unpack()
            loader.finish(build.header, build.envelope)
            loader.mark_pending()

    def wakes(self) -> None:
        """Power on; a trial passes."""
        self.cut = lambda operation, address: False
        if self.boot().state is BootState.TRIAL:
            assert self.boot_loader.self_test(lambda: True)
            self.boot_loader.confirm()


def running(seed: object = 0) -> Chip:
    chip = Chip(model=replace(small_model(), layout=LAYOUT))
    assert chip.cells is not None
    chip.cells.seed = str(seed)
    chip.wakes()
    chip.send(release(1, 3000, 300))
    chip.wakes()
    chip.fresh_hour()
    return chip


class At:
    """The operation of that number, of those that begin a sector or of all."""

    def __init__(self, number: int, *, starts: bool) -> None:
        self.left = number
        self.starts = starts

    def __call__(self, operation: Operation, address: int) -> bool:
        self.left -= not self.starts or address % LAYOUT.sector_size == 0
        return self.left == 0


def installs(chip: Chip, last: Build, *, encoded: bool = False) -> None:
    """The next push succeeds, at once, and stays."""
    chip.wakes()
    chip.fresh_hour()
    chip.send(last, encoded=encoded)
    chip.send(last)
    chip.wakes()
    assert [chip.boot().state for _ in range(3)] == [BootState.CONFIRMED] * 3
    assert chip.boot().header == last.header
    assert chip.image().startswith(last.image)


def lives(numbers: range) -> None:
    """Some downloads, each cut off or given up; then one that is not."""
    for number in numbers:
        chance = random.Random(number)
        chip = running(number)
        builds = [release(n, chance.choice((400, 1500, 3400)), chance.choice((300, 900, 1536))) for n in range(2, 5)]
        for _ in range(chance.randint(1, 4)):
            chip.fresh_hour()
            starts = chance.random() < 0.7
            chip.cut, chip.word = At(chance.randint(1, 30 if starts else 120), starts=starts), chance.choice((0, 0, 5))
            build, encoded = chance.choice(builds), chance.random() < 0.6
            with contextlib.suppress(PowerCut):
                part = chance.choice((0.3, 0.9, 1.0, 1.0, 1.0))
                chip.send(build, encoded=encoded and len(build.image) <= ENCODED, part=part)
            if chance.random() < 0.8:
                chip.wakes()
        last = release(9, chance.choice((400, 1500, 3400)), chance.choice((300, 900, 1536)))
        installs(chip, last, encoded=len(last.image) <= ENCODED and chance.random() < 0.5)


def test_the_download_after_any_that_were_cut_off_finds_flash_that_holds() -> None:
    lives(range(300))


@pytest.mark.slow
def test_the_download_after_any_that_were_cut_off_finds_flash_that_holds_many_times() -> None:
    lives(range(300, 10_000))


def cut_in(chip: Chip, build: Build, operation: Operation, address: int, *, encoded: bool = False) -> None:
    """A push whose power goes at this operation there."""
    chip.cut = lambda one, at: (one, at) == (operation, address)
    with pytest.raises(PowerCut):
        chip.send(build, encoded=encoded)
    chip.wakes()


@pytest.mark.parametrize("place", ["second sector of the envelope copy", "third", "second, erased before"])
def test_papers_that_were_cut_off_at_a_sectors_first_word(place: str) -> None:
    """Another release's envelope has other bits there; what is left of the first one may not shine through."""
    first, smaller, other = release(2, 700, 1536), release(3, 700, 300), release(4, 700, 1536)
    hit = SECONDARY.envelope + (1024 if place == "third" else 512)
    for seed in range(12):
        chip = running(seed)
        if place.endswith("before"):
            cut_in(chip, first, Operation.PROGRAM, SECONDARY.header)
            cut_in(chip, first, Operation.ERASE, hit)
        else:
            cut_in(chip, first, Operation.PROGRAM, hit)
        if seed % 2:
            installs(chip, smaller)
        installs(chip, other)


def test_an_encoded_image_that_was_cut_off_at_a_sectors_first_word() -> None:
    small, big = release(2, ENCODED, 300), release(3, 3400, 300)
    first, *others = [SECONDARY.envelope - 512 * left for left in (4, 3, 2, 1)]
    assert first == SECONDARY.image + 4 * 512
    for seed, place in enumerate(others * 4):
        chip = running(seed)
        cut_in(chip, small, Operation.PROGRAM, place, encoded=True)
        if seed % 2:
            chip.send(small, part=0.5)  # and the image itself, which gives it up
        installs(chip, big)


def test_an_erase_for_another_release_that_was_cut_off_leaves_nothing_to_go_on_with() -> None:
    """The release that stood there whole is offered again: it is not whole any more."""
    first, other = release(2, 1400, 300), release(3, 3400, 300)
    for place in (SECONDARY.image + 1024, SECONDARY.image + 512, SECONDARY.trailer, SECONDARY.header):
        chip = running()
        cut_in(chip, first, Operation.PROGRAM, SECONDARY.header)
        cut_in(chip, other, Operation.ERASE, place)
        installs(chip, first)


def inverted(data: bytes) -> bytes:
    """Bytes that no flash takes where `data` stands."""
    return bytes(one ^ 0xFF for one in data)


def test_a_mark_of_what_was_refused_that_was_cut_off_is_no_mark_of_what_comes() -> None:
    build = release(2, 1400, 300)
    for seed in range(8):
        chip = running(seed)
        chip.send(build, part=0.3)
        chip.wakes()
        assert chip.boot_loader.prepare(build.header.manifest_digest, len(build.image), 0) == 0
        chip.cut = lambda operation, address: address >= SECONDARY.trailer
        with pytest.raises(PowerCut):
            chip.boot_loader.write(0, inverted(build.image[:256]))
        installs(chip, build)


def test_an_encoded_image_that_was_cut_off_and_given_up_leaves_nothing_behind() -> None:
    small, big = release(2, ENCODED, 300), release(3, 3400, 300)
    form = compress(small.image)
    for seed in range(12):
        chip = running(seed)
        cut_in(chip, small, Operation.PROGRAM, SECONDARY.envelope - 512 * (1 + seed % 3), encoded=True)
        loader = chip.boot_loader
        loader.prepare(small.header.manifest_digest, len(small.image), 0)
        at = loader.stage(Encoding.COMPRESSED, len(form), hashlib.sha256(form).digest())
        with pytest.raises(Refused, match="not those that were begun"):
            loader.write(at, inverted(form[at : at + 64]))
        installs(chip, big)


# -- and nothing else ------------------------------------------------------------------------------------------------


def erasures(seen: Operations) -> Counter[int]:
    """How often each sector of the secondary slot was erased with nothing written in it since it was erased before."""
    clean, found = set[int](), Counter[int]()
    for operation, address in seen:
        sector = address // LAYOUT.sector_size * LAYOUT.sector_size
        if operation is Operation.PROGRAM:
            clean.discard(sector)
        elif SECONDARY.base <= sector < LAYOUT.scratch:
            found[sector] += sector in clean
            clean.add(sector)
    return +found


def tries(chip: Chip, chance: random.Random, *, reset: bool) -> None:
    """Pushes of this and that, given up somewhere; nothing is cut."""
    builds = [release(n, chance.choice((400, 1500, 3400)), chance.choice((300, 900, 1536))) for n in range(2, 5)]
    for _ in range(6):
        chip.fresh_hour()
        build = chance.choice(builds)
        with contextlib.suppress(Refused):  # of one that waits for its install already
            encoded, part = len(build.image) <= ENCODED and chance.random() < 0.5, chance.choice((0.0, 0.2, 0.7, 1.0))
            chip.send(build, encoded=encoded, part=part)
        chip.boot_loader.pause()
        if reset and chip.counters.pending is None:
            chip.wakes()


def test_failed_and_repeated_pushes_erase_no_sector_twice_without_need() -> None:
    for number in range(40):
        chip = running()
        chip.seen.clear()
        tries(chip, random.Random(number), reset=False)
        assert not erasures(chip.seen), number


def test_after_a_reset_only_what_may_have_been_cut_off_is_erased_though_it_is_blank() -> None:
    """Where the download before came to; of one that was whole also its papers and its mark."""
    for number in range(40):
        chip = running()
        chip.seen.clear()
        tries(chip, random.Random(number), reset=True)
        assert sum(erasures(chip.seen).values()) <= 6 * 2, number


def test_the_same_release_pushed_again_and_again_erases_nothing_again() -> None:
    chip = running()
    build = release(2, 1500, 900)
    chip.seen.clear()
    for number in range(12):
        chip.send(build, encoded=number % 2 == 0, part=(number + 1) / 12)
        chip.boot_loader.pause()
    assert not erasures(chip.seen)
    assert max(Counter(address for operation, address in chip.seen if operation is Operation.ERASE).values()) == 1
