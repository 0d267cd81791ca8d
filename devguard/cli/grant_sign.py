"""`devguard grant sign`: the second authority's signature, in another place, on a grant that the first has begun."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.grant_issue import authority_option, details, issuer_of, show_made, signed_so_far, trust_option
from devguard.cli.record import recorded
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.claims import Grant
    from devguard.trust.document import TrustDocument


@click.command("sign", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@authority_option
@trust_option
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where to write it (default: FILE itself).")
@passphrase_option
@click.pass_obj
def sign(
    invocation: Invocation,
    file: Path,
    authorities: tuple[str, ...],
    trust_file: Path | None,
    out: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Sign a grant that another authority has begun, where the trust document asks for more than one."""
    from devguard.cli.files import read_grant_file
    from devguard.cli.grant_text import digest, text
    from devguard.cli.standing import check_standing
    from devguard.cose.sign import TYP_GRANT
    from devguard.custody.files import write_atomic
    from devguard.custody.locks import locked
    from devguard.grant.claims import read_grant
    from devguard.grant.cwt import add_signature

    now, home = invocation.now(), invocation.home
    with recorded(invocation, "grant.sign") as note, locked(file):
        one = read_grant_file(file)
        note.details["technician"] = one.subject
        check_standing(note, one)
        if now >= one.expires:
            raise Refused("grant.expired", f"it expired {now - one.expires} s ago; nobody can use it any more")
        invocation.note(text(one, now))
        trust = home.trust(trust_file) if trust_file is not None or home.trust_file.is_file() else None
        signers = [invocation.signer(reference, passphrase_fd) for reference in authorities]
        note.actor = issuer_of(signers, one.subject)
        token = one.token
        for signer in signers:
            _refuse_second(one, signer, trust)
            token = add_signature(token, signer, TYP_GRANT, "grant.malformed")
        made = read_grant(token.tagged)
        note.digest("GRANT", digest(made))
        note.details.update(details(made))
        state = signed_so_far(made, trust, now)
        note.commit()
        write_atomic(out or file, made.tagged)
    show_made(invocation, made, out or file, state, now)


def _refuse_second(one: Grant, signer: FileSigner, trust: TrustDocument | None) -> None:
    """`grant.signature` when the signer's person has signed with another key: they count once."""
    from devguard.cose.roles import RoleName
    from devguard.trust.model import same_person

    role = None if trust is None else trust.role(RoleName.TECHNICIAN_AUTHORITY)
    for kid in one.signer_kids:
        entry = None if role is None else role.entry(kid)
        if entry is not None and same_person(entry.person) == same_person(signer.info.person):
            raise Refused("grant.signature", f"{entry.person} has signed it already; a person counts once")
