"""Decoding a patch. Invariant: what comes out is what `detools` itself makes of it, or one refusal in bounded time and
memory; nothing outside the running image is read, and no byte more than the image is given."""

from __future__ import annotations

import contextlib
import io
import lzma
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.device.rebuild import DICTIONARY, PIECE, rebuild
from devguard.errors import Refused
from devguard.image.delta import _number, compress, make_patch

detools = pytest.importorskip("detools", reason="the extra `delta` is not installed")

OLD = random.Random(1).randbytes(9000)
NEW = OLD[:3000] + b"new words" + OLD[2500:8000] + bytes(700)


def number(value: int) -> bytes:
    data = bytearray(_number(abs(value)))
    if value < 0:
        data[0] |= 0x40
    return bytes(data)


def packed(body: bytes, size: int, *, head: bytes = b"\x01", dictionary: int = 4096) -> bytes:
    """A patch with that body, however wrong it is."""
    chain = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary}
    return head + number(size) + lzma.compress(body, lzma.FORMAT_ALONE, filters=[chain])


def step(add: bytes = b"", plain: bytes = b"", move: int = 0) -> bytes:
    return number(len(add)) + add + number(len(plain)) + plain + number(move)


def decode(patch: bytes, old: bytes, size: int) -> bytes:
    """The image; fails when the decoder asks for bytes that are not there or gives a piece that is too large."""

    def reader(data: bytes):
        def read(offset: int, length: int) -> bytes:
            assert offset >= 0
            assert 0 < length <= PIECE
            assert offset + length <= len(data)
            return data[offset : offset + length]

        return read

    image = bytearray()
    for piece in rebuild(reader(patch), len(patch), reader(old), len(old), size):
        assert 0 < len(piece) <= PIECE
        image += piece
        assert len(image) <= size
    return bytes(image)


def refused(patch: bytes, old: bytes = OLD, size: int = len(NEW)) -> str:
    with pytest.raises(Refused) as error:
        decode(patch, old, size)
    assert error.value.code == "device.transfer"
    return error.value.message


def theirs(patch: bytes, old: bytes) -> bytes:
    out = io.BytesIO()
    detools.apply_patch(io.BytesIO(old), io.BytesIO(patch), out)
    return out.getvalue()


images = st.builds(
    lambda seed, cuts: b"".join(random.Random(seed).randbytes(5000)[start : start + size] for start, size in cuts),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 4900), st.integers(1, 900)), min_size=1, max_size=6),
)


@given(images, images)
def test_a_patch_gives_what_detools_makes_of_it(old: bytes, new: bytes) -> None:
    patch = make_patch(old, new)
    assert decode(patch, old, len(new)) == theirs(patch, old) == new


@given(st.binary(min_size=1, max_size=20_000))
def test_a_compressed_image_is_a_patch_against_nothing(image: bytes) -> None:
    form = compress(image)
    assert decode(form, b"", len(image)) == theirs(form, b"") == image


steps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(-60, 60)), min_size=1, max_size=12)


@given(steps, st.randoms(use_true_random=False))
def test_any_steps_give_what_detools_makes_of_them_or_refuse(plan: list, source: random.Random) -> None:
    """Where detools reads past the running image, or from before it, it fails in ways of its own; we refuse."""
    old = source.randbytes(100)
    body = b"\x00" + b"".join(step(source.randbytes(a), source.randbytes(b), move) for a, b, move in plan)
    size = sum(a + b for a, b, _ in plan)
    patch = packed(body, size)
    position, inside = 0, size > 0
    for add, _, move in plan:
        inside = inside and (add == 0 or 0 <= position <= len(old) - add)
        position += add + move
    ends = len(plan) == 1 or any(plan[-1][:2])
    if inside and ends:
        image = decode(patch, old, size)
        if min(position for position in _positions(plan)) >= 0:
            assert image == theirs(patch, old)
    else:
        refused(patch, old, size)


def _positions(plan: list) -> list[int]:
    found = [0]
    for add, _, move in plan:
        found.append(found[-1] + add + move)
    return found


def test_truncated_at_every_byte() -> None:
    patch = make_patch(OLD, NEW)
    for length in range(len(patch)):
        refused(patch[:length])


