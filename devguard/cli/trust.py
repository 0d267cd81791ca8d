"""`devguard trust init|sign|show|check`: the document that says who may sign what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option, passphrase_reader
from devguard.cli.times import Moment, iso, left
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cose.sign import Signer
    from devguard.trust.document import Role, TrustDocument

HYBRID_ROLES = ("release", "quality")


@click.group()
def trust() -> None:
    """The trust document: who may sign what."""


def _split(text: str) -> tuple[str, list[str], int]:
    """NAME=KEY,...:K as (name, keys, threshold); the threshold is 1 where it is left out."""
    name, separator, rest = text.partition("=")
    keys, colon, threshold = rest.rpartition(":")
    if not colon or not threshold.isdigit():
        keys, threshold = rest, "1"
    names = [one for one in keys.split(",") if one]
    if not separator or not names:
        raise click.BadParameter(f"{text!r} is not NAME=KEY,...:K", param_hint="--role")
    return name, names, int(threshold)


def _role(invocation: Invocation, references: list[str], threshold: int) -> Role:
    from devguard.trust.document import KeyEntry, Role

    infos = [invocation.home.key_info(reference) for reference in references]
    return Role(threshold, tuple(KeyEntry(info.key, info.person, info.development) for info in infos))


def _signers(invocation: Invocation, references: list[str], fd: int | None) -> list[Signer]:
    """The root keys whose private half is here."""
    found: list[Signer] = []
    for reference in references:
        path = invocation.home.key_path(reference)
        if b"PRIVATE KEY" in path.read_bytes():
            found.append(invocation.home.signer(reference, lambda name: passphrase_reader(fd, name)()))
    return found


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
@passphrase_option
@click.pass_obj
def init(
    invocation: Invocation,
    folder: Path,
    roots: tuple[str, ...],
    threshold: int,
    expires: int,
    roles: tuple[str, ...],
    development: bool,
    require_device_nonce: bool,
    passphrase_fd: int | None,
) -> None:
    """Make version 1 of a trust document in DIR, signed by the root keys that are here."""
    from devguard.cose.roles import RoleName
    from devguard.custody.files import write_new
    from devguard.trust.document import build_trust, peek_trust, trust_payload

    root_keys = [one for text in roots for one in text.split(",") if one]
    members = {RoleName.ROOT: _role(invocation, root_keys, threshold)}
    for text in roles:
        name, keys, count = _split(text)
        if name not in [*RoleName] or RoleName(name) in members:
            raise click.BadParameter(f"{name!r} is not a role, or is given twice", param_hint="--role")
        members[RoleName(name)] = _role(invocation, keys, count)
    document = trust_payload(
        version=1,
        issued=invocation.now(),
        expires=expires,
        roles=members,
        development=development,
        require_device_nonce=require_device_nonce,
    )
    signers = _signers(invocation, root_keys, passphrase_fd)
    if not signers:
        raise Refused("trust.signature", "none of the root keys' private halves is here")
    data = build_trust(document, signers)
    made, quorum = peek_trust(data)
    path = _new_folder(folder) / "1.trust"
    write_new(path, data, exists="key.exists")
    _finish(invocation, folder, data, complete=bool(quorum))
    invocation.result(
        {"path": str(folder / "current.trust") if quorum else str(path), "complete": bool(quorum), **_shown(made)},
        f"trust document version 1 written to {path}\n"
        + (_lines(made, invocation.now()) if quorum else quorum.explanation),
    )


def _new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("file.unreadable", f"cannot create {folder}: {error.strerror}") from error
    return folder


def _finish(invocation: Invocation, folder: Path, data: bytes, *, complete: bool) -> None:
    """A document that its root vouches for becomes the folder's current one, and the home's first."""
    from devguard.custody.files import write_atomic

    if complete:
        write_atomic(folder / "current.trust", data)
        if invocation.home.keep_trust(data):
            invocation.note(f"kept as this home's trust document: {invocation.home.trust_file}")


@trust.command("sign", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "reference", required=True, metavar="KEY", help="A root key whose signature is missing.")
@passphrase_option
@click.pass_obj
def sign(invocation: Invocation, file: Path, reference: str, passphrase_fd: int | None) -> None:
    """Add one more root person's signature to FILE (N.trust)."""
    from devguard.cli.home import TRUST_LIMIT
    from devguard.custody.files import read_limited, write_atomic
    from devguard.trust.document import add_root_signature, peek_trust

    signer = invocation.home.signer(reference, lambda name: passphrase_reader(passphrase_fd, name)())
    data = add_root_signature(read_limited(file, TRUST_LIMIT), signer)
    document, quorum = peek_trust(data)
    write_atomic(file, data)
    _finish(invocation, file.parent, data, complete=bool(quorum))
    invocation.result({"path": str(file), "complete": bool(quorum), **_shown(document)}, quorum.explanation)


def _shown(document: TrustDocument) -> dict[str, Any]:
    from devguard.trust.show import as_dict

    return as_dict(document)


def _lines(document: TrustDocument, now: int) -> str:
    lines = [
        f"version {document.version}{' DEVELOPMENT' if document.development else ''}, "
        f"thumbprint {document.digest.hex()}",
        f"issued {iso(document.issued)}, expires {iso(document.expires)} ({left(document.expires - now)} left)",
    ]
    for name, role in document.roles.items():
        people = ", ".join(f"{entry.person} ({entry.key.algorithm.label})" for entry in role.keys)
        lines.append(f"  {name:21} {role.threshold} of {people}")
    return "\n".join(lines)


@trust.command("show", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def show(invocation: Invocation, file: Path | None) -> None:
    """Show a trust document (default: the home's) and how far its root signatures have come."""
    from devguard.cli.home import TRUST_LIMIT
    from devguard.custody.files import read_limited
    from devguard.trust.document import peek_trust
    from devguard.trust.show import as_dict

    path = file or invocation.home.trust_file
    if file is None and not path.is_file():
        raise Refused("trust.missing", f"{path} does not exist")
    document, quorum = peek_trust(read_limited(path, TRUST_LIMIT))
    invocation.result(
        as_dict(document, quorum), f"{_lines(document, invocation.now())}\nroot signatures: {quorum.explanation}"
    )


@trust.command("check", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--now", type=Moment(), help="Judge as of this time.")
@click.pass_obj
def check(invocation: Invocation, file: Path | None, now: int | None) -> None:
    """Check a trust document: form, root signatures, keys, time, and whether releases can be signed under it."""
    from devguard.trust.document import check_time

    document = invocation.home.trust(file)
    check_time(document, now if now is not None else invocation.now())
    warnings = _warnings(document)
    text = "\n".join(["good: " + _lines(document, invocation.now()), *(f"warning: {one}" for one in warnings)])
    invocation.result({"ok": True, "warnings": warnings, **_shown(document)}, text)


def _warnings(document: TrustDocument) -> list[str]:
    """What will bite later: a document under which nothing can be released, granted or enrolled."""
    from devguard.cose.roles import RoleName

    found = [
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
