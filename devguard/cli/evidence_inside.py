"""What devices and technicians signed inside the records of a log, held against the records and the log's heads.

A device's report answers a challenge made of the log's head, and a technician's statement names it: each is a
countersignature of all records before it, by a key that no station has. Whose key it was, the trust document says, or
one before it in its chain; a key that none of them lists is `key.unknown`, or a station could make up both. What a key
signed that was revoked since is counted apart, where a document of before still shows that it was good then.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from devguard.cli.times import iso
from devguard.errors import DevguardError, Refused
from devguard.evidence.frame import Broken
from devguard.evidence.log import read_entries
from devguard.evidence.record import (
    TIME_TOLERANCE,
    DigestOf,
    Entry,
    Record,
    Statement,
    encode_entry,
    may_have_statements,
)
from devguard.evidence.tree import Frontier, leaf_hash

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.evidence.checkpoint import Checkpoint
    from devguard.grant.claims import Grant
    from devguard.session.report import Report
    from devguard.trust.document import TrustDocument

_CODE: Final = "log.tampered"
_WHOSE: Final = ("key.unknown", "key.revoked", "key.expired")
_SIGNED_ACTIONS: Final = (b"-begun", b"device.acknowledge")
T = TypeVar("T")
_RECENT: Final = 64  # so many trees back, a countersigned head is compared at once
FLOOR_TOLERANCE: Final = 86_400  # seconds by which an authority's clock may be ahead of a station's


@dataclass(slots=True)
class Inside:
    """What is held against one log. trust: the document in use, then those before it; head: of the log, once proven.
    seen, pushed: told of every report, and of every push with its grant, whose signatures hold."""

    folder: Path
    trust: Sequence[TrustDocument]
    origin: str
    seen: Callable[[int, Record, Report], None] | None = None
    pushed: Callable[[Record, Grant], None] | None = None
    head: Checkpoint = field(init=False)
    reports: int = 0
    pushes: int = 0
    apart: int = 0
    serials: set[str] = field(default_factory=set)
    _wrong: DevguardError | None = None
    _recent: deque[tuple[int, tuple[bytes, ...]]] = field(default_factory=lambda: deque([(0, ())], _RECENT))
    _claims: list[tuple[int, str, Checkpoint]] = field(default_factory=list)
    credentials: dict[bytes, bytes] = field(default_factory=dict)

    def visit(self, entry: Entry, tree: Frontier) -> None:
        """Look at one entry of a log that is being verified; what is wrong with it waits until the log is proven."""
        if self._wrong is None and (
            may_have_statements(entry.body) or any(word in entry.body for word in _SIGNED_ACTIONS)
        ):
            try:
                self._check_record(entry.index, entry.record)
            except DevguardError as error:
                self._wrong = error
        self._recent.append((tree.size, tree.hashes))

    def finish(self, head: Checkpoint) -> None:
        """The log is proven. Raises `Broken("log.tampered")` for the first statement in it that is false,
        `Refused` `key.unknown`, `key.revoked` or `key.expired` for one by a key that nobody here can place."""
        self.head = head
        if self._wrong is not None:
            raise self._wrong
        self._check_claims()

    def _check_record(self, index: int, record: Record) -> None:
        for check, what in (
            (self._report, "the device's report"),
            (self._push, "the technician's statement"),
            (self._acknowledged, "the acknowledgement"),
        ):
            try:
                check(index, record)
            except Broken:
                raise
            except DevguardError as error:
                if error.code in _WHOSE:
                    raise Refused(error.code, f"record {index}: {what} in it: {error.message}") from None
                raise Broken(_CODE, index, f"{what} in it does not hold ({error.code})") from None

    def _by_any(self, judged: Callable[[TrustDocument], T]) -> T:
        """What one of the trust documents says, the newest first. What was good under one of before, and is revoked
        now, is counted apart."""
        newest, *older = self.trust
        try:
            return judged(newest)
        except Refused as error:
            if error.code not in _WHOSE:
                raise
            for document in older:
                with contextlib.suppress(Refused):
                    found = judged(document)
                    self.apart += self._revoked_since(judged, document, newest)
                    return found
            raise

    @staticmethod
    def _revoked_since(judged: Callable[[TrustDocument], T], then: TrustDocument, now: TrustDocument) -> bool:
        try:
            judged(replace(then, revoked=then.revoked | now.revoked))
        except Refused:
            return True
        return False

    def _report(self, index: int, record: Record) -> None:
        from devguard.evidence.statement import read_opening
        from devguard.session.report import parse_report

        statements = record.statements
        signed, credential = statements.get(Statement.REPORT), statements.get(Statement.CREDENTIAL)
        if signed is None or credential is None:
            return
        report = parse_report(signed, self.device_key(credential, record.time))
        opening = statements.get(Statement.CHALLENGE)
        head = None if opening is None else read_opening(opening).check(report.challenge)
        same = (record.digests.get(DigestOf.REPORT), record.digests.get(DigestOf.DEVICE_HEAD), record.device)
        if same != (hashlib.sha256(signed).digest(), report.log_head, report.serial):
            raise Broken(_CODE, index, f"it is not of the report by device {report.serial} that it carries")
        if record.time + FLOOR_TOLERANCE < report.clock_floor:
            raise Broken(_CODE, index, f"it is dated before {iso(report.clock_floor)}, which the device knew was past")
        if head is not None:
            self._claim(index, f"device {report.serial}", head)
        self.reports += 1
        self.serials.add(report.serial)
        if self.seen is not None:
            self.seen(index, record, report)

    def _push(self, index: int, record: Record) -> None:
        from devguard.grant.chain import read_chain
        from devguard.grant.claims import read_grant

        signed, cwt = record.statements.get(Statement.PUSH), record.statements.get(Statement.GRANT)
        if signed is None or cwt is None:
            if record.action.endswith("-begun") and DigestOf.MANIFEST in record.digests:
                raise Broken(_CODE, index, "the beginning of a push that no technician has signed")
            return
        one = read_grant(cwt)
        serial, manifest, grant, time, head = _pushed(signed, one.holder, record.request)
        self._check_grant(read_chain(one), record.time)
        digests = (record.digests.get(DigestOf.MANIFEST), record.digests.get(DigestOf.GRANT))
        if (serial, manifest, grant) != (record.device, *digests) or hashlib.sha256(cwt).digest() != grant:
            raise Broken(_CODE, index, f"{one.subject} has signed something else than it says")
        _check_dated(index, record, one.subject, time)
        if head is not None:
            self._claim(index, one.subject, head)
        self.pushes += 1
        if self.pushed is not None:
            self.pushed(record, one)

    def _acknowledged(self, index: int, record: Record) -> None:
        """Who answered for a change of a device: a technician authority of the trust document, for that state."""
        from devguard.evidence.acknowledgement import read_acknowledgement

        signed = record.statements.get(Statement.ACKNOWLEDGEMENT)
        if signed is None:
            if record.action == "device.acknowledge" and record.ok:
                raise Broken(_CODE, index, "an acknowledgement that nobody has signed")
            return
        key = self._by_any(lambda trust: _authority(trust, signed))
        said = read_acknowledgement(signed, key)
        if (said.serial, said.report) != (record.device, record.digests.get(DigestOf.REPORT)):
            raise Broken(_CODE, index, "another state of the device was acknowledged than it says")
        _check_dated(index, record, record.actor, said.time)
        self._claim(index, record.actor, said.checkpoint)

    def _check_grant(self, chain: tuple[Grant, ...], now: int) -> None:
        """Whether an authority stands behind a grant, and every link holds; what it allowed is the record's story."""
        from devguard.cose.roles import RoleName
        from devguard.cose.sign import TYP_GRANT
        from devguard.grant.chain import check_link
        from devguard.grant.cwt import judge_signers

        self._by_any(
            lambda trust: judge_signers(
                chain[-1].token,
                typ=TYP_GRANT,
                role=RoleName.TECHNICIAN_AUTHORITY,
                trust=trust,
                now=now,
                invalid="grant.signature",
                lacking="grant.signature",
            )
        )
        for child, parent in pairwise(chain):
            check_link(child, parent)

    def _claim(self, index: int, who: str, head: Checkpoint) -> None:
        """A head that somebody countersigned; as a rule it lies a few records back, else it waits for a second walk."""
        for size, hashes in reversed(self._recent):
            if size == head.size and head.origin == self.origin:
                if Frontier(size, hashes).root() == head.root:
                    return
                break
        self._claims.append((index, who, head))

    def _check_claims(self) -> None:
        """Every countersigned head that is not settled yet against the records that lie there."""
        wanted = {head.size for _, _, head in self._claims}
        roots = self.roots(wanted)
        for index, who, head in self._claims:
            if head.origin != self.origin:
                raise Broken(_CODE, index, f"{who} countersigned another log, {head.origin}")
            if head.size > index or head.root != roots[head.size]:
                size = min(head.size, index)
                raise Broken(
                    _CODE, max(size - 1, 0), f"{who} countersigned other records than the {head.size} up to it"
                )

    def roots(self, wanted: set[int]) -> dict[int, bytes]:
        frontier, roots = Frontier(), {}
        if 0 in wanted:
            roots[0] = frontier.root()
        last = max(wanted, default=0)
        for entry in read_entries(self.folder, min(last, self.head.size)):
            frontier.append(leaf_hash(encode_entry(entry)))
            if frontier.size in wanted:
                roots[frontier.size] = frontier.root()
        return {size: roots.get(size, b"") for size in wanted}

    def device_key(self, credential: bytes, now: int) -> CoseKey:
        from devguard.grant.credential import check_credential, read_credential

        one = read_credential(credential)
        self.credentials[one.key.thumbprint] = credential
        return self._by_any(lambda trust: check_credential(one, trust, now)).key


