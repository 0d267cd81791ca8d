"""Class G: the device in the hands of somebody with time."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks import faults
from devguard.bench.attacks.row import Row

ROWS: Final[tuple[type[Row], ...]] = (*faults.ROWS,)
TO_WRITE: Final = {
    "G01": "Flash altered after a good update (before boot)",
    "G03": "Debug console, JTAG or hidden shell reachable",
    "G05": "Therapy settings or calibration partition edited in place",
    "G06": "Confirm without health check; never confirm; counter burned before confirm",
}
