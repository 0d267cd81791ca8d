"""`devguard trust rotate|revoke`: the next version of a trust document, signed by the root keys that are here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded
from devguard.cli.times import Moment
from devguard.cli.trust_folder import changing, folder_of, newest_in, put_new
from devguard.cli.trust_parts import comma_separated, lines_of, names_of, role_of, roles_of, shown, signers_among
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.trust.document import Role, TrustDocument
    from devguard.trust.rotate import Change

HEX: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}")
_source = click.argument("source", metavar="DIR|FILE", type=click.Path(path_type=Path))
_key = click.option("--key", "keys", multiple=True, metavar="KEY", help="A root key that is not in the home.")
_expires = click.option(
    "--expires", type=Moment(), help="When it expires (default: it lives as long as the last one, 90 days at least)."
)
_clock = click.option(
    "--clock-is-right",
    is_flag=True,
    help="This machine's clock is right, though it stands long after, or before, what the last document says.",
)


@click.command("rotate", cls=Command)
@_source
@click.option("--root", "roots", multiple=True, metavar="KEY", help="The root keys from now on (several times).")
@click.option("--threshold", type=click.IntRange(1, 64), help="How many root persons must sign from now on.")
@click.option("--role", "roles", multiple=True, metavar="NAME=KEY,...:K", help="A role as it is from now on.")
@click.option("--remove-role", "gone", multiple=True, metavar="NAME", help="A role nobody holds any more.")
@click.option("--remove-key", "removed", multiple=True, metavar="KEY|PERSON", help="Leaves every role, not revoked.")
@click.option("--max-step", type=click.IntRange(1, 2**32 - 1), help="How far a sequence number may jump.")
@click.option("--require-device-nonce/--no-require-device-nonce", "nonce", default=None, help="As in `trust init`.")
@click.option("--require-sbom/--no-require-sbom", "sbom", default=None, help="As in `trust init`.")
@click.option("--lower-floor", "lowered", multiple=True, metavar="MODEL=SEQ", help="Undo a floor that was too high.")
@click.option("--lower-grant-epoch", type=click.IntRange(0, 2**32 - 1), help="Undo an epoch that was too high.")
@_expires
@_clock
@_key
@passphrase_option
@click.pass_obj
def rotate(invocation: Invocation, /, source: Path, **wish: Any) -> None:
    """Make the next version after the newest in DIR (or after FILE), with these changes, signed by the keys here.

    It becomes current when the roots before and after it have both signed; `trust sign` adds who is missing. What
    --lower-floor and --lower-grant-epoch take back was refused until then: old releases and grants may hold again.
    """
    _make(invocation, "trust.rotate", source, wish, _rotation)


def _rotation(invocation: Invocation, previous: TrustDocument, wish: dict[str, Any]) -> Change:
    from devguard.cose.roles import RoleName
    from devguard.trust.rotate import Change

    changed: dict[RoleName, Role | None] = {}
    changed |= roles_of(invocation, wish["roles"], development=previous.development)
    for name in wish["gone"]:
        if name not in previous.roles or RoleName(name) in changed:
            raise click.BadParameter(f"{name!r} is not a role, or is given twice", param_hint="--remove-role")
        changed[RoleName(name)] = None
    if wish["roots"] or wish["threshold"] is not None:
        if RoleName.ROOT in changed:
            raise click.UsageError("the root is given twice: --role root and --root or --threshold")
        changed[RoleName.ROOT] = _root(invocation, previous, comma_separated(wish["roots"]), wish["threshold"])
    return Change(
        roles=changed,
        remove=frozenset(one for text in wish["removed"] for one in _keys_of(invocation, previous, text)),
        max_step=wish["max_step"],
        require_device_nonce=wish["nonce"],
        require_sbom=wish["sbom"],
        lowered_floors=dict(_floor(text, "--lower-floor") for text in wish["lowered"]),
        lowered_epoch=wish["lower_grant_epoch"],
    )


def _root(invocation: Invocation, previous: TrustDocument, references: list[str], threshold: int | None) -> Role:
    from dataclasses import replace

    from devguard.cose.roles import RoleName

    before = previous.roles[RoleName.ROOT]
    wanted = before.threshold if threshold is None else threshold
    if not references:
        return replace(before, threshold=wanted)
    return role_of(invocation, "root", references, wanted, development=previous.development)


@click.command("revoke", cls=Command)
@_source
@click.argument("targets", nargs=-1, metavar="[KEY|PERSON]...")
@click.option("--release", "releases", multiple=True, metavar="DIGEST|FILE.suit", help="A release nobody may install.")
@click.option("--keep-release", "kept", multiple=True, metavar="DIGEST|FILE.suit", help="Stays valid all the same.")
@click.option("--grant-epoch", type=click.IntRange(0, 2**32 - 1), help="Grants of older epochs are revoked.")
@click.option("--floor", "floors", multiple=True, metavar="MODEL=SEQ", help="The oldest release that may be installed.")
@click.option("--allow-jump", is_flag=True, help="Take an epoch or floor that is far above the last one.")
@_expires
@_clock
@_key
@passphrase_option
@click.pass_obj
def revoke(invocation: Invocation, /, source: Path, targets: tuple[str, ...], **wish: Any) -> None:
    """Make the next version after the newest in DIR (or after FILE), in which keys, persons, releases or grants count
    for nothing, whatever date a signature claims.

    A device takes no grant whose epoch is more than 16 above its own, and no release more than the document's max step
    above the one it runs: epochs and floors further than that above all that is known here need --allow-jump.
    """
    if not (targets or wish["releases"] or wish["kept"] or wish["floors"] or wish["grant_epoch"] is not None):
        raise click.UsageError("say what to revoke: a key, a person, --release, --grant-epoch or --floor")
    _make(invocation, "trust.revoke", source, {"targets": targets, **wish}, _revocation)


def _revocation(invocation: Invocation, previous: TrustDocument, wish: dict[str, Any]) -> Change:
    from devguard.trust.rotate import Change

    return Change(
        revoke=frozenset(one for text in wish["targets"] for one in _keys_of(invocation, previous, text)),
        floors=dict(_floor(text) for text in wish["floors"]),
        revoked_releases=frozenset(map(_release, wish["releases"])),
        kept_releases=frozenset(map(_release, wish["kept"])),
        grant_epoch=wish["grant_epoch"],
        jump=wish["allow_jump"],
    )


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


def _floor(text: str, option: str = "--floor") -> tuple[str, int]:
    model, separator, number = text.rpartition("=")
    if not separator or not model or not re.fullmatch(r"[0-9]{1,20}", number):
        raise click.BadParameter(f"{text!r} is not MODEL=SEQ", param_hint=option)
    return model, int(number)


def _make(
    invocation: Invocation,
    action: str,
    source: Path,
    wish: dict[str, Any],
    change: Callable[[Invocation, TrustDocument, dict[str, Any]], Change],
) -> None:
    """Draft, sign, record, write: nothing is on disk before all of it has held."""
    from devguard.trust.rotate import progress, root_keys, sign_successor, spare_root_persons, successor

    with recorded(invocation, action) as note, changing(invocation, folder_of(source)) as held:
        previous = newest_in(source, held)
        wanted = change(invocation, previous, wish)
        document = successor(
            previous,
            wanted,
            issued=invocation.now(),
            expires=wish["expires"],
            known={} if note.memory is None else note.memory.sequences,
            latest=None if note.memory is None else note.memory.latest,
            clock_is_right=wish["clock_is_right"],
        )
        signers = signers_among(invocation, root_keys(previous, document), wish["keys"], wish["passphrase_fd"])
        if not signers:
            raise Refused("trust.signature", "none of the root keys' private halves is here")
        data = sign_successor(previous, document, signers)
        signed = progress(previous, data)
        note.document(document, names_of(signers, document, previous))
        note.details.update(_lowered(wanted))
        path = put_new(invocation, note, held, data, signed, "sign that one, or move it away")
    if spare_root_persons(document) < 1:
        invocation.note("no root person to spare: with one root key lost, this document can never be followed")
    invocation.result(
        {"path": str(path), "complete": bool(signed), **shown(document)},
        f"trust document version {document.version} written to {path}\n"
        + (lines_of(document, invocation.now()) if signed else signed.explanation),
    )


def _lowered(change: Change) -> dict[str, str]:
    """What goes back on purpose, for the record."""
    epoch = [] if change.lowered_epoch is None else [f"grant epoch {change.lowered_epoch}"]
    floors = [f"floor {floor} of {model}" for model, floor in change.lowered_floors.items()]
    return {"lowered": ", ".join([*epoch, *floors])} if epoch or floors else {}


CHANGING: Final = (rotate, revoke)
