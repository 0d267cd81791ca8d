"""The device's signed report: what runs, in which state, under which trust, with which therapy settings.

A COSE_Sign1 by the device's own key, shaped after draft-ietf-suit-report: the bench's challenge makes it fresh,
the manifest digest ties it to the release, the settings digests before and after show that therapy was not touched.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer, read_sign1, sign1
from devguard.errors import Malformed, Refused

TYP: Final = "application/devguard-report+cbor"
FORMAT: Final = 1
MAX_PARTS: Final = 16
DIGEST_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class RunningPart:
    """One of several components that run: its id, the digest of its image, its size in bytes."""

    id: str
    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a device says of itself. Digests are SHA-256 unless the release chose another; times are epoch seconds.

    `boot_state` is one of the bootloader's words (confirmed, trial, reverted, ...); `flags` lists what stops
    installs or needs a person's eye (use-before passed, wear, spent list full, ...) and never stopped a boot.
    `settings_before`, `history_before`: digests of the therapy's settings and history when the last offer was accepted,
    None before any.
    `components`: of a device with several, each in the order of its slot; they change together, so all of them are of
    `version`, and `image_digest` is over all. Empty for a device with one.
    """

    model: str
    serial: str
    version: str
    image_digest: bytes
    manifest_digest: bytes | None
    sequence: int
    security_version: int
    boot_state: str
    confirmed: bool
    flags: tuple[str, ...]
    trust_version: int
    grant_epoch: int
    clock_floor: int
    spent_grants: int
    settings_digest: bytes
    settings_before: bytes | None
    history_digest: bytes
    battery_percent: int
    log_head: bytes
    challenge: bytes
    components: tuple[RunningPart, ...] = ()
    history_before: bytes | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values: bytes as hex."""
        names = [field.name for field in fields(self) if field.name not in ("challenge", "components")]
        rows = [
            {"id": one.id, "version": self.version, "digest": one.digest.hex(), "size": one.size}
            for one in self.components
        ]
        return {**{name: _plain(getattr(self, name)) for name in names}, "components": rows}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value


_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    (str,), (str,), (str,), (bytes,), (bytes, type(None)), (int,), (int,), (str,), (bool,), (list,), (int,), (int,),
    (int,), (int,), (bytes,), (bytes, type(None)), (bytes,), (int,), (bytes,), (bytes,),
)  # fmt: skip


def sign_report(report: Report, signer: Signer) -> bytes:
    """The report as tagged COSE_Sign1 bytes."""
    names = [field.name for field in fields(report)][: len(_TYPES)]
    values = [list(v) if isinstance(v, tuple) else v for v in (getattr(report, name) for name in names)]
    several = [[one.id, one.digest, one.size] for one in report.components]
    tail = [one for one in (several or None, report.history_before) if one is not None]
    return sign1(signer, wire.encode([FORMAT, *values, *tail]), typ=TYP).encode()


def read_report(data: bytes, *, key: CoseKey, challenge: bytes, serial: str) -> Report:
    """The report in `data`, if the proven device key signed it for this challenge and it names the proven serial.

    Raises `Malformed("wire.malformed")`, the COSE room's codes, or `Refused("session.replay")` /
    `Refused("device.identity")`.
    """
    report = parse_report(data, key)
    if report.challenge != challenge:
        raise Refused("session.replay", "the report answers another challenge: an old report was played back")
    if report.serial != serial:
        raise Refused("device.identity", f"the report is by serial {report.serial}, the session by {serial}")
    return report


def parse_report(data: bytes, key: CoseKey) -> Report:
    """The report in `data`, if `key` signed it, whatever challenge it answers: for what was kept from a session.

    Raises `Malformed("wire.malformed")` and the COSE room's codes.
    """
    message = read_sign1(data)
    items: Any = wire.decode(message.verify(key, typ=TYP), max_depth=3)
    count = len(_TYPES) + 1
    if (
        not isinstance(items, list)
        or not count <= len(items) <= count + 2
        or items[0] != FORMAT
        or not all(type(item) in kinds for item, kinds in zip(items[1:count], _TYPES, strict=True))
        or not all(type(flag) is str for flag in items[10])
    ):
        raise _no_report()
    values: list[Any] = [tuple(item) if isinstance(item, list) else item for item in items[1:count]]
    tail = items[count:]
    before = tail.pop() if tail and isinstance(tail[-1], bytes) and len(tail[-1]) == DIGEST_SIZE else None
    return replace(Report(*values), components=_components(tail), history_before=before)


def _no_report() -> Malformed:
    return Malformed("wire.malformed", "not a device report of format 1")


def _components(tail: list[Any]) -> tuple[RunningPart, ...]:
    """What follows the fixed places and comes before the history: nothing, or a list of at least two components."""
    if not tail:
        return ()
    if len(tail) > 1:
        raise _no_report()
    rows = tail[0]
    if not isinstance(rows, list) or not 2 <= len(rows) <= MAX_PARTS:
        raise _no_report()
    for row in rows:
        shape = [type(item) for item in row] if isinstance(row, list) else []
        if shape != [str, bytes, int] or not row[0].isprintable() or row[2] < 1:
            raise _no_report()
    found = tuple(RunningPart(*row) for row in rows)
    if len({one.id for one in found}) != len(found):
        raise _no_report()
    return found