def _check_dated(index: int, record: Record, who: str, time: int) -> None:
    """A record is dated as what was signed for it, give or take what a clock may be corrected by."""
    if abs(record.time - time) > TIME_TOLERANCE:
        raise Broken(_CODE, index, f"it is dated {iso(record.time)}, what {who} signed for it {iso(time)}")


def _pushed(signed: bytes, key: CoseKey, request: str) -> tuple[str, bytes, bytes, int, Checkpoint | None]:
    """(serial, manifest digest, grant digest, time, head of the log) that a technician signed before a push."""
    from devguard.evidence.push_statement import read_push_statement
    from devguard.session.smp_proof import TYP as SMP_TYP
    from devguard.session.smp_proof import read_statement

    if type_of(signed) == SMP_TYP:
        over_smp = read_statement(signed, key)
        return over_smp.serial, over_smp.manifest_digest, over_smp.grant_digest, over_smp.time, None
    said = read_push_statement(signed, key)
    if said.request != request:
        raise Refused(_CODE, "it is of another push")
    return said.serial, said.manifest_digest, said.grant_digest, said.time, said.checkpoint


def _authority(trust: TrustDocument, signed: bytes) -> CoseKey:
    """The key of a technician authority that an acknowledgement names; `key.unknown`, `key.revoked`."""
    from devguard.cose.roles import RoleName
    from devguard.cose.sign import read_sign1

    kid = read_sign1(signed).kid or b""
    found = next((one for role, one in trust.find(kid) if role is RoleName.TECHNICIAN_AUTHORITY), None)
    if found is None:
        raise Refused("key.unknown", "it is by no technician authority of the trust document")
    if trust.is_revoked(kid):
        raise Refused("key.revoked", f"the key of {found.person} is revoked")
    return found.key


def type_of(signed: bytes) -> str:
    """The type that a signed object says it is of; nothing is verified."""
    from devguard.cose.sign import read_sign1

    typ = read_sign1(signed).headers.get(16)
    return typ if isinstance(typ, str) else ""
