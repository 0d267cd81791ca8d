"""`devguard technician`: who may be granted anything here, what they are trained for, and who is suspended.

The list is this station's own. What others have to know travels as a signed list of suspensions: `export` makes one,
`import` takes one. Each step is a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.record import recorded
from devguard.cli.technician_carry import CARRYING
from devguard.cli.times import Moment, iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import KeyInfo
    from devguard.grant.technicians import Roster, Technician


@click.group()
def technician() -> None:
    """Technicians: who may be granted anything, their training, suspensions."""


for _command in CARRYING:
    technician.add_command(_command)

_sites = click.option("--site", "sites", multiple=True, help="A site where they work (several times).")
_any_site = click.option("--any-site", is_flag=True, help="They work at every site.")
_until = click.option("--trained-until", type=Moment(), help="When their training for every model lapses.")
_training = click.option(
    "--training", "trainings", multiple=True, metavar="MODEL=DATE", help="When their training for one model lapses."
)


@technician.command("add", cls=Command)
@click.argument("reference", metavar="FILE|NAME|URI")
@click.option("--name", help="What the list calls them: lower case, for good (default: the key's name).")
@click.option("--person", help="The person, as on their badge; has to be the one the key names.")
@_sites
@_any_site
@_until
@_training
@click.pass_obj
def add(invocation: Invocation, /, reference: str, name: str | None, person: str | None, **wish: Any) -> None:
    """Put a technician on the list, with their key: a public export, a name in the home, or a token's URI.

    Compare the fingerprint with the person before: what is on the list is what grants are issued to.
    """
    from devguard.cli.standing import changing
    from devguard.grant.roster import make_technician

    sites, training = _asked_sites(wish), _asked_training(wish)
    if sites is None or training is None:
        raise click.UsageError("say where and until when: --site S or --any-site, --trained-until or --training")
    with recorded(invocation, "technician.add") as note, changing(note) as change:
        info = invocation.home.key_info(reference)
        _check_key(info, person)
        new = make_technician(name or info.name.lower(), info.person, info.key, sites, training)
        note.details.update(_details(new))
        change.keep(change.roster.with_technician(new))
    invocation.result(_as_dict(new, change.roster), f"on the list: {_text(new, change.roster, invocation.now())}")


@technician.command("change", cls=Command)
@click.argument("name")
@click.option("--key", "reference", metavar="FILE|NAME|URI", help="Their new key; the old one gets no grants any more.")
@_sites
@_any_site
@_until
@_training
@click.pass_obj
def change_(invocation: Invocation, /, name: str, reference: str | None, **wish: Any) -> None:
    """Change what the list says of a technician: sites, training, key. What is left out stays.

    Was the old key lost or stolen? Then suspend first, change the key, and reinstate: the old key stays suspended.
    """
    from devguard.cli.standing import changing
    from devguard.grant.roster import make_technician

    sites, training = _asked_sites(wish), _asked_training(wish)
    if sites is None and training is None and reference is None:
        raise click.UsageError("say what changes: --site, --any-site, --trained-until, --training or --key")
    with recorded(invocation, "technician.change") as note, changing(note) as change:
        before = change.roster.named(name)
        key = before.key
        if reference is not None:
            info = invocation.home.key_info(reference)
            _check_key(info, before.person)
            key = info.key
        after = make_technician(
            name,
            before.person,
            key,
            before.sites if sites is None else sites,
            dict(before.training) if training is None else {**before.training, **training},
        )
        note.details.update(_details(after))
        change.keep(change.roster.with_changed(after))
    invocation.result(_as_dict(after, change.roster), f"on the list: {_text(after, change.roster, invocation.now())}")


def _asked_sites(wish: dict[str, Any]) -> Sequence[str] | None:
    if wish["sites"] and wish["any_site"]:
        raise click.UsageError("--site and --any-site say two things")
    return ["*"] if wish["any_site"] else wish["sites"] or None


def _asked_training(wish: dict[str, Any]) -> dict[str, int] | None:
    found: dict[str, int] = {} if wish["trained_until"] is None else {"*": wish["trained_until"]}
    for text in wish["trainings"]:
        model, separator, date = text.rpartition("=")
        if not separator or not model:
            raise click.BadParameter(f"{text!r} is not MODEL=DATE", param_hint="--training")
        found[model] = Moment().convert(date, None, click.get_current_context())
    return found or None


def _check_key(info: KeyInfo, person: str | None) -> None:
    from devguard.trust.model import same_person

    if info.role != "technician":
        raise Refused("key.purpose", f"{info.name} is a {info.role} key, not a technician's")
    if person is not None and same_person(person) != same_person(info.person):
        raise Refused("grant.technician", f"the key is {info.person}'s, not {person}'s")


def _details(one: Technician) -> dict[str, str]:
    """For the record."""
    return {
        "technician": one.name,
        "person": one.person,
        "holder": one.key.fingerprint,
        "sites": ", ".join(sorted(one.sites)),
        "training": ", ".join(f"{model} {iso(until)}" for model, until in sorted(one.training.items())),
    }


def _as_dict(one: Technician, roster: Roster) -> dict[str, Any]:
    """One technician as plain values."""
    said = roster.against(one.person, one.key)
    return {
        "name": one.name,
        "person": one.person,
        "alg": one.key.algorithm.label,
        "fingerprint": one.key.fingerprint,
        "sites": sorted(one.sites),
        "training": {model: iso(until) for model, until in sorted(one.training.items())},
        "suspended": said is not None,
        "since": None if said is None else iso(said.at),
        "reason": None if said is None else said.reason or None,
        "by": None if said is None else said.by or None,
    }


def _text(one: Technician, roster: Roster, now: int) -> str:
    from devguard.cli.standing import training_text

    said = roster.against(one.person, one.key)
    training = ", ".join(training_text(model, until, now) for model, until in sorted(one.training.items()))
    lines = [
        f"{one.name}: {one.person}, {one.key.algorithm.label} key {one.key.fingerprint}",
        f"  site {', '.join(sorted(one.sites))}; trained: {training}",
    ]
    if said is not None:
        lines.append(f"  SUSPENDED since {iso(said.at)}{f': {said.reason}' if said.reason else ''}")
    return "\n".join(lines)


@technician.command("list", cls=Command)
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the technicians, what they are trained for, and everybody who is suspended here."""
    from devguard.cli.standing import look
    from devguard.trust.model import same_person

    roster, now = look(invocation.home), invocation.now()
    everybody = [roster.technicians[name] for name in sorted(roster.technicians)]
    here = {same_person(one.person) for one in everybody}
    others = [row for row in suspended_persons(roster) if same_person(row["person"]) not in here]
    lines = [_text(one, roster, now) for one in everybody] or ["no technicians are on the list here"]
    lines += [f"SUSPENDED, not on the list: {row['person']} since {row['since']}" for row in others]
    invocation.result(
        {
            "technicians": [_as_dict(one, roster) for one in everybody],
            "suspended": others,
            "revoked": {cti.hex(): iso(expires) for cti, expires in roster.revoked.items()},
            "epoch": roster.epoch,
        },
        "\n".join(lines),
    )


