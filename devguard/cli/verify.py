"""`devguard verify`: is this release good, and why, as a table a person understands."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.cli.record import Note, recorded
from devguard.cli.times import Moment
from devguard.errors import CODES, DevguardError, Exit

if TYPE_CHECKING:
    from devguard.verdict.judge import Target, Verdict


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@click.option("--envelope", type=click.Path(path_type=Path), help="The envelope, where FILE is the bare image.")
@click.option("--model", help="Judge for this device model.")
@click.option("--serial", help="Judge for this serial number.")
@click.option("--installed", metavar="VERSION|SEQ", help="What the device runs now: refuses what is older.")
@click.option("--now", type=Moment(), help="Judge as of this time (ISO 8601).")
@click.pass_obj
def verify(
    invocation: Invocation,
    files: tuple[Path, ...],
    trust_file: Path | None,
    envelope: Path | None,
    model: str | None,
    serial: str | None,
    installed: str | None,
    now: int | None,
) -> None:
    """Verify FILE... : a .suit envelope, or a bare image with --envelope."""
    from devguard.cli.judging import target_of

    if envelope is not None and len(files) != 1:
        raise click.UsageError("--envelope goes with exactly one image")
    target = target_of(model, serial, installed)
    outcomes: list[tuple[dict[str, Any], Exit]] = []
    for file in files:
        with recorded(invocation, "release.verify") as note:
            outcomes.append(_one(invocation, note, file, trust_file, envelope, target, now))
    if len(files) == 1:
        invocation.result(outcomes[0][0], lambda: _print(outcomes[0][0]))
    else:
        invocation.result({"files": [data for data, _ in outcomes]}, lambda: _print_all([data for data, _ in outcomes]))
    raise VerdictExit(max(status for _, status in outcomes))


def _one(
    invocation: Invocation,
    note: Note,
    file: Path,
    trust_file: Path | None,
    envelope: Path | None,
    target: Target,
    now: int | None,
) -> tuple[dict[str, Any], Exit]:
    from devguard.cli.judging import judge_file
    from devguard.verdict.judge import refused_form

    note.details["file"] = str(file)
    try:
        trust = invocation.home.trust(trust_file)
        with ExitStack() as stack:
            judged = judge_file(
                file,
                trust=trust,
                now=now if now is not None else invocation.now(),
                target=target,
                stack=stack,
                envelope_path=envelope,
            )
        verdict = judged.verdict
        if judged.envelope is not None:
            note.manifest(judged.envelope.manifest_digest)
    except DevguardError as error:
        if error.code.startswith("log."):
            raise
        verdict = refused_form(error)
    note.release = _release_name(verdict)
    note.commit(verdict.code)
    return verdict.to_json(str(file)), status_of(verdict)


def status_of(verdict: Verdict) -> Exit:
    """0 for accepted, else the exit status of the verdict's code."""
    if verdict.code is None:
        return Exit.DONE
    known = CODES.get(verdict.code)
    return known.exit if known is not None else Exit.REFUSED


def _release_name(verdict: Verdict) -> str | None:
    claims = verdict.claims
    return f"{claims.get('model')} {claims.get('version')}" if claims else None


def _print_all(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        _print(row)


def _print(data: dict[str, Any]) -> None:
    release = data["release"] or {}
    name = " ".join(str(release[key]) for key in ("vendor", "model", "version") if release.get(key))
    colour = "green" if data["accepted"] else "red"
    head = "ACCEPTED" if data["accepted"] else f"REFUSED {data['code']}"
    click.echo(f"{click.style(head, fg=colour, bold=True)}  {data['file']}")
    if name:
        click.echo(f"  {name}, sequence {release.get('sequence')}, {release.get('size')} bytes")
    for check in data["checks"]:
        mark = (
            click.style("ok  ", fg="green")
            if check["ok"]
            else click.style("FAIL" if check["code"] else "-   ", fg="red")
        )
        click.echo(f"  {mark} {check['name']:17} {check['detail']}")
        if not check["ok"] and check["code"]:
            click.echo(f"       {check['code']} ({check['standard']})")
    for one in data["signatures"]:
        mark = "ok  " if one["ok"] else "FAIL"
        click.echo(
            f"  {mark} signature         {one['person'] or 'unknown person'} ({one['role'] or 'no role'}), "
            f"{one['alg']}, key {one['key'][:16]}"
        )
    if not data["accepted"]:
        click.echo(f"  do: {CODES[data['code']].remedy if data['code'] in CODES else 'do not install'}")
