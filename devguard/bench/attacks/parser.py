"""Class H: bytes that are meant to confuse who reads them."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks.row import Row

ROWS: Final[tuple[type[Row], ...]] = ()
TO_WRITE: Final = {
    "H01": "Length, offset, integer-wrap and format-string fields",
    "H02": "Reassembly confusion: interleaved, duplicated, missing fragments; resync inside payload",
    "H03": "CRC treated as security",
    "H04": "Path traversal and hostile names in bundles",
    "H05": "Out-of-order protocol verbs",
}
