"""Slot header, marks and journal entries: round trips, and anything torn or foreign reads as nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.device.flash import FlashMemory, MemoryBackend
from devguard.device.header import MAGIC, SlotHeader, decode_block, encode_block
from devguard.device.journal import Journal, SwapKind
from devguard.device.layout import Layout, Mark
from devguard.device.slots import Slots
from devguard.errors import LocalProtocolError, Refused
from device_support import SMALL, make_build

BUILD = make_build("1.2.3", 7, 900)


def slots() -> Slots:
    return Slots(FlashMemory(SMALL.flash, MemoryBackend(SMALL.flash.size)), SMALL)


headers = st.builds(
    SlotHeader,
    size=st.integers(1, 2**32 - 1),
    digest_algorithm=st.just(-16),
    digest=st.binary(min_size=32, max_size=32),
    manifest_digest=st.binary(min_size=32, max_size=32),
    sequence=st.integers(0, 2**64 - 1),
    security_version=st.integers(0, 2**31 - 1),
    version=st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=64),
    envelope_size=st.integers(0, 2**32 - 1),
    envelope_digest=st.binary(min_size=32, max_size=32),
)


@given(headers)
def test_header_round_trip(header: SlotHeader) -> None:
    block = encode_block(MAGIC, header.to_list(), 4)
    assert SlotHeader.from_list(decode_block(MAGIC, block)) == header


def test_a_header_written_to_a_slot_reads_back_and_an_erased_slot_has_none() -> None:
    store = slots()
    assert store.header(SMALL.primary) is None
    store.write_header(SMALL.primary, BUILD.header)
    assert store.header(SMALL.primary) == BUILD.header
    assert store.header(SMALL.secondary) is None


def test_every_truncation_and_flip_of_a_header_reads_as_none() -> None:
    block = encode_block(MAGIC, BUILD.header.to_list(), 1)
    for length in range(len(block)):
        assert decode_block(MAGIC, block[:length]) is None
        assert decode_block(MAGIC, block[:length] + b"\xff" * (512 - length)) is None
        for bit in range(8):
            flipped = bytearray(block)
            flipped[length] ^= 1 << bit
            assert decode_block(MAGIC, bytes(flipped)) is None


@given(st.binary(max_size=600))
def test_garbage_is_no_header(data: bytes) -> None:
    assert decode_block(MAGIC, MAGIC + data) is None or len(data) > 5


PARTS = BUILD.header.to_list()


@pytest.mark.parametrize(
    "value",
    [None, [], [1] * 9, {}, [0, *PARTS[1:]], [True, *PARTS[1:]], [PARTS[0], -99, *PARTS[2:]],
     [*PARTS[:6], "line\nbreak", *PARTS[7:]]],
)  # fmt: skip
def test_a_header_of_the_wrong_shape_is_refused(value: object) -> None:
    with pytest.raises(Refused) as refused:
        SlotHeader.from_list(value)
    assert refused.value.code == "device.state"


def test_a_header_whose_image_cannot_fit_does_not_count() -> None:
    store = slots()
    store.write_header(SMALL.primary, replace(BUILD.header, size=SMALL.image_capacity + 1))
    assert store.header(SMALL.primary) is None


def test_headers_outside_their_limits_cannot_be_made() -> None:
    for change in (
        {"size": 0},
        {"size": 1 << 32},
        {"digest": b""},
        {"security_version": 1 << 31},
        {"version": "x" * 65},
    ):
        with pytest.raises(LocalProtocolError):
            replace(BUILD.header, **change)
    with pytest.raises(Refused):
        replace(BUILD.header, digest_algorithm=-18)


def test_marks_are_independent_and_a_torn_one_is_not_set() -> None:
    store = slots()
    place = SMALL.secondary
    for mark in (Mark.CONFIRMED, Mark.PENDING):
        store.mark(place, mark)
        store.mark(place, mark)
    assert [store.marked(place, mark) for mark in Mark] == [True, False, True, False]
    store.flash.program(place.trailer + Mark.BAD * 4, b"\x00\x00\x00\x01")
    assert not store.marked(place, Mark.BAD)
    store.mark(place, Mark.BAD)
    assert store.marked(place, Mark.BAD)
    store.mark(place, Mark.TRIAL, 0)
    store.mark(place, Mark.TRIAL, 1)
    assert store.trials(place) == 2


def test_the_digest_covers_exactly_the_image() -> None:
    store = slots()
    for at in range(0, 900, 64):
        page = BUILD.image[at : at + 64]
        store.flash.program(SMALL.primary.image + at, page + b"\xff" * (-len(page) % 4))
    assert store.holds(SMALL.primary, BUILD.header)
    assert not store.holds(SMALL.secondary, BUILD.header)
    store.flash.program(SMALL.primary.image + 900, bytes(4))
    assert store.holds(SMALL.primary, BUILD.header)
    assert not store.holds(SMALL.primary, replace(BUILD.header, size=901))


def test_the_journal_takes_turns_and_keeps_its_marks() -> None:
    backend = MemoryBackend(SMALL.flash.size)
    chip = FlashMemory(SMALL.flash, backend)
    journal = Journal(chip, SMALL)
    assert journal.latest() is None
    first = journal.begin(SwapKind.INSTALL, 900, 100, b"\x01" * 32, b"")
    journal.mark(first, 2, 1)
    assert journal.latest() == first
    assert [journal.done(first, 2, step) for step in range(3)] == [False, True, False]
    assert journal.is_open(first)
    journal.close(first)
    assert not Journal(chip, SMALL).is_open(first)
    second = journal.begin(SwapKind.REVERT, 900, 100, b"", b"\x01" * 32)
    assert (second.generation, journal.latest()) == (2, second)
    assert journal.is_open(second)
    backend.data[SMALL.journal[0] : SMALL.journal[0] + 512] = b"\xff" * 512
    assert journal.latest() == first


def test_a_journal_entry_moved_to_the_other_sector_does_not_count() -> None:
    backend = MemoryBackend(SMALL.flash.size)
    journal = Journal(FlashMemory(SMALL.flash, backend), SMALL)
    entry = journal.begin(SwapKind.INSTALL, 900, 100, b"\x01" * 32, b"")
    home = SMALL.journal[entry.generation % 2]
    other = SMALL.journal[(entry.generation + 1) % 2]
    backend.data[other : other + 512] = backend.data[home : home + 512]
    backend.data[home : home + 512] = b"\xff" * 512
    assert journal.latest() is None


def test_layouts_that_cannot_work_are_refused() -> None:
    for sizes in ((6 * 512, 512, 64, 4, 500), (3 * 512, 512, 64, 4, 512), (6 * 512 + 1, 512, 64, 4, 512)):
        with pytest.raises(LocalProtocolError):
            Layout(*sizes)
    wide = Layout(40 * 512, 512, 64, 4, 512)
    with pytest.raises(LocalProtocolError):
        Journal(FlashMemory(wide.flash, MemoryBackend(wide.flash.size)), wide)
