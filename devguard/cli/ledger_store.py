"""Which store a command means, and what this station knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devguard.cli.group import group_url
from devguard.custody.files import read_limited
from devguard.errors import DevguardError
from devguard.ledger.package import need_ledger

if TYPE_CHECKING:
    from devguard.cli.context import Invocation
    from devguard.cli.home import Home
    from devguard.evidence.record import Record
    from devguard.ledger.level import Anchor
    from devguard.ledger.store import Store


def url_of(home: Home) -> str:
    """The URL of the store: DEVGUARD_STORE, [store] of config.toml, or a file of the home. `ledger.package` without the
    packages it needs."""
    need_ledger()
    from devguard.ledger.store import store_url

    return group_url(home) or store_url(home.path, {})


def open_store(invocation: Invocation, *, create: bool) -> Store:
    """The store, open; raises as `Store.open`, and `ledger.package`."""
    url = url_of(invocation.home)
    from devguard.ledger.store import Store

    return Store.open(url, create=create)


def anchor_for(home: Home, store: Store) -> Anchor | None:
    """What this station's log says that the store had of it; None where it has never answered."""
    from devguard.evidence.newest import newest
    from devguard.ledger.level import anchor_of
    from devguard.ledger.take import identity

    with store.read() as conn:
        mine = identity(conn)

    def wanted(record: Record) -> bool:
        found = anchor_of(record)
        return found is not None and found.store == mine

    if not home.evidence_folder.is_dir():
        return None
    entry, _ = newest(home.evidence_folder, wanted)
    return None if entry is None else anchor_of(entry.record)


def document_files(invocation: Invocation) -> list[bytes]:
    """The trust document in use here and those before it that lead to it, as files; nothing where there is none."""
    from devguard.cli.evidence_keys import documents
    from devguard.cli.home import TRUST_LIMIT

    home, found = invocation.home, []
    for place, document in enumerate(documents(invocation, None)):
        path = home.trust_file if place == 0 else home.trust_version(document.version)
        try:
            found.append(read_limited(path, TRUST_LIMIT))
        except DevguardError:
            break  # it went since it was read
    return found


def station_name(invocation: Invocation) -> str | None:
    """What the trust document here calls this station; None where it does not list it."""
    from devguard.cli.evidence_keys import documents
    from devguard.cose.roles import RoleName

    key = invocation.home.key_info(str(invocation.home.station_public())).key
    for document in documents(invocation, None)[:1]:
        role = document.role(RoleName.STATION)
        return next((one.person for one in role.keys if one.key == key), None) if role is not None else None
    return None
