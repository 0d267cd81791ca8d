"""`config.toml`: defaults for the options of commands, checked before they are believed.

    [push]
    port = "/dev/ttyUSB0"
    [grant.issue]
    model = ["insulin-pump"]

A section is a command, a key one of its options without the dashes. A name nobody knows is refused with the nearest
one: a default that is silently ignored is worse than none. Flags and the environment come before these.
"""

from __future__ import annotations

import datetime
import difflib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from devguard.cli.group import SECTION as GROUP
from devguard.cli.incidents import SECTION
from devguard.errors import Malformed


def option_defaults(file: Path, config: Mapping[str, Any], ctx: click.Context) -> dict[str, Any]:
    """The defaults that `config` has for the command of `ctx`, by parameter name. `Malformed("config.malformed")`."""
    section: Any = config
    where = ""
    chain = _chain(ctx)
    for parent, child in itertools.pairwise(chain):
        if not isinstance(section, dict):
            raise Malformed("config.malformed", f"{file}: [{where}] is not a table of options")
        if isinstance(parent.command, click.Group):
            sections = parent.command.list_commands(parent)
            _known(file, where, section, sections if where else [*sections, SECTION, GROUP])
        name = child.info_name or ""
        where = f"{where}.{name}".lstrip(".")
        section = section.get(name, {})
    if not isinstance(section, dict):
        raise Malformed("config.malformed", f"{file}: [{where}] is not a table of options")
    options = _options(ctx.command)
    _known(file, where, section, options)
    return {
        str(options[key].name): _value(file, f"[{where}] {key}", value, options[key]) for key, value in section.items()
    }


def _chain(ctx: click.Context) -> list[click.Context]:
    """From the root to `ctx`."""
    found = [ctx]
    while found[0].parent is not None:
        found.insert(0, found[0].parent)
    return found


def _options(command: click.Command) -> dict[str, click.Option]:
    """Options by what a person types, without dashes in front: `work-order`."""
    return {
        name.lstrip("-"): param
        for param in command.params
        if isinstance(param, click.Option) and param.name not in ("as_json", "home_dir", "quiet")
        for name in param.opts
        if name.startswith("--")
    }


def _known(file: Path, where: str, section: Mapping[str, Any], names: Iterable[str]) -> None:
    known = list(names)
    for key in section:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else None
            raise Malformed("config.malformed", f"{file}: {f'[{where}] ' if where else ''}{key!r} is not known", hint)


def _value(file: Path, where: str, value: object, option: click.Option) -> object:
    """A value as it would be typed, so that an option checks it as it checks an argument."""
    if option.is_flag:
        if isinstance(value, bool):
            return value
        raise Malformed("config.malformed", f"{file}: {where} is true or false")
    if option.multiple:
        if not isinstance(value, list):
            raise Malformed("config.malformed", f"{file}: {where} is a list")
        return [_text(file, where, item) for item in value]
    return _text(file, where, value)


def _text(file: Path, where: str, value: object) -> str:
    if isinstance(value, str) and value.isprintable():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    raise Malformed("config.malformed", f"{file}: {where} is one line of text or a number")
