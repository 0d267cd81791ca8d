"""Class B: what the port, the line or a stolen device gives away."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks.row import Row

ROWS: Final[tuple[type[Row], ...]] = ()
TO_WRITE: Final = {
    "B01": "Passive capture of firmware and patient data on the serial line",
    "B02": "Firmware and secrets read back through the update port",
    "B04": "Stolen or resold programmer still holds patient data, Wi-Fi keys and technician credentials",
}
