"""Class G: the device in the hands of somebody with time."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks import faults, opened
from devguard.bench.attacks.row import Row

ROWS: Final[tuple[type[Row], ...]] = (*faults.ROWS, *opened.ROWS)
