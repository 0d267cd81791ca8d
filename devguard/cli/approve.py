"""`devguard approve`: the second technician's word, in this room or another."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import Note, recorded
from devguard.cli.times import left
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import KeyInfo
    from devguard.grant.claims import Grant
    from devguard.session.approval import ApprovalRequest

REQUEST_LIMIT = 16 * 1024


@click.command(cls=Command)
@click.argument("request", metavar="REQUEST")
@click.option("--key", required=True, metavar="K", help="The second technician's key.")
@click.option(
    "--grant", "grant_file", required=True, type=click.Path(path_type=Path), help="The second technician's grant."
)
@click.option(
    "--release", "release_file", type=click.Path(path_type=Path), help="The release you expect; any other refuses."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The approval to write.")
@click.option("--qr", is_flag=True, help="Draw the answer as a QR code too.")
@passphrase_option
@click.pass_obj
def approve(invocation: Invocation, /, request: str, passphrase_fd: int | None, **wish: Any) -> None:
    """Approve the push that REQUEST asks for, as a second person with a grant of their own.

    REQUEST is a file, the text that `push` shows (or - to read it from standard input). The answer is a file, and a
    text to scan or type where the push waits.
    """
    from devguard.cli.files import read_grant_file
    from devguard.custody.files import write_atomic
    from devguard.session.approval import pack_answer, sign_approval

    if wish["qr"]:
        from devguard.cli.qr import need_segno

        need_segno()
    wanted = _read_request(request)
    now = invocation.now()
    info = invocation.home.key_info(wish["key"])
    with recorded(invocation, "release.approve", actor=info.person) as note:
        note.device = wanted.serial
        note.manifest(wanted.manifest_digest)
        note.digest("SESSION", wanted.session_id)
        if wanted.expires <= now:
            raise Refused("grant.quorum", "the request has expired; ask for a new one")
        second = read_grant_file(wish["grant_file"])
        _check(invocation, note, wanted, second, info)
        _check_release(wanted, wish["release_file"])
        invocation.note(_asked(wanted, now))
        signer = invocation.signer(wish["key"], passphrase_fd)
        digest = hashlib.sha256(second.untagged).digest()
        approval = sign_approval(wanted, signer, digest)
        note.digest("SECOND_GRANT", digest)
        note.commit()
        if wish["out"] is not None:
            write_atomic(wish["out"], pack_answer(approval, second.untagged))
    _show(invocation, wanted, signer.info.person, approval, second, wish)


def _read_request(reference: str) -> ApprovalRequest:
    """The request in a file, on standard input, or in the argument itself."""
    from devguard.custody.files import read_limited
    from devguard.session.approval import read_request
    from devguard.session.armor import Kind, dearmor, is_armor

    if reference == "-":
        data = sys.stdin.buffer.read(4 * REQUEST_LIMIT)
    elif is_armor(reference.encode(errors="replace")):
        data = reference.encode(errors="replace")
    else:
        data = read_limited(Path(reference), 4 * REQUEST_LIMIT)
    if is_armor(data):
        kind, data = dearmor(data.decode("ascii", "replace"))
        if kind is not Kind.REQUEST:
            raise Refused("grant.quorum", "that is an answer, not a request", "give the text of the request")
    return read_request(data)


def _check(invocation: Invocation, note: Note, wanted: ApprovalRequest, second: Grant, info: KeyInfo) -> None:
    """What the device will say too, said here before a passphrase is asked for."""
    from devguard.cli.grant import device_view
    from devguard.cli.standing import check_standing
    from devguard.grant.check import check_grant
    from devguard.grant.claims import Action
    from devguard.trust.model import same_person

    if second.holder.thumbprint != info.key.thumbprint:
        raise Refused("grant.holder", "the second grant names another key")
    asking = wanted.asking
    if asking is not None and (
        same_person(asking.person) == same_person(second.subject) or asking.key == second.holder.thumbprint
    ):
        raise Refused("grant.quorum", f"{asking.person} asks, and nobody approves their own push")
    check_standing(note, second)
    if not invocation.home.trust_file.is_file():
        return
    trust = invocation.home.trust(None)
    view = device_view(second, trust, serial=wanted.serial)
    action = Action(wanted.action)
    check_grant(second, trust=trust, now=invocation.now(), device=view, action=action, holder=info.key)


def _check_release(wanted: ApprovalRequest, path: Path | None) -> None:
    if path is None:
        return
    from devguard.cli.files import open_input
    from devguard.manifest.envelope import read_envelope

    with open_input(path) as stream:
        digest = read_envelope(stream).manifest_digest
    if digest != wanted.manifest_digest:
        raise Refused("grant.quorum", f"the push is of another release than {path}: {wanted.manifest_digest.hex()}")


def _asked(wanted: ApprovalRequest, now: int) -> str:
    who = wanted.asking.person if wanted.asking is not None else "somebody"
    return (
        f"{who} asks you to approve: {wanted.action} of {wanted.serial}{_release(wanted)}, "
        f"within {left(wanted.expires - now)}"
    )


def _release(wanted: ApprovalRequest) -> str:
    """Which release it is of; nothing where the action concerns none."""
    from devguard.grant.claims import Action
    from devguard.grant.uses import use_of

    none = any(wanted.manifest_digest == use_of(one, b"") and wanted.action == one for one in Action)
    return "" if none else f", release {wanted.manifest_digest.hex()}"


def _show(
    invocation: Invocation, wanted: ApprovalRequest, person: str, approval: bytes, second: Grant, wish: dict[str, Any]
) -> None:
    """The answer: short where the bench has the second grant, with it where not."""
    from devguard.session.approval import approval_code, pack_answer
    from devguard.session.armor import Kind, armor, in_groups

    code = armor(Kind.CODE, approval_code(approval))
    full = armor(Kind.ANSWER, pack_answer(approval, second.untagged))
    asking = wanted.asking
    short = asking is not None and asking.second_grant == hashlib.sha256(second.untagged).digest()
    lines = [
        f"{person} approves {wanted.action} of {wanted.serial}{_release(wanted)}",
        f"good for {left(wanted.expires - invocation.now())}",
    ]
    if wish["out"] is not None:
        lines.append(f"written to {wish['out']}")
    if wish["out"] is None or wish["qr"]:
        lines += ["type or scan where the push waits:", in_groups(code) if short else full]
    if wish["qr"]:
        from devguard.cli.qr import drawn

        lines.append(drawn(code if short else full))
    data = {
        "path": None if wish["out"] is None else str(wish["out"]),
        "serial": wanted.serial,
        "manifest_digest": wanted.manifest_digest.hex(),
        "action": wanted.action,
        "person": person,
        "code": code,
        "answer": full,
    }
    invocation.result(data, "\n".join(lines))
