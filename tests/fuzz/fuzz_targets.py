"""Every parser of devguard by name: what `make fuzz` runs and what `test_fuzz.py` sweeps.

The invariant is one for all: **it parses, or raises its own coded error; never another, never unbounded.** A packet
family answers instead of raising, its fast path says what the slow one says, and its answer can be printed; a stream
gives the same packets wherever it is split, and every byte of it is a packet's, skipped, or still waiting.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import fuzz_images
import fuzz_objects
import fuzz_packets
from devguard.errors import CODES, DevguardError
from devguard.packets.decoder import Decoder
from devguard.packets.registry import MODULES, family_named
from packets_support import sound


@dataclass(frozen=True)
class Target:
    """One parser. `read` keeps the invariant or fails with an exception of its own; `seeds`: sound input."""

    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]

    def run(self, data: bytes) -> str | None:
        """Reads; gives the code of the refusal, or None. Whatever else is raised is a finding."""
        try:
            self.read(data)
        except DevguardError as error:
            refused = error
        else:
            return None
        assert refused.code in CODES
        assert refused.message
        assert refused.hint
        return refused.code


def _family(name: str) -> Callable[[bytes], object]:
    """One record, decoded twice."""
    family, context = family_named(name), fuzz_packets.context_of(name)

    def read(data: bytes) -> object:
        packet = family.decode(data, context)
        sound(packet)
        if family.bulk is not None:
            assert family.bulk(data, context) == packet
        return packet

    return read


def _stream(name: str) -> Callable[[bytes], object]:
    """The same bytes as one read, in two and in pieces. The first byte says how long the pieces are."""
    family, context = family_named(name), fuzz_packets.context_of(name)

    def run(data: bytes, step: int) -> tuple[list[object], int]:
        decoder = Decoder(family, context)
        found = [one for at in range(0, len(data), step) for one in decoder.feed(data[at : at + step])]
        found += decoder.finish()
        taken = 0
        for place, packet in found:
            sound(packet)
            assert data[place : place + len(packet.raw)] == packet.raw
            assert place >= taken, "packets in order, none twice"
            taken = place + len(packet.raw)
        assert sum(len(packet.raw) for _, packet in found) + decoder.skipped == len(data)
        return list(found), decoder.skipped

    def read(data: bytes) -> object:
        step = 1 + (data[0] % 23 if data else 0)
        whole = run(data, max(1, len(data)))
        assert run(data, step) == whole
        if len(data) < 128:
            assert run(data, 1) == whole
        return whole

    return read


def _streams(name: str) -> Callable[[], list[bytes]]:
    """Its packets between noise, one of them damaged, the last cut off."""

    def seeds() -> list[bytes]:
        good = fuzz_packets.SEEDS[name]()
        damaged = [one[:-2] + bytes((one[-2] ^ 0x40,)) + one[-1:] for one in good]
        return [b"\x00\xff".join([b"", *good, damaged[0], *good, good[0][:5]])]

    return seeds


@functools.cache
def targets() -> dict[str, Target]:
    """All of them, by name."""
    made = [Target(name, one.read, one.seeds) for name, one in fuzz_objects.PARSERS.items()]
    made += [Target(name, one.read, one.seeds) for name, one in fuzz_images.PARSERS.items()]
    made += [Target(f"packet-{name}", _family(name), fuzz_packets.SEEDS[name]) for name in MODULES]
    streamed = [name for name in MODULES if family_named(name).framer is not None]
    made += [Target(f"stream-{name}", _stream(name), _streams(name)) for name in streamed]
    return {target.name: target for target in made}
