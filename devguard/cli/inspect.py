"""`devguard inspect FILE|-`: what a file is, field by field, and what is wrong with it.

It decides nothing: no trust document is asked, no clock is read, no evidence is written. What a file holds and which
rules it breaks is found by `inspecting_kinds` and `inspecting_suit`; here are options, printing and exit status.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from devguard.cli.context import Command, Invocation, VerdictExit
from devguard.errors import DevguardError, Malformed

if TYPE_CHECKING:
    from devguard.cli.inspecting import Keys, Report

STDIN_LIMIT: Final = 64 << 20
KEY_LIMIT: Final = 16 * 1024
_ADDRESSES: Final = frozenset(
    {
        "address", "start", "end", "entry", "physical", "virtual", "offset", "header", "load_address", "start_address",
        "initial_stack_pointer", "reset_vector", "flash_base",
    }
)  # fmt: skip
_KEY: Final = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("file", metavar="FILE|-", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--mcuboot-key", type=_KEY, help="Judge as MCUboot; check its signature with this PEM key.")
@click.option(
    "--mcuboot-enc-key",
    type=_KEY,
    help="The device's own key (PEM, or a key-wrapping key) to read an encrypted MCUboot image.",
)
@click.option("--cose-key", type=_KEY, help="Check the COSE signatures in the file with this PEM key.")
@click.pass_obj
def inspect(
    invocation: Invocation, file: Path, mcuboot_key: Path | None, mcuboot_enc_key: Path | None, cose_key: Path | None
) -> None:
    """Say what FILE is, field by field, and what is wrong with it. `-` reads standard input."""
    if cose_key is not None and (mcuboot_key is not None or mcuboot_enc_key is not None):
        raise click.UsageError("--cose-key and --mcuboot-key are for different kinds of file: give one of them")
    from devguard.cli.inspecting import Report

    report = Report()
    try:
        keys = _keys(mcuboot_key, mcuboot_enc_key, cose_key)
        with ExitStack() as stack:
            _look(_open(file, stack), keys, report)
    except DevguardError as error:
        report.error(error)
    data = report.to_json(str(file))
    invocation.result(data, lambda: _print(data))
    raise VerdictExit(report.exit_status)


def _open(file: Path, stack: ExitStack) -> BinaryIO:
    """The file, or all of standard input in memory; `wire.malformed` when that is more than 64 MiB."""
    if str(file) != "-":
        from devguard.cli.files import open_input

        return stack.enter_context(open_input(file))
    data = sys.stdin.buffer.read(STDIN_LIMIT + 1)
    if len(data) > STDIN_LIMIT:
        raise Malformed("wire.malformed", f"standard input has more than {STDIN_LIMIT} bytes", "give the file by name")
    return io.BytesIO(data)


def _keys(mcuboot: Path | None, encryption: Path | None, cose: Path | None) -> Keys:
    from devguard.cli.inspecting import Keys, cose_key, encryption_key
    from devguard.custody.files import read_limited

    keys = Keys()
    if mcuboot is not None:
        from devguard.image.mcuboot_keys import image_key_from_pem

        keys.mcuboot = image_key_from_pem(read_limited(mcuboot, KEY_LIMIT))
    if encryption is not None:
        from devguard.image.mcuboot_encryption import device_key

        secret = read_limited(encryption, KEY_LIMIT)
        keys.device, keys.encryption = device_key(secret), encryption_key(secret)
    if cose is not None:
        keys.cose = cose_key(read_limited(cose, KEY_LIMIT))
    return keys


def _look(reader: BinaryIO, keys: Keys, report: Report) -> None:
    """Recognise the file and describe it; the MCUboot keys say by themselves what the file is to be."""
    from devguard.cli import inspecting
    from devguard.image.kind import Kind, recognise

    head, tail = inspecting.ends(reader)
    asked = keys.mcuboot is not None or keys.encryption is not None
    report.kind = Kind.MCUBOOT if asked else recognise(head, tail)
    if keys.cose is not None:
        report.fields["cose_key"] = inspecting.key_fields(keys.cose)
    if report.kind in (Kind.SUIT_ENVELOPE, Kind.SUIT_MANIFEST):
        from devguard.cli import inspecting_suit

        inspecting_suit.describe(reader, keys, report)
    else:
        from devguard.cli import inspecting_kinds

        inspecting_kinds.describe(reader, keys, report)


def printable(text: str) -> str:
    """`text` for a terminal: control and direction characters of a hostile file stay visible escapes."""
    return text if text.isprintable() else json.dumps(text)


def _print(data: dict[str, Any]) -> None:
    problems = data["problems"]
    state = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}, told last" if problems else "no problem found"
    shown = click.style(state, fg="red" if problems else "green")
    click.echo(f"{click.style(data['kind'], bold=True)}  {printable(data['file'])}  {shown}")
    _print_fields({name: value for name, value in data["fields"].items() if name not in ("places", "tlvs")}, 1)
    if data["fields"].get("places"):
        _print_places(data["fields"]["places"])
    for one in problems:
        where = "" if one["offset"] is None else f" (offset {one['offset']:#x})"
        click.echo(f"{click.style('problem', fg='red')} {one['code']}: {printable(one['detail'])}{where}")
    if not problems:
        click.echo(click.style("no problem found", fg="green"))


def _print_places(rows: list[dict[str, Any]]) -> None:
    """The fields where they stand, as beside a hex dump."""
    click.echo("  in the file")
    click.echo(f"    {'offset':>10}  {'bytes':>5}  {'field':26} {'value':24} meaning")
    for row in rows:
        value = row["value"]
        text = f"{value:#x}" + (f" = {value}" if 9 < value < 1 << 24 else "") if type(value) is int else str(value)
        text = text if len(text) <= 24 else f"{text[:21]}..."
        named = f"{row['offset']:#10x}  {row['size']:5}  {printable(str(row['name'])):26} {printable(text):24}"
        click.echo(f"    {named} {printable(str(row['meaning']))}")


def _print_fields(fields: dict[str, Any], depth: int) -> None:
    for name, value in fields.items():
        label = f"{'  ' * depth}{printable(name)}"
        if isinstance(value, dict) and value:
            click.echo(label)
            _print_fields(value, depth + 1)
        elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
            click.echo(label)
            for item in value:
                click.echo(f"{'  ' * (depth + 1)}- {_inline(item)}")
        else:
            click.echo(f"{label:24} {_valued(name, value)}")


def _valued(name: str, value: Any) -> str:
    """Addresses and offsets as an engineer reads them; everything else as it is."""
    return f"{value:#010x}" if name in _ADDRESSES and type(value) is int else _inline(value)


def _inline(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{printable(name)} {_valued(name, item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(item) for item in value) + "]" if value else "none"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value))
