"""Runs of addresses as a file lists them, joined and looked at for overlaps; for every format that says addresses."""

from __future__ import annotations

from typing import Final

from devguard.errors import Malformed

MAX_RUNS: Final = 262_144
SHOWN: Final = 64


class Runs:
    """Half-open ranges [low, high) in the order of a file; at most `MAX_RUNS` that do not touch. `overlap`: the first
    address held twice, and `overlap_offset` where in the file the later of the two runs begins; both after `merged`."""

    def __init__(self) -> None:
        self._runs: list[list[int]] = []
        self.overlap: int | None = None
        self.overlap_offset = 0

    def add(self, low: int, high: int, offset: int) -> None:
        """One more range, told at `offset` of the file; joined when it begins where the last ended.
        `Malformed("image.format")` past the limit."""
        if low >= high:
            return
        if self._runs and self._runs[-1][1] == low:
            self._runs[-1][1] = high
        elif len(self._runs) < MAX_RUNS:
            self._runs.append([low, high, offset])
        else:
            raise Malformed("image.format", f"more than {MAX_RUNS} separate runs of data")

    def merged(self) -> list[tuple[int, int]]:
        """The ranges in order of address, touching ones joined."""
        merged: list[tuple[int, int]] = []
        furthest = 0  # where in the file the run is told that reaches furthest so far
        for low, high, offset in sorted(self._runs):
            if merged and low <= merged[-1][1]:
                if low < merged[-1][1] and self.overlap is None:
                    self.overlap, self.overlap_offset = low, max(offset, furthest)
                furthest = offset if high > merged[-1][1] else furthest
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
                furthest = offset
        return merged

    def fields(self) -> dict[str, object]:
        """What `devguard inspect` shows of them: the first ranges, how many there are, how many bytes."""
        merged = self.merged()
        return {
            "segments": [{"start": low, "end": high} for low, high in merged[:SHOWN]],
            "segment_count": len(merged),
            "data_bytes": sum(high - low for low, high in merged),
        }
