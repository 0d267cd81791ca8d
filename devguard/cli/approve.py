"""`devguard approve`: the second technician's word, in this room or another."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded
from devguard.cli.times import left

if TYPE_CHECKING:
    from devguard.cose.sign import Signer
    from devguard.session.approval import ApprovalRequest
    from devguard.session.update import Approver

REQUEST_LIMIT = 16 * 1024


@click.command(cls=Command)
@click.argument("request", type=click.Path(path_type=Path))
@click.option("--key", required=True, metavar="K", help="The second technician's key.")
@click.option(
    "--grant", "grant_file", required=True, type=click.Path(path_type=Path), help="The second technician's grant."
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The approval to write.")
@passphrase_option
@click.pass_obj
def approve(
    invocation: Invocation, request: Path, key: str, grant_file: Path, out: Path, passphrase_fd: int | None
) -> None:
    """Approve the push that REQUEST asks for, as a second person with a grant of their own."""
    from devguard.custody.files import read_limited, write_atomic
    from devguard.errors import Refused
    from devguard.session.approval import read_request

    wanted = read_request(read_limited(request, REQUEST_LIMIT))
    now = invocation.now()
    if wanted.expires <= now:
        raise Refused("grant.quorum", "the request has expired; ask for a new one")
    signer = invocation.signer(key, passphrase_fd)
    with recorded(invocation, "release.approve", actor=signer.info.person) as note:
        note.device = wanted.serial
        note.manifest(wanted.manifest_digest)
        note.digest("SESSION", wanted.session_id)
        answer = _answer(wanted, signer, grant_file)
        note.commit()
        write_atomic(out, answer)
    invocation.result(
        {
            "path": str(out),
            "serial": wanted.serial,
            "manifest_digest": wanted.manifest_digest.hex(),
            "action": wanted.action,
            "person": signer.info.person,
        },
        f"{signer.info.person} approves {wanted.action} of {wanted.serial}, release {wanted.manifest_digest.hex()}\n"
        f"written to {out}; good for {left(wanted.expires - now)}",
    )


def _answer(request: ApprovalRequest, signer: Signer, grant_file: Path) -> bytes:
    from devguard.session.approval import pack_answer

    return pack_answer(*_approved(request, signer, grant_file))


def _approved(request: ApprovalRequest, signer: Signer, grant_file: Path) -> tuple[bytes, bytes]:
    """(approval object, second grant) by a key that the grant names."""
    from devguard.cli.files import read_grant_file
    from devguard.errors import Refused
    from devguard.session.approval import sign_approval

    second = read_grant_file(grant_file)
    if second.holder.thumbprint != signer.key.thumbprint:
        raise Refused("grant.holder", "the second grant names another key")
    digest = hashlib.sha256(second.untagged).digest()
    return sign_approval(request, signer, digest), second.untagged


def key_approver(signer: Signer, grant_file: Path) -> Approver:
    """The second technician in this room, with key and grant at hand."""
    return lambda request: _approved(request, signer, grant_file)


def file_approver(invocation: Invocation, path: Path) -> Approver:
    """The second technician elsewhere: writes PATH.request, then waits for the answer in PATH."""
    from devguard.cli.files import remove
    from devguard.custody.files import read_limited, write_atomic
    from devguard.session.approval import read_answer

    asked: list[bytes] = []

    def ask(request: ApprovalRequest) -> tuple[bytes, bytes] | None:
        if not asked:
            remove(path)
            place = path.with_name(path.name + ".request")
            write_atomic(place, request.encode())
            asked.append(request.session_id)
            invocation.note(f"waiting for a second technician: devguard approve {place} --key K --grant G -o {path}")
            return None
        return read_answer(read_limited(path, REQUEST_LIMIT)) if path.is_file() else None

    return ask
