"""`devguard trust rotate|revoke`: the next version of a trust document, signed by the root keys that are here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded
from devguard.cli.times import Moment
from devguard.cli.trust_parts import (
    comma_separated,
    finish,
    lines_of,
    newest_in,
    role_of,
    roles_of,
    shown,
    signers_among,
)
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.trust.document import Role, TrustDocument
    from devguard.trust.rotate import Change

HEX: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}")
_source = click.argument("source", metavar="DIR|FILE", type=click.Path(path_type=Path))
_key = click.option("--key", "keys", multiple=True, metavar="KEY", help="A root key that is not in the home.")
_expires = click.option("--expires", type=Moment(), help="When it expires (default: it lives as long as the last one).")


@click.command("rotate", cls=Command)
@_source
@click.option("--root", "roots", multiple=True, metavar="KEY", help="The root keys from now on (several times).")
@click.option("--threshold", type=click.IntRange(1, 64), help="How many root persons must sign from now on.")
@click.option("--role", "roles", multiple=True, metavar="NAME=KEY,...:K", help="A role as it is from now on.")
@click.option("--remove-role", "gone", multiple=True, metavar="NAME", help="A role nobody holds any more.")
@click.option("--remove-key", "removed", multiple=True, metavar="KEY|PERSON", help="Leaves every role, not revoked.")
@click.option("--max-step", type=click.IntRange(1, 2**32 - 1), help="How far a sequence number may jump.")
@click.option("--require-device-nonce/--no-require-device-nonce", "nonce", default=None, help="As in `trust init`.")
@_expires
@_key
@passphrase_option
@click.pass_obj
def rotate(invocation: Invocation, /, source: Path, **wish: Any) -> None:
    """Make the next version after the newest in DIR (or after FILE), with these changes, signed by the keys here.

    It becomes current when the roots before and after it have both signed; `trust sign` adds who is missing.
    """
    from devguard.cose.roles import RoleName
    from devguard.trust.rotate import Change

    previous = _previous(source)
    changed: dict[RoleName, Role | None] = dict(roles_of(invocation, wish["roles"]))
    for name in wish["gone"]:
        if name not in [*RoleName] or RoleName(name) in changed:
            raise click.BadParameter(f"{name!r} is not a role, or is given twice", param_hint="--remove-role")
        changed[RoleName(name)] = None
    if wish["roots"] or wish["threshold"] is not None:
        if RoleName.ROOT in changed:
            raise click.UsageError("the root is given twice: --role root and --root or --threshold")
        changed[RoleName.ROOT] = _root(invocation, previous, comma_separated(wish["roots"]), wish["threshold"])
    change = Change(
        roles=changed,
        remove=frozenset(one for text in wish["removed"] for one in _keys_of(invocation, previous, text)),
        max_step=wish["max_step"],
        require_device_nonce=wish["nonce"],
    )
    _make(invocation, "trust.rotate", source, previous, change, wish)


def _root(invocation: Invocation, previous: TrustDocument, references: list[str], threshold: int | None) -> Role:
    from dataclasses import replace

    from devguard.cose.roles import RoleName

    before = previous.roles[RoleName.ROOT]
    wanted = before.threshold if threshold is None else threshold
    return role_of(invocation, references, wanted) if references else replace(before, threshold=wanted)


@click.command("revoke", cls=Command)
@_source
@click.argument("targets", nargs=-1, metavar="[KEY|PERSON]...")
@click.option("--release", "releases", multiple=True, metavar="DIGEST|FILE.suit", help="A release nobody may install.")
@click.option("--keep-release", "kept", multiple=True, metavar="DIGEST|FILE.suit", help="Stays valid all the same.")
@click.option("--grant-epoch", type=click.IntRange(0, 2**63 - 1), help="Grants of older epochs are revoked.")
@click.option("--floor", "floors", multiple=True, metavar="MODEL=SEQ", help="The oldest release that may be installed.")
@_expires
@_key
@passphrase_option
@click.pass_obj
def revoke(invocation: Invocation, /, source: Path, targets: tuple[str, ...], **wish: Any) -> None:
    """Make the next version after the newest in DIR (or after FILE), in which keys, persons, releases or grants count
    for nothing, whatever date a signature claims."""
    from devguard.trust.rotate import Change

    previous = _previous(source)
    if not (targets or wish["releases"] or wish["kept"] or wish["floors"] or wish["grant_epoch"] is not None):
        raise click.UsageError("say what to revoke: a key, a person, --release, --grant-epoch or --floor")
    change = Change(
        revoke=frozenset(one for text in targets for one in _keys_of(invocation, previous, text)),
        floors=dict(_floor(text) for text in wish["floors"]),
        revoked_releases=frozenset(map(_release, wish["releases"])),
        kept_releases=frozenset(map(_release, wish["kept"])),
        grant_epoch=wish["grant_epoch"],
    )
    _make(invocation, "trust.revoke", source, previous, change, wish)


def _previous(source: Path) -> TrustDocument:
    from devguard.trust.document import read_trust

    return read_trust(newest_in(source)[1])


def _keys_of(invocation: Invocation, document: TrustDocument, text: str) -> set[bytes]:
    """The thumbprints that KEY (a file, a name, 64 hex digits) or PERSON means."""
    from devguard.trust.model import same_person

    if HEX.fullmatch(text) and len(text) == 64:
        return {bytes.fromhex(text)}
    held = [entry for role in document.roles.values() for entry in role.keys]
    of_person = {entry.thumbprint for entry in held if same_person(entry.person) == same_person(text)}
    try:
        of_key = {invocation.home.key_info(text).key.thumbprint}
    except DevguardError:
        of_key = set()
    if of_person and of_key - of_person:
        raise Refused("key.purpose", f"{text!r} is a person and another key", "name the key by file or fingerprint")
    if not of_person | of_key:
        raise Malformed("file.missing", f"{text!r} is neither a key here nor a person of the document")
    return of_person | of_key


def _release(text: str) -> bytes:
    """A manifest digest in hex, or that of a release file."""
    if HEX.fullmatch(text):
        return bytes.fromhex(text)
    from devguard.cli.files import open_input
    from devguard.manifest.envelope import read_envelope

    with open_input(Path(text)) as stream:
        return read_envelope(stream).manifest_digest


def _floor(text: str) -> tuple[str, int]:
    model, separator, number = text.rpartition("=")
    if not separator or not model or not re.fullmatch(r"[0-9]{1,20}", number):
        raise click.BadParameter(f"{text!r} is not MODEL=SEQ", param_hint="--floor")
    return model, int(number)


def _make(
    invocation: Invocation, action: str, source: Path, previous: TrustDocument, change: Change, wish: dict[str, Any]
) -> None:
    """Draft, sign, record, write: nothing is on disk before all of it has held."""
    from devguard.custody.files import write_new
    from devguard.trust.rotate import progress, root_keys, sign_successor, spare_root_persons, successor

    folder = source if source.is_dir() else source.parent
    with recorded(invocation, action) as note:
        document = successor(previous, change, issued=invocation.now(), expires=wish["expires"])
        wanted = root_keys(previous, document)
        signers = signers_among(invocation, wanted, wish["keys"], wish["passphrase_fd"])
        if not signers:
            raise Refused("trust.signature", "none of the root keys' private halves is here")
        data = sign_successor(previous, document, signers)
        signed = progress(previous, data)
        path = folder / f"{document.version}.trust"
        note.digest("TRUST", document.digest)
        note.details.update(version=str(document.version), signed=", ".join(_names(document, previous, signers)))
        if path.exists():
            raise Refused("key.exists", f"{path} exists already", "sign that one, or move it away")
        note.commit()
        write_new(path, data, exists="key.exists")
    finish(invocation, folder, data, signed)
    if spare_root_persons(document) < 1:
        invocation.note("no root person to spare: with one root key lost, this document can never be followed")
    invocation.result(
        {"path": str(path), "complete": bool(signed), **shown(document)},
        f"trust document version {document.version} written to {path}\n"
        + (lines_of(document, invocation.now()) if signed else signed.explanation),
    )


def _names(document: TrustDocument, previous: TrustDocument, signers: Any) -> list[str]:
    from devguard.trust.rotate import root_keys

    held = root_keys(previous, document)
    return sorted({held[signer.key.thumbprint].person for signer in signers})


CHANGING: Final = (rotate, revoke)
