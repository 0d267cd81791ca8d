"""`devguard evidence incident new|list|show|release|export`: what to look into, and that somebody did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.evidence_keys import evidence_folder, station_of, written
from devguard.cli.incidents import all_incidents, policy_of
from devguard.cli.notices import Outcome
from devguard.cli.record import operator, recorded
from devguard.cli.times import iso, left
from devguard.errors import LinkError, Refused

if TYPE_CHECKING:
    from devguard.evidence.incident import Incident

_DECISION = click.option(
    "--decision",
    type=click.Choice(["controlled", "uncontrolled"]),
    help="Whether the risk is controlled: exploitability against harm to a patient, decided by people.",
)


@click.group()
def incident() -> None:
    """Incidents: raised by rules or by people, released by an officer, exported for others."""


@incident.command("new", cls=Command)
@click.option("--title", required=True, help="What was noticed, in a line; stays in the log.")
@click.option("--record", "numbers", multiple=True, type=click.IntRange(0), help="A record it concerns (repeatable).")
@click.option("--device", metavar="SERIAL", help="The device it is about.")
@_DECISION
@click.pass_obj
def new(invocation: Invocation, title: str, numbers: tuple[int, ...], device: str | None, decision: str | None) -> None:
    """Raise an incident by hand."""
    from devguard.evidence.rules import SHOWN, Kind

    if len(numbers) > SHOWN:
        raise click.UsageError(f"an incident names at most {SHOWN} records")
    with recorded(invocation, "incident.new") as note:
        size = 0 if note.log is None else note.log.size
        if any(number >= size for number in numbers):
            raise Refused("incident.unknown", f"record {max(numbers)} was named, the log has {size}")
        identifier = note.request = f"{Kind.MANUAL}-{note.request[:8]}"
        note.device = device
        note.details |= {"kind": Kind.MANUAL.value, "title": title}
        if device is not None:
            note.details["subject"] = device
        if numbers:
            note.details["records"] = " ".join(map(str, sorted(set(numbers))))
        if decision is not None:
            note.details["decision"] = decision
        note.commit()
    invocation.result({"id": identifier, "records": sorted(set(numbers))}, f"{identifier}: on record")


@incident.command("list", cls=Command)
@click.option("--all", "every", is_flag=True, help="Those that were released too.")
@click.pass_obj
def list_incidents(invocation: Invocation, every: bool) -> None:
    """Incidents that wait for an officer, oldest first; what blocks a push says so."""
    block, now = policy_of(invocation.home).block, invocation.now()
    found = [one for one in all_incidents(evidence_folder(invocation)).values() if every or one.open]
    rows = [{**one.to_json(now), "blocks": one.open and one.kind in block} for one in found]
    lines = [f"{one.id:20} {iso(one.time)} {_standing(one, block):12} {one.subject}" for one in found]
    lines = [f"{line}{_clock_note(one, now)}" for line, one in zip(lines, found, strict=True)]
    invocation.result({"incidents": rows}, "\n".join(lines) or "no incident is open")


def _standing(one: Incident, block: frozenset[str]) -> str:
    return "released" if not one.open else "BLOCKS PUSH" if one.kind in block else "open"


def _clock_note(one: Incident, now: int) -> str:
    from devguard.evidence.incident import clocks

    late = [clock for clock in clocks(one, now) if clock.state in ("soon", "overdue")]
    return "".join(f"  {clock.days} days: {_due(clock.due, now)}" for clock in late)


def _due(due: int, now: int) -> str:
    return f"OVERDUE since {iso(due)}" if now > due else f"{left(due - now)} left"


@incident.command("show", cls=Command)
@click.argument("identifier", metavar="ID")
@click.pass_obj
def show(invocation: Invocation, identifier: str) -> None:
    """What an incident is of, its records in their order, and until when who has to be told."""
    from devguard.evidence.incident import clocks
    from devguard.evidence.log import read_entries

    folder, now = evidence_folder(invocation), invocation.now()
    one = incident_of(invocation, identifier)
    wanted = {*one.records, *one.own}
    records = {entry.index: entry.record for entry in read_entries(folder) if entry.index in wanted}
    lines = [*_headline(one), *(f"  {days}" for days in _days(one, now))]
    for index, record in sorted(records.items()):
        why = record.details.get("reason", record.details.get("title", record.details.get("why", "")))
        lines.append(f"{index:6} {iso(record.time)} {record.code or 'ok':18} {record.action:18} {record.actor}  {why}")
    rows = [{"index": index, **record.to_json()} for index, record in sorted(records.items())]
    data = {**one.to_json(now), "timeline": rows, "overdue": any(c.state == "overdue" for c in clocks(one, now))}
    invocation.result(data, "\n".join(lines))


def _headline(one: Incident) -> list[str]:
    from devguard.evidence.rules import MEANING

    lines = [f"{one.id}: {one.subject}, {MEANING.get(one.kind, one.kind)}", f"  raised     {iso(one.time)}"]
    if one.device is not None:
        lines.append(f"  device     {one.device}")
    lines.append(f"  risk       {one.decision}")
    if one.released is None:
        lines.append(f"  open       devguard evidence incident release {one.id} --officer NAME --reason TEXT")
    else:
        lines.append(f"  released   {iso(one.released[2])} by {one.released[1]} (record {one.released[0]})")
    return lines


def _days(one: Incident, now: int) -> list[str]:
    from devguard.evidence.incident import clocks

    return [
        f"{clock.days} days    {'none: the risk is controlled' if clock.state == 'stopped' else _due(clock.due, now)}"
        f" ({clock.duty})"
        for clock in clocks(one, now)
    ]


@incident.command("release", cls=Command)
@click.argument("identifier", metavar="ID")
@click.option("--officer", required=True, metavar="NAME", help="Who looked into it.")
@click.option("--reason", required=True, help="What was found out, for the record.")
@_DECISION
@click.pass_obj
def release(invocation: Invocation, identifier: str, officer: str, reason: str, decision: str | None) -> None:
    """Take note, by name, that somebody looked into an incident; what it blocked may go on."""
    if not officer.strip() or not reason.strip():
        raise click.UsageError("an incident is released by somebody, for a reason")
    with recorded(invocation, "incident.release") as note:
        one = incident_of(invocation, identifier)
        if not one.open:
            raise Refused("incident.unknown", f"{identifier} is released already")
        note.actor, note.request, note.device = officer, one.id, one.device
        note.details |= {"kind": one.kind, "reason": reason, "account": operator()}
        if decision is not None:
            note.details["decision"] = decision
        note.commit()
    data: dict[str, Any] = {"id": one.id, "officer": officer, "decision": decision or one.decision}
    invocation.result(data, f"{one.id}: released by {officer}")


@incident.command("export", cls=Command)
@click.argument("identifier", metavar="ID")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The bundle to write.")
@click.option("--whole", is_flag=True, help="Every record whole, with what people typed: file names, reasons.")
@_DECISION
@click.pass_obj
def export(invocation: Invocation, identifier: str, out: Path, whole: bool, decision: str | None) -> None:
    """Write all there is on an incident as one file: `evidence verify FILE --key PUB` judges it, anywhere.

    Records with file names, reasons or other words of people are excerpts without them, unless --whole.
    """
    from dataclasses import replace

    from devguard.evidence.bundle import MOST, body_of, digest_of, encode, section_digests
    from devguard.evidence.log import read_entries
    from devguard.evidence.prove import prove_records
    from devguard.evidence.verify import verify_log

    folder = evidence_folder(invocation)
    with recorded(invocation, "incident.export") as note:
        key = station_of(invocation, lambda: "", None, None).key
        verify_log(folder, key)
        one = incident_of(invocation, identifier)
        one = one if decision is None else replace(one, decision=decision)
        wanted = sorted({*one.records, *one.own})[-MOST:]
        entries = [entry for entry in read_entries(folder, wanted[-1] + 1) if entry.index in wanted]
        lines = body_of(one, entries, note.now, whole=whole)
        note.request, note.device = one.id, one.device
        note.details |= {"kind": one.kind, **section_digests(lines)}
        if decision is not None:
            note.details["decision"] = decision
        note.digest("PAYLOAD", digest_of(lines))
        note.commit()
        sealed = note.log.size - 1 if note.log is not None else 0
    *proofs, seal = prove_records(folder, key, [*wanted, sealed])
    written(out, encode(lines, proofs, seal))
    excerpts = sum('"whole":null' in line for line in lines)
    data = {"file": str(out), "id": one.id, "records": len(wanted), "excerpts": excerpts, "sealed": sealed}
    text = f"{out}: {one.id}, {len(wanted)} records with their proofs, {excerpts} of them without what people typed"
    invocation.result(data, f"{text}\nwho has it needs only the station's public key: `devguard evidence verify {out}`")


@incident.command("notify", cls=Command)
@click.pass_obj
def notify(invocation: Invocation) -> None:
    """Send the notices of incidents that wait because they could not be sent. Each way is tried until it fails."""
    outcome = notified(invocation, always=True)
    data = {"sent": outcome.sent, "waiting": outcome.kept, "given_up": outcome.given_up}
    if outcome.why is not None:
        raise LinkError(
            "incident.unsent", f"{outcome.sent} sent, {outcome.kept} wait, {outcome.given_up} given up: {outcome.why}"
        )
    invocation.result(data, f"{outcome.sent} notices sent, none waits")


def notified(invocation: Invocation, *, always: bool = False) -> Outcome:
    """Try what waits in the outbox; on record with `always`, and wherever a notice went out or was given up."""
    from devguard.cli.notices import flush, outbox

    if not always and not outbox(invocation.home).is_dir():
        return Outcome()
    with recorded(invocation, "incident.notify") as note:
        outcome = flush(invocation.home, note.now)
        note.details.update(sent=str(outcome.sent), waiting=str(outcome.kept), dropped=str(outcome.given_up))
        note.written = not always and not outcome.sent and not outcome.given_up
        if outcome.why is not None and not note.written:
            note.details["why"] = outcome.why
            note.commit("incident.unsent")
    return outcome


def incident_of(invocation: Invocation, identifier: str) -> Incident:
    """The incident of that id; `incident.unknown` without one."""
    found = all_incidents(evidence_folder(invocation)).get(identifier)
    if found is None:
        raise Refused("incident.unknown", f"no incident {identifier!r} is on record here")
    return found
