"""Changes behind this station's back: a device's report against the last one on record; acknowledged by an authority.

A change that no record explains is a record of its own, code `device.changed`, and stands in the way of every push to
that device until a person of the trust document's role technician-authority has looked into it: the technician who
would push is not the one to say that it was nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.record import Note, recorded
from devguard.cli.times import iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import FileSigner
    from devguard.evidence.change import Change
    from devguard.evidence.record import Entry, Record
    from devguard.session.report import Report

CODE: Final = "device.changed"
ACKNOWLEDGE: Final = "device.acknowledge"
SETTLED_BY: Final = (ACKNOWLEDGE, "release.push", "release.recover")
"""After one of these a change is settled: somebody answered for it, or what runs is what was just installed."""


@dataclass(slots=True)
class Known:
    """What the log knows of a device. reports: the newest one that stands, and where a trial was under way in it the
    one before; record: the index of the newest; begun: manifest digests of updates begun since; seen: the newest record
    with a report, whether it stands or not; open: the newest change that nothing has settled since."""

    reports: list[Report] = field(default_factory=list)
    record: int | None = None
    begun: set[bytes] = field(default_factory=set)
    seen: Entry | None = None
    open: Entry | None = None

    def take(self, entry: Entry, record: Record) -> bool:
        """One record of the device more, from the newest backwards; whether the ones before it say nothing new."""
        from devguard.evidence.record import DigestOf, Statement

        manifest = record.digests.get(DigestOf.MANIFEST)
        if record.action.endswith("-begun") and manifest is not None and self.record is None:
            self.begun.add(manifest)
        reported = Statement.REPORT in record.statements
        if reported and self.seen is None:
            self.seen = entry
        if record.code == CODE:
            self.open = self.open or entry
            return False
        if reported and not (self.reports and self.reports[-1].confirmed) and len(self.reports) < 2:
            self.reports.append(_recorded_report(record))
            self.record = entry.index if self.record is None else self.record
        return record.ok and record.action in SETTLED_BY and self.record is not None and self.reports[-1].confirmed


def known(note: Note, serial: str) -> Known:
    """What this station's log knows of a device; nothing where none is kept or the device is new here."""
    from devguard.evidence.newest import backwards

    found, needle = Known(), serial.encode()
    for entry, _ in backwards(note.home.evidence_folder) if note.log is not None else ():
        if needle in entry.body and (record := entry.record).device == serial and found.take(entry, record):
            break
    return found


def _recorded_report(record: Record) -> Report:
    """The report in a record of this station's own log, which signed that it verified it then."""
    from devguard.evidence.record import Statement
    from devguard.grant.credential import read_credential
    from devguard.session.report import parse_report

    key = read_credential(record.statements[Statement.CREDENTIAL]).key
    return parse_report(record.statements[Statement.REPORT], key)


def unexplained(note: Note, report: Report) -> tuple[Known, tuple[Change, ...]]:
    """What differs in a report from what this station's log says of the device."""
    from devguard.evidence.change import changes

    before = known(note, report.serial)
    found = [changes(one, report, before.begun) for one in before.reports]
    return before, min(found, key=len, default=())


def describe(note: Note, before: Known, found: tuple[Change, ...]) -> None:
    """Put into the note what differs from which record."""
    note.details["since"] = f"record {before.record}"
    for one in found:
        note.details[f"changed-{one.name}"] = f"{one.before} on record, {one.after} found"


def check_unchanged(note: Note, report: Report) -> None:
    """`Refused("device.changed")` when the device is not as the log says, or a change waits to be acknowledged."""
    before, found = unexplained(note, report)
    if found:
        describe(note, before, found)
        raise Refused(CODE, f"{report.serial} changed since record {before.record}: {'; '.join(map(str, found))}")
    if before.open is not None:
        raise Refused(CODE, f"{report.serial} had changed, record {before.open.index}, and nobody has acknowledged it")


def note_change(note: Note, report: Report) -> tuple[Change, ...]:
    """Record a change that a look at the device found; what was found is in the note already."""
    before, found = unexplained(note, report)
    if found:
        describe(note, before, found)
        note.commit(CODE, action="device.report")
    return found


@click.command("acknowledge", cls=Command)
@click.argument("serial")
@click.option("--key", "reference", required=True, metavar="KEY", help="Your key, of role technician-authority.")
@click.option("--reason", required=True, help="What was found out, for the record.")
@passphrase_option
@click.pass_obj
def acknowledge(invocation: Invocation, serial: str, reference: str, reason: str, passphrase_fd: int | None) -> None:
    """Take note, by name and signature, that a device was changed by other means; pushes to it may go on.

    It covers the state in which the device was found last, and no other.
    """
    with recorded(invocation, ACKNOWLEDGE) as note:
        note.device = serial
        signer = invocation.signer(reference, passphrase_fd)
        _check_authority(invocation, signer)
        before = known(note, serial)
        if before.open is None or before.seen is None:
            raise Refused("device.unchanged", f"no change of {serial} waits to be acknowledged")
        changed = before.open.record
        _sign(note, before.seen.record, signer, reason)
        differing = {name: text for name, text in changed.details.items() if name.startswith("changed-")}
        note.commit()
    person = signer.info.person
    data = {"ok": True, "serial": serial, "record": before.open.index, "person": person, "changes": differing}
    text = [f"{serial}: acknowledged by {person}, found {iso(changed.time)} (record {before.open.index})"]
    invocation.result(data, "\n".join([*text, *(f"  {name}: {value}" for name, value in differing.items())]))


def _check_authority(invocation: Invocation, signer: FileSigner) -> None:
    """The key has to be one that the trust document lists for those who answer for technicians."""
    from devguard.cose.roles import RoleName
    from devguard.trust.document import check_time

    trust, now = invocation.home.trust(None), invocation.now()
    check_time(trust, now)
    entry = next(
        (one for role, one in trust.find(signer.key.thumbprint) if role is RoleName.TECHNICIAN_AUTHORITY), None
    )
    if entry is None:
        raise Refused("key.purpose", f"the key of {signer.info.person} is no technician authority's here")
    if trust.is_revoked(entry.thumbprint):
        raise Refused("key.revoked", f"the key of {entry.person} is revoked")
    if not entry.valid_at(now):
        raise Refused("key.expired", f"the key of {entry.person} is outside its validity")


def _sign(note: Note, seen: Record, signer: FileSigner, reason: str) -> None:
    """The state that is acknowledged stands in the record whole: the next push is compared with it."""
    from devguard.evidence.acknowledgement import Acknowledgement
    from devguard.evidence.record import DigestOf, Statement, printable

    note.actor = signer.info.person
    note.details["reason"] = reason
    for kind in (Statement.REPORT, Statement.CREDENTIAL, Statement.CHALLENGE):
        if kind in seen.statements:
            note.statements[kind] = seen.statements[kind]
    for digest in (DigestOf.REPORT, DigestOf.DEVICE_HEAD):
        note.digests[digest] = seen.digests[digest]
    head = b"" if note.log is None else note.log.checkpoint.text()
    report = hashlib.sha256(seen.statements[Statement.REPORT]).digest()
    said = Acknowledgement(note.device or "", report, printable(reason), note.moment, head)
    note.statements[Statement.ACKNOWLEDGEMENT] = said.sign(signer)


def as_dicts(found: tuple[Change, ...]) -> list[dict[str, Any]]:
    """For JSON."""
    return [{"name": one.name, "before": one.before, "after": one.after} for one in found]
