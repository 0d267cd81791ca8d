"""`devguard technician export|sign|import`: suspensions, from the authority to stations elsewhere, as a signed file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded
from devguard.cli.times import iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.record import Note
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.suspensions import Suspensions
    from devguard.grant.technicians import Roster
    from devguard.trust.document import TrustDocument

_authority = click.option(
    "--authority", "authorities", multiple=True, required=True, metavar="KEY", help="A technician-authority key."
)


@click.command("export", cls=Command)
@_authority
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The list to write.")
@passphrase_option
@click.pass_obj
def export(invocation: Invocation, authorities: tuple[str, ...], out: Path, passphrase_fd: int | None) -> None:
    """Write a signed list of who is suspended here and which grants were taken back, for other stations.

    One authority's signature is enough to suspend; a suspension is lifted by as many as it takes to grant.
    """
    from devguard.cli.standing import roster_of
    from devguard.cose.roles import RoleName
    from devguard.custody.files import write_atomic
    from devguard.grant.suspensions import make_list

    with recorded(invocation, "technician.export") as note:
        roster = roster_of(note)
        signers = _signers(invocation, authorities, passphrase_fd)
        note.actor = ", ".join(signer.info.person for signer in signers)
        home = invocation.home
        role = home.trust(None).role(RoleName.TECHNICIAN_AUTHORITY) if home.trust_file.is_file() else None
        many = role is not None and role.threshold > 1
        made = make_list(roster, signers, issuer=note.actor, now=note.now, many=many)
        note.details.update(_details(made))
        note.commit()
        write_atomic(out, made.tagged)
    lines = [_text(made), f"written to {out}"]
    if role is not None and role.threshold > len(signers) and any(not one.suspended for one in made.statements):
        lines.append(f"to lift a suspension {role.threshold} authorities sign: devguard technician sign {out}")
    invocation.result({"path": str(out), **_as_dict(made)}, "\n".join(lines))


@click.command("sign", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@_authority
@passphrase_option
@click.pass_obj
def sign(invocation: Invocation, file: Path, authorities: tuple[str, ...], passphrase_fd: int | None) -> None:
    """Sign a list that another authority has made, so that it can lift suspensions too."""
    from devguard.custody.files import read_limited, write_atomic
    from devguard.custody.locks import locked
    from devguard.grant.suspensions import MAX_LIST, read_list, sign_list

    with recorded(invocation, "technician.sign") as note, locked(file):
        made = read_list(read_limited(file, MAX_LIST))
        invocation.note(_text(made))
        signers = _signers(invocation, authorities, passphrase_fd)
        note.actor = ", ".join(signer.info.person for signer in signers)
        for signer in signers:
            made = sign_list(made, signer)
        note.details.update(_details(made))
        note.commit()
        write_atomic(file, made.tagged)
    invocation.result({"path": str(file), **_as_dict(made)}, f"{_text(made)}\nsigned: {file}")


@click.command("import", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@click.pass_obj
def import_(invocation: Invocation, file: Path, trust_file: Path | None) -> None:
    """Take over a signed list of suspensions: it counts here from now on. An older list changes nothing."""
    from devguard.custody.files import read_limited
    from devguard.grant.suspensions import MAX_LIST, read_list

    with recorded(invocation, "technician.import") as note:
        one = read_list(read_limited(file, MAX_LIST))
        changed, whole = take_over(note, one, invocation.home.trust(trust_file))
    data = {"changed": changed, "lifts": whole, **_as_dict(one)}
    lines = [_text(one), f"in use here; {data['changed']} new"]
    if not whole and any(not said.suspended for said in one.statements):
        lines.append("suspensions it would lift stay: too few authorities have signed it")
    invocation.result(data, "\n".join(lines))


def take_over(note: Note, one: Suspensions, trust: TrustDocument) -> tuple[int, bool]:
    """Let what a list says count here, on record: (how much of it is new, whether it lifts suspensions too). Raises as
    `grant.take.take_list`."""
    from devguard.cli.standing import changing
    from devguard.grant.take import take_list

    with changing(note) as change:
        note.details.update(_details(one))
        before = change.roster
        after, whole = take_list(before, one, trust, note.now)
        change.keep(after.without_expired(note.now))
    return news(before, after), whole


def news(before: Roster, after: Roster) -> int:
    """How many statements and revocations one list of technicians has that another does not."""
    new = {subject for subject, said in after.statements.items() if before.statements.get(subject) != said}
    return len(new) + len(after.revoked.keys() - before.revoked.keys())


def _signers(invocation: Invocation, references: Sequence[str], fd: int | None) -> list[FileSigner]:
    signers = [invocation.signer(one, fd) for one in references]
    for signer in signers:
        if signer.info.role != "technician-authority":
            raise Refused("key.purpose", f"{signer.info.name} is a {signer.info.role} key, not an authority's")
    return signers


def _details(one: Suspensions) -> dict[str, str]:
    people = [said.person for said in one.statements if said.suspended and isinstance(said.subject, str)]
    return {"issuer": one.issuer, "issued": iso(one.issued), "suspended": ", ".join(people), "epoch": str(one.epoch)}


def _as_dict(one: Suspensions) -> dict[str, Any]:
    """A list as plain values."""
    return {
        "issuer": one.issuer,
        "issued": iso(one.issued),
        "epoch": one.epoch,
        "statements": [
            {
                "person": said.person,
                "key": said.subject.hex() if isinstance(said.subject, bytes) else None,
                "suspended": said.suspended,
                "at": iso(said.at),
            }
            for said in one.statements
        ],
        "revoked": {cti.hex(): iso(expires) for cti, expires in one.revoked.items()},
    }


def _text(one: Suspensions) -> str:
    lines = [f"list of suspensions by {one.issuer}, {iso(one.issued)}, epoch {one.epoch}"]
    for said in one.statements:
        if isinstance(said.subject, str):
            lines.append(f"  {said.person} {'suspended' if said.suspended else 'reinstated'} {iso(said.at)}")
    if one.revoked:
        lines.append(f"  {len(one.revoked)} single grants taken back")
    return "\n".join(lines)


CARRYING: Final = (export, sign, import_)
