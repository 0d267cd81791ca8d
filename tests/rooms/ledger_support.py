"""Stations, devices and technicians for tests of the ledger: logs in memory whose records carry real signatures.

What is signed is made once for each set of values; a test's logs are built of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection

from builders import NOW, changed, make_signer, make_vendor
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.custody.memory import MemorySigner
from devguard.evidence.acknowledgement import Acknowledgement
from devguard.evidence.checkpoint import Checkpoint, origin_of, sign_checkpoint
from devguard.evidence.push_statement import PushStatement
from devguard.evidence.record import DigestOf, Entry, Record, Statement, encode_entry, encode_record
from devguard.evidence.tree import Frontier, leaf_hash
from devguard.grant.claims import Action, Grant, Scope, issue_grant, read_grant
from devguard.grant.credential import issue_credential
from devguard.ledger.schema import DERIVED
from devguard.ledger.store import Store
from devguard.ledger.take import Taken, take
from devguard.session.report import Report, RunningPart, sign_report

VENDOR = make_vendor("ledger")
LATER = changed(VENDOR, version=2, revoked_releases=[hashlib.sha256(b"insulin-pump 1.1.0").digest()])
FOREIGN = make_vendor("ledger of somebody else")
AUTHORITY = VENDOR.signer(RoleName.TECHNICIAN_AUTHORITY)
FACTORY = VENDOR.signer(RoleName.DEVICE_AUTHORITY)
TESS = make_signer(Algorithm.ESP256, "tess")
PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"
HOUR = 3600


def station(name: str = "one") -> MemorySigner:
    """A station's key."""
    return make_signer(Algorithm.ED25519, f"station {name}")


@dataclass(slots=True)
class Log:
    """A station's log in memory: its leaves and the head over them."""

    signer: MemorySigner = field(default_factory=station)
    leaves: list[bytes] = field(default_factory=list)
    edge: Frontier = field(default_factory=Frontier)

    @property
    def origin(self) -> str:
        """Whose log it is."""
        return origin_of(self.signer.key)

    def add(self, *records: Record) -> Log:
        """Some more records. Their seals are not asked for by anybody here."""
        for record in records:
            leaf = encode_entry(Entry(len(self.leaves), bytes(64), encode_record(record)))
            self.leaves.append(leaf)
            self.edge.append(leaf_hash(leaf))
        return self

    def head(self, size: int | None = None) -> Checkpoint:
        """The head over the first `size` records."""
        if size is None:
            return Checkpoint(self.origin, self.edge.size, self.edge.root())
        edge = Frontier()
        for leaf in self.leaves[:size]:
            edge.append(leaf_hash(leaf))
        return Checkpoint(self.origin, size, edge.root())

    def note(self, size: int | None = None) -> bytes:
        """The same, signed."""
        return sign_checkpoint(self.head(size), self.signer)

    def hand_over(self, conn: Connection, first: int = 0, end: int | None = None, **options: Any) -> Taken:
        """Let a store take the records from `first` to `end`."""
        last = len(self.leaves) if end is None else end
        given = {"now": NOW + 900, **options}
        return take(conn, self.signer.key, first, self.leaves[first:last], self.note(last), **given)


def device_key(serial: str) -> MemorySigner:
    """A device's key."""
    return make_signer(Algorithm.ESP256, f"device {serial}")


@cache
def credential(serial: str, model: str, foreign: bool) -> bytes:
    """A device's credential, by the factory of the vendor or by somebody else's."""
    return issue_credential(
        FOREIGN.signer(RoleName.DEVICE_AUTHORITY) if foreign else FACTORY,
        issuer="Dana Factory",
        vendor="devices.devguard.example",
        model=model,
        revision="revA",
        serial=serial,
        key=device_key(serial).key,
        now=NOW - HOUR,
    )


def release_digest(model: str, version: str) -> bytes:
    """The manifest digest of a release."""
    return hashlib.sha256(f"{model} {version}".encode()).digest()


@cache
def signed_report(
    serial: str, model: str, version: str, number: int, fields: tuple[tuple[str, Any], ...] = ()
) -> tuple[bytes, Report]:
    """A report as bytes and as it was signed; `number` tells two of one state apart."""
    parts = ()
    if model == PROGRAMMER:
        parts = tuple(RunningPart(one, hashlib.sha256(one.encode()).digest(), 1000) for one in ("main", "radio"))
    report = Report(
        **{
            "model": model,
            "serial": serial,
            "version": version,
            "image_digest": hashlib.sha256(f"image {version}".encode()).digest(),
            "manifest_digest": release_digest(model, version),
            "sequence": int(version.replace(".", "")),
            "security_version": 1,
            "boot_state": "confirmed",
            "confirmed": True,
            "flags": (),
            "trust_version": 1,
            "grant_epoch": 0,
            "clock_floor": NOW - HOUR,
            "spent_grants": 0,
            "settings_digest": bytes(32),
            "settings_before": None,
            "history_digest": bytes(32),
            "battery_percent": 90,
            "log_head": hashlib.sha256(f"{serial} {number}".encode()).digest(),
            "challenge": number.to_bytes(16, "big"),
            "components": parts,
            **dict(fields),
        }
    )
    return sign_report(report, device_key(serial)), report


