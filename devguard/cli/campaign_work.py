"""`devguard campaign work`: a technician at a bench takes the devices that are due, one after the other.

Each is an ordinary push of exactly that serial number and release: the same verdict, the same grant, the same record,
and the device judges it all again. The campaign says whose turn it is and looks into the evidence afterwards.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.ledger_store import anchor_for, document_files, open_store, station_name
from devguard.cli.push import Pusher, Wish, progress_option
from devguard.cli.record import Note, operator, recorded
from devguard.cli.visit import Errand, check_errand, visit_options
from devguard.errors import DevguardError, DeviceRefused, LinkError, Refused

if TYPE_CHECKING:
    from devguard.campaign.leases import Delivery, Lease
    from devguard.campaign.state import Outcome
    from devguard.campaign.store import Campaign
    from devguard.custody.keyfile import FileSigner
    from devguard.ledger.store import Store


@dataclass(slots=True)
class Shift(Invocation):
    """The run of one technician's turn: a key is opened once, however many devices it is used for."""

    signers: dict[str, FileSigner] = field(default_factory=dict)

    def signer(self, reference: str, passphrase_fd: int | None) -> FileSigner:
        """The signer of a KEY argument, opened at its first use."""
        if reference not in self.signers:
            self.signers[reference] = Invocation.signer(self, reference, passphrase_fd)
        return self.signers[reference]

    @classmethod
    def of(cls, invocation: Invocation) -> Shift:
        """A shift in the same home, with the same clocks."""
        return cls(**{one.name: getattr(invocation, one.name) for one in fields(Invocation)})


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of one device. phase: in the campaign, as of now."""

    serial: str
    outcome: str
    code: str | None
    phase: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"serial": self.serial, "outcome": self.outcome, "code": self.code, "phase": self.phase}


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--release", type=click.Path(path_type=Path), help="The release (default: where it lay for the campaign)."
)
@click.option("--site", help="Only devices of this site.")
@click.option("--count", type=click.IntRange(1), help="End after so many devices.")
@progress_option
@visit_options
@click.pass_obj
def work(invocation: Invocation, /, **options: Any) -> None:
    """Push the release of campaign NAME to its due devices, one after the other, under your own key and grant.

    Names the serial number to connect, pushes to that device and to no other, and goes on until none is due. An
    interrupt gives the device back. What the bench lacks (a port, a grant, a passphrase) ends the turn and counts
    against no device.
    """
    own = {one.name: options.pop(one.name) for one in fields(Errand)}
    errand = Errand(**own)
    check_errand(errand)
    with open_store(invocation, create=True) as store:
        bench = Bench(Shift.of(invocation), store, errand, **options)
        bench.run()
    data = {"campaign": bench.name, "devices": [one.to_json() for one in bench.turns], "ended": bench.ended}
    invocation.result(data, lambda: _print(data))


class Bench:
    """A bench at work on one campaign. turns: what came of each device; ended: why there is no next one."""

    def __init__(
        self,
        invocation: Shift,
        store: Store,
        errand: Errand,
        *,
        name: str,
        release: Path | None,
        site: str | None,
        count: int | None,
        progress: str,
    ) -> None:
        self.invocation = invocation
        self.store = store
        self.errand = errand
        self.name = name
        self.site = site
        self.count = count
        self.progress = progress
        self.file = release
        self.turns: list[Turn] = []
        self.ended: str | None = None

    def run(self) -> None:
        """Device after device. Raises what ends the turn before any device was had, and what the bench lacks."""
        while self.count is None or len(self.turns) < self.count:
            try:
                lease = self._next()
            except Refused as error:
                if not self.turns or error.code not in ("campaign.stopped", "campaign.window"):
                    raise
                self.ended = error.code  # stopped, or over its hours, in the middle of a turn
                return
            if lease is None:
                return
            if not self._one(lease):
                return

    def _next(self) -> Lease | None:
        """The next device, on record as handed out before it is; None where none is due."""
        from devguard.campaign.advance import advance
        from devguard.campaign.leases import claim
        from devguard.campaign.state import State
        from devguard.campaign.store import load, moment

        with recorded(self.invocation, "campaign.work") as note:
            note.details["campaign"] = self.name
            with self.store.begin() as conn:
                now = moment(conn, self.invocation.now())
                over = advance(conn, self.name, now).state is State.FINISHED
            if over and self.turns:  # the last one was ours
                note.details["due"] = "none"
                return None
            with self.store.begin() as conn:
                token = os.urandom(12).hex()
                wanted = {"site": self.site, "serial": self.errand.serial}
                lease = claim(conn, self.name, operator(), now, token, **wanted)
                self._check_release(note, load(conn, self.name))
                note.details["due"] = "none" if lease is None else lease.serial
                if lease is not None:
                    note.device = lease.serial
                note.commit()
        return lease

    def _check_release(self, note: Note, campaign: Campaign) -> None:
        """`Refused("campaign.release")` unless the file is of the very release that the campaign brings."""
        from devguard.cli.files import open_input
        from devguard.manifest.envelope import read_envelope

        self.file = self.file or Path(campaign.goal.file)
        note.manifest(campaign.goal.digest)
        note.release = f"{campaign.goal.model} {campaign.goal.version}"
        try:
            with open_input(self.file) as file:
                digest = read_envelope(file).manifest_digest
        except DevguardError as error:
            raise Refused("campaign.release", f"{self.file}: {error.code}: {error.message}") from None
        if digest != campaign.goal.digest:
            raise Refused("campaign.release", f"{self.file} is not {note.release} of campaign {self.name}")

    def _one(self, lease: Lease) -> bool:
        """One device, to its outcome; false where the person at the bench wants no more."""
        settled = False
        try:
            if not self._connected(lease):
                return False
            outcome, code = self._push(lease)
            settled = True
        finally:
            if not settled:  # interrupted, or the bench lacks something: nothing is said of the device
                with self.store.begin() as conn:
                    self._give_back(conn, lease)
        done = self._settle(lease, outcome, code)
        self.turns.append(Turn(lease.serial, outcome.value, code, done.phase.value))
        self.invocation.note(f"{lease.serial}: {done.phase}{'' if code is None else f' ({code})'}")
        return True

    def _give_back(self, conn: Any, lease: Lease) -> None:
        from devguard.campaign.leases import give_back

        give_back(conn, lease)

    def _connected(self, lease: Lease) -> bool:
        """Say which device is meant; at a terminal wait for the person who connects it."""
        self.invocation.note(f"connect {lease.serial}: {self.name}, {len(self.turns)} so far")
        return not self.invocation.asks or click.confirm(f"is {lease.serial} connected?", default=True, err=True)

    def _push(self, lease: Lease) -> tuple[Outcome, str | None]:
        """The push, as `devguard push --serial` does it; raises what says nothing of the device."""
        from devguard.campaign.state import Outcome, outcome_of

        met: list[str | None] = []
        try:
            with recorded(self.invocation, "release.push") as note, ExitStack() as stack:
                note.details["campaign"] = self.name
                try:
                    Pusher(self.invocation, self._wish(lease), note, stack).run()
                finally:
                    met.append(note.device)
        except DevguardError as error:
            by_device = isinstance(error, DeviceRefused)
            known = {*met, error.serial if isinstance(error, DeviceRefused) else None}
            outcome = outcome_of(error.code, met=lease.serial in known, by_device=by_device)
            if outcome is None:
                raise
            return outcome, None if outcome is Outcome.CONFIRMED else error.code
        return Outcome.CONFIRMED, None

    def _wish(self, lease: Lease) -> Wish:
        given = {one.name: getattr(self.errand, one.name) for one in fields(Errand)} | {"serial": lease.serial}
        return Wish(
            **given,
            file=self.file or Path(),
            dry_run=False,
            resume=False,
            delta="auto",
            delta_from=None,
            progress=self.progress,
            protocol="devguard",
            image=0,
            sbom=None,
            known_exploited=None,
            known=(),
            vex=(),
        )

    def _settle(self, lease: Lease, outcome: Outcome, code: str | None) -> Delivery:
        """Give the ledger what was recorded of it, then the outcome."""
        from devguard.campaign.advance import advance
        from devguard.campaign.leases import deliver
        from devguard.campaign.store import moment

        own = self.invocation.now()
        try:
            self._hand_over()
            done = self.store.run(lambda conn: deliver(conn, lease, outcome, code, moment(conn, own)))
            self.store.run(lambda conn: advance(conn, self.name, moment(conn, own)))
        except LinkError:
            self.invocation.note(
                f"note: {lease.serial} is on record here; the campaign learns it from the ledger later"
            )
            raise
        return done

    def _hand_over(self) -> None:
        """What this station's log has and the ledger has not, as `devguard ledger update` takes it."""
        from devguard.ledger.rebuild import take_log

        home = self.invocation.home
        take_log(
            self.store,
            home.evidence_folder,
            home.station().key,
            now=self.invocation.now(),
            name=station_name(self.invocation),
            documents=document_files(self.invocation),
            anchor=anchor_for(home, self.store),
        )


def _print(data: dict[str, Any]) -> None:
    for one in data["devices"]:
        why = "" if one["code"] is None else f", {one['code']}"
        click.echo(f"{one['serial']}: {one['phase']}{why}")
    count = len(data["devices"])
    ended = "" if data["ended"] is None else f"; ended by {data['ended']}"
    click.echo(f"{data['campaign']}: {count} device{'' if count == 1 else 's'}{ended}")
