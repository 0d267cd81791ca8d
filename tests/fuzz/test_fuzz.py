"""Every parser under damage: every truncation, every length at its extremes, 200 seeded mutations of each sound input
and of each third-party vector; under `make check` all places and 10 000 mutations. `make fuzz` goes on from here.

Invariant: it parses, or raises its own coded error; never another, never unbounded (memory is measured, work is
counted in calls: twice the input may not cost much more than twice the calls).
"""

from __future__ import annotations

import itertools
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

from devguard.image.kind import Kind
from devguard.packets.registry import MODULES
from fuzz_damage import cut, mutated, stretched
from fuzz_found import FOUND
from fuzz_packets import SEEDS
from fuzz_targets import Target, targets

pytest.importorskip("bincopy", reason="bincopy (extra [image]) is not installed")
pytest.importorskip("dpkt", reason="dpkt (extra [capture]) is not installed")

QUICK, FULL = 200, 10_000
READ_BY = {
    Kind.SUIT_ENVELOPE: "envelope",
    Kind.SUIT_MANIFEST: "manifest",
    Kind.GRANT: "grant",
    Kind.TRUST: "trust",
    Kind.CHECKPOINT: "checkpoint",
    Kind.MCUBOOT: "image-mcuboot",
    Kind.IHEX: "image-ihex",
    Kind.SREC: "image-srec",
    Kind.UF2: "image-uf2",
    Kind.ELF: "image-elf",
    Kind.DFU: "image-dfu",
    Kind.ESP: "image-esp",
    Kind.RAW: "image-kind",
    Kind.CAPTURE: "capture",
    Kind.UNKNOWN: "image-kind",
}
each = pytest.mark.parametrize("name", sorted(targets()))


def target(name: str) -> Target:
    return targets()[name]


def test_no_parser_is_forgotten() -> None:
    assert set(SEEDS) == set(MODULES)
    assert set(READ_BY) == set(Kind)
    assert set(READ_BY.values()) <= set(targets())
    assert {f"packet-{name}" for name in MODULES} <= set(targets())
    assert set(FOUND) <= set(targets())
    assert all(target(name).seeds() for name in targets() if name != "image-key")


@each
def test_sound_input_is_taken(name: str) -> None:
    for data in target(name).seeds():
        assert target(name).run(data) is None, data.hex()


@each
def test_damage_ends_in_a_coded_answer(name: str) -> None:
    streamed = name.startswith("stream-")  # tests/property has more of them
    for index, data in enumerate(target(name).seeds()):
        cuts, places, count = (20, 0, QUICK // 10) if streamed else (200, 4, QUICK)
        for bad in itertools.chain(cut(data, cuts), stretched(data, places, index), mutated(data, index, count)):
            target(name).run(bad)
    for found in FOUND.get(name, ()):
        target(name).run(bytes.fromhex(found))


@each
@pytest.mark.slow
def test_damage_of_every_place(name: str) -> None:
    streamed = name.startswith("stream-")
    for index, data in enumerate(target(name).seeds()):
        places, count = (100, FULL // 5) if streamed else (2000, FULL)
        for bad in itertools.chain(cut(data), stretched(data, places, index), mutated(data, 1000 + index, count)):
            target(name).run(bad)


@cache
def third_party(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """The vectors beside the checkout, by the target that reads them."""
    import json

    found: dict[str, list[bytes]] = {}
    for row in json.loads((folder / "packets.json").read_text()):
        found.setdefault(f"packet-{row['family']}", []).append(bytes.fromhex(row["hex"]))
    found["image-mcuboot"] = [path.read_bytes() for path in sorted((folder / "mcuboot" / "images").glob("*.bin"))]
    for path in sorted((folder / "suit").rglob("*")):
        if path.suffix in (".suit", ".cbor", ".bin"):
            found.setdefault("envelope", []).append(path.read_bytes())
    return {name: tuple(rows) for name, rows in found.items()}


# These are damaged beside their own vectors' keys and names, by the tests of their families.
_KEYED = {"tandem_ble", "dana_rs_ble", "omnipod_eros", "omnipod_message", "omnipod_dash", "omnipod_dash_ble"}
VECTORS = sorted({f"packet-{name}" for name in set(MODULES) - _KEYED - {"devguard_link"}} | {"image-mcuboot"})


@pytest.mark.parametrize("name", VECTORS)
def test_damage_of_the_vectors(name: str, vectors: Path) -> None:
    rows = third_party(vectors)[name]
    for index, data in enumerate(rows):
        for bad in itertools.chain(cut(data, 60), mutated(data[:65536], 5000 + index, QUICK)):
            target(name).run(bad)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.slow
def test_damage_of_the_vectors_at_length(name: str, vectors: Path) -> None:
    for index, data in enumerate(third_party(vectors)[name]):
        for bad in itertools.chain(cut(data), mutated(data[:65536], 9000 + index, FULL)):
            target(name).run(bad)


def grown(name: str, size: int) -> Iterator[bytes]:
    """Large input of the kinds that make a parser work: nothing, everything, noise, and what it likes over and over."""
    yield bytes(size)
    yield b"\xff" * size
    yield random.Random(7).randbytes(1 << 16)[:size]
    for data in target(name).seeds()[:1]:
        for begun in (data, data[:1], data[:4], data[:16]):
            yield (begun * (size // len(begun) + 1))[:size]


@each
def test_memory_is_bounded(name: str) -> None:
    inputs = list(grown(name, 1 << 9 if name.startswith("stream-") else 1 << 13))
    for data in target(name).seeds()[:1]:
        inputs += list(stretched(data, 0))[::7]
    target(name).run(inputs[0])  # what is imported and made once is no part of it
    tracemalloc.start()
    for data in inputs:
        target(name).run(data)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 << 20, f"{most >> 10} KiB"


def calls(work: Callable[[], object]) -> int:
    """How many Python and C functions it calls: the same on every machine."""
    count = 0

    def seen(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@each
def test_work_grows_no_faster_than_the_input(name: str) -> None:
    size = 1 << 9 if name.startswith("stream-") else 1 << 11
    for small, large in zip(grown(name, size), grown(name, 2 * size), strict=True):
        target(name).run(small)
        once, twice = (calls(lambda data=data: target(name).run(data)) for data in (small, large))
        assert twice < 2.6 * once + 1000, (once, twice, small[:8].hex())
