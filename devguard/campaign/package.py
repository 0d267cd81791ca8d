"""Whether the packages of campaigns are here: the ledger's for all of them, procrastinate for a group's queue."""

from __future__ import annotations

import importlib.util

from devguard.errors import Refused
from devguard.ledger.package import need_ledger, need_postgresql


def need_queue() -> None:
    """Return when the queue can be used, else `Refused`: `ledger.package` or `campaign.package`."""
    need_ledger()
    need_postgresql()
    if importlib.util.find_spec("procrastinate") is None:
        raise Refused("campaign.package", "the procrastinate package is not installed here")
