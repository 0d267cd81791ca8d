"""Flash rules: erase sets, program clears, sectors and pages bind, a torn operation changes what it reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.device.flash import FlashGeometry, FlashMemory, MemoryBackend, Operation, PowerCut, Tear
from devguard.errors import LocalProtocolError, Refused
from device_support import SMALL

GEOMETRY = FlashGeometry(4096, 512, 64, 4)


def flash(fault=None) -> FlashMemory:
    return FlashMemory(GEOMETRY, MemoryBackend(4096), fault)


def test_erase_sets_a_sector_and_counts_its_wear() -> None:
    chip = flash()
    chip.program(512, bytes(64))
    chip.erase(512)
    assert chip.read(512, 512) == b"\xff" * 512
    assert chip.is_blank(0, 4096)
    assert chip.wear == [0, 1, 0, 0, 0, 0, 0, 0]


def test_program_only_clears_bits() -> None:
    chip = flash()
    chip.program(0, b"\xf0\x0f\xff\xff")
    chip.program(0, b"\x10\x0f\xff\xff")
    with pytest.raises(Refused) as refused:
        chip.program(0, b"\x30\x0f\xff\xff")
    assert refused.value.code == "device.state"
    assert chip.read(0, 4) == b"\x10\x0f\xff\xff"
    assert not chip.is_blank(0, 512)


@pytest.mark.parametrize(("offset", "length"), [(2, 4), (0, 3), (0, 0), (60, 8), (0, 68)])
def test_program_keeps_to_write_units_and_pages(offset: int, length: int) -> None:
    with pytest.raises(Refused):
        flash().program(offset, bytes(length))


@pytest.mark.parametrize(("offset", "length"), [(-4, 4), (4096, 4), (4094, 4), (0, 1 << 63), (1 << 63, 1)])
def test_nothing_leaves_the_flash(offset: int, length: int) -> None:
    chip = flash()
    with pytest.raises(LocalProtocolError):
        chip.read(offset, length)
    if length < 4096:
        with pytest.raises(LocalProtocolError):
            chip.program(offset, bytes(length))
    with pytest.raises((LocalProtocolError, Refused)):
        chip.erase(offset or 4096)


def test_erase_starts_at_a_sector() -> None:
    with pytest.raises(Refused):
        flash().erase(64)


def test_the_hook_sees_every_change_before_it_happens() -> None:
    seen = []

    def fault(operation: Operation, address: int, length: int) -> None:
        seen.append((operation, address, length, chip.read(address, 4)))

    chip = flash(fault)
    chip.program(512, b"\x00\x01\x02\x03")
    chip.erase(512)
    assert seen == [
        (Operation.PROGRAM, 512, 4, b"\xff" * 4),
        (Operation.ERASE, 512, 512, b"\x00\x01\x02\x03"),
    ]


def test_after_a_cut_the_chip_is_off() -> None:
    def fault(operation: Operation, address: int, length: int) -> None:
        raise PowerCut("cut")

    chip = flash(fault)
    with pytest.raises(PowerCut):
        chip.program(0, bytes(4))
    chip.fault = None
    for call in (lambda: chip.program(0, bytes(4)), lambda: chip.erase(0), chip.sync):
        with pytest.raises(PowerCut):
            call()
    assert chip.is_blank(0, 4096)


@given(done=st.integers(0, 80), mask=st.integers(0, 255), data=st.binary(min_size=64, max_size=64))
def test_a_torn_program_is_a_mix_that_a_second_try_completes(done: int, mask: int, data: bytes) -> None:
    backend = MemoryBackend(4096)
    chip = FlashMemory(GEOMETRY, backend, lambda *_: Tear(done, mask))
    with pytest.raises(PowerCut):
        chip.program(128, data)
    assert backend.read(128, min(done, 64)) == data[:done]
    assert backend.read(128 + min(done, 64) + 4, 60) == b"\xff" * 60
    again = FlashMemory(GEOMETRY, backend)
    again.program(128, data)
    assert again.read(128, 64) == data


def test_a_torn_erase_leaves_the_rest() -> None:
    backend = MemoryBackend(4096)
    FlashMemory(GEOMETRY, backend).program(64, bytes(64))
    with pytest.raises(PowerCut):
        FlashMemory(GEOMETRY, backend, lambda *_: Tear(96, 0x0F)).erase(0)
    assert backend.read(64, 64) == b"\xff" * 32 + b"\x0f" * 4 + bytes(28)


def test_sizes_must_divide_one_another() -> None:
    for sizes in ((4096, 512, 60, 4), (4096, 500, 64, 4), (4000, 512, 64, 4), (4096, 512, 64, 0)):
        with pytest.raises(LocalProtocolError):
            FlashGeometry(*sizes)
    with pytest.raises(Refused):
        FlashMemory(GEOMETRY, MemoryBackend(4095))


def test_the_layout_places_nothing_on_top_of_anything() -> None:
    primary, secondary = SMALL.primary, SMALL.secondary
    edges = [primary.header, primary.image, primary.envelope, primary.trailer, secondary.header, secondary.image]
    edges += [secondary.envelope, secondary.trailer, SMALL.scratch, *SMALL.journal, SMALL.flash.size]
    assert edges == sorted(set(edges))
    assert list(primary.sectors(SMALL.image_capacity, 512)) == list(range(0, SMALL.slot_size, 512))
    assert list(primary.sectors(1, 0)) == [0, 512, SMALL.slot_size - 512]