def test_every_flipped_bit_is_refused_or_gives_an_image_of_the_size() -> None:
    patch = make_patch(OLD, NEW)
    for bit in range(0, 8 * len(patch), 3):
        damaged = bytearray(patch)
        damaged[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(Refused):
            assert len(decode(bytes(damaged), OLD, len(NEW))) == len(NEW)


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    refused(data)
    refused(b"\x01" + number(len(NEW)) + data)
    refused(packed(data, len(NEW)))


def test_only_this_form_is_taken() -> None:
    for head in (b"\x00", b"\x11", b"\x21", b"\x02", b"\x05", b"\x81", b"\xff"):
        assert "form" in refused(packed(b"\x00" + step(plain=NEW), len(NEW), head=head))
    for kind in ("heatshrink", "bz2", "none", "crle"):
        out = io.BytesIO()
        detools.create_patch(io.BytesIO(OLD), io.BytesIO(NEW), out, compression=kind, use_mmap=False)
        refused(out.getvalue())
    out = io.BytesIO()
    detools.create_patch(
        io.BytesIO(OLD), io.BytesIO(NEW), out, patch_type="hdiffpatch", algorithm="hdiffpatch", use_mmap=False
    )
    refused(out.getvalue())
    assert "data format" in refused(packed(number(5) + b"\x00" + bytes(5) + step(plain=NEW), len(NEW)))
    xz = b"\x01" + number(len(NEW)) + lzma.compress(b"\x00" + step(plain=NEW))
    refused(xz)


def test_the_size_it_names_is_the_release_s() -> None:
    for size in (len(NEW) - 1, len(NEW) + 1, 0, 2**32 - 1):
        assert "bytes" in refused(packed(b"\x00" + step(plain=NEW), size))
    assert "bytes" in refused(packed(b"\x00" + step(plain=NEW), -len(NEW)))


def test_a_dictionary_that_the_device_does_not_have_is_refused_before_anything_is_decoded() -> None:
    out = io.BytesIO()
    detools.create_patch(io.BytesIO(OLD), io.BytesIO(NEW), out, compression="lzma", use_mmap=False)
    assert "dictionary" in refused(out.getvalue())  # eight mebibytes are its maker's default
    good = bytearray(packed(b"\x00" + step(plain=NEW), len(NEW)))
    at = 1 + len(number(len(NEW))) + 1
    for size in (DICTIONARY + 1, 1 << 30, (1 << 32) - 1):
        good[at : at + 4] = size.to_bytes(4, "little")
        assert "dictionary" in refused(bytes(good))
    good[at : at + 4] = DICTIONARY.to_bytes(4, "little")
    assert decode(bytes(good), OLD, len(NEW)) == NEW
    good[at + 4 : at + 12] = len(NEW).to_bytes(8, "little")  # a known size, as other encoders write it
    refused(bytes(good))


@pytest.mark.parametrize("left", [51, 2**32 - 1, 2**33, -1, -(2**31)])
def test_more_than_the_image_is_refused(left: int) -> None:
    for begun in (b"", step(plain=bytes(50))):
        count = left if begun or left < 0 else left + 50
        for body in (number(count), number(0) + number(count)):
            patch = packed(b"\x00" + begun + body + bytes(300), 100)
            assert "more than the image" in refused(patch, OLD, 100)


@pytest.mark.parametrize("move", [-1, -(2**33), 9001, 2**33])
def test_nothing_outside_the_running_image_is_read(move: int) -> None:
    assert "outside" in refused(packed(b"\x00" + step(plain=b"x", move=move) + step(add=b"y"), 2), OLD, 2)
    assert decode(packed(b"\x00" + step(plain=b"x", move=move) + step(plain=b"y"), 2), OLD, 2) == b"xy"
    assert "outside" in refused(packed(b"\x00" + step(add=bytes(9001)), 9001), OLD, 9001)
    assert "outside" in refused(packed(b"\x00" + step(add=b"x"), 1), b"", 1)


def test_a_number_without_an_end_is_refused() -> None:
    for endless in (b"\xff" * 6, b"\x80" * 5000, b"\xc0" + b"\x80" * 5):
        assert "number" in refused(packed(b"\x00" + endless, 10), OLD, 10)
        assert "number" in refused(b"\x01" + endless, OLD, 10)


def test_steps_that_lead_nowhere_end() -> None:
    body = b"\x00" + bytes(3) * 4_000_000 + step(plain=b"x")  # some kilobytes of LZMA
    patch = packed(body, 1)
    assert len(patch) < 8000
    assert "too many steps" in refused(patch, OLD, 1)


def test_what_follows_the_image_is_refused() -> None:
    good = b"\x00" + step(plain=NEW)
    assert "follow" in refused(packed(good + b"\x00", len(NEW)))
    assert "follow" in refused(packed(good + bytes(5_000_000), len(NEW)))
    assert "follow" in refused(packed(good, len(NEW)) + b"\x00")
    image = bytes(3 * PIECE - 6)  # with it the last decoded piece is full, and what follows is in the next one
    whole = b"\x00" + step(plain=image)
    assert len(whole) == 3 * PIECE
    assert decode(packed(whole, len(image)), OLD, len(image)) == image
    assert "follow" in refused(packed(whole + b"\x00", len(image)), OLD, len(image))
    refused(packed(good, len(NEW))[:-5])


def test_memory_is_bounded_whatever_the_patch_unpacks_to() -> None:
    size = 8 * 1024 * 1024
    patch = packed(b"\x00" + step(plain=bytes(size)), size, dictionary=DICTIONARY)
    assert len(patch) < 8000

    def read(offset: int, length: int) -> bytes:
        return patch[offset : offset + length]

    tracemalloc.start()
    given_out = sum(map(len, rebuild(read, len(patch), read, 0, size)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert given_out == size
    assert peak < DICTIONARY + 256 * 1024
