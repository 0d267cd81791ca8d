"""`devguard grant issue`: an authority lets a technician do something.

Everything is looked at before a passphrase is asked for: who the technician is here, whether anything stands against
them, and that nothing goes beyond what was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.grant_scope import applied, scope_options
from devguard.cli.record import Note, recorded
from devguard.cli.times import Moment, iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.custody.keyfile import FileSigner
    from devguard.grant.claims import Grant
    from devguard.grant.request import GrantRequest
    from devguard.grant.scope import Scope
    from devguard.grant.technicians import Roster, Technician
    from devguard.trust.document import TrustDocument

AUTHORITY: Final = "technician-authority"
authority_option = click.option(
    "--authority",
    "authorities",
    multiple=True,
    required=True,
    metavar="KEY",
    help="A technician-authority key (several where its threshold asks and the keys are here).",
)
trust_option = click.option(
    "--trust",
    "trust_file",
    type=click.Path(path_type=Path),
    help="The trust document, which says how many authorities must sign (default: the home's).",
)


@click.command("issue", cls=Command)
@authority_option
@click.option("--technician", metavar="FILE|NAME", help="A name on the list of technicians, or a technician's key.")
@click.option("--request", type=click.Path(path_type=Path), help="A technician's request; never more than it asks for.")
@scope_options
@click.option("--trained-until", type=Moment(), help="When the technician's training lapses (default: as listed).")
@click.option("--from", "begins", type=Moment(), help="When it begins to hold (default: now).")
@click.option("--epoch", type=click.IntRange(0, 2**32 - 1), help="Grant epoch (default: the one in force here).")
@trust_option
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The grant to write.")
@passphrase_option
@click.pass_obj
def issue(invocation: Invocation, /, out: Path, passphrase_fd: int | None, **wish: Any) -> None:
    """Issue a grant to a technician's key: for a request, a name on the list of technicians, or a key.

    What the grant does not name, it denies; `*` is any, and is shown. Left out, --action is update, --expires 8h,
    --site where the technician works (any where no list is kept), and release, hours and uses are any.
    """
    from devguard.cli.grant_text import digest
    from devguard.custody.files import write_atomic
    from devguard.grant.claims import read_grant

    if (wish["technician"] is None) == (wish["request"] is None):
        raise click.UsageError("say for whom: --technician FILE|NAME, or --request FILE")
    with recorded(invocation, "grant.issue") as note:
        issuing = Issuing.of(invocation, note, wish)
        scope = issuing.scope()
        issuing.tell()
        signers = [invocation.signer(one, passphrase_fd) for one in wish["authorities"]]
        note.actor = issuer_of(signers, issuing.who.person)
        made = read_grant(issuing.sign(signers, scope))
        note.digest("GRANT", digest(made))
        note.details.update(details(made))
        state = signed_so_far(made, issuing.trust, issuing.now)
        note.commit()
        write_atomic(out, made.tagged)
    show_made(invocation, made, out, state, issuing.now)


@dataclass(frozen=True, slots=True)
class Who:
    """For whom: the person, the key, and who that is on the list of technicians."""

    person: str
    key: CoseKey
    listed: Technician | None


@dataclass(slots=True)
class Issuing:
    """One grant on its way, before anybody has signed."""

    invocation: Invocation
    wish: dict[str, Any]
    roster: Roster
    trust: TrustDocument | None
    request: GrantRequest | None
    who: Who
    now: int

    @classmethod
    def of(cls, invocation: Invocation, note: Note, wish: dict[str, Any]) -> Issuing:
        """Who is to get it, and that nothing stands against that person here."""
        from devguard.cli.files import read_request_file
        from devguard.cli.standing import roster_of

        roster, now = roster_of(note), invocation.now()
        request = None if wish["request"] is None else read_request_file(wish["request"])
        if request is not None:
            note.details["request"] = request.cti.hex()
            request.check_age(now)
            who = listed(roster, request.person, request.holder)
        else:
            who = technician_of(invocation, roster, wish["technician"])
        note.details["technician"] = who.person
        roster.check_person(who.person, who.key)
        home = invocation.home
        known = wish["trust_file"] is not None or home.trust_file.is_file()
        trust = home.trust(wish["trust_file"]) if known else None
        return cls(invocation, wish, roster, trust, request, who, now)

    @property
    def life(self) -> int:
        """For how long, in seconds."""
        from devguard.grant.claims import DEFAULT_LIFE

        if self.wish["expires"] is not None:
            return int(self.wish["expires"])
        asked = self.request.life if self.request is not None else None
        return asked if asked is not None else DEFAULT_LIFE

    def scope(self) -> Scope:
        """What it allows: as the options say, else as asked for, else as the list and the defaults say."""
        from devguard.grant.request import NO_WISH
        from devguard.grant.scope import ANY, NO_HOURS

        base = self.request.wish if self.request is not None else NO_WISH
        base = replace(base, epoch=self.epoch)
        scope = applied(base, self.wish)
        if not scope.models:
            raise click.UsageError("say which model: --model M (several times)")
        if not scope.serials:
            raise click.UsageError("say which device: --serial S (several times), or --any-serial")
        who = self.who.listed
        scope = replace(
            scope,
            sites=scope.sites or (frozenset([ANY]) if who is None else who.sites),
            actions=scope.actions or frozenset(["update"]),
            any_release=scope.any_release or (scope.release_digest is None and scope.sequences is None),
            hours=None if scope.hours == NO_HOURS else scope.hours,
            max_uses=scope.max_uses or None,
            trained_until=self.wish["trained_until"],
        )
        if who is not None:
            scope = replace(scope, trained_until=self._training(who, scope))
        if self.request is not None:
            self.request.check_narrower(scope, self.life)
        return scope

    def _training(self, who: Technician, scope: Scope) -> int:
        """The end of the training on the list; an option may only say an earlier one."""
        until = who.check(scope.models, scope.sites, self.now)
        asked = scope.trained_until
        if asked is not None and asked > until:
            raise Refused("grant.training", f"the training of {who.person} on the list here ends {iso(until)}")
        return until if asked is None else asked

    @property
    def in_force(self) -> int:
        """The grant epoch in force here."""
        return self.roster.in_force(None if self.trust is None else self.trust.grant_epoch)

    @property
    def epoch(self) -> int:
        """The epoch in force here, or the one that was named."""
        return self.in_force if self.wish["epoch"] is None else int(self.wish["epoch"])

    def tell(self) -> None:
        """What a person ought to see before they sign."""
        from devguard.cli.grant_text import request_text

        if self.request is not None:
            self.invocation.note(request_text(self.request, self.now))
            if self.who.listed is None:
                self.invocation.note("no list of technicians is kept here: compare name and key with the person")
        if self.epoch < self.in_force:
            self.invocation.note(
                f"epoch {self.epoch} is older than {self.in_force}, in force here: for a device behind"
            )

    def sign(self, signers: Sequence[FileSigner], scope: Scope) -> bytes:
        """The grant; where the trust document asks for several authorities, in the form that others can sign too."""
        from devguard.cose.roles import RoleName
        from devguard.grant.claims import issue_grant

        begins = self.now if self.wish["begins"] is None else max(self.now, self.wish["begins"])
        role = None if self.trust is None else self.trust.role(RoleName.TECHNICIAN_AUTHORITY)
        return issue_grant(
            signers,
            issuer=", ".join(signer.info.person for signer in signers),
            subject=self.who.person,
            holder=self.who.key,
            scope=scope,
            now=self.now,
            not_before=begins,
            expires=begins + self.life,
            cti=os.urandom(16) if self.request is None else self.request.cti,
            many=role is not None and role.threshold > 1,
        )


def technician_of(invocation: Invocation, roster: Roster, reference: str) -> Who:
    """Who a name on the list, or a technician's key, is."""
    if reference in roster.technicians:
        one = roster.technicians[reference]
        return Who(one.person, one.key, one)
    info = invocation.home.key_info(reference)
    if info.role != "technician":
        raise Refused("key.purpose", f"{reference} is a {info.role} key, not a technician's")
    return listed(roster, info.person, info.key)


