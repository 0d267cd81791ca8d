"""A station's log handed over to the group's store: in portions, each taken whole or not at all, none twice, no gap.

The log is read twice. The first time to its signed head, so that all of it is proven before anything is handed over;
the tree's root at the end of each portion is kept. The second time in portions: the store takes each in a transaction
of its own, under a head that the station signs over exactly so many records, and only where that head has the root of
the first reading. Whatever ends it between two portions, the next hand-over goes on behind what the store holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.signer import Signer
from devguard.errors import DevguardError, Refused
from devguard.evidence.checkpoint import Checkpoint, origin_of, sign_checkpoint
from devguard.evidence.record import decode_entry
from devguard.evidence.since import since
from devguard.evidence.tree import Frontier, leaf_hash
from devguard.evidence.verify import verify_log
from devguard.ledger.documents import judge_of
from devguard.ledger.level import SENDING, Anchor, check_level
from devguard.ledger.moment import check_skew, database_time
from devguard.ledger.store import Store
from devguard.ledger.take import Held, Taken, held, identity, take


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is handed over at once, in one transaction: records, and bytes of them."""

    records: int = 500
    bytes: int = 4 << 20


LIMITS: Final = Limits()
Watch = Callable[[Taken], object]
Anchors = Callable[[str], Anchor | None]


@dataclass(frozen=True, slots=True)
class Station:
    """Whose log it is. folder: of the log; signer: the station's key; clock: epoch seconds; name: for people."""

    folder: Path
    signer: Signer
    clock: Callable[[], int]
    name: str | None = None

    @property
    def origin(self) -> str:
        """The log's origin line."""
        return origin_of(self.signer.key)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store `store` has of a station, and the database's clock (epoch seconds)."""

    store: str
    held: Held
    time: int


@dataclass(slots=True)
class Handed:
    """What came of it. anchor: what the store has now, None where there was nothing to hand over; new: records that it
    did not have; skew: seconds by which the station's clock is ahead of the database's."""

    store: str
    skew: int
    anchor: Anchor | None = None
    new: int = 0
    portions: int = 0


@dataclass(frozen=True, slots=True)
class Portion:
    """Records from `first` on, up to the head `head`."""

    first: int
    head: Checkpoint


def look(store: Store, origin: str) -> Standing:
    """What the store has of a station. Raises as a transaction."""
    with store.read() as conn:
        return Standing(identity(conn), held(conn, origin), database_time(conn))


def hand_over(
    store: Store,
    station: Station,
    *,
    anchors: Anchors,
    again: bool = False,
    limits: Limits = LIMITS,
    watch: Watch = lambda _taken: None,
) -> Handed:
    """Hand over what the store does not have of a station's log; nothing where only records of sending are new.

    anchors: what a store of that name is known to have taken. again: a store that has less than that is given it once
    more. watch: told of each portion once the store has it.

    Raises `Refused`: `ledger.rollback` (the store was set back), `ledger.ahead` (the station was), `ledger.differs`,
    `clock.skew`, `key.revoked`, `key.unknown`; what `evidence.verify` raises for a log that does not hold; and what a
    transaction raises. What was taken before stays taken.
    """
    while True:
        # Asked before the store is: another sender may finish in between, and then the store has more, not less.
        known = None if again else anchors(_name(store))
        found = look(store, station.origin)
        skew = station.clock() - found.time
        check_skew(skew)
        with store.read() as conn:
            check_level(conn, found.held, known)
        portions = _planned(station, found.held, limits)
        if portions is None:
            continue  # another sender handed over records that came after the head that was read here
        return _send(store, station, found.held, Handed(found.store, skew), portions, watch)


def _name(store: Store) -> str:
    with store.read() as conn:
        return identity(conn)


def _planned(station: Station, known: Held, limits: Limits) -> list[Portion] | None:
    """The portions of what the store does not have, proven up to the log's head; None where that head is older than
    what the store has, and the log has one by now that is not."""
    try:
        _, leaves = since(station.folder, station.signer.key, known.checkpoint)
        return _portions(station.origin, leaves, known.frontier, limits)
    except DevguardError as error:
        if not error.code.startswith("log.") or error.code == "log.missing":
            raise
        return _judged(station, known, error)


def _portions(origin: str, leaves: Iterator[bytes], edge: Frontier, limits: Limits) -> list[Portion]:
    edge, found = edge.copy(), []
    first, length, said = edge.size, 0, False
    for leaf in leaves:
        said = said or decode_entry(leaf).record.action not in SENDING
        edge.append(leaf_hash(leaf))
        length += len(leaf)
        if edge.size - first >= limits.records or length >= limits.bytes:
            found.append(Portion(first, Checkpoint(origin, edge.size, edge.root())))
            first, length = edge.size, 0
    if edge.size > first:
        found.append(Portion(first, Checkpoint(origin, edge.size, edge.root())))
    return found if said else []


def _judged(station: Station, known: Held, error: DevguardError) -> list[Portion] | None:
    """What is wrong with a log that does not continue what the store has: itself, that it was set back, or that it is
    another one. Raises that; None where nothing is."""
    report = verify_log(station.folder, station.signer.key)
    where = f"the log in {station.folder} has {report.records} records and holds by itself"
    if report.records < known.records:
        raise Refused(
            "ledger.ahead", f"{where}; the store has {known.records} of it: an older state of this station was put back"
        )
    if error.code == "log.truncated":
        return None
    raise Refused("ledger.differs", f"{where}, but it is not the one of which the store has {known.records}: {error}")


def _send(store: Store, station: Station, known: Held, handed: Handed, portions: list[Portion], watch: Watch) -> Handed:
    """The second reading. A portion that is not what was proven in the first is neither signed nor sent."""
    if not portions:
        return handed
    _, leaves = since(station.folder, station.signer.key, known.checkpoint)
    edge = known.frontier.copy()
    for portion in portions:
        some = list(islice(leaves, portion.head.size - portion.first))
        for leaf in some:
            edge.append(leaf_hash(leaf))
        if edge.root() != portion.head.root:
            raise Refused("log.tampered", f"records from {portion.first} on were changed while they were handed over")
        taken = _take(store, station, portion, some)
        handed.new += taken.new
        handed.portions += 1
        handed.anchor = Anchor(handed.store, taken.records, taken.root)
        watch(taken)
    return handed


def _take(store: Store, station: Station, portion: Portion, leaves: list[bytes]) -> Taken:
    """One portion in one transaction, again where somebody else was at the store."""
    note = sign_checkpoint(portion.head, station.signer)

    def work(conn: Connection) -> Taken:
        _check_station(conn, station.signer.key)
        now = database_time(conn)
        return take(conn, station.signer.key, portion.first, leaves, note, now=now, name=station.name)

    return store.run(work)


def _check_station(conn: Connection, key: CoseKey) -> None:
    """Return when the trust document in the store has nothing against a station: `key.revoked`; `key.unknown` where it
    lists stations and not this one. Without such a list a station is known from its first contact."""
    documents = judge_of(conn).trust
    if not documents:
        return
    role = documents[0].role(RoleName.STATION)
    if documents[0].is_revoked(key.thumbprint):
        raise Refused("key.revoked", f"the trust document in the store revokes the key of {origin_of(key)}")
    if role is not None and role.entry(key.thumbprint) is None:
        raise Refused("key.unknown", f"the trust document in the store lists stations, and not {origin_of(key)}")
