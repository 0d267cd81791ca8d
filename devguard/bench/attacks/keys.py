"""Class D: keys that were stolen, revoked, shared, weak or made for something else."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks.row import Row

ROWS: Final[tuple[type[Row], ...]] = ()
TO_WRITE: Final = {
    "D01": "One vendor signing key (online CI key) stolen",
    "D02": "The same key counted twice toward the threshold",
    "D03": "Development/test key accepted in production",
    "D04": "Revoked key still trusted; skipped or forged root versions",
    "D05": "Stolen technician laptop or cloned token",
    "D06": "Key-purpose confusion: technician key signs firmware, image key signs a grant",
    "D07": "State reuse of a stateful hash-based signing key (LMS)",
    "D09": "One opened device reveals the key of all others (shared or serial-derived key)",
}
