"""`devguard grant issue|show|check`: who may push what, where, until when."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import recorded
from devguard.cli.times import Duration, Moment, iso, left
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import FileSigner, KeyInfo
    from devguard.grant.check import DeviceView
    from devguard.grant.claims import Grant
    from devguard.grant.scope import Scope
    from devguard.trust.document import TrustDocument

HEX = "hexadecimal"


@click.group()
def grant() -> None:
    """Who may push what, where, until when."""


@grant.command("issue", cls=Command)
@click.option(
    "--authority",
    "authorities",
    multiple=True,
    required=True,
    metavar="KEY",
    help="A technician-authority key (several where its threshold asks).",
)
@click.option("--technician", required=True, metavar="FILE|NAME", help="The technician's key: public export or name.")
@click.option("--model", "models", multiple=True, required=True, help="A device model; * for any.")
@click.option("--serial", "serials", multiple=True, help="A serial number.")
@click.option("--any-serial", is_flag=True, help="Any serial number.")
@click.option("--site", "sites", multiple=True, help="A site (default: any).")
@click.option("--expires", type=Duration(), default="8h", show_default=True, help="How long it holds; at most 12h.")
@click.option(
    "--action", "actions", multiple=True, type=click.Choice(["update", "recover", "read-log"]), help="Default: update."
)
@click.option(
    "--max-uses", type=click.IntRange(1, 65_535), help="How many releases it may install (default: any number)."
)
@click.option("--trained-until", type=Moment(), help="When the technician's training lapses (default: not limited).")
@click.option("--release", "release_file", type=click.Path(path_type=Path), help="Only this release.")
@click.option("--device-nonce", metavar="HEX", help="The nonce the device shows (`device info`); good for one release.")
@click.option("--epoch", type=click.IntRange(0, 2**32 - 1), help="Grant epoch (default: the trust document's).")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The grant to write.")
@passphrase_option
@click.pass_obj
def issue(
    invocation: Invocation,
    /,
    authorities: tuple[str, ...],
    technician: str,
    out: Path,
    passphrase_fd: int | None,
    **wish: Any,
) -> None:
    """Issue a grant to a technician's key. Everything it does not name, it denies; `*` is any, and is shown."""
    from devguard.custody.files import write_atomic
    from devguard.grant.claims import issue_grant, read_grant

    if bool(wish["serials"]) == wish["any_serial"]:
        raise click.UsageError("say which device: --serial S (several times), or --any-serial")
    holder = invocation.home.key_info(technician)
    if holder.role != "technician":
        raise Refused("key.purpose", f"{technician} is a {holder.role} key, not a technician's")
    signers = [invocation.signer(one, passphrase_fd) for one in authorities]
    issuer = _issuer(signers, holder)
    now = invocation.now()
    with recorded(invocation, "grant.issue", actor=issuer) as note:
        data = issue_grant(
            signers,
            issuer=issuer,
            subject=holder.person,
            holder=holder.key,
            scope=_scope(invocation, wish),
            now=now,
            expires=now + wish["expires"],
            cti=os.urandom(16),
        )
        made = read_grant(data)
        note.digest("GRANT", _digest(made))
        note.details.update(
            technician=holder.person, serials=_names(made.scope.serials), models=_names(made.scope.models)
        )
        note.commit()
        write_atomic(out, data)
    invocation.result({"path": str(out), **as_dict(made)}, f"{_text(made, now)}\nwritten to {out}")


def _issuer(signers: list[FileSigner], holder: KeyInfo) -> str:
    from devguard.trust.model import same_person

    for signer in signers:
        if signer.info.role != "technician-authority":
            raise Refused(
                "key.purpose",
                f"{signer.info.name} is a {signer.info.role} key; grants come from technician authorities",
            )
        if same_person(signer.info.person) == same_person(holder.person):
            raise Refused("grant.signature", f"{holder.person} cannot grant to themselves")
    return ", ".join(signer.info.person for signer in signers)


def _scope(invocation: Invocation, wish: dict[str, Any]) -> Scope:
    from devguard.grant.scope import ANY, Scope

    manifest = None
    if wish["release_file"] is not None:
        from devguard.cli.files import open_input
        from devguard.manifest.envelope import read_envelope

        with open_input(wish["release_file"]) as stream:
            manifest = read_envelope(stream).manifest_digest
    epoch = wish["epoch"]
    if epoch is None:
        epoch = invocation.home.trust(None).grant_epoch if invocation.home.trust_file.is_file() else 0
    return Scope(
        models=frozenset(wish["models"]),
        serials=frozenset([ANY] if wish["any_serial"] else wish["serials"]),
        sites=frozenset(wish["sites"] or [ANY]),
        actions=frozenset(wish["actions"] or ["update"]),
        epoch=epoch,
        release_digest=manifest,
        any_release=manifest is None,
        max_uses=wish["max_uses"],
        trained_until=wish["trained_until"],
        device_nonce=_nonce(wish["device_nonce"]),
    )


