"""Writing an update: order, sizes, digest, resumption by manifest, and the erase budget that a reset cannot renew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.device.flash import Operation
from devguard.device.layout import Mark
from devguard.errors import LocalProtocolError, Refused
from device_support import NOW, SMALL, Rig, make_build, with_running

OLD = make_build("1.0.0", 1, 700)
NEW = make_build("1.1.0", 2, 1001)


def code_of(call) -> str:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.code


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8))
def test_any_chunks_give_the_same_slot(chunks: list[int]) -> None:
    rig = Rig()
    rig.boot()
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, len(NEW.image), NOW) == 0
    at = 0
    while at < len(NEW.image):
        size = chunks[at % len(chunks)]
        rig.boot_loader.write(at, NEW.image[at : at + size])
        at += len(NEW.image[at : at + size])
    assert rig.boot_loader.durable_offset() == len(NEW.image)
    rig.boot_loader.finish(NEW.header, NEW.envelope)
    assert rig.image("secondary").startswith(NEW.image)
    assert set(rig.image("secondary")[len(NEW.image) :]) == {0xFF}


def test_bytes_out_of_order_or_past_the_end_are_refused() -> None:
    rig = with_running(OLD)
    loader = rig.boot_loader
    assert code_of(lambda: loader.write(0, b"x")) == "session.order"
    loader.prepare(NEW.header.manifest_digest, 1001, NOW)
    loader.write(0, NEW.image[:100])
    assert code_of(lambda: loader.write(0, NEW.image[:100])) == "session.order"
    assert code_of(lambda: loader.write(101, b"x")) == "session.order"
    assert code_of(lambda: loader.write(1 << 63, b"x")) == "session.order"
    assert code_of(lambda: loader.write(100, bytes(902))) == "image.size"
    assert code_of(lambda: loader.finish(NEW.header, NEW.envelope)) == "image.size"
    assert code_of(loader.mark_pending) == "session.order"
    loader.write(100, NEW.image[100:])
    loader.finish(NEW.header, NEW.envelope)


@pytest.mark.parametrize("size", [0, -1, SMALL.image_capacity + 1, 2**32 - 1, 2**63])
def test_sizes_that_cannot_be(size: int) -> None:
    rig = with_running(OLD)
    state = rig.snapshot()
    assert code_of(lambda: rig.boot_loader.prepare(bytes(32), size, NOW)) in ("image.size", "device.slot")
    assert rig.snapshot() == state


def test_a_slot_that_is_not_the_signed_image_is_marked_bad_and_never_boots() -> None:
    rig = with_running(OLD)
    loader = rig.boot_loader
    loader.prepare(NEW.header.manifest_digest, 1001, NOW)
    loader.write(0, NEW.image[:-1] + bytes([NEW.image[-1] ^ 1]))
    assert code_of(lambda: loader.finish(NEW.header, NEW.envelope)) == "image.digest"
    assert loader.slots.header(SMALL.secondary) is None
    assert loader.slots.marked(SMALL.secondary, Mark.BAD)
    assert code_of(loader.mark_pending) == "session.order"
    assert rig.counters.download is None
    assert rig.boot().header == OLD.header


def test_a_header_for_another_release_or_envelope_is_our_own_mistake() -> None:
    rig = with_running(OLD)
    loader = rig.boot_loader
    loader.prepare(NEW.header.manifest_digest, 1001, NOW)
    loader.write(0, NEW.image)
    for header, envelope in ((OLD.header, OLD.envelope), (NEW.header, NEW.envelope + b"x")):
        with pytest.raises(LocalProtocolError):
            loader.finish(header, envelope)


def test_an_envelope_that_does_not_fit_is_refused() -> None:
    rig = with_running(OLD)
    big = make_build("1.1.0", 2, 1001)
    envelope = bytes(SMALL.envelope_size + 1)
    header = type(big.header).of(
        **{name: getattr(big.header, name) for name in ("size", "digest_algorithm", "digest", "manifest_digest")},
        sequence=2, security_version=0, version="1.1.0", envelope=envelope,
    )  # fmt: skip
    rig.boot_loader.prepare(header.manifest_digest, 1001, NOW)
    rig.boot_loader.write(0, big.image)
    assert code_of(lambda: rig.boot_loader.finish(header, envelope)) == "device.slot"


def test_a_paused_download_continues_at_whole_pages() -> None:
    rig = with_running(OLD)
    rig.boot_loader.prepare(NEW.header.manifest_digest, 1001, NOW)
    rig.boot_loader.write(0, NEW.image[:500])
    rig.boot_loader.pause()
    assert rig.boot_loader.durable_offset() == 448
    rig.boot()
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, 1001, NOW) == 448
    rig.boot_loader.write(448, NEW.image[448:])
    rig.boot_loader.finish(NEW.header, NEW.envelope)
    assert len(rig.counters.erase_times) == 1


@pytest.mark.parametrize(("digest", "size"), [(b"\x01" * 32, 1001), (NEW.header.manifest_digest, 1002)])
def test_only_the_same_manifest_and_size_continue(digest: bytes, size: int) -> None:
    rig = with_running(OLD)
    rig.boot_loader.prepare(NEW.header.manifest_digest, 1001, NOW)
    rig.boot_loader.write(0, NEW.image[:500])
    rig.boot_loader.pause()
    rig.boot()
    assert rig.boot_loader.prepare(digest, size, NOW) == 0
    assert rig.boot_loader.slots.flash.is_blank(SMALL.secondary.image, SMALL.image_capacity)


def test_another_payload_under_the_same_manifest_is_refused_on_resumption() -> None:
    rig = with_running(OLD)
    rig.boot_loader.prepare(NEW.header.manifest_digest, 1001, NOW)
    rig.boot_loader.write(0, NEW.image[:256])
    rig.boot()
    assert rig.boot_loader.prepare(NEW.header.manifest_digest, 1001, NOW) == 0
    assert code_of(lambda: rig.boot_loader.write(0, bytes(b ^ 0xFF for b in NEW.image[:64]))) == "image.digest"
    assert rig.counters.download is None


def test_the_erase_budget_outlives_a_reset_and_names_the_wait() -> None:
    rig = with_running(OLD)
    for number in range(3):
        rig.boot()
        rig.boot_loader.prepare(bytes([number]) * 32, 100, NOW + 10 * number)
    rig.boot()
    with pytest.raises(Refused, match="wait 3570 s") as refused:
        rig.boot_loader.prepare(bytes([9]) * 32, 100, NOW + 30)
    assert refused.value.code == "device.busy"
    rig.boot()
    assert code_of(lambda: rig.boot_loader.prepare(bytes([9]) * 32, 100, NOW + 3599)) == "device.busy"
    assert rig.boot_loader.prepare(bytes([9]) * 32, 100, NOW + 3600) == 0
    assert code_of(lambda: rig.boot_loader.prepare(bytes([8]) * 32, 100, NOW + 3601)) == "device.busy"


def test_a_clock_set_back_buys_no_erasures_and_costs_an_hour_at_most() -> None:
    rig = with_running(OLD)
    for number in range(3):
        rig.boot_loader.prepare(bytes([number]) * 32, 100, NOW)
    assert code_of(lambda: rig.boot_loader.prepare(bytes(32), 100, 50)) == "device.busy"
    assert code_of(lambda: rig.boot_loader.prepare(bytes(32), 101, 3000)) == "device.busy"
    assert rig.boot_loader.prepare(bytes(32), 101, 3650) == 0


def test_the_header_goes_first_and_comes_last() -> None:
    rig = with_running(OLD)
    rig.trial(NEW)
    seen = []

    def fault(operation: Operation, address: int, length: int) -> None:
        if address < SMALL.scratch:
            seen.append((operation, address // 512 * 512))

    rig.boot_loader.slots.flash.fault = fault
    header, trailer = SMALL.secondary.header, SMALL.secondary.trailer
    rig.download(make_build("1.2.0", 3, 900))
    assert seen[0] == (Operation.ERASE, header)
    assert seen[-1] == (Operation.PROGRAM, trailer)
    programmed = [address for operation, address in seen if operation is Operation.PROGRAM and address != trailer]
    assert programmed[-1] == header
    assert programmed.index(header) > programmed.index(SMALL.secondary.envelope)


def test_a_refused_preparation_changes_no_flash() -> None:
    rig = with_running(OLD)
    for number in range(3):
        rig.boot_loader.prepare(bytes([number]) * 32, 100, NOW)
    before = bytes(rig.backend.data)
    assert code_of(lambda: rig.boot_loader.prepare(bytes([9]) * 32, 100, NOW)) == "device.busy"
    assert bytes(rig.backend.data) == before
