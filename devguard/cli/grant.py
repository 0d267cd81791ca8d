"""`devguard grant`: who may push what, where, until when. Here `show` and `check`; the others beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.grant_hand import HANDING
from devguard.cli.grant_issue import issue
from devguard.cli.grant_revoke import REVOKING
from devguard.cli.grant_scope import ACTIONS
from devguard.cli.grant_sign import sign
from devguard.cli.record import recorded
from devguard.cli.times import Moment

if TYPE_CHECKING:
    from devguard.grant.check import DeviceView
    from devguard.grant.claims import Grant
    from devguard.trust.document import TrustDocument


@click.group()
def grant() -> None:
    """Who may push what, where, until when."""


for _command in (issue, sign, *HANDING, *REVOKING):
    grant.add_command(_command)


@grant.command("show", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def show(invocation: Invocation, file: Path) -> None:
    """Show what a grant, or a request for one, says. Nothing is judged: `grant check` judges."""
    from devguard.cli.files import GRANT_LIMIT
    from devguard.cli.grant_text import as_dict, request_dict, request_text, text
    from devguard.cose.headers import Header
    from devguard.cose.sign import TYP_REQUEST
    from devguard.custody.files import read_limited
    from devguard.grant.claims import read_grant
    from devguard.grant.cwt import read_token
    from devguard.grant.request import read_request

    data, now = read_limited(file, GRANT_LIMIT), invocation.now()
    if read_token(data, "grant.malformed").sign.headers.get(Header.TYP) == TYP_REQUEST:
        request = read_request(data)
        invocation.result({"request": request_dict(request)}, request_text(request, now))
        return
    one = read_grant(data)
    invocation.result(as_dict(one), text(one, now))


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
    type=click.Choice(ACTIONS),
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

    Without --device-epoch the grant passes when some device under this trust document could take its epoch. A
    technician who is suspended here is refused here, whatever a device knows.
    """
    from devguard.cli.files import read_grant_file
    from devguard.cli.grant_text import as_dict, digest, text
    from devguard.cli.standing import check_standing
    from devguard.grant.check import check_grant
    from devguard.grant.claims import Action

    with recorded(invocation, "grant.check") as note:
        one = read_grant_file(file)
        note.digest("GRANT", digest(one))
        moment = now if now is not None else invocation.now()
        trust = invocation.home.trust(trust_file)
        view = device_view(one, trust, model=model, serial=serial, site=site, epoch=device_epoch)
        wanted = Action(action or _only_action(one))
        check_grant(one, trust=trust, now=moment, device=view, action=wanted, holder=None)
        check_standing(note, one)
        note.commit()
    unknown = _unknown(one, device_epoch is None)
    lines = [f"good for {wanted} on {view.model} {view.serial}", text(one, moment)]
    lines += [f"  not known here: {what}" for what in unknown]
    invocation.result({"ok": True, "not_known": unknown, **as_dict(one)}, "\n".join(lines))


def _only_action(one: Grant) -> str:
    """The grant's action where it names one, else `update`."""
    actions = sorted(one.scope.actions)
    return actions[0] if len(actions) == 1 and actions != ["*"] else "update"


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
