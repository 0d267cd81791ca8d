"""The device's signed report: what runs, in which state, under which trust, with which therapy settings.

A COSE_Sign1 by the device's own key, shaped after draft-ietf-suit-report: the bench's challenge makes it fresh,
the manifest digest ties it to the release, the settings digests before and after show that therapy was not touched.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer, read_sign1, sign1
from devguard.errors import Malformed, Refused

TYP: Final = "application/devguard-report+cbor"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What a device says of itself. Digests are SHA-256 unless the release chose another; times are epoch seconds.

    `boot_state` is one of the bootloader's words (confirmed, trial, reverted, ...); `flags` lists what stops
    installs or needs a person's eye (use-before passed, wear, spent list full, ...) and never stopped a boot.
    `settings_before` is the digest of the therapy settings when the last offer was accepted, None before any.
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

    def to_json(self) -> dict[str, object]:
        """Plain values: bytes as hex."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.name != "challenge"}


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
    values = [list(v) if isinstance(v, tuple) else v for v in (getattr(report, f.name) for f in fields(report))]
    return sign1(signer, wire.encode([FORMAT, *values]), typ=TYP).encode()


def read_report(data: bytes, *, key: CoseKey, challenge: bytes, serial: str) -> Report:
    """The report in `data`, if the proven device key signed it for this challenge and it names the proven serial.

    Raises `Malformed("wire.malformed")`, the COSE room's codes, or `Refused("session.replay")` /
    `Refused("device.identity")`.
    """
    message = read_sign1(data)
    items: Any = wire.decode(message.verify(key, typ=TYP), max_depth=3)
    if (
        not isinstance(items, list)
        or len(items) != len(_TYPES) + 1
        or items[0] != FORMAT
        or not all(type(item) in kinds for item, kinds in zip(items[1:], _TYPES, strict=True))
        or not all(type(flag) is str for flag in items[10])
    ):
        raise Malformed("wire.malformed", "not a device report of format 1")
    values: list[Any] = [tuple(item) if isinstance(item, list) else item for item in items[1:]]
    report = Report(*values)
    if report.challenge != challenge:
        raise Refused("session.replay", "the report answers another challenge: an old report was played back")
    if report.serial != serial:
        raise Refused("device.identity", f"the report is by serial {report.serial}, the session by {serial}")
    return report
