"""`devguard grant request|delegate`: what a technician signs. A request goes to an authority; a delegation hands on a
part of one's own grant to a colleague."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.grant_scope import applied, scope_options
from devguard.cli.record import recorded
from devguard.cli.times import Moment
from devguard.errors import Refused


@click.command("request", cls=Command)
@click.option("--key", metavar="KEY", help="Your technician's key (default: the only one in the home).")
@scope_options
@click.option("--reason", default="", help="Why, for the authority.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The request to write.")
@passphrase_option
@click.pass_obj
def request(
    invocation: Invocation, /, key: str | None, reason: str, out: Path, passphrase_fd: int | None, **wish: Any
) -> None:
    """Ask an authority for a grant: your public key and what you wish for, signed by that very key.

    What is left out is not asked for, and the authority decides. A request is good for a day.
    """
    from devguard.cli.grant_text import request_dict, request_text
    from devguard.custody.files import write_atomic
    from devguard.grant.request import NO_WISH, make_request, read_request

    now, home = invocation.now(), invocation.home
    with recorded(invocation, "grant.request", only_where_kept=True) as note:
        asked = applied(NO_WISH, wish)
        reference = key or str(home.one_key("technician"))
        info = home.key_info(reference)
        note.actor = info.person
        if info.role != "technician":
            raise Refused("key.purpose", f"{info.name} is a {info.role} key, not a technician's")
        signer = invocation.signer(reference, passphrase_fd)
        data = make_request(
            signer, person=info.person, wish=asked, life=wish["expires"], reason=reason, now=now, nonce=os.urandom(16)
        )
        made = read_request(data)
        note.details["request"] = made.cti.hex()
        note.commit()
        write_atomic(out, data)
    invocation.result({"path": str(out), **request_dict(made)}, f"{request_text(made, now)}\nwritten to {out}")


@click.command("delegate", cls=Command)
@click.argument("file", metavar="GRANT", type=click.Path(path_type=Path))
@click.option("--key", metavar="TECH_KEY", help="The key your grant names (default: the only one in the home).")
@click.option("--to", "reference", required=True, metavar="FILE|NAME", help="The colleague's technician key.")
@scope_options
@click.option("--trained-until", type=Moment(), help="When the colleague's training lapses; no later than yours.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The grant to write.")
@passphrase_option
@click.pass_obj
def delegate(
    invocation: Invocation,
    /,
    file: Path,
    key: str | None,
    reference: str,
    out: Path,
    passphrase_fd: int | None,
    **wish: Any,
) -> None:
    """Hand on your GRANT, or a part of it, to a colleague with a key of their own. At most twice in a row.

    Options narrow it; what they leave out is as in your grant, and nothing may be wider. Both of you cannot be the two
    technicians of one push.
    """
    from devguard.cli.files import read_grant_file
    from devguard.cli.grant_issue import details
    from devguard.cli.grant_text import as_dict, digest, text
    from devguard.cli.standing import check_standing
    from devguard.custody.files import write_atomic
    from devguard.grant.chain import delegate_grant
    from devguard.grant.claims import read_grant

    now, home = invocation.now(), invocation.home
    with recorded(invocation, "grant.delegate") as note:
        parent = read_grant_file(file)
        note.actor = parent.subject
        check_standing(note, parent)
        holder = home.key_info(reference)
        if holder.role != "technician":
            raise Refused("key.purpose", f"{holder.name} is a {holder.role} key, not a technician's")
        signer = invocation.signer(key or str(home.one_key("technician")), passphrase_fd)
        if signer.key.thumbprint != parent.holder.thumbprint:
            raise Refused("grant.holder", f"the grant is {parent.subject}'s; only that key can hand it on")
        scope = applied(parent.scope, wish)
        if wish["trained_until"] is not None:
            scope = replace(scope, trained_until=wish["trained_until"])
        if now >= parent.expires:
            raise Refused("grant.expired", f"your grant expired {now - parent.expires} s ago")
        begins = max(now, parent.not_before)
        made = read_grant(
            delegate_grant(
                parent,
                signer,
                subject=holder.person,
                holder=holder.key,
                scope=scope,
                now=now,
                expires=parent.expires if wish["expires"] is None else begins + wish["expires"],
                cti=os.urandom(16),
            )
        )
        note.digest("GRANT", digest(made))
        note.details.update({**details(made), "parent": parent.cti.hex()})
        note.commit()
        write_atomic(out, made.tagged)
    invocation.result({"path": str(out), **as_dict(made)}, f"{text(made, now)}\nwritten to {out}")


HANDING: Final = (request, delegate)
