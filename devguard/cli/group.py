"""The group's store, where this station has one: named by `--store`, DEVGUARD_STORE, or config.toml.

    [store]
    url = "postgresql+psycopg://bench7@ledger.hospital.example/devguard?sslmode=verify-full"

A home without one works alone, and nothing here asks for a database. When it was heard last, and since when it is
silent, stands in the home's `store.json`: for people, and no proof of anything.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from devguard.errors import DevguardError, LinkError, Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devguard.cli.context import Invocation
    from devguard.cli.home import Home
    from devguard.evidence.record import Record
    from devguard.ledger.level import Anchor
    from devguard.ledger.store import Store

SECTION: Final = "store"
VARIABLE: Final = "DEVGUARD_STORE"  # as in `ledger.store`, which takes packages that a bench alone may not have
SILENT: Final = ("ledger.unreachable", "ledger.busy", "ledger.full")
"""What says nothing against anybody: the store is not there now."""
_FILE: Final = "store.json"
_LIMIT: Final = 4096


def group_url(home: Home, given: str | None = None) -> str | None:
    """The URL of the group's store; None where none is named. `Malformed("config.malformed")`."""
    if given or os.environ.get(VARIABLE):
        return given or os.environ[VARIABLE]
    section = home.config().get(SECTION, {})
    url = section.get("url") if isinstance(section, dict) and section.keys() <= {"url"} else 0
    if url is not None and not isinstance(url, str):
        raise Malformed("config.malformed", f"{home.config_file}: [{SECTION}] has a url, nothing else")
    return url


def open_group(invocation: Invocation, given: str | None = None, *, create: bool = True) -> Store:
    """The group's store, open; a context manager. `create`: make its tables where it has none.

    Raises `Refused("ledger.none")`, and what opening a store raises.
    """
    url = group_url(invocation.home, given)
    if url is None:
        raise Refused("ledger.none", "neither --store nor DEVGUARD_STORE nor config.toml names a group's store")
    from devguard.ledger.package import need_ledger

    need_ledger()
    from devguard.ledger.store import Store

    return Store.open(url, create=create)


@dataclass(frozen=True, slots=True)
class Contact:
    """heard: when the store answered last; lost: since when it does not, and code why. Epoch seconds."""

    store: str | None = None
    heard: int | None = None
    lost: int | None = None
    code: str | None = None


def contact(home: Home) -> Contact:
    """What is known of it; nothing where the file is missing or is none."""
    from devguard.cli.files import read_if_there

    with contextlib.suppress(DevguardError, ValueError, TypeError, AttributeError, RecursionError):
        said = json.loads(read_if_there(home.path / _FILE, _LIMIT) or b"{}")
        found = Contact(**said)
        times = all(value is None or type(value) is int for value in (found.heard, found.lost))
        if times and all(value is None or isinstance(value, str) for value in (found.store, found.code)):
            return found
    return Contact()


def heard(invocation: Invocation, store: Store) -> None:
    """The store answers."""
    _keep(invocation.home, Contact(store.name, invocation.now()))


def lost(invocation: Invocation, error: DevguardError) -> None:
    """The store does not answer."""
    before = contact(invocation.home)
    since = invocation.now() if before.lost is None else before.lost
    _keep(invocation.home, replace(before, lost=since, code=error.code))


@contextlib.contextmanager
def watched(invocation: Invocation) -> Iterator[None]:
    """What is done with the store; that it did not answer is remembered."""
    try:
        yield
    except LinkError as error:
        if error.code in SILENT:
            lost(invocation, error)
        raise


def _keep(home: Home, said: Contact) -> None:
    from devguard.custody.files import write_atomic

    with contextlib.suppress(DevguardError):  # a note for people: a full disk is told by what matters
        home.make(home.path)
        write_atomic(home.path / _FILE, json.dumps(asdict(said)).encode(), 0o600)


def anchor_in(folder: Path, store: str | None) -> Anchor | None:
    """What the store of that name (None: any) is known to have taken of this station's log, by the log's last word."""
    from devguard.evidence.newest import newest
    from devguard.ledger.level import anchor_of

    if not folder.is_dir():
        return None

    def wanted(record: Record) -> bool:
        said = anchor_of(record)
        return said is not None and store in (None, said.store)

    entry, _ = newest(folder, wanted)
    return None if entry is None else anchor_of(entry.record)


def waiting(folder: Path, taken: int) -> int:
    """How many records of this station's log a store lacks that has the first `taken`; those of sending do not
    count."""
    from devguard.evidence.newest import backwards
    from devguard.ledger.level import SENDING

    count = 0
    if folder.is_dir():
        for entry, size in backwards(folder):
            if taken == 0:
                return size
            if entry.index < taken:
                break
            count += entry.record.action not in SENDING
    return count


def finding(code: str, message: str) -> dict[str, Any]:
    """Something to look at that stops nothing, as plain values with its hint."""
    error = DevguardError(code, message)
    return {"code": error.code, "message": error.message, "hint": error.hint}
