"""Devices' own words that were kept elsewhere, held against a station's log: which device contradicts it since when."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devguard.cli.context import Invocation
from devguard.cli.evidence_inside import Inside
from devguard.cli.evidence_keys import read_text, station_of
from devguard.cli.times import iso
from devguard.errors import Malformed, Refused
from devguard.evidence.frame import Broken
from devguard.evidence.log import read_records
from devguard.evidence.record import DigestOf
from devguard.ledger.vouch import type_of

if TYPE_CHECKING:
    from devguard.evidence.checkpoint import Checkpoint
    from devguard.evidence.device_log import DeviceLog
    from devguard.evidence.statement import DeviceStatement
    from devguard.session.report import Report


@dataclass(slots=True)
class Devices(Inside):
    """What is held against one log: inside it, and from files. files: a line for each that agrees."""

    files: list[str] = field(default_factory=list)
    _others: list[Path] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "reports": self.reports,
            "pushes": self.pushes,
            "by_revoked_keys": self.judge.apart,
            "devices": len(self.serials),
            "files": list(self.files),
        }

    def add_other(self, invocation: Invocation, folder: Path, trust_file: Path | None) -> None:
        """The log of another station that the devices met; verified whole, by the key the trust document lists."""
        from devguard.evidence.verify import claimed_origin, verify_log

        if trust_file is None:
            raise Refused("key.unknown", "--with takes a trust document that lists the other station: --trust")
        station = station_of(invocation, lambda: claimed_origin(folder), None, trust_file)
        verify_log(folder, station.key)
        self._others.append(folder)

    def check_file(self, path: Path, now: int) -> None:
        """Hold a device's own word against the log; raises `log.truncated` or `log.tampered` naming the device."""
        from devguard.evidence.device_log import TYP as LOG_TYP
        from devguard.evidence.device_log import read_device_log
        from devguard.session.report import TYP as REPORT_TYP
        from devguard.session.report import parse_report

        one = self._statement(read_text(path))
        key = self.judge.device_key(one.credential, now)
        kind = type_of(one.signed)
        if kind == LOG_TYP:
            self._against_log(path, read_device_log(one.signed, key))
        elif kind == REPORT_TYP:
            self._against_report(path, one, parse_report(one.signed, key))
        else:
            raise Malformed("wire.malformed", f"{path} is neither a device's report nor its log")

    def _statement(self, data: bytes) -> DeviceStatement:
        """A device's statement; a bare signed object where this log carries the credential of the key it names."""
        from devguard.cose.sign import read_sign1
        from devguard.evidence.statement import DeviceStatement, is_statement, read_statement

        if is_statement(data):
            return read_statement(data)
        credential = self.judge.credentials.get(read_sign1(data).kid or b"")
        if credential is None:
            raise Refused("key.unknown", "the file does not say whose word it is, and no record here carries that key")
        return DeviceStatement(credential, data)

    def _against_log(self, path: Path, log: DeviceLog) -> None:
        from devguard.evidence.contradict import about, contradictions

        mine = about(read_records(self.folder), log.serial)
        others = [about(read_records(folder), log.serial) for folder in self._others]
        found = contradictions(mine, log, others)
        if found:
            first = found[0]
            since = "from its beginning" if first.since is None else f"since record {first.since}"
            when = "" if first.since is None else f" of {iso(self._time_of(first.since))}"
            hint = "keep both and call the security officer; if another station met the device, give its log by --with"
            said = first.message
            if first.time is not None:
                said += f", the first at {iso(first.time)} by the device's clock"
            raise Refused(first.code, f"device {log.serial} contradicts this log {since}{when}: {said}", hint)
        self.files.append(f"{path}: device {log.serial} agrees, its log head {log.head.hex()}")

    def _time_of(self, index: int) -> int:
        return next((one.time for at, one in enumerate(read_records(self.folder)) if at == index), 0)

    def _against_report(self, path: Path, one: DeviceStatement, report: Report) -> None:
        head = None if one.opening is None else one.opening.check(report.challenge)
        known = self._index_of(one.digest)
        if head is not None and head.origin == self.origin:
            self._countersigned(report.serial, head)
            if known is None:
                raise Refused(
                    "log.truncated",
                    f"device {report.serial} contradicts this log since record {head.size}: it gave this station a "
                    "report after that, and no record has it",
                )
        where = (
            "record " + str(known) if known is not None else "no record of this log, nor has this station asked for it"
        )
        self.files.append(f"{path}: the report of device {report.serial} is in {where}")

    def _countersigned(self, serial: str, head: Checkpoint) -> None:
        if head.size > self.head.size:
            raise Refused(
                "log.truncated",
                f"record {self.head.size}: device {serial} countersigned {head.size} records of this log",
            )
        if self.roots({head.size})[head.size] != head.root:
            raise Broken("log.tampered", max(head.size - 1, 0), f"device {serial} countersigned other records up to it")

    def _index_of(self, digest: bytes) -> int | None:
        for index, record in enumerate(read_records(self.folder)):
            if digest in (record.digests.get(DigestOf.REPORT), record.digests.get(DigestOf.PAYLOAD)):
                return index
        return None
