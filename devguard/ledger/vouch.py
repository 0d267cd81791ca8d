"""What devices and technicians signed inside a record, judged by trust documents. Pure, but for what it counts.

Whose key it was, the trust document says, or one before it in its chain; a key that none of them lists is
`key.unknown`, or a station could make up both. What a key signed that was revoked since is counted apart, where a
document of before still shows that it was good then. Every judgement is as of the record's own time.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeVar

from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_GRANT, read_sign1
from devguard.errors import DevguardError, Refused
from devguard.evidence.export import rfc3339
from devguard.evidence.frame import Broken
from devguard.evidence.record import TIME_TOLERANCE, DigestOf, Record, Statement
from devguard.grant.chain import check_link, read_chain
from devguard.grant.claims import read_grant
from devguard.grant.credential import check_credential, read_credential
from devguard.grant.cwt import judge_signers

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.evidence.checkpoint import Checkpoint
    from devguard.grant.claims import Grant
    from devguard.session.report import Report
    from devguard.trust.document import TrustDocument

_CODE: Final = "log.tampered"
_WHOSE: Final = ("key.unknown", "key.revoked", "key.expired")
FLOOR_TOLERANCE: Final = 86_400  # seconds by which an authority's clock may be ahead of a station's
T = TypeVar("T")
# The same device and the same grant come in many records; what was no such thing is not remembered.
_credential = lru_cache(512)(read_credential)
_grant = lru_cache(512)(read_grant)


@dataclass(frozen=True, slots=True)
class Reported:
    """A report whose signature holds, and the head of the station's log that the device countersigned, if any."""

    report: Report
    head: Checkpoint | None


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push that a technician signed for: the grants from the one that was used to the authority's own, and the head
    of the station's log that was signed with it, if any."""

    chain: tuple[Grant, ...]
    head: Checkpoint | None

    @property
    def grant(self) -> Grant:
        """The one that was used."""
        return self.chain[0]


