"""What a grant is to allow, as options say it: shared by `grant issue`, `grant request` and `grant delegate`.

An option that is left out leaves the dimension as the command found it; none of them widens anything by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from devguard.cli.times import Duration

if TYPE_CHECKING:
    from devguard.grant.scope import Scope

ACTIONS: Final = ("update", "recover", "read-log", "decommission")
"""`grant.scope.Action`, which is not imported to show a help page."""
F = TypeVar("F", bound=Callable[..., Any])


class Hours(click.ParamType[tuple[int, int]]):
    """HH:MM-HH:MM, UTC, as minutes of the day; over midnight where the first is later."""

    name = "hours"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(from, to), the end not included."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", value)
        start, end = (
            (int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])) if match is not None else (0, 0)
        )
        if match is None or start == end or end > 24 * 60:
            self.fail(f"{value!r} is not a time of day such as 06:00-18:00", param, ctx)
        return start, end


class Sequences(click.ParamType[tuple[int, int]]):
    """LOW-HIGH, or one number: sequence numbers of releases, both included."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(lowest, highest)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", value)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            self.fail(f"{value!r} is not a range of sequence numbers such as 12-15", param, ctx)
        return int(match[1]), int(match[2] or match[1])


OPTIONS: Final = (
    click.option("--model", "models", multiple=True, help="A device model; * for any."),
    click.option("--serial", "serials", multiple=True, help="A serial number."),
    click.option("--any-serial", is_flag=True, help="Any serial number."),
    click.option("--site", "sites", multiple=True, help="A site; * for any."),
    click.option(
        "--action",
        "actions",
        multiple=True,
        type=click.Choice(ACTIONS),
        help="What may be done.",
    ),
    click.option("--release", "release_file", type=click.Path(path_type=Path), help="Only this release."),
    click.option("--sequences", type=Sequences(), help="Only releases with these sequence numbers, LOW-HIGH."),
    click.option("--hours", type=Hours(), help="Only at this time of day, HH:MM-HH:MM in UTC."),
    click.option("--max-uses", type=click.IntRange(1, 65_535), help="How many releases it may install."),
    click.option("--device-nonce", metavar="HEX", help="The nonce the device shows (`device info`)."),
    click.option("--expires", type=Duration(), help="How long it holds; at most 12h."),
)


def scope_options(command: F) -> F:
    """Adds `OPTIONS` to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def applied(base: Scope, wish: Mapping[str, Any]) -> Scope:
    """`base` with every dimension that an option names as the option says."""
    from devguard.grant.scope import ANY

    if wish["serials"] and wish["any_serial"]:
        raise click.UsageError("--serial and --any-serial say two things")
    if wish["release_file"] is not None and wish["sequences"] is not None:
        raise click.UsageError("--release and --sequences are two ways to say which release; give one")
    changes: dict[str, Any] = {}
    for name in ("models", "serials", "sites", "actions"):
        if wish[name]:
            changes[name] = frozenset(wish[name])
    if wish["any_serial"]:
        changes["serials"] = frozenset([ANY])
    if wish["release_file"] is not None:
        changes |= {"release_digest": _manifest(wish["release_file"]), "sequences": None, "any_release": False}
    if wish["sequences"] is not None:
        changes |= {"release_digest": None, "sequences": wish["sequences"], "any_release": False}
    for name in ("hours", "max_uses"):
        if wish[name] is not None:
            changes[name] = wish[name]
    if wish["device_nonce"] is not None:
        changes["device_nonce"] = _nonce(wish["device_nonce"])
    return replace(base, **changes)


def _manifest(path: Path) -> bytes:
    from devguard.cli.files import open_input
    from devguard.manifest.envelope import read_envelope

    with open_input(path) as stream:
        return read_envelope(stream).manifest_digest


def _nonce(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not hexadecimal", param_hint="--device-nonce") from None
