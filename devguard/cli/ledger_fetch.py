"""`devguard ledger fetch`: suspensions and revocations of the group, as the signed lists they are, judged here.

The store is not believed: a list counts by its signatures and this station's trust document, as one on a stick does.
Newer trust documents are only told of, and written out on demand; `devguard trust follow` judges them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.group import finding, heard, open_group, watched
from devguard.cli.record import recorded
from devguard.errors import DevguardError

if TYPE_CHECKING:
    from devguard.ledger.store import Store

SHOWN = 8

store_option = click.option(
    "--store", "url", metavar="URL", help="The group's store (default: DEVGUARD_STORE, then [store] url)."
)


@dataclass(slots=True)
class Fetched:
    """lists: how many were looked at; changed: statements and revocations that are new here; refused: (digest, code,
    why) of lists that nobody may go by."""

    lists: int = 0
    changed: int = 0
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    left: int = 0

    def findings(self) -> list[dict[str, Any]]:
        """What a person should look at."""
        found = [finding(code, f"list {digest[:16]}: {why}") for digest, code, why in self.refused[:SHOWN]]
        if self.left:
            found.append(finding("ledger.lists", f"{self.left} older lists in the store were not looked at"))
        return found


@click.command(cls=Command)
@store_option
@click.option(
    "--trust-out", type=click.Path(path_type=Path), metavar="DIR", help="Write newer trust documents here, unjudged."
)
@click.pass_obj
def fetch(invocation: Invocation, url: str | None, trust_out: Path | None) -> None:
    """Take suspensions and revocations of the whole group: signed lists, each judged by this station itself."""
    with recorded(invocation, "ledger.fetch") as note, watched(invocation), open_group(invocation, url) as store:
        note.details["to"] = store.name
        found = fetch_lists(invocation, store)
        findings = [*found.findings(), *trust_findings(invocation, store)]
        written = [] if trust_out is None else _write_trust(invocation, store, trust_out)
        note.details.update(lists=str(found.lists), refused=str(len(found.refused)))
        heard(invocation, store)
    data = {"lists": found.lists, "changed": found.changed, "findings": findings, "trust": written}
    lines = [f"{found.lists} lists of the group looked at, {found.changed} new statements in use here"]
    invocation.result(data, "\n".join([*lines, *(f"written: {path}" for path in written), *told(findings)]))


def told(findings: list[dict[str, Any]]) -> list[str]:
    """Findings for people."""
    return [f"note: {one['code']}: {one['message']}; {one['hint']}" for one in findings]


def fetch_lists(invocation: Invocation, store: Store) -> Fetched:
    """Take over what the lists in the store say, as far as this station's trust document goes by them: a record of each
    list that says anything new, as of one that came on a stick.

    Raises what reading the store, the roster and the trust document raises.
    """
    from devguard.cli.standing import look
    from devguard.cli.technician_carry import news, take_over
    from devguard.grant.suspensions import read_list
    from devguard.grant.take import take_list
    from devguard.ledger.shared import lists_in

    with store.read() as conn:
        there = lists_in(conn)
    found = Fetched(lists=len(there.found), left=there.left)
    if not there.found:
        return found
    trust, roster = invocation.home.trust(None), look(invocation.home)
    for data in there.found:
        try:
            one = read_list(data)
            after = take_list(roster, one, trust, invocation.now())[0]
        except DevguardError as error:
            found.refused.append((hashlib.sha256(data).hexdigest(), error.code, error.message))
            continue
        if news(roster, after) or after.epoch != roster.epoch:
            with recorded(invocation, "technician.import") as note:
                note.details["store"] = store.name
                found.changed += take_over(note, one, trust)[0]
            roster = look(invocation.home)
    return found


def trust_findings(invocation: Invocation, store: Store) -> list[dict[str, Any]]:
    """`trust.behind` where the store knows of a newer trust document than the one in use here."""
    from devguard.ledger.shared import newest_version

    with store.read() as conn:
        there = newest_version(conn)
    mine = trust_version(invocation)
    if there is None or mine is None or there <= mine:
        return []
    return [finding("trust.behind", f"version {mine} is in use here, the group has version {there}")]


def trust_version(invocation: Invocation) -> int | None:
    """The version of the trust document in use here; None without one that may be used."""
    try:
        return invocation.home.trust(None).version
    except DevguardError:
        return None


def _write_trust(invocation: Invocation, store: Store, folder: Path) -> list[str]:
    from devguard.cli.trust_folder import CURRENT
    from devguard.custody.files import file_error, write_atomic
    from devguard.ledger.shared import documents_after

    with store.read() as conn:
        found = documents_after(conn, trust_version(invocation) or 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(folder, error) from None
    for number, data in found:
        write_atomic(folder / f"{number}.trust", data)
    if found:
        write_atomic(folder / CURRENT, found[-1][1])
    return [str(folder / f"{number}.trust") for number, _ in found]
