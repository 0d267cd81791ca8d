"""`devguard verify`: is this release good, and why, as a table a person understands."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit, printed
from devguard.cli.record import Note, recorded
from devguard.cli.times import AddressRange, Installed, Moment
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
@click.option(
    "--installed", type=Installed(), metavar="VERSION|SEQ", help="What the device runs now: refuses what is older."
)
@click.option(
    "--ignore-range",
    "ignore",
    type=AddressRange(),
    multiple=True,
    help="Let records of a bare Intel HEX image in START-END pass (end not included); no signature covers them.",
)
@click.option(
    "--component",
    "components",
    multiple=True,
    metavar="ID=FILE",
    help="The bare image of a component, where FILE is an envelope without it (several times).",
)
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
    ignore: tuple[tuple[int, int], ...],
    components: tuple[str, ...],
    now: int | None,
) -> None:
    """Verify FILE... : a .suit envelope, or a bare image with --envelope.

    A release of several components has its images in the envelope, or beside it: verify the envelope then and name
    each image with --component.
    """
    _load()
    from devguard.cli.judging import target_of

    if envelope is not None and len(files) != 1:
        raise click.UsageError("--envelope goes with exactly one image")
    apart = _apart(components)
    if apart and (envelope is not None or len(files) != 1):
        raise click.UsageError("--component goes with exactly one FILE, the envelope, and without --envelope")
    outcomes: list[tuple[dict[str, Any], Exit]] = []
    try:
        target = target_of(model, serial, installed)
        asked = Question(envelope, target, ignore, now, apart)
        for file in files:
            with recorded(invocation, "release.verify") as note:
                outcomes.append(_one(invocation, note, file, trust_file, asked))
    except DevguardError as error:
        invocation.error(error, _unjudged(files, error))
        raise VerdictExit(error.exit_status) from error
    if len(files) == 1:
        invocation.result(outcomes[0][0], lambda: _print(outcomes[0][0]))
    else:
        invocation.result({"files": [data for data, _ in outcomes]}, lambda: _print_all([data for data, _ in outcomes]))
    raise VerdictExit(max(status for _, status in outcomes))


def _apart(components: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in components:
        name, separator, file = text.partition("=")
        if not (name and separator and file) or name in found:
            raise click.BadParameter(f"{text[:80]!r} is not ID=FILE, each ID once", param_hint="--component")
        found[name] = Path(file)
    return found


def _unjudged(files: tuple[Path, ...], error: DevguardError) -> dict[str, Any]:
    """The schema of the contract where nothing could be judged: unknown model, or a log that cannot be written."""
    from devguard.verdict.judge import refused_form

    rows = [refused_form(error).to_json(str(file)) for file in files]
    return rows[0] if len(rows) == 1 else {"files": rows}


def _load() -> None:
    """Load what every verdict needs while the cycle collector rests, and tell it that all of this stays.

    It would search thousands of new classes for garbage while they load, and once more at exit: a tenth of a run.
    """
    gc.disable()
    try:
        import devguard.cli.judging
        import devguard.custody.keyfile
        import devguard.evidence.log
        import devguard.trust.document  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of each file."""

    envelope: Path | None
    target: Target
    ignore: tuple[tuple[int, int], ...]
    now: int | None
    apart: dict[str, Path]


def _one(
    invocation: Invocation,
    note: Note,
    file: Path,
    trust_file: Path | None,
    asked: Question,
) -> tuple[dict[str, Any], Exit]:
    from devguard.cli.judging import judge_file
    from devguard.cli.support import support_of
    from devguard.verdict.judge import refused_form

    note.details["file"] = str(file)
    notes: tuple[str, ...] = ()
    support: dict[str, Any] | None = None
    now = asked.now if asked.now is not None else invocation.now()
    try:
        trust = invocation.home.trust(trust_file)
        with ExitStack() as stack:
            judged = judge_file(
                file,
                trust=trust,
                now=now,
                target=asked.target,
                stack=stack,
                envelope_path=asked.envelope,
                ignore=asked.ignore,
                apart=asked.apart,
            )
        verdict, notes = judged.verdict, judged.notes
        if judged.envelope is not None:
            note.manifest(judged.envelope.manifest_digest)
            if verdict.release is not None:
                said = support_of(judged.envelope)
                said.note(note, verdict.release.sequence)
                support, notes = said.as_dict(now), (*notes, *said.lines(now))
    except DevguardError as error:
        if error.code.startswith("log."):
            raise
        verdict = refused_form(error)
    note.release = _release_name(verdict)
    note.commit(verdict.code)
    return {**verdict.to_json(str(file)), "notes": list(notes), "support": support}, status_of(verdict)


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
    click.echo(f"{click.style(head, fg=colour, bold=True)}  {printed(data['file'])}")
    if name:
        click.echo(f"  {printed(name)}, sequence {release.get('sequence')}, {release.get('size')} bytes")
        several = release["components"] if len(release["components"]) > 1 else []
        for one in several:
            click.echo(f"       {printed(one['id'])}: {one['size']} bytes, digest {one['digest']}")
    for check in data["checks"]:
        mark = (
            click.style("ok  ", fg="green")
            if check["ok"]
            else click.style("FAIL" if check["code"] else "-   ", fg="red")
        )
        click.echo(f"  {mark} {check['name']:17} {printed(check['detail'])}")
        if not check["ok"] and check["code"]:
            click.echo(f"       {check['code']} ({check['standard']})")
    for one in data["signatures"]:
        mark = "ok  " if one["ok"] else "FAIL"
        click.echo(
            f"  {mark} signature         {printed(one['person'] or 'unknown person')} ({one['role'] or 'no role'}), "
            f"{one['alg']}, key {one['key'][:16]}"
        )
    for text in data.get("notes", ()):
        click.echo(f"  note {text}")
    if not data["accepted"]:
        click.echo(f"  do: {CODES[data['code']].remedy if data['code'] in CODES else 'do not install'}")
