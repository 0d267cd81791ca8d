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


def hand_over(invocation: Invocation, store: Store) -> int:
    """Give the ledger what this station's log has and it has not; how many records. Raises as `since` and `take`."""
    from devguard.evidence.checkpoint import origin_of
    from devguard.evidence.since import since
    from devguard.ledger.documents import add_documents
    from devguard.ledger.take import held, take

    key = invocation.home.station().key
    with store.begin() as conn:
        mine = held(conn, origin_of(key))
        add_documents(conn, _documents(invocation))
        head, leaves = since(invocation.home.evidence_folder, key, mine.checkpoint)
        return take(conn, key, mine.records, leaves, head.note, now=invocation.now()).new


def _documents(invocation: Invocation) -> list[bytes]:
    """The trust documents in use here, as files."""
    from devguard.cli.evidence_keys import documents
    from devguard.cli.home import TRUST_LIMIT
    from devguard.custody.files import read_limited

    home, found = invocation.home, documents(invocation, None)
    paths = [home.trust_file if at == 0 else home.trust_version(one.version) for at, one in enumerate(found)]
    return [read_limited(path, TRUST_LIMIT) for path in paths]
