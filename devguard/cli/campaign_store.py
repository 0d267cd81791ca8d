"""The store of campaigns, opened for a command: the ledger's, wherever DEVGUARD_STORE or the home says it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devguard.cli.context import Invocation

if TYPE_CHECKING:
    from devguard.ledger.store import Store


def campaign_store(invocation: Invocation) -> Store:
    """The open store, a context manager. Raises as `Store.open`; `ledger.package` where the extra is not installed."""
    from devguard.ledger.package import need_ledger

    need_ledger()
    from devguard.ledger.store import Store, store_url

    return Store.open(store_url(invocation.home.path, os.environ), create=True)
