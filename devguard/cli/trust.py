"""`devguard trust init|sign|show|check`; `trust_change` and `trust_carry` add the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded
from devguard.cli.times import Moment
from devguard.cli.trust_carry import CARRYING
from devguard.cli.trust_change import CHANGING
from devguard.cli.trust_folder import changing, finish, new_folder, predecessor_of, put_new, read_document
from devguard.cli.trust_parts import comma_separated, lines_of, names_of, role_of, roles_of, shown, signers_here
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.trust.document import TrustDocument

HYBRID_ROLES = ("release", "quality")


@click.group()
def trust() -> None:
    """The trust document: who may sign what."""


for _command in (*CHANGING, *CARRYING):
    trust.add_command(_command)


@trust.command("init", cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--root", "roots", multiple=True, required=True, metavar="KEY", help="A root key (several times).")
@click.option("--threshold", type=click.IntRange(1, 64), required=True, help="How many root persons must sign.")
@click.option("--expires", type=Moment(), required=True, help="When the document expires (ISO 8601).")
@click.option("--role", "roles", multiple=True, metavar="NAME=KEY,...:K", help="A role, its keys, its threshold.")
@click.option(
    "--development", is_flag=True, help="A document for benches: allows development keys, never for production."
)
@click.option(
    "--require-device-nonce", is_flag=True, help="Devices without a clock demand a grant with their own nonce."
)
@click.option("--require-sbom", is_flag=True, help="No release without a signed bill of materials.")
@passphrase_option
@click.pass_obj
def init(invocation: Invocation, /, folder: Path, **wish: Any) -> None:
    """Make version 1 of a trust document in DIR, signed by the root keys that are here.

    Each key has to be of the role it is listed for; a --development document takes any.
    """
    from devguard.trust.document import build_trust
    from devguard.trust.rotate import progress

    with recorded(invocation, "trust.init") as note:
        document = _first(invocation, wish)
        signers = signers_here(invocation, comma_separated(wish["roots"]), wish["passphrase_fd"])
        if not signers:
            raise Refused("trust.signature", "none of the root keys' private halves is here")
        data = build_trust(document, signers)
        signed = progress(None, data)
        note.document(document, names_of(signers, document))
        with changing(invocation, new_folder(folder)) as held:
            path = put_new(invocation, note, held, data, signed)
    made, quorum = signed.document, signed.own
    invocation.result(
        {"path": str(folder / "current.trust") if quorum else str(path), "complete": bool(quorum), **shown(made)},
        f"trust document version 1 written to {path}\n"
        + (lines_of(made, invocation.now()) if quorum else quorum.explanation),
    )


def _first(invocation: Invocation, wish: dict[str, Any]) -> TrustDocument:
    """The document that the options ask for, judged and unsigned."""
    from devguard.cose.roles import RoleName
    from devguard.trust.document import trust_payload

    development, roots = wish["development"], comma_separated(wish["roots"])
    root = {RoleName.ROOT: role_of(invocation, "root", roots, wish["threshold"], development=development)}
    return trust_payload(
        version=1,
        issued=invocation.now(),
        expires=wish["expires"],
        roles={**root, **roles_of(invocation, wish["roles"], root, development=development)},
        development=development,
        require_device_nonce=wish["require_device_nonce"],
        require_sbom=wish["require_sbom"],
    )


@trust.command("sign", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "reference", required=True, metavar="KEY", help="A root key whose signature is missing.")
@passphrase_option
@click.pass_obj
def sign(invocation: Invocation, file: Path, reference: str, passphrase_fd: int | None) -> None:
    """Add one more root person's signature to FILE (N.trust); of version 2 and up, N-1.trust has to be beside it.

    A signature on an older version than the folder's current one is added and changes nothing else.
    """
    from devguard.custody.files import write_atomic
    from devguard.trust.document import add_root_signature, peek_trust
    from devguard.trust.rotate import add_signature, progress, unusual

    with recorded(invocation, "trust.sign") as note:
        read_document(file)
        signer = invocation.signer(reference, passphrase_fd)
        note.actor = signer.info.person
        with changing(invocation, file.parent) as held:
            before = read_document(file)
            document = peek_trust(before)[0]
            note.document(document, [signer.info.person])
            held.check(document)
            previous = predecessor_of(file, document.version)
            data = add_root_signature(before, signer) if previous is None else add_signature(previous, before, signer)
            signed = progress(previous, data)
            note.commit()
            write_atomic(file, data)
            note.repeat(finish(invocation, held, data, signed))
    known = {} if note.memory is None else note.memory.sequences
    for line in [] if previous is None else unusual(previous, document, known):
        invocation.note(f"look at this before anybody else signs: {line}")
    text = f"{lines_of(signed.document, invocation.now())}\n{signed.explanation}"
    invocation.result({"path": str(file), "complete": bool(signed), **shown(signed.document)}, text)


@trust.command("show", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def show(invocation: Invocation, file: Path | None) -> None:
    """Show a trust document (default: the home's) and how far its root signatures have come."""
    from devguard.trust.document import peek_trust
    from devguard.trust.show import as_dict

    path = file or invocation.home.trust_file
    if file is None and not path.is_file():
        raise Refused("trust.missing", f"{path} does not exist")
    document, quorum = peek_trust(read_document(path))
    invocation.result(
        as_dict(document, quorum), f"{lines_of(document, invocation.now())}\nroot signatures: {quorum.explanation}"
    )


@trust.command("check", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--now", type=Moment(), help="Judge as of this time.")
@click.pass_obj
def check(invocation: Invocation, file: Path | None, now: int | None) -> None:
    """Check a trust document: form, root signatures, keys, time, and whether releases can be signed under it.

    The home's own has to be the one this station remembers; of a FILE that it would refuse for that, it warns.
    """
    from devguard.trust.document import check_time, read_trust

    home = invocation.home
    with recorded(invocation, "trust.check") as note:
        data = b"" if file is None else read_document(file)
        document = home.trust(None) if file is None else read_trust(data)
        note.document(document)
        check_time(document, now if now is not None else invocation.now())
    warnings = _warnings(document)
    if file is not None:
        try:
            home.remembers(document, data, file)
        except DevguardError as error:
            warnings.append(f"not usable with --trust here, {error.code}: {error.message}")
    text = "\n".join(["good: " + lines_of(document, invocation.now()), *(f"warning: {one}" for one in warnings)])
    invocation.result({"ok": True, "warnings": warnings, **shown(document)}, text)


def _warnings(document: TrustDocument) -> list[str]:
    """What will bite later: a document under which nothing can be released, granted or enrolled."""
    from devguard.cose.roles import RoleName
    from devguard.trust.rotate import unreachable

    found = [f"role {name} can never sign: {why}" for name, why in unreachable(document)]
    found += [
        f"no {name} role: {why}"
        for name, why in (
            (RoleName.RELEASE, "no release can be accepted"),
            (RoleName.QUALITY, "no release can be accepted"),
            (RoleName.TECHNICIAN_AUTHORITY, "no grant can be issued"),
            (RoleName.DEVICE_AUTHORITY, "no device can prove its serial"),
        )
        if document.role(name) is None
    ]
    entries = [entry for name in HYBRID_ROLES if (role := document.role(RoleName(name))) for entry in role.keys]
    kinds = {entry.key.algorithm.is_post_quantum for entry in entries}
    if entries and kinds != {True, False}:
        found.append("release and quality keys are all of one kind: the hybrid rule cannot be met")
    return found