def listed(roster: Roster, person: str, key: CoseKey) -> Who:
    """Who holds the key. Where a list of technicians is kept, only whoever is on it, by the name that it has."""
    from devguard.trust.model import same_person

    if not roster.technicians:
        return Who(person, key, None)
    one = roster.of_key(key)
    if one is None:
        raise Refused("grant.technician", f"the key {key.fingerprint} of {person} is not on the list here")
    if same_person(one.person) != same_person(person):
        raise Refused("grant.technician", f"that key is {one.person}'s on the list here, not {person}'s")
    return Who(one.person, key, one)


def issuer_of(signers: Sequence[FileSigner], person: str) -> str:
    """Who issues, by name; refused for keys of other roles and for whoever would grant to themselves."""
    from devguard.trust.model import same_person

    for signer in signers:
        if signer.info.role != AUTHORITY:
            raise Refused(
                "key.purpose",
                f"{signer.info.name} is a {signer.info.role} key; grants come from technician authorities",
            )
        if same_person(signer.info.person) == same_person(person):
            raise Refused("grant.signature", f"{person} cannot grant to themselves")
    return ", ".join(signer.info.person for signer in signers)


def details(made: Grant) -> dict[str, str]:
    """What the record of an issued grant says besides who and when."""
    from devguard.cli.grant_text import names

    return {
        "technician": made.subject,
        "holder": made.holder.fingerprint,
        "serials": names(made.scope.serials),
        "models": names(made.scope.models),
        "sites": names(made.scope.sites),
        "cti": made.cti.hex(),
        "expires": iso(made.expires),
        "epoch": str(made.scope.epoch),
    }


def signed_so_far(made: Grant, trust: TrustDocument | None, now: int) -> dict[str, Any]:
    """Whether enough authorities have signed, as far as a trust document here says; "complete" null without one."""
    from devguard.cose.roles import RoleName
    from devguard.cose.sign import TYP_GRANT
    from devguard.grant.cwt import signers_so_far

    if trust is None:
        return {"complete": None, "missing": None}
    role = RoleName.TECHNICIAN_AUTHORITY
    _, quorum, _ = signers_so_far(made.token, typ=TYP_GRANT, role=role, trust=trust, now=now, invalid="grant.signature")
    return {"complete": bool(quorum), "missing": quorum.missing}


def show_made(invocation: Invocation, made: Grant, out: Path, state: dict[str, Any], now: int) -> None:
    """A grant that was written, and who has to sign it yet."""
    from devguard.cli.grant_text import as_dict, text

    lines = [text(made, now), f"written to {out}"]
    if state["missing"]:
        people = "1 more authority has" if state["missing"] == 1 else f"{state['missing']} more authorities have"
        lines.append(f"NOT YET GOOD: {people} to sign it: devguard grant sign {out} --authority KEY")
    invocation.result({"path": str(out), **state, **as_dict(made)}, "\n".join(lines))
