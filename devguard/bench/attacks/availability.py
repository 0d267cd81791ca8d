"""Class I: power, cable, battery, and who believes what afterwards."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks.row import Row

ROWS: Final[tuple[type[Row], ...]] = ()
TO_WRITE: Final = {
    "I01": "Power or cable loss at every write",
    "I02": "Battery drain and lockout by repeated wake, auth or erase",
    "I04": "Update started while therapy is running or battery low",
    "I05": "Lost or forged final status: operator believes the wrong thing",
}
