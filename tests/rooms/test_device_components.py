"""Several components in one slot: their header, and that they change together or not at all, whatever happens."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.device.bootloader import BootState
from devguard.device.counters import Counters, check_no_regression
from devguard.device.counters_codec import decode_counters, encode_counters
from devguard.device.flash import FlashMemory, MemoryBackend, PowerCut
from devguard.device.header import MAGIC, MAX_HEADER, MAX_PARTS, Part, SlotHeader, decode_block, encode_block, parts_of
from devguard.device.models import load_model, parse_model
from devguard.device.slots import Slots
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.manifest.release import ComponentFacts
from device_support import HOWS, SMALL, Build, Power, Rig, make_build, with_running

NAMES = ("application", "telemetry")


def pair(version: str, sequence: int, first: int, second: int) -> Build:
    """A build of two components back to back."""
    whole = make_build(version, sequence, first + second)
    cuts = (whole.image[:first], whole.image[first:])
    parts = tuple(
        Part(name, len(one), -16, hashlib.sha256(one).digest()) for name, one in zip(NAMES, cuts, strict=True)
    )
    return replace(whole, header=replace(whole.header, parts=parts))


# The components of either build meet inside a sector, and not at the same place.
OLD, NEW = pair("1.0.0", 1, 700, 766), pair("1.1.0", 2, 1100, 430)
DIGESTS = {-16: 32, -43: 48, -44: 64}


@st.composite
def part_rows(draw: st.DrawFn) -> tuple[Part, ...]:
    names = draw(
        st.lists(st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True), min_size=2, max_size=MAX_PARTS, unique=True)
    )
    rows = []
    for name in names:
        algorithm = draw(st.sampled_from(sorted(DIGESTS)))
        size = draw(st.integers(1, (2**32 - 1) // MAX_PARTS))
        rows.append(
            Part(name, size, algorithm, draw(st.binary(min_size=DIGESTS[algorithm], max_size=DIGESTS[algorithm])))
        )
    return tuple(rows)


@given(part_rows())
def test_a_header_of_several_components_round_trips_in_flash_and_in_counters(parts: tuple[Part, ...]) -> None:
    header = replace(NEW.header, size=sum(part.size for part in parts), parts=parts)
    block = encode_block(MAGIC, header.to_list(), 4)
    assert SlotHeader.from_list(decode_block(MAGIC, block)) == header
    counters = Counters(sealed=header, previous=OLD.header, pending=make_build("2.0.0", 3, 10).header)
    assert decode_counters(encode_counters(counters)) == counters


def test_the_largest_header_fits_and_one_component_has_no_parts_in_it() -> None:
    parts = tuple(Part(f"{number}{'x' * 31}", 2**30 - 1, -44, bytes(64)) for number in range(MAX_PARTS))
    largest = replace(
        NEW.header,
        size=MAX_PARTS * (2**30 - 1),
        parts=parts,
        manifest_digest=bytes(64),
        sequence=2**64 - 1,
        security_version=2**31 - 1,
        version="\U0001f600" * 64,
        envelope_size=2**32 - 1,
    )
    assert len(encode_block(MAGIC, largest.to_list(), 1)) == 866
    assert MAX_HEADER >= 866
    one = make_build("1.0.0", 1, 100).header
    assert len(one.to_list()) == 9
    assert len(NEW.header.to_list()) == 10


def changed(**fields: Any) -> list[Any]:
    """The list of a good header with other parts."""
    row = NEW.header.to_list()
    row[9] = fields["parts"]
    return row


FIRST, SECOND = (part.to_list() for part in NEW.header.parts)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [FIRST],
        [["application", 1530, -16, bytes(32)]],
        [FIRST, FIRST],
        [FIRST, SECOND, ["more", 1, -16, bytes(32)]],
        [FIRST, ["telemetry", 431, -16, bytes(32)]],
        [FIRST, ["telemetry", 429, -16, bytes(32)]],
        [FIRST, ["telemetry", 430, -16, bytes(31)]],
        [FIRST, ["telemetry", 430, -16, bytes(48)]],
        [FIRST, ["telemetry", 430, -15, bytes(32)]],
        [FIRST, ["telemetry", 430, True, bytes(32)]],
        [FIRST, ["telemetry", 0, -16, bytes(32)]],
        [FIRST, ["telemetry", -1, -16, bytes(32)]],
        [FIRST, ["telemetry", 2**32, -16, bytes(32)]],
        [FIRST, ["telemetry", 2**64 + 430, -16, bytes(32)]],
        [["application", 2**32 - 1, -16, bytes(32)], ["telemetry", 2**32 - 1 + 1531, -16, bytes(32)]],
        [FIRST, ["", 430, -16, bytes(32)]],
        [FIRST, ["Telemetry", 430, -16, bytes(32)]],
        [FIRST, ["telemetry/..", 430, -16, bytes(32)]],
        [FIRST, ["t" * 33, 430, -16, bytes(32)]],
        [FIRST, ["telemetry", 430, -16]],
        [FIRST, ["telemetry", 430, -16, bytes(32), 0]],
        [FIRST, "telemetry"],
        [[str(number), 306, -16, bytes(32)] for number in range(5)],
        None,
        {},
        b"",
    ],
)
def test_parts_that_are_not_several_different_ones_that_make_up_the_whole_are_no_header(parts: object) -> None:
    with pytest.raises(Refused) as caught:
        SlotHeader.from_list(changed(parts=parts))
    assert caught.value.code == "device.state"


def test_a_whole_of_several_is_named_by_sha_256_alone() -> None:
    row = NEW.header.to_list()
    row[1:3] = [-44, bytes(64)]
    with pytest.raises(Refused):
        SlotHeader.from_list(row)
    with pytest.raises(LocalProtocolError):
        replace(NEW.header, digest_algorithm=-44, digest=bytes(64))


def facts(build: Build) -> tuple[ComponentFacts, ...]:
    return tuple(
        ComponentFacts(part.id, part.digest_algorithm, part.digest, part.size, f"#{part.id}")
        for part in build.header.parts
    )


def test_a_header_is_of_exactly_the_images_of_its_release() -> None:
    good = facts(NEW)
    assert parts_of(good) == NEW.header.parts
    assert NEW.header.is_of(good)
    first, second = good
    for other in (
        (second, first),
        (first,),
        (first, first),
        (first, second, replace(second, id="more")),
        (first, replace(second, digest=first.digest)),
        (first, replace(second, id="radio")),
        (replace(first, size=first.size - 1), replace(second, size=second.size + 1)),
    ):
        assert not NEW.header.is_of(other)
    single = make_build("1.0.0", 1, 100).header
    only = ComponentFacts("application", -16, single.digest, 100, "#application")
    assert single.is_of((only,))
    assert not single.is_of(good)
    assert not single.is_of((replace(only, size=101),))
    assert not NEW.header.is_of((replace(only, digest=NEW.header.digest, size=NEW.header.size),))


def flashed(image: bytes) -> Slots:
    backend = MemoryBackend(SMALL.flash.size)
    backend.data[SMALL.primary.image : SMALL.primary.image + len(image)] = image
    return Slots(FlashMemory(SMALL.flash, backend), SMALL)


@pytest.mark.parametrize("bit", [0, 1099 * 8 + 7, 1100 * 8, 1529 * 8 + 7])
def test_a_flipped_bit_in_any_component_is_found(bit: int) -> None:
    assert flashed(NEW.image).holds(SMALL.primary, NEW.header)
    image = bytearray(NEW.image)
    image[bit // 8] ^= 1 << bit % 8
    assert not flashed(bytes(image)).holds(SMALL.primary, NEW.header)


def test_every_component_has_to_match_and_the_whole_too() -> None:
    """Neither the digest of the whole nor those of the components alone make an image run."""
    first, second = NEW.header.parts
    store = flashed(NEW.image)
    for header in (
        replace(NEW.header, digest=bytes(32)),
        replace(NEW.header, parts=(first, replace(second, digest=first.digest))),
        replace(NEW.header, parts=(replace(first, digest=second.digest), second)),
        replace(NEW.header, parts=(replace(first, size=first.size + 1), replace(second, size=second.size - 1))),
    ):
        assert not store.holds(SMALL.primary, header)
    image = NEW.image[first.size :] + NEW.image[: first.size]
    assert not flashed(image).holds(SMALL.primary, NEW.header)


# power, and what is found at boot


def check_whole(rig: Rig) -> Build:
    """Boots until the device rests; both components are the old ones, or both the new ones."""
    rig.power = Power()
    for _ in range(3):
        result = rig.boot()
        running = next(build for build in (OLD, NEW) if build.header == result.header)
        assert rig.image().startswith(running.image)
    assert result.state is BootState.CONFIRMED
    return running


def update(rig: Rig, *, confirm: bool) -> None:
    rig.boot()
    rig.trial(NEW, confirm=confirm)
    rig.boot()


def cut_everywhere(*, confirm: bool, every_how: bool) -> set[str]:
    rig = with_running(OLD)
    state = rig.snapshot()
    seen = set()
    rig.restore(state)
    update(rig, confirm=confirm)
    steps = rig.power.count
    assert steps > 150
    for cut_at in range(1, steps + 1):
        for how in HOWS if every_how else (HOWS[cut_at % len(HOWS)],):
            rig.restore(state, Power(cut_at, how))
            with pytest.raises(PowerCut):
                update(rig, confirm=confirm)
            middle = rig.counters
            seen.add(check_whole(rig).name)
            check_no_regression(middle, rig.counters)
    return seen


@pytest.mark.parametrize("confirm", [True, False], ids=["confirm", "revert"])
def test_both_components_change_together_wherever_the_power_goes(confirm: bool) -> None:
    assert cut_everywhere(confirm=confirm, every_how=False) == ({"1.0.0", "1.1.0"} if confirm else {"1.0.0"})


@pytest.mark.slow
@pytest.mark.parametrize("confirm", [True, False], ids=["confirm", "revert"])
def test_both_components_change_together_whatever_the_cut_leaves(confirm: bool) -> None:
    cut_everywhere(confirm=confirm, every_how=True)


@pytest.mark.parametrize("at", [0, 1099, 1100, 1529])
def test_one_component_damaged_in_flash_takes_both_back(at: int) -> None:
    rig = with_running(OLD)
    rig.trial(NEW)
    rig.flip(SMALL.primary.image + at, 5)
    result = rig.boot()
    assert (result.header, result.state) == (OLD.header, BootState.FALLBACK)
    assert rig.image().startswith(OLD.image)
    assert rig.boot().header == OLD.header


@pytest.mark.parametrize("at", [0, 1529])
def test_one_component_damaged_before_the_swap_leaves_both_as_they_were(at: int) -> None:
    rig = with_running(OLD)
    rig.download(NEW)
    rig.flip(SMALL.secondary.image + at, 5)
    result = rig.boot()
    assert (result.header, result.state) == (OLD.header, BootState.CONFIRMED)
    assert rig.image().startswith(OLD.image)


@pytest.mark.parametrize("at", [0, 1529])
def test_one_component_damaged_in_its_trial_takes_both_back(at: int) -> None:
    rig = with_running(OLD)
    rig.trial(NEW, confirm=False)
    rig.flip(SMALL.primary.image + at, 5)
    assert not rig.boot_loader.self_test(lambda: True)
    result = rig.boot()
    assert (result.header, result.state) == (OLD.header, BootState.REVERTED)


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (1, 1), (0,), (1,)])
def test_components_in_another_order_doubled_or_missing_are_not_committed(order: tuple[int, ...]) -> None:
    rig = with_running(OLD)
    cuts = (NEW.image[:1100], NEW.image[1100:])
    image = b"".join(cuts[index] for index in order)[: len(NEW.image)]
    loader = rig.boot_loader
    loader.prepare(NEW.header.manifest_digest, len(NEW.image), 0)
    loader.write(0, image)
    with pytest.raises(Refused) as caught:
        loader.finish(NEW.header, NEW.envelope)
    assert caught.value.code == ("image.digest" if len(image) == len(NEW.image) else "image.size")
    assert rig.boot().header == OLD.header


# models


def test_the_programmer_has_two_components_and_the_pump_one() -> None:
    assert load_model("pacemaker-programmer").facts.components == NAMES
    assert load_model("insulin-pump").facts.components == NAMES[:1]


@pytest.mark.parametrize(
    "listed",
    [
        "[]",
        '["a", "a"]',
        '["a", "b", "c", "d", "e"]',
        '["A"]',
        '["a b"]',
        '[""]',
        '["' + "a" * 33 + '"]',
        '["a"]\nfixed = ["a"]',
        '["a"]\nfixed = ["B"]',
    ],
)
def test_component_names_of_a_model_are_few_plain_and_different(listed: str) -> None:
    from importlib import resources

    text = resources.files("devguard.device.models").joinpath("insulin-pump.toml").read_text(encoding="utf-8")
    assert parse_model("x", text.replace('["application"]', '["a"]\nfixed = ["radio"]')).facts.fixed == ("radio",)
    with pytest.raises(Malformed, match="component"):
        parse_model("x", text.replace('["application"]', listed))
