"""`devguard packets families|decode|watch`: what a pump, a meter or a programmer said on its line.

It listens. No command here writes to a port: the port is opened for reading, and nothing of the `packets` room sends.
Patient data of a capture is masked unless `--show-patient-data`; keys come from files and are never printed.
"""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, LazyGroup, VerdictExit, printed
from devguard.errors import DevguardError, Exit, Malformed, Refused

if TYPE_CHECKING:
    from devguard.packets.family import Family
    from devguard.packets.packet import Context, Packet

KEY_LIMIT: Final = 4096
DECODE_LIMIT: Final = 16 << 20
LISTEN_SECONDS: Final = 0.2
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
    flags = {"valid": False, "crc_ok": None, "therapy_affecting": False, "authenticated": False}
    return {"family": family, "name": "unreadable", **flags, "fields": {}, "code": error.code}


def _decoded(family: Family, source: str, context: Context) -> list[Packet]:
    """Every packet of the argument. Hex digits, and a file of one line or one record, are one packet as they stand;
    longer captures of a family with marks of its own are searched."""
    from devguard.packets import capture
    from devguard.packets.stream import Decoder

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
    decoder = Decoder(family, context)
    found = [packet for part in parts for _, packet in decoder.feed(part.data, part.direction)]
    found += [packet for _, packet in decoder.finish()]
    return found or [family.decode(b"".join(part.data for part in parts), context)]


@packets.command(cls=Command)
@click.argument("family")
@click.argument("source", metavar="PORT|FILE|-")
@click.option("--baud", type=click.IntRange(300, 12_000_000), help="Line speed of a port (default: the family's).")
@with_context
@click.pass_obj
def watch(
    invocation: Invocation,
    family: str,
    source: str,
    baud: int | None,
    keys: tuple[str, ...],
    names: tuple[str, ...],
    show_patient_data: bool,
) -> None:
    """Follow a port or a file: one line per packet, a summary at the end. Ctrl-C ends it."""
    from devguard.packets.registry import family_named
    from devguard.packets.stream import Decoder

    chosen = family_named(family)
    decoder = Decoder(chosen, _context(keys, names))
    tally = Tally()
    interrupted = False
    stopped: DevguardError | None = None
    with ExitStack() as stack:
        try:
            for data, direction in _source(chosen, source, baud, stack):
                _report(decoder.feed(data, direction), tally, invocation, patient_data=show_patient_data)
        except KeyboardInterrupt:
            interrupted = True
        except DevguardError as error:  # what was seen until then is still told
            stopped = error
    _report(decoder.finish(), tally, invocation, patient_data=show_patient_data)
    tally.skipped = decoder.skipped
    invocation.printed = True
    summary: dict[str, Any] = {"summary": tally.to_json()}
    if stopped is not None:
        summary["error"] = {"code": stopped.code, "message": stopped.message, "hint": stopped.hint}
    click.echo(json.dumps(summary) if invocation.json else tally.text())
    if stopped is not None:
        raise stopped
    if interrupted:
        raise VerdictExit(Exit.INTERRUPTED)


class Tally:
    """What a watch has seen."""

    def __init__(self) -> None:
        self.packets = self.invalid = self.therapy = self.unauthenticated = self.skipped = 0

    def add(self, packet: Packet) -> None:
        """Count one packet."""
        self.packets += 1
        self.invalid += not packet.valid
        self.therapy += packet.therapy_affecting
        self.unauthenticated += packet.therapy_affecting and not packet.authenticated

    def to_json(self) -> dict[str, int]:
        """The summary's numbers."""
        return {
            "packets": self.packets,
            "invalid": self.invalid,
            "therapy_affecting": self.therapy,
            "therapy_affecting_unauthenticated": self.unauthenticated,
            "skipped_bytes": self.skipped,
        }

    def text(self) -> str:
        """The summary as one line."""
        return (
            f"{self.packets} packets, {self.invalid} not valid, {self.therapy} therapy-affecting "
            f"({self.unauthenticated} of them not authenticated), {self.skipped} bytes skipped"
        )


def _report(found: Iterable[tuple[int, Packet]], tally: Tally, invocation: Invocation, *, patient_data: bool) -> None:
    for place, packet in found:
        tally.add(packet)
        if invocation.json:
            click.echo(json.dumps({"offset": place, **packet.to_json(patient_data=patient_data)}))
        else:
            click.echo(_line(place, packet, patient_data=patient_data))


def _line(place: int, packet: Packet, *, patient_data: bool) -> str:
    state = "ok " if packet.valid else (packet.code or "")
    text = f"{place:>8}  {state:14} {packet.name}  {_inline(packet.shown(patient_data=patient_data))}"
    if packet.therapy_affecting and not packet.authenticated:
        return click.style(f"!! THERAPY, NOT AUTHENTICATED  {printed(text)}", fg="red", bold=True)
    if packet.therapy_affecting:
        return click.style(f"!  therapy, authenticated      {printed(text)}", fg="yellow")
    return f"                               {printed(text)}"


def _inline(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={_short(value)}" for name, value in fields.items())


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def _print_all(found: list[Packet], *, patient_data: bool) -> None:
    for packet in found:
        _print(packet, patient_data=patient_data)


def _print(packet: Packet, *, patient_data: bool) -> None:
    click.echo(f"{click.style(packet.family, bold=True)}  {printed(packet.name)}")
    if packet.valid:
        click.echo(
            click.style("valid" if packet.crc_ok is not None else "valid (no checksum at this layer)", fg="green")
        )
    else:
        click.echo(click.style(f"not valid: {packet.code}: {printed(packet.detail)}", fg="red"))
    if packet.therapy_affecting:
        known = "authenticated" if packet.authenticated else "NOT AUTHENTICATED"
        click.echo(click.style(f"therapy-affecting, {known}", fg="red", bold=True))
    for name, value in packet.shown(patient_data=patient_data).items():
        click.echo(f"  {name:24} {printed(value if isinstance(value, str) else json.dumps(value))}")


def _context(keys: tuple[str, ...], names: tuple[str, ...]) -> Context:
    from devguard.custody.files import read_limited
    from devguard.packets.packet import Context

    secrets = {name: read_limited(Path(value), KEY_LIMIT).strip() for name, value in map(_pair, keys)}
    return Context(keys=secrets, names=dict(map(_pair, names)))


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


def _source(family: Family, source: str, baud: int | None, stack: ExitStack) -> Iterator[tuple[bytes, int]]:
    """(bytes, direction) as they come: from a port until it is gone or Ctrl-C, from a file until its end."""
    from devguard.packets import capture

    path = Path(source)
    if source.startswith(_SCHEMES) or (_exists(path) and path.is_char_device()):
        yield from _listen(source, baud or family.baud or 115_200)
        return
    if source != "-" and not _exists(path):
        raise Refused("file.missing", f"there is no port and no file {source}")
    reader = _open(source, stack)
    for record in capture.records(reader, capture.recognise(reader.peek(4096)[:4096])):
        yield record.data, record.direction


def _listen(port: str, baud: int) -> Iterator[tuple[bytes, int]]:
    from devguard.link.driver import SerialDriver

    with closing(SerialDriver.open(port, baud)) as driver:
        while True:
            data = driver.listen(LISTEN_SECONDS)
            if data:
                yield data, 0
