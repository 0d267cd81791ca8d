"""Therapy settings as they are stored: under a MAC with a key of this device alone, and a version that only grows.

    stored = [format, version, content, HMAC-SHA256(key, format, what, version, content)]

The key and the lowest version that counts are the anchor, which belongs into protected storage, as the counters do.
What is edited, another device's, older than the anchor says, or not there is not proven, and then nobody delivers by
it. The same MAC, without a version, keeps the course of the therapy (a bolus under way, its history). Pure; an update
has no way here. Source: attack G05 of the catalogue; NIST SP 800-193 on critical data; RFC 2104.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from devguard import wire
from devguard.device import fields
from devguard.errors import Refused

FORMAT: Final = 1
KEY_SIZE: Final = 32
_WHAT: Final = "settings"


class What(enum.StrEnum):
    """What is stored under a MAC; it is part of what the MAC covers."""

    SETTINGS = "settings"
    COURSE = "course"


class Damage(enum.StrEnum):
    """Why something stored is not proven."""

    MISSING = "missing"
    MAC = "mac"
    ROLLBACK = "rollback"


class Unproven(Refused):
    """Stored bytes that nobody may go by. `flag`: why, as a flag of the report."""

    def __init__(self, what: What, damage: Damage) -> None:
        self.flag = f"{what}-{damage}"
        super().__init__("device.state", f"what was stored of the therapy is not proven: {self.flag}")


@dataclass(frozen=True, slots=True)
class Anchor:
    """This device's key for its settings, and the lowest version of them that counts."""

    key: bytes
    version: int = 0

    def encode(self) -> bytes:
        """The anchor as it is stored."""
        return wire.encode([FORMAT, self.key, self.version])

    @classmethod
    def decode(cls, data: bytes) -> Anchor:
        """The stored anchor; `Refused("device.state")` for anything else."""
        known, key, version = fields.items(fields.load(data, _WHAT), _WHAT, count=3)
        if known != FORMAT:
            raise fields.damaged(_WHAT)
        return cls(fields.blob(key, _WHAT, KEY_SIZE), fields.uint(version, _WHAT))


def seal(anchor: Anchor, what: What, content: bytes, version: int = 0) -> bytes:
    """Stored bytes of `content`, which is `what`, in that version."""
    return wire.encode([FORMAT, version, content, _mac(anchor.key, what, version, content)])


def unseal(anchor: Anchor | None, what: What, data: bytes | None) -> tuple[bytes, int]:
    """(content, version) of stored bytes, None where there are none. Only settings have to be of the anchor's version.

    Raises `Unproven`.
    """
    if data is None:
        raise Unproven(what, Damage.MISSING)
    try:
        known, version, content, mac = fields.items(fields.load(data, _WHAT), _WHAT, count=4)
        number, body, tag = fields.uint(version, _WHAT), fields.blob(content, _WHAT), fields.blob(mac, _WHAT, 32)
    except Refused:
        raise Unproven(what, Damage.MAC) from None
    proven = anchor is not None and known == FORMAT and hmac.compare_digest(_mac(anchor.key, what, number, body), tag)
    if anchor is None or not proven:
        raise Unproven(what, Damage.MAC)
    if what is What.SETTINGS and number < anchor.version:
        raise Unproven(what, Damage.ROLLBACK)
    return body, number


def _mac(key: bytes, what: What, version: int, content: bytes) -> bytes:
    return hmac.digest(key, wire.encode([FORMAT, str(what), version, content]), hashlib.sha256)
