"""The tap: passes bytes on as they are, remembers them, and drops, alters, adds, holds and injects when told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from devguard.bench.tap import Heading, LineTap, Passing, frames_of
from devguard.device.emulator import PtyLine


@pytest.fixture
def ends() -> Iterator[tuple[LineTap, int, int]]:
    """A tap, and descriptors of the bench's and the device's end."""
    line = PtyLine()
    with LineTap(line.port) as tap:
        bench = os.open(tap.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        yield tap, bench, line.descriptor
        os.close(bench)
    line.close()


def arrived(end: int, size: int) -> bytes:
    """What an end has received, once `size` bytes are there; what there is after 5 s."""
    data, until = b"", time.monotonic() + 5
    while len(data) < size and time.monotonic() < until:
        try:
            data += os.read(end, 65_536)
        except BlockingIOError:
            os.sched_yield()
    return data


def through(tap: LineTap, bench: int, device: int, said: bytes, expected: bytes) -> None:
    os.write(bench, said)
    assert arrived(device, len(expected)) == expected
    tap.turn()


def test_without_a_rule_bytes_pass_as_they_come(ends: tuple[LineTap, int, int]) -> None:
    tap, bench, device = ends
    through(tap, bench, device, b"half a fra", b"half a fra")
    os.write(device, b"\x01back\x00")
    assert arrived(bench, 6) == b"\x01back\x00"
    assert (tap.to_device, tap.from_device) == (b"half a fra", b"\x01back\x00")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda passing: (), b""),
        (lambda passing: (passing.raw,) * 2, b"one\x00one\x00two\x00two\x00"),
        (lambda passing: (passing.raw[::-1],), b"eno\x00owt\x00"),
        (lambda passing: (passing.raw,) if passing.number == 1 else (), b"two\x00"),
    ],
    ids=["drop", "repeat", "alter", "by number"],
)
def test_a_rule_decides_frame_by_frame(
    rule: Callable[[Passing], tuple[bytes, ...]], expected: bytes, ends: tuple[LineTap, int, int]
) -> None:
    tap, bench, device = ends
    tap.rule = rule
    for piece in (b"on", b"e\x00t", b"wo\x00"):
        os.write(bench, piece)
        tap.turn()
    tap.rule = None
    os.write(bench, b"end\x00")
    assert arrived(device, len(expected) + 4) == expected + b"end\x00"
    assert frames_of(tap.to_device) == [b"one", b"two", b"end"]


def test_a_rule_that_comes_inside_a_frame_leaves_it_alone(ends: tuple[LineTap, int, int]) -> None:
    tap, bench, device = ends
    through(tap, bench, device, b"begun", b"begun")
    tap.rule = lambda _passing: ()
    os.write(bench, b" here\x00gone\x00")
    tap.turn()
    tap.rule = None
    os.write(bench, b"end\x00")
    assert arrived(device, 10) == b" here\x00end\x00"


def test_held_bytes_wait_and_injected_ones_are_nobodys(ends: tuple[LineTap, int, int]) -> None:
    tap, bench, device = ends
    tap.hold()
    os.write(bench, b"wait\x00")
    tap.turn()
    with pytest.raises(BlockingIOError):
        os.read(device, 10)
    tap.release()
    assert arrived(device, 5) == b"wait\x00"
    tap.inject(Heading.TO_DEVICE, b"mine\x00")
    assert arrived(device, 5) == b"mine\x00"
    assert tap.to_device == b"wait\x00"
