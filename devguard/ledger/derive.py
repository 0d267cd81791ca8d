"""What one record says for the derived tables. Pure: a record, its place and the trust documents in, facts out.

What devices and technicians signed inside a record counts only where `vouch` says whose word it is; where nobody can,
that is a fact too (`doubts`), and the rest of the record counts as the station's own word. What `devguard fleet age`,
`grant list` and `technician list` read from a log is read here by the same functions. Texts are cut: a key of a table
has a size that every index takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from devguard.cose.names import same_person
from devguard.errors import DevguardError
from devguard.evidence.fleet import KNOWN_BY, Described, described
from devguard.evidence.issued import issued
from devguard.evidence.record import DigestOf, Record, printable
from devguard.ledger.merge import At, Fact
from devguard.ledger.vouch import Judge

if TYPE_CHECKING:
    from devguard.grant.claims import Grant
    from devguard.ledger.vouch import Pushed
    from devguard.session.report import Report

KEY_LENGTH: Final = 200
TEXT_LENGTH: Final = 1000
LIST_LENGTH: Final = 16_000  # as much as a grant can name; no index is over such a column
NUMBER_LIMIT: Final = (1 << 63) - 1
BEGUN: Final = "-begun"
PUSHES: Final = ("release.push", "release.recover", "trust.push")
CHANGED: Final = "device.changed"
ANY: Final = "*"
_ABOUT: Final = ("release.", "device.", "shelf.get", "trust.push")
_LIFE: Final = {"device.enrol": "enrolled", "device.decommission": "decommissioned"}


def derive(origin: str, index: int, record: Record, judge: Judge) -> list[Fact]:
    """The facts of record `index` of the log `origin`, in an order in which they can be taken."""
    at = At(min(record.time, NUMBER_LIMIT), origin, index)
    report, pushed, doubts = _vouched(at, record, judge)
    facts = [*doubts, *_people(at, record), *_grants(at, record), *_trust(at, record), *_releases(at, record)]
    facts += _push(at, record)
    if report is not None:
        facts += _reported(at, record, report)
    if pushed is not None:
        facts += _used(at, record, pushed)
    device = _device(at, record, report, pushed)
    return facts if device is None else [*facts, device]


def _vouched(at: At, record: Record, judge: Judge) -> tuple[Report | None, Pushed | None, list[Fact]]:
    """The report and the push in a record whose signatures hold, and what does not."""
    found: list[Any] = []
    doubts = []
    for what, look in (("report", judge.report), ("push", judge.push), ("acknowledgement", judge.acknowledged)):
        try:
            found.append(look(at.index, record))
        except DevguardError as error:
            found.append(None)
            said = {"code": error.code, "message": printable(error.message, TEXT_LENGTH), "time": at.time}
            doubts.append(Fact("doubts", (at.origin, at.index, what), at, said))
    reported, pushed, _ = found
    return (None if reported is None else reported.report), pushed, doubts


# devices


def _device(at: At, record: Record, report: Report | None, pushed: Pushed | None) -> Fact | None:
    """What a record says of the device it is about; of a report that nobody vouches for only that it was met."""
    if record.device is None or not record.action.startswith(_ABOUT):
        return None
    said: dict[str, Any] = {}
    if report is not None:
        said |= _report_values(report, record)
    if pushed is not None:
        said["site"] = text_of(sorted(pushed.grant.scope.sites - {ANY}))
    if record.code == CHANGED:
        lines = [
            f"{name.removeprefix('changed-')}: {one}" for name, one in record.details.items() if name[:8] == "changed-"
        ]
        said["changed"] = printable("; ".join(lines) or "?", TEXT_LENGTH)
    elif record.action == "device.acknowledge" and record.ok:
        said["changed"] = None
    if record.ok and record.action in _LIFE:
        said["life"] = _LIFE[record.action]
    return Fact("devices", (key(record.device),), at, said)


def _report_values(report: Report, record: Record) -> dict[str, Any]:
    return {
        "model": key(report.model),
        "version": key(report.version),
        "sequence": number(report.sequence),
        "security_version": number(report.security_version),
        "boot_state": key(report.boot_state),
        "confirmed": report.confirmed,
        "flags": text_of(report.flags),
        "trust_version": number(report.trust_version),
        "image_digest": report.image_digest,
        "manifest_digest": report.manifest_digest,
        "report_digest": record.digests[DigestOf.REPORT],
    }


def _reported(at: At, record: Record, report: Report) -> Iterator[Fact]:
    """A report whose signature holds: itself, its components, and the release it names."""
    digest = record.digests[DigestOf.REPORT]
    yield Fact("reports", (digest,), at, {"serial": key(report.serial), **_report_values(report, record)})
    for place, one in enumerate(report.components):
        yield Fact(
            "components", (digest, place), at, {"id": key(one.id), "digest": one.digest, "size": number(one.size)}
        )
    if report.manifest_digest is not None:
        said = {"since": at.time, "sequence": number(report.sequence), "digest": report.manifest_digest}
        yield Fact("releases", (key(report.model), key(report.version)), at, said)


# people and grants


def _people(at: At, record: Record) -> Iterator[Fact]:
    """Technicians: on the list, granted something, suspended, reinstated."""
    said = record.details
    if not record.ok or not record.action.startswith(("technician.", "grant.")):
        return
    if record.action in ("technician.add", "technician.change"):
        listed = {"name": said.get("technician"), "holder": said.get("holder"), "sites": said.get("sites")}
        yield from _person(at, said.get("person"), {**listed, "training": said.get("training")})
    elif record.action in ("technician.suspend", "technician.reinstate"):
        word = {"suspended": record.action == "technician.suspend", "reason": said.get("reason") or None}
        yield from _person(at, said.get("person"), word)
    elif record.action == "technician.import":
        for person in filter(None, said.get("suspended", "").split(", ")):
            yield from _person(at, person, {"suspended": True, "reason": f"by the list of {said.get('issuer', '?')}"})
    elif (one := issued(record)) is not None:
        yield from _person(at, one.technician, {"granted": at.time})


def _person(at: At, person: str | None, said: dict[str, Any]) -> Iterator[Fact]:
    folded = same_person(person or "")
    if folded:
        yield Fact("technicians", (key(folded),), at, {"shown": person, **said})


def _grants(at: At, record: Record) -> Iterator[Fact]:
    """Grants: issued by a record's word, and taken back."""
    said, digest = record.details, record.digests.get(DigestOf.GRANT)
    if record.ok and record.action == "grant.revoke":
        reason = {"reason": said.get("reason") or None}
        if said.get("grants") == "all before":
            epoch = decimal(said.get("epoch"))
            yield from () if epoch is None else (Fact("epochs", (epoch,), at, reason),)
        else:
            for cti in hexadecimals(said.get("grants", "")):
                yield Fact("revocations", (cti,), at, reason)
    elif (one := issued(record)) is not None and digest is not None and 0 <= one.epoch <= NUMBER_LIMIT:
        values = {
            "cti": one.cti,
            "technician": one.technician,
            "holder": said.get("holder"),
            "issuer": one.issuer,
            "models": said.get("models"),
            "serials": one.serials,
            "sites": said.get("sites"),
            "epoch": one.epoch,
            "expires": one.expires,
            "max_uses": None,
            "parent": next(iter(hexadecimals(said.get("parent", ""))), None),
            "proved": False,
        }
        yield Fact("grants", (digest,), at, values)


