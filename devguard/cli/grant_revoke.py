"""`devguard grant revoke|list`: take grants back before they end, and see which are open."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.record import recorded
from devguard.cli.times import iso
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cli.home import Home

CTI: Final = re.compile(r"[0-9a-f]{32}")


def trust_epoch(home: Home) -> int | None:
    """The grant epoch of the trust document in use here; None without one."""
    return home.trust(None).grant_epoch if home.trust_file.is_file() else None


@click.command("revoke", cls=Command)
@click.argument("targets", nargs=-1, metavar="[FILE|CTI]...")
@click.option("--all", "every", is_flag=True, help="Every grant of an epoch before the next one.")
@click.option("--reason", default="", help="Why, for the record.")
@click.pass_obj
def revoke(invocation: Invocation, targets: tuple[str, ...], every: bool, reason: str) -> None:
    """Take grants back: a file, or a token id as `grant list` shows it.

    This station refuses them from now on, and so does each that imports its list (`technician export`). Devices refuse
    them once they have seen a grant of the next epoch, and at the latest when they expire.
    """
    from devguard.cli.issued import issued_here, latency_of
    from devguard.cli.standing import changing
    from devguard.grant.claims import MAX_LIFE

    if bool(targets) == every:
        raise click.UsageError("say which: grants by file or token id, or --all")
    now, home = invocation.now(), invocation.home
    with recorded(invocation, "grant.revoke") as note, changing(note) as change:
        known = {one.cti: one.expires for one in issued_here(home, now)}
        taken = dict(_target(text, known, now + MAX_LIFE) for text in targets)
        before, base = change.roster, trust_epoch(home)
        after = before.without_expired(now).merged((), taken).raised(base)
        latency = latency_of(note, before, after, now, base, lambda one: every or one.cti in taken)
        note.details.update(reason=reason, epoch=str(latency.epoch))
        note.details["grants"] = "all before" if every else ", ".join(cti.hex() for cti in taken)
        change.keep(after)
    what = "every grant of an older epoch" if every else f"{len(taken)} grant{'s' if len(taken) > 1 else ''}"
    invocation.result(
        {"revoked": [cti.hex() for cti in taken], "all": every, **latency.as_dict},
        "\n".join([f"taken back: {what}; this station refuses from now on", *latency.lines("these", now)]),
    )


def _target(text: str, known: dict[bytes, int], latest: int) -> tuple[bytes, int]:
    """(token id, expiry) of a grant by file or token id."""
    if CTI.fullmatch(text):
        cti = bytes.fromhex(text)
        return cti, known.get(cti, latest)
    from devguard.cli.files import read_grant_file

    one = read_grant_file(Path(text))
    return one.cti, one.expires


@click.command("list", cls=Command)
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the grants kept in the home, and those issued here that are still open."""
    from devguard.cli.issued import as_dict, issued_here
    from devguard.cli.standing import look

    now, home = invocation.now(), invocation.home
    kept, roster = kept_grants(invocation, now), look(home)
    issued = [
        {**as_dict(one), "minutes_left": (one.expires - now) // 60, "taken_back": one.taken_back(roster)}
        for one in issued_here(home, now)
    ]
    lines = ["kept here:", *(f"  {kept_line(row)}" for row in kept)] if kept else ["kept here: none"]
    lines.append("issued here, and not expired:" if issued else "issued here, and not expired: none")
    for row in issued:
        state = ", TAKEN BACK" if row["taken_back"] else ""
        lines.append(
            f"  {row['cti']}  {row['technician']} on {', '.join(row['serials'])}, {row['minutes_left']} min left, "
            f"epoch {row['epoch']}{state}"
        )
    invocation.result({"grants": kept, "issued": issued}, "\n".join(lines))


def kept_grants(invocation: Invocation, now: int) -> list[dict[str, Any]]:
    """The grants in the home with what stands against each, as far as this station knows; nothing is written."""
    from devguard.cli.files import read_grant_file
    from devguard.cli.standing import look

    home = invocation.home
    try:
        roster, wrong = look(home), None
    except DevguardError as error:
        roster, wrong = None, error.code
    rows: list[dict[str, Any]] = []
    for path in home.grant_files():
        try:
            one = read_grant_file(path)
        except DevguardError as error:
            rows.append({"file": path.name, "code": error.code})
            continue
        code = wrong
        try:
            if roster is not None:
                roster.check_grant(one)
            if one.not_before > now:
                raise Refused("grant.not-yet", f"valid in {one.not_before - now} s")
            if one.expires <= now:
                raise Refused("grant.expired", f"expired {now - one.expires} s ago")
        except DevguardError as error:
            code = error.code
        rows.append(
            {
                "file": path.name,
                "technician": one.subject,
                "serials": sorted(one.scope.serials),
                "expires": iso(one.expires),
                "minutes_left": max(0, (one.expires - now) // 60),
                "valid": code is None,
                **({} if code is None else {"code": code}),
            }
        )
    return rows


def kept_line(row: dict[str, Any]) -> str:
    """One of them for people."""
    if "technician" not in row:
        return f"{row['file']}: {row['code']}"
    state = f"{row['minutes_left']} min left" if row["valid"] else row["code"]
    return f"{row['file']}: {row['technician']} on {', '.join(row['serials'])}, {state}"


REVOKING: Final = (revoke, list_)
