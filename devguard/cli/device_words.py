"""What a device says to this station, for the record: sessions by their ids, reports whole, and what they countersign.

Every challenge is made of the head of this station's log, so that a signed report vouches for all records before it;
the opening of the challenge goes on record beside the report. Source: devguard formats, "Evidence".
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from devguard.evidence.checkpoint import Checkpoint
from devguard.evidence.record import DigestOf, Statement
from devguard.evidence.statement import NONCE_SIZE, DeviceStatement, Opening

if TYPE_CHECKING:
    from devguard.cli.record import Note
    from devguard.cose.signer import Signer
    from devguard.grant.check import CheckedGrant
    from devguard.session.connect import Bench, Connected
    from devguard.session.report import Report


@dataclass(slots=True)
class Words:
    """What was heard from one device in one command; each session and report goes into the command's next record."""

    note: Note
    credential: bytes = b""
    _opening: Opening | None = field(default=None, init=False)

    def on(self, bench: Bench) -> Bench:
        """The same bench, listening."""
        return replace(bench, challenge=self._challenge, opened=self._opened)

    def _challenge(self) -> bytes:
        log = self.note.log
        head = Checkpoint("none", 0, bytes(32)) if log is None else log.checkpoint
        self._opening = Opening.of(os.urandom(NONCE_SIZE), head)
        return self._opening.challenge

    def _opened(self, session: Connected) -> None:
        self.note.sessions.append(session.session_id)
        self.note.device = session.identity.serial
        self.credential = session.credential

    def report(self, report: Report, signed: bytes) -> DeviceStatement:
        """Take a report into the next record; gives it back as a file that proves itself elsewhere."""
        note, opening = self.note, self._opening
        note.digests[DigestOf.REPORT] = hashlib.sha256(signed).digest()
        note.digests[DigestOf.DEVICE_HEAD] = report.log_head
        note.statements[Statement.REPORT] = signed
        note.statements[Statement.CREDENTIAL] = self.credential
        if opening is not None:
            note.statements[Statement.CHALLENGE] = opening.encode()
        return DeviceStatement(self.credential, signed, opening)


def sign_push(note: Note, serial: str, manifest_digest: bytes, checked: CheckedGrant, signer: Signer) -> None:
    """Have the technician sign what is about to be done, into the record that precedes it."""
    from devguard.evidence.push_statement import PushStatement

    if note.log is None:
        return
    said = PushStatement(
        request=note.request,
        serial=serial,
        action=checked.action.value,
        manifest_digest=manifest_digest,
        grant_digest=hashlib.sha256(checked.grant.untagged).digest(),
        time=note.moment,
        head=note.log.checkpoint.text(),
    )
    note.statements[Statement.PUSH] = said.sign(signer)
    note.statements[Statement.GRANT] = checked.grant.untagged
