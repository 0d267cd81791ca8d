"""`devguard packets families|decode|watch`: what a pump, a meter or a programmer said on its line.

It listens. No command here writes to a port: the port is opened for reading, and nothing of the `packets` room sends.
Patient data of a capture is masked unless `--show-patient-data`; keys come from files and are never printed.
"""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Hashable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, LazyGroup, VerdictExit, printed
from devguard.errors import DevguardError, Exit, Malformed, Refused

if TYPE_CHECKING:
    from devguard.packets.capture import Form
    from devguard.packets.family import Family
    from devguard.packets.packet import Context, Packet

KEY_LIMIT: Final = 4096
DECODE_LIMIT: Final = 16 << 20
_SCHEMES: Final = ("socket://", "rfc2217://", "loop://")


@click.group(cls=LazyGroup, table={})
def packets() -> None:
    """Read device packets: pumps, meters, sensors, programmers. Nothing is ever sent."""


context_options = [
    click.option(
        "--key", "keys", multiple=True, metavar="PURPOSE=FILE", help="A secret of the family (such as hmac), from FILE."
    ),
    click.option(
        "--with", "names", multiple=True, metavar="NAME=VALUE", help="What the bytes do not say (such as device=NAME)."
    ),
    click.option("--show-patient-data", is_flag=True, help="Print glucose, doses delivered, dates and serials."),
]


def with_context(command: Any) -> Any:
    """The options that tell a family what the bytes do not."""
    for option in reversed(context_options):
        command = option(command)
    return command


@packets.command(cls=Command)
@click.argument("name", metavar="[FAMILY]", required=False)
@click.pass_obj
def families(invocation: Invocation, name: str | None) -> None:
    """List the families, or say what is supported of one."""
    from devguard.packets.registry import families as every
    from devguard.packets.registry import family_named

    chosen = every() if name is None else [family_named(name)]
    rows = [_about(family) for family in chosen]
    if name is not None:
        invocation.result(rows[0], f"{rows[0]['family']}: {rows[0]['title']}\n\n{rows[0]['help']}")
        return
    lines = [f"{row['family']:20} {row['title']}" for row in rows]
    invocation.result({"families": rows}, "\n".join([*lines, "", "more of one: devguard packets families FAMILY"]))


def _about(family: Family) -> dict[str, Any]:
    module = sys.modules[family.decode.__module__]
    return {
        "family": family.name,
        "title": family.title,
        "baud": family.baud,
        "stream": family.framer is not None,
        "help": inspect.cleandoc(module.__doc__ or ""),
    }


@packets.command(cls=Command)
@click.argument("family")
@click.argument("source", metavar="HEX|FILE|-")
@with_context
@click.pass_obj
def decode(
    invocation: Invocation,
    family: str,
    source: str,
    keys: tuple[str, ...],
    names: tuple[str, ...],
    show_patient_data: bool,
) -> None:
    """Decode packets of FAMILY from hex digits, a file (hex text, raw bytes, pcap) or standard input."""
    # Whoever types the bytes has seen them: only captures are masked.
    patient_data = show_patient_data or (source != "-" and not _exists(Path(source)))
    try:
        from devguard.packets.registry import family_named

        found = _decoded(family_named(family), source, _context(keys, names))
    except DevguardError as error:
        invocation.error(error, _unread(family, error))
        raise VerdictExit(error.exit_status) from None
    shown = [packet.to_json(patient_data=patient_data) for packet in found]
    bad = next((packet.code for packet in found if not packet.valid), None)
    data = shown[0] if len(shown) == 1 else {"family": family, "valid": bad is None, "code": bad, "packets": shown}
    invocation.result(data, lambda: _print_all(found, patient_data=patient_data))
    raise VerdictExit(Exit.DONE if bad is None else Exit.MALFORMED)


def _unread(family: str, error: DevguardError) -> dict[str, Any]:
    """The schema of `packets decode` where there was no packet to decode."""
    flags = {"valid": False, "crc_ok": None, "therapy_affecting": False, "effect": "unknown", "authenticated": False}
    return {"family": family, "name": "unreadable", **flags, "fields": {}, "code": error.code}


def _decoded(family: Family, source: str, context: Context) -> list[Packet]:
    """Every packet of the argument. Hex digits, and a file of one line or one record, are one packet as they stand;
    longer captures of a family with marks of its own are searched."""
    from devguard.packets import capture
    from devguard.packets.decoder import Decoder

    path = Path(source)
    if source != "-" and not _exists(path):
        return [family.decode(capture.hex_bytes(source.encode(errors="replace"), "the argument"), context)]
    with ExitStack() as stack:
        reader = _open(source, stack)
        data = reader.read(DECODE_LIMIT + 1)
    if len(data) > DECODE_LIMIT:
        raise Malformed("capture.malformed", f"more than {DECODE_LIMIT} bytes", "use `devguard packets watch` for it")
    form = capture.recognise(data[:4096])
    parts = list(capture.records(io.BytesIO(data), form))
    whole = form in (capture.Form.RAW, capture.Form.HEX)
    if not parts:
        raise Malformed("packet.length", "there are no bytes to decode")
    if whole and (len(parts) == 1 or form is capture.Form.RAW):
        alone = family.decode(b"".join(part.data for part in parts), context)
        if alone.valid or family.framer is None:
            return [alone]
    decoder = Decoder(family, context, edges=form is capture.Form.HEX)
    found = [packet for part in parts for _, packet in decoder.feed(part.data, (part.interface, part.direction))]
    found += [packet for _, packet in decoder.finish()]
    return found or [family.decode(b"".join(part.data for part in parts), context)]