def _used(at: At, record: Record, pushed: Pushed) -> Iterator[Fact]:
    """A push that a technician signed for: its grant and those it was handed on from, and a use of each."""
    release = record.digests[DigestOf.MANIFEST]
    for place, one in enumerate(pushed.chain):
        digest = grant_digest(one)
        parent = pushed.chain[place + 1].cti if place + 1 < len(pushed.chain) else None
        yield Fact("grants", (digest,), at, {**_grant_values(one), "parent": parent})
        use = (digest, key(record.device or ""), release)
        yield Fact("grant_uses", use, at, {"request": key(record.request)})


def grant_digest(one: Grant) -> bytes:
    """What names a grant in records: SHA-256 over its untagged form."""
    return hashlib.sha256(one.untagged).digest()


def _grant_values(one: Grant) -> dict[str, Any]:
    scope = one.scope
    return {
        "cti": one.cti,
        "technician": printable(one.subject, TEXT_LENGTH),
        "holder": one.holder.fingerprint,
        "issuer": printable(one.issuer, TEXT_LENGTH),
        "models": text_of(sorted(scope.models)),
        "serials": text_of(sorted(scope.serials)),
        "sites": text_of(sorted(scope.sites)),
        "epoch": number(scope.epoch),
        "expires": number(one.expires),
        "max_uses": scope.max_uses,
        "proved": True,
    }


