"""`devguard ledger send`: this station's records to the group's store, and what the group has said back.

A record of the station's log keeps what the store has of it; that a store has less later on is no accident. While the
store does not answer, the station works on with what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.group import SILENT, anchor_in, finding, heard, open_group, watched
from devguard.cli.ledger_fetch import Fetched, fetch_lists, store_option, told, trust_findings
from devguard.cli.record import Note, recorded
from devguard.errors import DevguardError, LinkError

if TYPE_CHECKING:
    from devguard.ledger.handover import Handed
    from devguard.ledger.store import Store

EVERY = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked on the command line."""

    url: str | None
    again: str | None
    lists: tuple[Path, ...]
    watch: bool
    every: int


@click.command(cls=Command)
@store_option
@click.option("--watch", is_flag=True, help="Go on until interrupted: send what is new, fetch what others said.")
@click.option(
    "--every", type=click.IntRange(1, 3600), default=EVERY, show_default=True, help="With --watch: seconds between."
)
@click.option(
    "--again", metavar="REASON", help="The store was restored from a backup, for this reason: give it what it lost."
)
@click.option(
    "--list", "lists", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="A signed list of suspensions (`technician export`) for all stations of the group (repeatable).",
)  # fmt: skip
@click.pass_obj
def send(invocation: Invocation, /, **options: Any) -> None:
    """Hand over what the group's store does not have of this station's log, and take what the group has said.

    The log is held against its signed head first. A store that has less than it had is refused (`ledger.rollback`), and
    so is one that has more than this station (`ledger.ahead`): one of the two was put back to an older state.
    """
    wish = Wish(**options)
    if wish.watch and (wish.again is not None or wish.lists):
        raise click.UsageError("--watch goes without --again and --list: do that once, by hand")
    if not wish.watch:
        data = _round(invocation, wish)
        invocation.result(data, _text(data))
        return
    _watch(invocation, wish)


def _watch(invocation: Invocation, wish: Wish) -> None:
    """Round after round. That the store is silent is recorded once, not every minute."""
    silent: str | None = None
    while True:
        try:
            if silent is not None:
                with open_group(invocation, wish.url):
                    pass  # it answers again; else nothing new has happened, and nothing goes on record
            data = _round(invocation, wish)
            silent = None
            if data["new"] or data["changed"] or data["findings"]:
                invocation.say(_text(data))
        except LinkError as error:
            if error.code not in SILENT:
                raise
            if error.code != silent:
                invocation.note(f"{error}; tried again every {wish.every} s")
            silent = error.code
        invocation.pause(wish.every)


def _round(invocation: Invocation, wish: Wish) -> dict[str, Any]:
    """Send, then fetch, then what else waits to go out; each on record where it changes anything."""
    with watched(invocation), recorded(invocation, "ledger.send") as note, open_group(invocation, wish.url) as store:
        data = _sent(invocation, note, store, wish)
        data["findings"] += trust_findings(invocation, store)
        found = fetch_lists(invocation, store) if invocation.home.trust_file.is_file() else Fetched()
        heard(invocation, store)
    data["findings"] += [*found.findings(), *_notices(invocation)]
    return data | {"lists": found.lists, "changed": found.changed}


def _notices(invocation: Invocation) -> list[dict[str, Any]]:
    """Notices of incidents that wait, tried once more; what is wrong with them fails no hand-over."""
    from devguard.cli.incident import notified

    try:
        outcome = notified(invocation)
    except DevguardError as error:
        return [finding(error.code, error.message)]
    return [] if outcome.why is None else [finding("incident.unsent", outcome.why)]


def _sent(invocation: Invocation, note: Note, store: Store, wish: Wish) -> dict[str, Any]:
    from devguard.cli.ledger_store import station_name
    from devguard.ledger.handover import Station, hand_over

    home = invocation.home
    note.details["to"] = store.name
    trust = _give_trust(invocation, store)
    given = _give_lists(note, store, wish.lists)
    handed = hand_over(
        store,
        Station(home.evidence_folder, home.station(), invocation.now, station_name(invocation)),
        anchors=lambda name: anchor_in(home.evidence_folder, name),
        again=wish.again is not None,
        watch=lambda taken: invocation.note(f"{taken.records} records handed over") if taken.new else None,
    )
    _acknowledge(note, handed, wish, given, trust)
    findings = [] if trust is None else [finding(trust.code, trust.message)]
    return {
        "store": store.name,
        "new": handed.new,
        "records": None if handed.anchor is None else handed.anchor.records,
        "portions": handed.portions,
        "skew_seconds": handed.skew,
        "given": given,
        "findings": findings + skew_findings(handed.skew),
    }


def _acknowledge(note: Note, handed: Handed, wish: Wish, given: int, trust: DevguardError | None) -> None:
    """What the store has now, on record; nothing where nothing has happened."""
    if handed.anchor is None and wish.again is None and not given:
        note.written = True
        return
    note.details["new"] = str(handed.new)
    if handed.anchor is not None:
        note.details |= handed.anchor.details()
    if wish.again is not None:
        note.details["again"] = wish.again
    if given:
        note.details["lists"] = str(given)
    if trust is not None:
        note.details["trust"] = trust.code
    note.commit()


def _give_trust(invocation: Invocation, store: Store) -> DevguardError | None:
    """Let the store have this station's trust documents; what is wrong with them there. Records are taken all the same:
    a station that goes by another document is the last whose records should be missing."""
    from devguard.cli.ledger_store import document_files
    from devguard.ledger.shared import give_documents

    try:
        give_documents(store, document_files(invocation))
    except DevguardError as error:
        if isinstance(error, LinkError):
            raise
        return error
    return None


def _give_lists(note: Note, store: Store, files: tuple[Path, ...]) -> int:
    """Let the store have signed lists, each judged here first: what this station does not go by it hands to nobody."""
    from devguard.cli.standing import roster_of
    from devguard.custody.files import read_limited
    from devguard.evidence.checkpoint import origin_of
    from devguard.grant.suspensions import MAX_LIST, read_list
    from devguard.grant.take import take_list
    from devguard.ledger.shared import give_list

    found = [read_limited(path, MAX_LIST) for path in files]
    for data in found:
        take_list(roster_of(note), read_list(data), note.home.trust(None), note.now)
    return sum(give_list(store, data, origin_of(note.home.station().key)) for data in found)


def skew_findings(skew: int) -> list[dict[str, Any]]:
    """`clock.skew` where the station's clock is more than a minute off the database's."""
    from devguard.ledger.moment import NAMED

    way = "ahead of" if skew > 0 else "behind"
    return (
        [finding("clock.skew", f"this station's clock is {abs(skew)} s {way} the store's")] if abs(skew) > NAMED else []
    )


def _text(data: dict[str, Any]) -> str:
    if data["records"] is None:
        lines = [f"{data['store']} has all records of this station"]
    else:
        lines = [f"{data['store']} has {data['records']} records of this station, {data['new']} of them new"]
    if data["changed"]:
        lines.append(f"{data['changed']} new statements of the group are in use here")
    return "\n".join([*lines, *told(data["findings"])])
