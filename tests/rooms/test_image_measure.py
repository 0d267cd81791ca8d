"""Measuring streams: right digests, exact sizes, one buffer, coded errors."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import Malformed, Refused
from devguard.image.measure import BUFFER_SIZE, measure


@pytest.mark.parametrize(("algorithm", "name"), [(-16, "sha256"), (-43, "sha384"), (-44, "sha512")])
def test_digests_agree_with_hashlib(algorithm: int, name: str) -> None:
    data = bytes(range(256)) * (BUFFER_SIZE // 256 + 3)
    measured = measure(io.BytesIO(data), algorithm=algorithm)
    assert (measured.digest, measured.size) == (hashlib.new(name, data).digest(), len(data))


@given(data=st.binary(max_size=300), start=st.integers(0, 300), size=st.integers(0, 300))
def test_reads_exactly_what_was_asked_from_the_position(data: bytes, start: int, size: int) -> None:
    reader = io.BytesIO(data)
    reader.seek(start)
    if len(data[start:]) < size:
        with pytest.raises(Refused) as caught:
            measure(reader, size)
        assert caught.value.code == "image.size"
    else:
        measured = measure(reader, size)
        assert measured.digest == hashlib.sha256(data[start : start + size]).digest()
        assert measured.size == size
        assert reader.tell() == start + size


def test_a_reader_without_readinto_works() -> None:
    class Plain:
        def __init__(self) -> None:
            self.inner = io.BytesIO(b"firmware")

        def read(self, size: int) -> bytes:
            return self.inner.read(min(size, 3))

    assert measure(Plain()).digest == hashlib.sha256(b"firmware").digest()  # type: ignore[arg-type]  # a plain object


def test_unknown_hash_and_negative_size_and_failing_disk() -> None:
    with pytest.raises(Malformed, match="-99"):
        measure(io.BytesIO(b""), algorithm=-99)
    with pytest.raises(Refused):
        measure(io.BytesIO(b""), -1)

    class Broken(io.RawIOBase):
        def readinto(self, _buffer: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(Refused) as caught:
        measure(Broken())  # type: ignore[arg-type]  # a raw reader serves as well
    assert caught.value.code == "file.unreadable"


def test_memory_stays_at_one_buffer() -> None:
    class Zeros(io.RawIOBase):
        left = 64 * BUFFER_SIZE

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # narrower on purpose
            count = min(len(buffer), self.left)
            self.left -= count
            return count

    tracemalloc.start()
    measured = measure(Zeros())  # type: ignore[arg-type]  # a raw reader serves as well
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert measured.size == 64 * BUFFER_SIZE
    assert peak < 2 * BUFFER_SIZE
