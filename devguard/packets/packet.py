"""What one decode says: the packet's fields and whether it is valid, therapy-affecting, authenticated.

A decode never raises for what a line brought: damage is a `code` (`packet.crc`, `packet.length`, `packet.unknown`)
beside whatever fields could still be read. `crc_ok` is None where the layer carries no checksum, or where it could
not be checked without a key. Names of families and fields are those of the field's open-source readers.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from devguard.errors import DevguardError, Malformed

MASK: Final = "(patient data)"
_NOBODY: Final[frozenset[str]] = frozenset()
Fields = Mapping[str, Any]
"""JSON values: int, float (measured quantities only), str (bytes as hex), bool, None, lists and maps of them."""


class Effect(enum.StrEnum):
    """What a packet does, as a person has to be told: more than the readers' own tables say, never less."""

    ACTS = "acts"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Context:
    """What the person at the bench knows beside the bytes. `keys`: secrets by purpose (such as `hmac`), never
    printed and never logged. `names`: plain facts by purpose (such as a BLE device name or a protocol variant)."""

    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    names: Mapping[str, str] = field(default_factory=dict)

    def secret(self, purpose: str, size: int) -> bytes | None:
        """The key for `purpose`, kept as `size` bytes or as their hex digits; None where it was not given. Raises
        `Malformed("key.malformed")` for any other length: a key that cannot fit must not look like damaged bytes."""
        given = self.keys.get(purpose)
        if given is None or len(given) == size:
            return given
        try:
            made = bytes.fromhex(given.decode("ascii"))
        except ValueError:
            made = b""
        if len(made) != size:
            raise Malformed(
                "key.malformed",
                f"the key {purpose!r} has {size} bytes, or {2 * size} hex digits",
                "give a file with that key alone",
            )
        return made


NOTHING: Final = Context()


class Packet(NamedTuple):
    """One packet of `family`. `name` is the message's name, or a stable `unknown 0x..` for an opcode not listed.

    A named tuple because a capture makes millions of them, and it is built several times faster than a dataclass.
    `therapy_affecting`: it starts, stops, limits or schedules therapy, or sets a clock or an address, as the field's
    readers mark it. `told`: where `effect` is not that: unknown (encrypted or hidden without the key, a part of a
    message, an opcode nobody lists, unreadable), or acting by that rule though the readers do not mark it.
    `authenticated`: its origin was proved with a key that the caller gave. `patient`: fields that only
    `--show-patient-data` shows.
    """

    family: str
    name: str
    raw: bytes
    fields: Fields
    crc_ok: bool | None
    therapy_affecting: bool
    authenticated: bool = False
    code: str | None = None
    detail: str = ""
    patient: frozenset[str] = _NOBODY
    told: Effect | None = None

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.code is None

    @property
    def effect(self) -> Effect:
        """Whether it acts on therapy, does not, or cannot be told to. Of a damaged packet nobody knows that it does
        not: the damage may be in what it says."""
        if self.told is not None:
            return self.told
        if self.therapy_affecting:
            return Effect.ACTS
        return Effect.NONE if self.code is None else Effect.UNKNOWN

    def shown(self, *, patient_data: bool = False) -> dict[str, Any]:
        """The fields as they may be printed."""
        return {
            name: value if patient_data or name not in self.patient else MASK for name, value in self.fields.items()
        }

    def to_json(self, *, patient_data: bool = False) -> dict[str, Any]:
        """The object of `packets decode --json` (a contract; `detail` and `effect` are additions)."""
        return {
            "family": self.family,
            "name": self.name,
            "valid": self.valid,
            "crc_ok": self.crc_ok,
            "therapy_affecting": self.therapy_affecting,
            "effect": self.effect,
            "authenticated": self.authenticated,
            "fields": self.shown(patient_data=patient_data),
            "code": self.code,
            "detail": self.detail,
        }


def unreadable(family: str, data: bytes, error: DevguardError, *, crc_ok: bool | None = None) -> Packet:
    """The answer for bytes that are no packet: its code and what was expected."""
    code, detail = error.code, error.message
    return Packet(family, "unreadable", data, {}, crc_ok, False, code=code, detail=detail, told=Effect.UNKNOWN)


def checked(
    family: str,
    name: str,
    data: bytes,
    fields: Fields,
    sums: tuple[int, int],
    *,
    therapy: bool = False,
    authenticated: bool = False,
    patient: Collection[str] = (),
    told: Effect | None = None,
) -> Packet:
    """The answer for a packet with a checksum: `sums` is (found, expected). A wrong one authenticates nothing."""
    found, expected = sums
    good = found == expected
    return Packet(
        family,
        name,
        data,
        fields,
        good,
        therapy,
        authenticated and good,
        None if good else "packet.crc",
        "" if good else f"checksum {found:#x} found, the bytes give {expected:#x}",
        frozenset(name for name in patient if name in fields) if patient else _NOBODY,
        told,
    )