def suspended_persons(roster: Roster) -> list[dict[str, Any]]:
    """Everybody who is suspended here, on the list or not: leavers elsewhere, and whoever a signed list named."""
    return [
        {"person": said.person, "since": iso(said.at), "reason": said.reason or None, "by": said.by or None}
        for said in roster.statements.values()
        if isinstance(said.subject, str) and said.suspended
    ]


@technician.command("show", cls=Command)
@click.argument("name")
@click.pass_obj
def show(invocation: Invocation, name: str) -> None:
    """Show one technician, with the fingerprint in words, to read aloud."""
    from devguard.cli.standing import look
    from devguard.custody.words import rows, words

    roster = look(invocation.home)
    one = roster.named(name)
    text = [_text(one, roster, invocation.now()), "in words, to read aloud:"]
    text += [f"  {row}" for row in rows(one.key.thumbprint)]
    invocation.result({**_as_dict(one, roster), "words": " ".join(words(one.key.thumbprint))}, "\n".join(text))


@technician.command("suspend", cls=Command)
@click.argument("reference", metavar="NAME|FILE")
@click.option("--reason", default="", help="Why, for the record and for whoever is refused.")
@click.pass_obj
def suspend(invocation: Invocation, reference: str, reason: str) -> None:
    """Suspend a technician, by name on the list or by their key: at once here, and says how soon elsewhere.

    The person is suspended with every key known of them. The next grants issued here are of a new epoch, so that each
    device which sees one refuses all older ones.
    """
    from devguard.cli.grant_revoke import trust_epoch
    from devguard.cli.issued import latency_of, of_person
    from devguard.cli.standing import changing

    now = invocation.now()
    with recorded(invocation, "technician.suspend") as note, changing(note) as change:
        before, base = change.roster, trust_epoch(invocation.home)
        person, keys = _whom(invocation, before, reference)
        known = [key for key in (*keys, *before.keys_of(person)) if before.against(person, key) is None]
        after = before.suspended(person, keys, now=now, reason=reason).without_expired(now)
        after = after.raised(base) if known else after  # nothing was issued since the last time
        latency = latency_of(note, before, after, now, base, of_person(person))
        note.details.update(person=person, reason=reason, epoch=str(latency.epoch))
        change.keep(after)
    lines = [f"{person} is suspended: nothing is issued, approved or pushed for them here from now on"]
    invocation.result(
        {"person": person, "suspended": True, "since": iso(now), "reason": reason, **latency.as_dict},
        "\n".join([*lines, *latency.lines(person, now)]),
    )


def _whom(invocation: Invocation, roster: Roster, reference: str) -> tuple[str, list[Any]]:
    """(person, keys) of a name on the list, or of a key."""
    if reference in roster.technicians:
        return roster.technicians[reference].person, []
    info = invocation.home.key_info(reference)
    held = roster.of_key(info.key)
    return (info.person if held is None else held.person), [info.key]


@technician.command("reinstate", cls=Command)
@click.argument("reference", metavar="NAME|FILE")
@click.option("--reason", default="", help="Why, for the record.")
@click.pass_obj
def reinstate(invocation: Invocation, reference: str, reason: str) -> None:
    """Lift a suspension that was made here: of the person, and of the key they have on the list, or the key given.

    Grants of before stay dead where a new epoch was seen.
    """
    from devguard.cli.standing import changing

    now = invocation.now()
    with recorded(invocation, "technician.reinstate") as note, changing(note) as change:
        person, keys = _whom(invocation, change.roster, reference)
        note.details.update(person=person, reason=reason)
        change.keep(change.roster.reinstated(person, keys, now=now, reason=reason))
    invocation.result(
        {"person": person, "suspended": False, "since": iso(now)}, f"{person} is no longer suspended here"
    )
