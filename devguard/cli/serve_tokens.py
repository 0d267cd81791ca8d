"""`devguard serve token|tokens|revoke`: what programs ask the console's HTTP API with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.record import recorded
from devguard.cli.serve_people import role_option
from devguard.cli.times import iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.console.tokens import Tokens

_DAY: Final = 86_400
MOST_DAYS: Final = 366


def tokens_of(invocation: Invocation) -> Tokens:
    """The tokens of this home's console."""
    from devguard.console.tokens import Tokens

    home = invocation.home
    return Tokens(home.make(home.path / "console"))


@click.command(cls=Command)
@click.argument("name")
@role_option
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=90, show_default=True, help="How long it holds.")
@click.pass_obj
def token(invocation: Invocation, name: str, role: str, days: int) -> None:
    """Make a bearer token, called NAME, for a program. It is shown once and kept as a digest alone."""
    from devguard.console.people import check_name
    from devguard.console.table import Role

    with recorded(invocation, "console.token") as note:
        try:
            known = check_name(name)
        except Refused as error:
            raise Refused("console.token", error.message) from None
        now = invocation.now()
        expires = now + days * _DAY
        note.details.update({"name": known, "role": role, "expires": iso(expires)})
        secret = tokens_of(invocation).make(known, Role[role.upper()], now, expires)
        note.commit()
    data = {"token": secret, "name": known, "role": role, "expires": expires}
    invocation.result(data, f"{secret}\n{known} may ask as {role} until {iso(expires)}; it is not shown again")


@click.command(cls=Command)
@click.pass_obj
def tokens(invocation: Invocation) -> None:
    """List the tokens that programs have; none is shown."""
    now = invocation.now()
    rows = [
        {
            "name": one.name,
            "role": one.role.label,
            "added": one.added,
            "expires": one.expires,
            "good": one.expires > now,
        }
        for one in tokens_of(invocation).all()
    ]
    lines = [
        f"{row['name']:32} {row['role']:12} {'until' if row['good'] else 'EXPIRED'} {iso(int(str(row['expires'])))}"
        for row in rows
    ]
    invocation.result({"tokens": rows}, "\n".join(lines) or "no program has a token; `devguard serve token NAME`")


@click.command(cls=Command)
@click.argument("name")
@click.pass_obj
def revoke(invocation: Invocation, name: str) -> None:
    """Take the token NAME back: the next request with it is refused."""
    with recorded(invocation, "console.revoke") as note:
        note.details["name"] = name[:80]
        gone = tokens_of(invocation).remove(name)
        note.details["role"] = gone.role.label
    invocation.result({"name": gone.name, "role": gone.role.label}, f"the token {gone.name} opens nothing any more")