@packets.command(cls=Command)
@click.argument("family")
@click.argument("source", metavar="PORT|FILE|-")
@click.option("--baud", type=click.IntRange(300, 12_000_000), help="Line speed of a port (default: the family's).")
@click.option("--follow", is_flag=True, help="At the end of a file wait for more, until Ctrl-C.")
@with_context
@click.pass_obj
def watch(
    invocation: Invocation,
    family: str,
    source: str,
    baud: int | None,
    follow: bool,
    keys: tuple[str, ...],
    names: tuple[str, ...],
    show_patient_data: bool,
) -> None:
    """Follow a port or a file: one line per packet, a summary at the end. Ctrl-C ends it; -q prints what acts only."""
    from devguard.cli.watching import Tally, report
    from devguard.packets.capture import Form
    from devguard.packets.decoder import Decoder
    from devguard.packets.registry import family_named

    chosen, context = family_named(family), _context(keys, names)
    decoder: Decoder | None = None
    tally = Tally()
    interrupted = False
    stopped: DevguardError | None = None

    def tell(found: list[tuple[int, Packet]]) -> None:
        quiet = invocation.quiet
        report(found, tally, as_json=invocation.json, quiet=quiet, patient_data=show_patient_data)

    with ExitStack() as stack:
        try:
            form, parts = _source(chosen, source, baud, stack, follow=follow)
            decoder = Decoder(chosen, context, edges=form is Form.HEX)
            for data, stream in parts:
                tell(decoder.feed(data, stream) if data else decoder.finish())
        except KeyboardInterrupt:
            interrupted = True
        except DevguardError as error:  # what was seen until then is still told
            stopped = error
    if decoder is not None:
        tell(decoder.finish())
        tally.skipped, tally.damaged = decoder.skipped, decoder.damaged
    invocation.printed = True
    summary: dict[str, Any] = {"summary": tally.to_json()}
    if stopped is not None:
        summary["error"] = {"code": stopped.code, "message": stopped.message, "hint": stopped.hint}
    click.echo(json.dumps(summary) if invocation.json else tally.text())
    if stopped is not None:
        raise stopped
    if interrupted:
        raise VerdictExit(Exit.INTERRUPTED)


def _print_all(found: list[Packet], *, patient_data: bool) -> None:
    for packet in found:
        _print(packet, patient_data=patient_data)


def _print(packet: Packet, *, patient_data: bool) -> None:
    click.echo(f"{click.style(packet.family, bold=True)}  {printed(packet.name)}")
    if packet.valid:
        checked = "valid" if packet.crc_ok is not None else "valid (no checksum at this layer)"
        click.echo(click.style(checked, fg="green") + printed(f": {packet.detail}" if packet.detail else ""))
    else:
        click.echo(click.style(f"not valid: {packet.code}: {printed(packet.detail)}", fg="red"))
    click.echo(_standing(packet))
    for name, value in packet.shown(patient_data=patient_data).items():
        click.echo(f"  {name:24} {printed(value if isinstance(value, str) else json.dumps(value))}")


def _standing(packet: Packet) -> str:
    """Whether it acts on therapy and whether its origin was proved, in one line that is always there."""
    known = "authenticated" if packet.authenticated else "not authenticated"
    if packet.effect == "acts":
        return click.style(
            f"therapy-affecting, {known if packet.authenticated else known.upper()}", fg="red", bold=True
        )
    if packet.effect == "unknown":
        return click.style(f"NOT KNOWN whether it is therapy-affecting: it is not read that far; {known}", fg="yellow")
    return f"not therapy-affecting, {known}"


def _context(keys: tuple[str, ...], names: tuple[str, ...]) -> Context:
    from devguard.custody.files import read_limited
    from devguard.packets.packet import Context

    secrets = {name: _key(read_limited(Path(value), KEY_LIMIT)) for name, value in map(_pair, keys)}
    return Context(keys=secrets, names=dict(map(_pair, names)))


def _key(data: bytes) -> bytes:
    """Text without the line end that editors leave; the bytes of a raw key as they are."""
    text = data.strip()
    return text if text.isascii() and text.decode("ascii").isprintable() else data


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _open(source: str, stack: ExitStack) -> io.BufferedReader:
    if source == "-":
        stream: Any = sys.stdin.buffer
        return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)
    from devguard.custody.files import open_regular

    return stack.enter_context(open(open_regular(Path(source)), "rb"))


def _source(
    family: Family, source: str, baud: int | None, stack: ExitStack, *, follow: bool
) -> tuple[Form, Iterator[tuple[bytes, Hashable]]]:
    """(form, (bytes, stream) as they come): from a port until it is gone or Ctrl-C, from a file until its end. Empty
    bytes say that what was begun will not be ended."""
    from devguard.cli.watching import Growing, listen
    from devguard.packets import capture

    path = Path(source)
    if source.startswith(_SCHEMES) or (_exists(path) and path.is_char_device()):
        _needs_marks(family, "a port")
        return capture.Form.RAW, ((data, 0) for data in listen(source, baud or family.baud or 115_200))
    if source != "-" and not _exists(path):
        raise Refused("file.missing", f"there is no port and no file {source}")
    reader = _open(source, stack)
    if follow:
        reader = io.BufferedReader(Growing(reader))
    form = capture.recognise(reader.peek(4096)[:4096])
    if form is capture.Form.RAW:
        _needs_marks(family, "raw bytes")
    found = (one for one in capture.records(reader, form) if one.data)
    return form, ((one.data, (one.interface, one.direction)) for one in found)


def _needs_marks(family: Family, what: str) -> None:
    """A stream of bytes does not say where the records of radio and Bluetooth end."""
    if family.framer is None:
        raise Refused(
            "packet.unknown",
            f"packets of {family.name} have no marks of their own: they cannot be found in {what}",
            "give a capture that keeps its records: hex text, one record a line, or pcap",
        )
