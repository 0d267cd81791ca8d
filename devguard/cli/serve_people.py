"""`devguard serve link|enrol|people|remove`: who is let into the console; and `keep`, which the console runs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.record import operator, recorded
from devguard.cli.times import iso, left
from devguard.console.table import ROLES, Role
from devguard.errors import Malformed, Refused

if TYPE_CHECKING:
    from devguard.console.people import Register

_LIMIT: Final = 64 * 1024
role_option = click.option("--role", type=click.Choice(ROLES), required=True, help="What the person is here for.")


def register_of(invocation: Invocation) -> Register:
    """Who may sign in here, in the home's own folder of the console."""
    from devguard.console.people import Register

    home = invocation.home
    return Register(home.make(home.path / "console"))


def running_url(register: Register) -> str | None:
    """Where the console of this home is served now; None while none is."""
    from devguard.custody.files import read_limited
    from devguard.errors import DevguardError

    try:
        url = json.loads(read_limited(register.folder / "running.json", _LIMIT))["url"]
    except (DevguardError, ValueError, KeyError, TypeError):
        return None
    return str(url)


@click.command(cls=Command)
@click.argument("person", required=False)
@click.option("--role", type=click.Choice(ROLES), default="admin", show_default=True)
@click.pass_obj
def link(invocation: Invocation, person: str | None, role: str) -> None:
    """Print a link that signs PERSON (default: this account) in once, at the console that runs on this machine."""
    from devguard.console.people import Kind, check_name
    from devguard.console.settings import Limits

    with recorded(invocation, "console.link") as note:
        name, register, now = check_name(person or operator()), register_of(invocation), invocation.now()
        note.details.update({"person": name, "role": role})
        url = running_url(register)
        if url is None:
            raise Refused("console.missing", "no console serves this home", "start it: `devguard serve`")
        expires = now + int(Limits().ticket)
        full = f"{url}/in?ticket={register.give(Kind.SIGN_IN, name, Role[role.upper()], expires, now)}"
    shown = f"{full}\nsigns {name} in as {role}, once, within {left(expires - now)}"
    invocation.result({"url": full, "person": name, "role": role, "expires": expires}, shown)


@click.command(cls=Command)
@click.argument("person")
@role_option
@click.pass_obj
def enrol(invocation: Invocation, person: str, role: str) -> None:
    """Invite PERSON: a link, good once, at which they register a key of their own (WebAuthn)."""
    from devguard.console.people import Kind, check_name
    from devguard.console.settings import Limits

    with recorded(invocation, "console.enrol") as note:
        name, register, now = check_name(person), register_of(invocation), invocation.now()
        note.details.update({"person": name, "role": role})
        expires = now + int(Limits().invitation)
        path = f"/enrol?ticket={register.give(Kind.ENROL, name, Role[role.upper()], expires, now)}"
    url = running_url(register)
    shown = f"{url or ''}{path}\nlets {name} register a key as {role}, once, within {left(expires - now)}"
    if url is None:
        shown += "\nno console runs yet: put the address that `devguard serve` prints before it"
    data = {"url": None if url is None else url + path, "path": path, "person": name, "role": role, "expires": expires}
    invocation.result(data, shown)


@click.command(cls=Command)
@click.pass_obj
def people(invocation: Invocation) -> None:
    """List who may sign in with a key of their own."""
    rows = [
        {
            "person": one.person,
            "role": one.role.label,
            "added": one.added,
            "keys": [{"id": key.id, "name": key.name, "added": key.added} for key in one.keys],
        }
        for one in register_of(invocation).people()
    ]
    lines = [
        f"{row['person']:32} {row['role']:12} {len(one.keys)} key(s), since {iso(one.added)}"
        for row, one in zip(rows, register_of(invocation).people(), strict=True)
    ]
    invocation.result({"people": rows}, "\n".join(lines) or "nobody is registered; `devguard serve enrol PERSON`")


@click.command(cls=Command)
@click.argument("person")
@click.pass_obj
def remove(invocation: Invocation, person: str) -> None:
    """Take PERSON off: their keys sign nobody in any more, their sessions end with their next click."""
    with recorded(invocation, "console.remove") as note:
        note.details["person"] = person[:80]
        gone = register_of(invocation).remove(person)
        note.details["role"] = gone.role.label
    invocation.result({"person": gone.person, "role": gone.role.label}, f"{gone.person} cannot sign in here any more")


@click.command(cls=Command, hidden=True)
@click.pass_obj
def keep(invocation: Invocation) -> None:
    """Keep the key that an invited person has registered; the browser's answer is on standard input."""
    from devguard.console.package import need_web
    from devguard.console.people import Kind

    need_web()
    from devguard.console.passkeys import registered

    with recorded(invocation, "console.register") as note:
        said, register, now = _said(), register_of(invocation), invocation.now()
        invited = register.take(Kind.ENROL, said["ticket"], now)
        note.details.update({"person": invited.person, "role": invited.role.label})
        key = registered(
            said["reply"],
            challenge=bytes.fromhex(said["challenge"]),
            name=said["name"],
            origin=said["origin"],
            now=now,
        )
        note.details["key"] = key.id[:64]
        register.add(invited.person, invited.role, key)
    invocation.result({"person": invited.person, "role": invited.role.label}, f"{invited.person} may sign in")


def _said() -> dict[str, Any]:
    data = sys.stdin.buffer.read(_LIMIT + 1)
    try:
        said = json.loads(data[:_LIMIT])
    except (ValueError, RecursionError):
        said = None
    kinds = {"ticket": str, "reply": dict, "challenge": str, "name": str, "origin": str}
    if not isinstance(said, dict) or not all(isinstance(said.get(name), kind) for name, kind in kinds.items()):
        raise Malformed("console.request", "not what the console hands on of a registration")
    try:
        bytes.fromhex(said["challenge"])
    except ValueError:
        raise Malformed("console.request", "the challenge is not hexadecimal") from None
    return said
