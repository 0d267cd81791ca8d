"""The property of the link can fail: engines that break one of its laws each are found out on seeded lines.

`check_line` is what hypothesis drives elsewhere; here it meets engines that are wrong on purpose.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
from cobs import cobs

from devguard.bench.impair import Damage
from devguard.bench.way import Shape
from devguard.link import engine as engine_module
from devguard.link.channel import Receiver, Sender, nearest
from devguard.link.events import Channel
from devguard.link.frames import Frame, Kind, decode_frame
from devguard.link.lane import Lane
from link_support import Bench, Faults, check_line

SIZES = [3000, 0, 2500, 1]
BAD = Shape(921_600, 0.002, damage=Damage(ber=1e-4, drop=2e-4, double=5e-4, noise=5e-4))
GENTLE = Shape(115_200, 0.002, damage=Damage(ber=2e-5, drop=1e-4))
OUT = Shape(115_200, 0.002, cuts=((0.2, 1e6),))
SEEDS = range(6)
Patch = pytest.MonkeyPatch


def sweep() -> None:
    """The same lines for every engine."""
    for shape in (BAD, GENTLE):
        for seed in SEEDS:
            check_line(seed, shape, SIZES)
    check_line(1, OUT, SIZES)
    bench = Bench(seed=7, faults=Faults(0.05, 0.3, 0.05, 1e-5, 0.05)).opened()
    bench.attach(per_epoch=50)
    bench.host.send(Channel.SEALED, bytes(20_000), bench.now)
    bench.run(lambda: bench.host.idle or bench.host.failed is not None)
    assert bench.messages(bench.device) == [bytes(20_000)]


def efficiency() -> None:
    """A line with bit errors is used as docs/link.md says."""
    bench = Bench(seed=2, faults=Faults(flip=1e-4)).opened()
    bench.attach()
    start = bench.now
    for _ in range(8):
        bench.host.send(Channel.SEALED, bytes(16_384), start)
    assert bench.run(lambda: bench.host.idle)
    assert 8 * 16_384 * 10 / 115_200 / (bench.now - start) > 0.6


def wrong_checksums_count(patch: Patch) -> None:
    def lenient(raw: bytes) -> Frame:
        try:
            content = cobs.decode(raw)[:-4]
        except cobs.DecodeError:
            return decode_frame(raw)
        right = cobs.encode(content + zlib.crc32(content).to_bytes(4, "big"))
        return decode_frame(right)

    patch.setattr(engine_module, "decode_frame", lenient)


def twice_is_delivered_twice(patch: Patch) -> None:
    honest = Receiver.accept

    def accept(self: Receiver, kind: Kind, low16: int, fin: bool, body: bytes, now: float) -> list[bytes]:
        done = honest(self, kind, low16, fin, body, now)
        return done or ([body] if fin and self._next > low16 and kind is Kind.DATA else [])

    patch.setattr(Receiver, "accept", accept)


def a_gap_is_no_gap(patch: Patch) -> None:
    honest = Receiver.accept

    def accept(self: Receiver, kind: Kind, low16: int, fin: bool, body: bytes, now: float) -> list[bytes]:
        self._next = max(self._next, nearest(self._next, low16))
        return honest(self, kind, low16, fin, body, now)

    patch.setattr(Receiver, "accept", accept)


def messages_run_together(patch: Patch) -> None:
    honest = Receiver._deliver

    def deliver(self: Receiver, kind: Kind, fin: bool, body: bytes) -> list[bytes]:
        return honest(self, kind, fin and self._next % 7 != 3, body)

    patch.setattr(Receiver, "_deliver", deliver)


def nothing_is_sent_again(patch: Patch) -> None:
    patch.setattr(Sender, "_mark_lost", lambda *_: None)


def a_dead_line_is_never_given_up(patch: Patch) -> None:
    patch.setattr(Lane, "_give_up_at", lambda _: None)


def a_record_that_comes_twice_ends_the_link(patch: Patch) -> None:
    honest = engine_module.LinkEngine._receive_sealed

    def receive(self: Any, frame: Frame, now: float) -> None:
        before = self._statistics.replayed
        honest(self, frame, now)
        if self._statistics.replayed > before:
            self._fail(engine_module.LinkError("session.replay", "twice"))

    patch.setattr(engine_module.LinkEngine, "_receive_sealed", receive)


def selective_acknowledgements_are_not_read(patch: Patch) -> None:
    patch.setattr(Sender, "_selective", lambda *_: [])


def later_arrivals_prove_nothing(patch: Patch) -> None:
    patch.setattr(Sender, "_suspect", lambda *_: None)


def test_the_engine_itself_holds() -> None:
    sweep()
    efficiency()


@pytest.mark.parametrize(
    "broken",
    [wrong_checksums_count, twice_is_delivered_twice, a_gap_is_no_gap, messages_run_together,
     nothing_is_sent_again, a_dead_line_is_never_given_up, a_record_that_comes_twice_ends_the_link],
)  # fmt: skip
def test_a_broken_law_is_found_out(broken: Callable[[Patch], None], monkeypatch: Patch) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        sweep()


@pytest.mark.parametrize("wasteful", [selective_acknowledgements_are_not_read, later_arrivals_prove_nothing])
def test_a_wasteful_engine_is_found_out(wasteful: Callable[[Patch], None], monkeypatch: Patch) -> None:
    wasteful(monkeypatch)
    with pytest.raises(AssertionError):
        efficiency()