@cache
def grant(
    serial: str, model: str, number: int = 0, sites: tuple[str, ...] = ("ward-3",), foreign: bool = False
) -> Grant:
    """A grant of Tess's for one device."""
    scope = Scope(
        models=frozenset({model}),
        serials=frozenset({serial}),
        sites=frozenset(sites),
        actions=frozenset({Action.UPDATE}),
        epoch=number,
        any_release=True,
        max_uses=1,
    )
    signer = FOREIGN.signer(RoleName.TECHNICIAN_AUTHORITY) if foreign else AUTHORITY
    cti = hashlib.sha256(f"{serial} {number}".encode()).digest()[:16]
    made = issue_grant(
        [signer], issuer="Thea Authority", subject="Tess Technician", holder=TESS.key, scope=scope, now=NOW - HOUR,
        expires=NOW + 8 * HOUR, cti=cti,
    )  # fmt: skip
    return read_grant(made)


def grant_digest(one: Grant) -> bytes:
    """What names it in records."""
    return hashlib.sha256(one.untagged).digest()


# records


def record(action: str, time: int = NOW, **fields: Any) -> Record:
    """Any record."""
    return Record.make(**{"time": time, "actor": "Tess", "action": action, "request": f"r-{time}", **fields})


def reported(
    serial: str = "IP-1", version: str = "1.0.0", *, model: str = PUMP, time: int = NOW, number: int = 0,
    action: str = "device.report", foreign: bool = False, report: dict[str, Any] | None = None, **fields: Any,
) -> Record:  # fmt: skip
    """A record with a device's report."""
    signed, said = signed_report(serial, model, version, number, tuple((report or {}).items()))
    return record(
        action,
        time,
        device=serial,
        digests={DigestOf.REPORT: hashlib.sha256(signed).digest(), DigestOf.DEVICE_HEAD: said.log_head},
        statements={Statement.REPORT: signed, Statement.CREDENTIAL: credential(serial, model, foreign)},
        **fields,
    )


@cache
def _push_statement(request: str, serial: str, manifest: bytes, grant_: bytes, time: int) -> bytes:
    head = Checkpoint("devguard/0123456789abcdef", 0, bytes(32))
    return PushStatement(request, serial, Action.UPDATE, manifest, grant_, time, head.text()).sign(TESS)


def push_begun(
    serial: str = "IP-1", version: str = "1.1.0", *, model: str = PUMP, time: int = NOW, request: str = "push-1",
    one: Grant | None = None, forged: bool = False,
) -> Record:  # fmt: skip
    """The beginning of a push."""
    used, manifest = one or grant(serial, model), release_digest(model, version)
    said = _push_statement(request, "IP-9" if forged else serial, manifest, grant_digest(used), time)
    return record(
        "release.push-begun",
        time,
        device=serial,
        request=request,
        release=f"{model} {version}",
        digests={DigestOf.MANIFEST: manifest, DigestOf.GRANT: grant_digest(used)},
        statements={Statement.PUSH: said, Statement.GRANT: used.untagged},
        details={"sequence": version.replace(".", "")},
    )


def push_ended(
    serial: str = "IP-1", version: str = "1.1.0", *, model: str = PUMP, time: int = NOW, request: str = "push-1",
    code: str | None = None, one: Grant | None = None,
) -> Record:  # fmt: skip
    """The end of a push."""
    digests = {
        DigestOf.MANIFEST: release_digest(model, version),
        DigestOf.GRANT: grant_digest(one or grant(serial, model)),
    }
    return record(
        "release.push", time, device=serial, request=request, release=f"{model} {version}", digests=digests, code=code
    )


def issued(one: Grant, *, time: int = NOW, action: str = "grant.issue", **fields: Any) -> Record:
    """The record of a grant that was issued."""
    details = {
        "technician": one.subject,
        "holder": one.holder.fingerprint,
        "serials": ", ".join(sorted(one.scope.serials)),
        "models": ", ".join(sorted(one.scope.models)),
        "sites": ", ".join(sorted(one.scope.sites)),
        "cti": one.cti.hex(),
        "expires": "2027-01-15T16:00:00Z",
        "epoch": str(one.scope.epoch),
    }
    given = {"actor": "Thea Authority", "details": details, "digests": {DigestOf.GRANT: grant_digest(one)}, **fields}
    return record(action, time, **given)


def acknowledged(serial: str = "IP-1", *, time: int = NOW, number: int = 0, version: str = "1.0.0") -> Record:
    """What an authority signed for a change of a device."""
    signed, _ = signed_report(serial, PUMP, version, number)
    digest = hashlib.sha256(signed).digest()
    head = Checkpoint("devguard/0123456789abcdef", 0, bytes(32))
    said = Acknowledgement(serial, digest, "it was us", time, head.text()).sign(AUTHORITY)
    return record(
        "device.acknowledge", time, device=serial, digests={DigestOf.REPORT: digest},
        statements={Statement.ACKNOWLEDGEMENT: said},
    )  # fmt: skip


# stores


def dump(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every derived table, in the order of its key."""
    with store.read() as conn:
        return {
            table.name: [tuple(row) for row in conn.execute(table.select().order_by(*table.primary_key.columns))]
            for table in DERIVED
        }


def fill(store: Store, logs: Sequence[Log], documents: Sequence[bytes] = (VENDOR.trust_bytes,)) -> None:
    """Let a store take whole logs, and trust documents before them."""
    from devguard.ledger.documents import add_documents
    from devguard.ledger.take import lock

    with store.begin() as conn:
        lock(conn)
        add_documents(conn, documents)
        for log in logs:
            log.hand_over(conn)
