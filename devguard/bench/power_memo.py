"""Runs of the power-cut bench that look at the same bytes are the same run: each is done once.

A run notes every sector it looked at before it had overwritten it. Where a state has the same bytes there, or is no
more blank where that was all it asked, and the same counters, what came of that run is what comes of this one.
`on=False` does every run, to show that it changes no verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from devguard.bench.power_flash import Flash, Needs
from devguard.bench.power_world import Machine, State
from devguard.device.counters import Counters
from devguard.device.counters_codec import encode_counters
from devguard.device.flash import ERASED

_REMEMBERED: Final = 48  # runs kept for each set of counters
_KEPT: Final = 1024  # runs kept in all: each may hold sectors of its own
Seen = tuple[bytes, tuple[bytes, str] | None]
V = TypeVar("V")
Found = tuple[V, Needs]
"""What came of a run, and the sectors that this depends on."""


@dataclass(slots=True)
class _Run:
    """A run that is remembered: what the sectors it depends on held, and what came of it."""

    seen: dict[int, Seen]
    value: object
    needs: Needs

    def fits(self, flash: Flash) -> bool:
        """Whether the run on `flash` would be this one."""
        sectors, weak = flash.sectors, dict(flash.weak)
        for sector, (data, mask) in self.seen.items():
            if sectors[sector] is not data and sectors[sector] != data:
                return False
            if (mask is not None or sector in weak) and flash.value(sector)[1] != mask:
                return False
        return not any(sector in weak or _is_blank(sectors[sector]) for sector in self.needs.stands)

    def covers(self, machine: Machine, sector: int) -> bool:
        """Whether the run on the machine's flash would be this one, whatever stood in `sector`."""
        weak, now = machine.cells.weak, machine.backend.now
        stands = self.needs.stands
        if sector in self.seen or sector in stands:
            return False
        for number, (data, mask) in self.seen.items():
            if mask is not None or number in weak:
                return False
            found = now(number)
            if found is not data and found != data:
                return False
        return not any(number in weak or _is_blank(now(number)) for number in stands)


def _is_blank(sector: bytes) -> bool:
    return sector.count(ERASED) == len(sector)


class Memo:
    """What is remembered of one scene."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._runs: dict[tuple[object, ...], list[_Run]] = {}
        self._count = 0
        self._encoded: dict[int, tuple[Counters, bytes]] = {}

    def once(self, kind: tuple[object, ...], state: State, run: Callable[[], Found[V]]) -> Found[V]:
        """What `run` gives for `state`: remembered, where a run of this kind on the same bytes has been done."""
        key = (*kind, self.encoded(state.counters), state.trust)
        for place, one in enumerate(self._runs.get(key, ())):
            if one.fits(state.flash):
                return self._found(self._runs[key], place)
        value, needs = run()
        if self._on:
            seen = {sector: state.flash.value(sector) for sector in needs.read}
            self._keep(key, _Run(seen, value, needs))
        return value, needs

    def covering(self, kind: tuple[object, ...], machine: Machine, sector: int) -> Found[object] | None:
        """What comes of a machine whose power goes now, if it is known and looks at nothing of that sector."""
        known = self._runs.get((*kind, self.encoded(machine.load()), machine.trust), [])
        for place, one in enumerate(known):
            if one.covers(machine, sector):
                return self._found(known, place)
        return None

    def encoded(self, counters: Counters) -> bytes:
        """The counters as they are stored, each set encoded once."""
        found = self._encoded.get(id(counters))
        if found is None or found[0] is not counters:
            if len(self._encoded) > _KEPT:
                self._encoded.clear()
            found = self._encoded[id(counters)] = (counters, encode_counters(counters))
        return found[1]

    def _keep(self, key: tuple[object, ...], run: _Run) -> None:
        """Remember a run; of those with other counters the ones from long ago are forgotten."""
        known = self._runs.setdefault(key, [])
        known.insert(0, run)
        self._count += 1 - len(known[_REMEMBERED:])
        del known[_REMEMBERED:]
        while self._count > _KEPT:
            oldest = next(iter(self._runs))
            self._count -= len(self._runs.pop(oldest))

    def _found(self, known: list[_Run], place: int) -> Found[V]:
        """The run at that place; what was asked for last is the first to be looked at."""
        if place:
            known.insert(0, known.pop(place))
        value: V = known[0].value  # type: ignore[assignment]  # the kind in the key says which
        return value, known[0].needs