def _nonce(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not {HEX}", param_hint="--device-nonce") from None


def _digest(one: Grant) -> bytes:
    import hashlib

    return hashlib.sha256(one.untagged).digest()


def _names(members: frozenset[str]) -> str:
    return ", ".join(sorted(members)) or "none"


def as_dict(one: Grant) -> dict[str, Any]:
    """A grant as plain values. What it says, not whether it holds."""
    scope = one.scope
    return {
        "issuer": one.issuer,
        "technician": one.subject,
        "holder": one.holder.fingerprint,
        "cti": one.cti.hex(),
        "issued": iso(one.issued),
        "not_before": iso(one.not_before),
        "expires": iso(one.expires),
        "models": sorted(scope.models),
        "serials": sorted(scope.serials),
        "sites": sorted(scope.sites),
        "actions": sorted(scope.actions),
        "release": "*" if scope.any_release else None if scope.release_digest is None else scope.release_digest.hex(),
        "sequences": None if scope.sequences is None else list(scope.sequences),
        "max_uses": "*" if scope.max_uses is None else scope.max_uses,
        "trained_until": "*" if scope.trained_until is None else iso(scope.trained_until),
        "epoch": scope.epoch,
        "device_nonce": None if scope.device_nonce is None else scope.device_nonce.hex(),
        "delegated": one.parent is not None,
        "any": list(scope.wide),
    }


def _text(one: Grant, now: int) -> str:
    scope = one.scope
    release = (
        "any" if scope.any_release else scope.release_digest.hex() if scope.release_digest else str(scope.sequences)
    )
    lines = [
        f"{one.subject} may {_names(scope.actions)} {_names(scope.models)}, serial {_names(scope.serials)}, "
        f"site {_names(scope.sites)}",
        f"  from {iso(one.not_before)} until {iso(one.expires)} ({left(one.expires - now)} left), release {release}",
        f"  key {one.holder.fingerprint}, granted by {one.issuer}",
    ]
    if scope.device_nonce is not None:
        lines.append(f"  bound to device nonce {scope.device_nonce.hex()}: good for one release")
    if scope.wide:
        lines.append(f"  WIDE: any {', any '.join(scope.wide)}")
    return "\n".join(lines)


@grant.command("show", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def show(invocation: Invocation, file: Path) -> None:
    """Show what a grant says. Nothing is judged: `grant check` judges."""
    from devguard.cli.files import read_grant_file

    one = read_grant_file(file)
    invocation.result(as_dict(one), _text(one, invocation.now()))


@grant.command("check", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@click.option("--model", help="For this model (default: the grant's, where it names one).")
@click.option("--serial", help="For this serial (default: the grant's, where it names one).")
@click.option("--site", help="At this site.")
@click.option(
    "--action",
    type=click.Choice(["update", "recover", "read-log"]),
    help="For this action (default: the grant's first).",
)
@click.option(
    "--device-epoch",
    type=click.IntRange(0, 2**32 - 1),
    help="The device's grant epoch, from its report (default: not known; at least the trust document's).",
)
@click.option("--now", type=Moment(), help="Judge as of this time.")
@click.pass_obj
def check(
    invocation: Invocation,
    file: Path,
    trust_file: Path | None,
    model: str | None,
    serial: str | None,
    site: str | None,
    action: str | None,
    device_epoch: int | None,
    now: int | None,
) -> None:
    """Check a grant as a device would, as far as a bench can; what it cannot know is said.

    Without --device-epoch the grant passes when some device under this trust document could take its epoch.
    """
    from devguard.cli.files import read_grant_file
    from devguard.grant.check import check_grant
    from devguard.grant.claims import Action

    with recorded(invocation, "grant.check") as note:
        one = read_grant_file(file)
        note.digest("GRANT", _digest(one))
        moment = now if now is not None else invocation.now()
        trust = invocation.home.trust(trust_file)
        view = device_view(one, trust, model=model, serial=serial, site=site, epoch=device_epoch)
        wanted = Action(
            action
            or (
                sorted(one.scope.actions)[0]
                if len(one.scope.actions) == 1 and "*" not in one.scope.actions
                else "update"
            )
        )
        check_grant(one, trust=trust, now=moment, device=view, action=wanted, holder=None)
        note.commit()
    unknown = _unknown(one, device_epoch is None)
    lines = [f"good for {wanted} on {view.model} {view.serial}", _text(one, moment)]
    lines += [f"  not known here: {what}" for what in unknown]
    invocation.result({"ok": True, "not_known": unknown, **as_dict(one)}, "\n".join(lines))


def _unknown(one: Grant, epoch: bool) -> list[str]:
    """What only the device can say."""
    found = [f"the device's grant epoch; above {one.scope.epoch} it refuses this grant"] if epoch else []
    if one.scope.device_nonce is not None:
        found.append("whether the device issued that nonce and has not seen it used")
    if one.scope.max_uses is not None:
        found.append("how many of its uses the device has seen")
    return found


def device_view(
    one: Grant,
    trust: TrustDocument,
    *,
    model: str | None = None,
    serial: str | None = None,
    site: str | None = None,
    epoch: int | None = None,
) -> DeviceView:
    """What a bench knows of a device before it has met it: the rest of the check is the device's.

    epoch: the device's grant epoch; None: the lowest under which a device that holds `trust` could take the grant.
    """
    from devguard.device.models import load_model
    from devguard.grant.check import DeviceView
    from devguard.manifest.model import Clock
    from devguard.trust.model import EPOCH_STEP

    def only(members: frozenset[str], given: str | None) -> str:
        return given or next((name for name in sorted(members) if name != "*"), "")

    name = only(one.scope.models, model)
    clock = load_model(name).facts.clock if name else Clock.RTC
    where = site or next((name for name in sorted(one.scope.sites) if name != "*"), None)
    return DeviceView(
        model=name,
        serial=only(one.scope.serials, serial),
        site=where,
        clock=clock,
        epoch=max(trust.grant_epoch, one.scope.epoch - EPOCH_STEP) if epoch is None else epoch,
        nonces=None,
    )