# trust, releases, pushes


def _trust(at: At, record: Record) -> Iterator[Fact]:
    """Which trust document a station has had in hand."""
    digest, version = record.digests.get(DigestOf.TRUST), decimal(record.details.get("version"))
    if record.ok and digest is not None and version is not None and record.action.startswith("trust."):
        said = {"version": version, "time": at.time, "index": at.index}
        yield Fact("trust_versions", (at.origin, digest), at, said)


def _releases(at: At, record: Record) -> Iterator[Fact]:
    """A release that was verified, pushed or fetched."""
    if not record.ok or record.action not in KNOWN_BY or record.release is None:
        return
    model, _, version = record.release.partition(" ")
    if model and version:
        digest = record.digests.get(DigestOf.MANIFEST)
        said: dict[str, Any] = {"since": at.time, **_support(described(record))}
        yield Fact("releases", (key(model), key(version)), at, said if digest is None else {**said, "digest": digest})


def _support(one: Described) -> dict[str, Any]:
    said: dict[str, Any] = {} if one.sequence is None else {"sequence": number(one.sequence)}
    if one.supported_until is not None:
        said["supported_until"] = number(one.supported_until)
    if one.parts is not None:
        said |= {"parts_until": number(one.parts[0]), "first_part": one.parts[1]}
    return said


def _push(at: At, record: Record) -> Iterator[Fact]:
    """The beginning of a push, or its end. What was refused before it began has an end alone."""
    action = record.action.removesuffix(BEGUN)
    if action not in PUSHES or "dry-run" in record.details:
        return
    said: dict[str, Any] = {
        "action": action,
        "actor": record.actor,
        "serial": None if record.device is None else key(record.device),
        "release": record.release,
        "manifest_digest": record.digests.get(DigestOf.MANIFEST),
        "grant": record.digests.get(DigestOf.GRANT),
    }
    if record.action != action:
        said |= {"state": "begun", "begun": at.time, "begun_index": at.index}
    else:
        state = "done" if record.ok else "refused"
        said |= {"state": state, "code": record.code, "ended": at.time, "ended_index": at.index}
    yield Fact("pushes", (at.origin, key(record.request)), at, said)


# values


def key(text: str) -> str:
    """A text as (a part of) a key."""
    return printable(text, KEY_LENGTH)


def text_of(parts: Sequence[str]) -> str:
    """Several texts on one line."""
    return printable(", ".join(parts), LIST_LENGTH)


def number(value: int) -> int:
    """A number as a column takes it: what is larger is as large as that."""
    return max(-NUMBER_LIMIT, min(value, NUMBER_LIMIT))


def decimal(text: str | None) -> int | None:
    """A plain whole number that a column takes; None for any other text."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    return int(text) if int(text) <= NUMBER_LIMIT else None


def hexadecimals(text: str) -> list[bytes]:
    """The token ids in a list with commas between; what is none, or was cut off, is left out."""
    found = []
    for word in text.split(", "):
        if len(word) == 32 and set(word) <= set("0123456789abcdef"):
            found.append(bytes.fromhex(word))
    return found
