"""Class J: those who want that it never happened."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks.row import Row

ROWS: Final[tuple[type[Row], ...]] = ()
TO_WRITE: Final = {
    "J01": "Delete the last records or the whole log",
    "J02": "Edit, reorder or back-date a record",
    "J03": "Out-of-band change: someone used another tool (dfu-util, mcumgr, JTAG)",
    "J05": "Split view: different release or log shown to different hospitals",
    "J06": "Refused attempts and insider anomalies never surface; incident cannot be reported",
}