@dataclass(slots=True)
class Judge:
    """trust: the document in use, then those before it. apart: how many statements are by keys revoked since.
    credentials: of the devices that were met, by the thumbprint of their key."""

    trust: Sequence[TrustDocument]
    apart: int = 0
    credentials: dict[bytes, bytes] = field(default_factory=dict)

    def report(self, index: int, record: Record) -> Reported | None:
        """The device's report in a record; None where it carries none. Raises `Broken("log.tampered")` or `Refused`
        `key.unknown`, `key.revoked`, `key.expired` for one that nobody vouches for."""
        with named(index, "the device's report"):
            return self._report(index, record)

    def push(self, index: int, record: Record) -> Pushed | None:
        """What a technician signed before a push; None where nothing was. Raises as `report`."""
        with named(index, "the technician's statement"):
            return self._push(index, record)

    def acknowledged(self, index: int, record: Record) -> Checkpoint | None:
        """The head that somebody signed who answered for a change of a device: a technician authority of the trust
        document, for that very state; None where nobody did. Raises as `report`."""
        with named(index, "the acknowledgement"):
            return self._acknowledged(index, record)

    def device_key(self, credential: bytes, now: int) -> CoseKey:
        """The key of a device, on a device authority's word."""
        one = _credential(credential)
        self.credentials[one.key.thumbprint] = credential
        return self._by_any(lambda trust: check_credential(one, trust, now)).key

    def _by_any(self, judged: Callable[[TrustDocument], T]) -> T:
        """What one of the trust documents says, the newest first; where none says yes, the refusal of the newest. What
        was good under one of before stays good when rules become stricter; what is revoked now is counted apart."""
        if not self.trust:
            raise Refused("key.unknown", "no trust document is at hand that could list the key")
        newest, *older = self.trust
        try:
            return judged(newest)
        except Refused:
            for document in older:
                with contextlib.suppress(Refused):
                    found = judged(document)
                    self.apart += _revoked_since(judged, document, newest)
                    return found
            raise

    def _report(self, index: int, record: Record) -> Reported | None:
        from devguard.evidence.statement import read_opening
        from devguard.session.report import parse_report

        statements = record.statements
        signed, credential = statements.get(Statement.REPORT), statements.get(Statement.CREDENTIAL)
        if signed is None or credential is None:
            return None
        report = parse_report(signed, self.device_key(credential, record.time))
        opening = statements.get(Statement.CHALLENGE)
        head = None if opening is None else read_opening(opening).check(report.challenge)
        same = (record.digests.get(DigestOf.REPORT), record.digests.get(DigestOf.DEVICE_HEAD), record.device)
        if same != (hashlib.sha256(signed).digest(), report.log_head, report.serial):
            raise Broken(_CODE, index, f"it is not of the report by device {report.serial} that it carries")
        if record.time + FLOOR_TOLERANCE < report.clock_floor:
            floor = rfc3339(report.clock_floor)
            raise Broken(_CODE, index, f"it is dated before {floor}, which the device knew was past")
        return Reported(report, head)

    def _push(self, index: int, record: Record) -> Pushed | None:
        signed, cwt = record.statements.get(Statement.PUSH), record.statements.get(Statement.GRANT)
        if signed is None or cwt is None:
            if record.action.endswith("-begun") and DigestOf.MANIFEST in record.digests:
                raise Broken(_CODE, index, "the beginning of a push that no technician has signed")
            return None
        one = _grant(cwt)
        serial, manifest, grant, time, head = _pushed(signed, one.holder, record.request)
        chain = read_chain(one)
        self._check_grant(chain, record.time)
        digests = (record.digests.get(DigestOf.MANIFEST), record.digests.get(DigestOf.GRANT))
        if (serial, manifest, grant) != (record.device, *digests) or hashlib.sha256(cwt).digest() != grant:
            raise Broken(_CODE, index, f"{one.subject} has signed something else than it says")
        _check_dated(index, record, one.subject, time)
        return Pushed(chain, head)

    def _acknowledged(self, index: int, record: Record) -> Checkpoint | None:
        from devguard.evidence.acknowledgement import read_acknowledgement

        signed = record.statements.get(Statement.ACKNOWLEDGEMENT)
        if signed is None:
            if record.action == "device.acknowledge" and record.ok:
                raise Broken(_CODE, index, "an acknowledgement that nobody has signed")
            return None
        key = self._by_any(lambda trust: _authority(trust, signed))
        said = read_acknowledgement(signed, key)
        if (said.serial, said.report) != (record.device, record.digests.get(DigestOf.REPORT)):
            raise Broken(_CODE, index, "another state of the device was acknowledged than it says")
        _check_dated(index, record, record.actor, said.time)
        return said.checkpoint

    def _check_grant(self, chain: tuple[Grant, ...], now: int) -> None:
        """Whether an authority stands behind a grant, and every link holds; what it allowed is the record's story."""
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


@contextlib.contextmanager
def named(index: int, what: str) -> Iterator[None]:
    """Errors in a statement as errors of the record that carries it."""
    try:
        yield
    except Broken:
        raise
    except DevguardError as error:
        if error.code in _WHOSE:
            raise Refused(error.code, f"record {index}: {what} in it: {error.message}") from None
        raise Broken(_CODE, index, f"{what} in it does not hold ({error.code})") from None


def _revoked_since(judged: Callable[[TrustDocument], T], then: TrustDocument, now: TrustDocument) -> bool:
    try:
        judged(replace(then, revoked=then.revoked | now.revoked))
    except Refused:
        return True
    return False


def _check_dated(index: int, record: Record, who: str, time: int) -> None:
    """A record is dated as what was signed for it, give or take what a clock may be corrected by."""
    if abs(record.time - time) > TIME_TOLERANCE:
        raise Broken(_CODE, index, f"it is dated {rfc3339(record.time)}, what {who} signed for it {rfc3339(time)}")


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
    kid = read_sign1(signed).kid or b""
    found = next((one for role, one in trust.find(kid) if role is RoleName.TECHNICIAN_AUTHORITY), None)
    if found is None:
        raise Refused("key.unknown", "it is by no technician authority of the trust document")
    if trust.is_revoked(kid):
        raise Refused("key.revoked", f"the key of {found.person} is revoked")
    return found.key


def type_of(signed: bytes) -> str:
    """The type that a signed object says it is of; nothing is verified."""
    typ = read_sign1(signed).headers.get(16)
    return typ if isinstance(typ, str) else ""
