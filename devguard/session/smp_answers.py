"""What an MCUmgr device's answers mean: parameters, the state of its slots, how far an upload is. Pure.

Nothing in an answer is believed further than its type and its bounds; fields nobody knows are left alone, for vendors
add them. An answer of another form is `RemoteProtocolError("smp.malformed")`, an error of the device
`DeviceRefused("smp.refused")` with the device's own number. Source: Zephyr's "SMP OS management" and "SMP image
management" groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from smp.error import MGMT_ERR
from smp.image_management import IMG_MGMT_ERR

from devguard.errors import DeviceRefused, RemoteProtocolError
from devguard.session.smp_cbor import CODE
from devguard.session.smp_frame import Group, Message

REFUSED: Final = "smp.refused"
NOT_SUPPORTED: Final = int(MGMT_ERR.ENOTSUP)
PASSING: Final = frozenset({int(MGMT_ERR.ENOMEM), int(MGMT_ERR.EBUSY)})  # the same question may be answered later
HASH_SIZES: Final = (32, 48, 64)
MAX_IMAGES: Final = 32
MAX_VERSION: Final = 48
_UINT32: Final = (1 << 32) - 1
_NUMBER: Final = 15
_MAX_REASON: Final = 80


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a device's SMP server takes: bytes of the longest message, and messages it can hold at a time."""

    buffer_size: int
    buffer_count: int


@dataclass(frozen=True, slots=True)
class SlotState:
    """One image in one slot, as the device describes it. `hash`: the image hash of its TLV; None where the device
    keeps it to itself, as a bootloader may."""

    image: int
    slot: int
    version: str
    hash: bytes | None
    bootable: bool
    pending: bool
    confirmed: bool
    active: bool
    permanent: bool

    def to_json(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        flags = ("bootable", "pending", "confirmed", "active", "permanent")
        shown: dict[str, Any] = {"image": self.image, "slot": self.slot, "version": self.version}
        return shown | {"hash": self.hash and self.hash.hex()} | {name: getattr(self, name) for name in flags}


def malformed(what: str) -> RemoteProtocolError:
    """The error of an answer that makes no sense."""
    return RemoteProtocolError(CODE, what)


def error_of(values: Mapping[str, Any]) -> tuple[int | None, int] | None:
    """(group or None, number) of the error in an answer; None where there is none."""
    if "err" in values:
        error = values["err"]
        if not isinstance(error, dict):
            raise malformed("an error is no map")
        number = _uint(error, "rc")
        return (_uint(error, "group"), number) if number else None
    number = _uint(values, "rc", default=0)
    return (None, number) if number else None


def good(message: Message) -> Mapping[str, Any]:
    """The values of an answer that is no error; `DeviceRefused("smp.refused")` for one that is."""
    error = error_of(message.values)
    if error is None:
        return message.values
    reason = message.values.get("rsn")
    said = f": {reason[:_MAX_REASON]!r}" if isinstance(reason, str) else ""
    raise DeviceRefused(REFUSED, f"the device answers {_named(*error)}{said}")


def _named(group: int | None, number: int) -> str:
    names: type[IMG_MGMT_ERR] | type[MGMT_ERR] = IMG_MGMT_ERR if group == Group.IMAGE else MGMT_ERR
    known = number in set(map(int, names)) and group in (None, Group.IMAGE)
    what = names(number).name.lower().replace("_", " ") if known else "an error this devguard does not know"
    return f"{what} (rc {number})" if group is None else f"{what} (group {group}, rc {number})"


def parameters(message: Message) -> Parameters:
    """The parameters of the device's SMP server."""
    values = good(message)
    return Parameters(_uint(values, "buf_size"), _uint(values, "buf_count"))


def slot_states(message: Message) -> tuple[SlotState, ...]:
    """The images of the device, each image and slot at most once."""
    entries = good(message).get("images")
    if not isinstance(entries, list) or len(entries) > MAX_IMAGES:
        raise malformed(f"an image state holds a list of at most {MAX_IMAGES} images")
    found = tuple(map(_state, entries))
    if len({(one.image, one.slot) for one in found}) != len(found):
        raise malformed("the image state lists a slot twice")
    if len({one.image for one in found if one.active}) != sum(one.active for one in found):
        raise malformed("two slots of one image are active")
    return found


def _state(entry: object) -> SlotState:
    if not isinstance(entry, dict):
        raise malformed("an image in the image state is no map")
    digest, version = entry.get("hash"), entry.get("version", "")
    if digest is not None and (not isinstance(digest, bytes) or len(digest) not in HASH_SIZES):
        raise malformed("the hash of an image is none")
    if not isinstance(version, str) or len(version) > MAX_VERSION or not version.isprintable():
        raise malformed("the version of an image is none")
    flags = [_flag(entry, name) for name in ("bootable", "pending", "confirmed", "active", "permanent")]
    return SlotState(_uint(entry, "image", _NUMBER, 0), _uint(entry, "slot", _NUMBER), version, digest, *flags)


@dataclass(frozen=True, slots=True)
class Taken:
    """How far the device is with an upload, and (at its end, where it looks) whether the bytes have their hash."""

    offset: int
    match: bool | None


def taken(message: Message) -> Taken:
    """The answer to a piece of an upload."""
    values = good(message)
    match = values.get("match")
    if match is not None and not isinstance(match, bool):
        raise malformed("the match of an upload is no yes or no")
    return Taken(_uint(values, "off"), match)


def _uint(values: Mapping[Any, Any], name: str, most: int = _UINT32, default: int | None = None) -> int:
    value = values.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise malformed(f"{name} is missing or no number from 0 to {most}")
    return value


def _flag(entry: Mapping[Any, Any], name: str) -> bool:
    value = entry.get(name, False)
    if not isinstance(value, bool):
        raise malformed(f"{name} of an image is no yes or no")
    return value
