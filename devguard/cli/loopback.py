"""Whether an address is this machine's own; for the console and for notices, of which the one may lack its packages."""

from __future__ import annotations

import ipaddress
from typing import Final

LOCAL: Final = "localhost"


def on_loopback(bind: str) -> bool:
    """Whether an address is this machine's own alone."""
    if bind == LOCAL:
        return True
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False
