"""Parameter values: their types, checked and decoded once, when override-parameters sets them (section 8.4.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from devguard.errors import Malformed
from devguard.manifest.suit import CODE, Digest, Parameter
from devguard.manifest.version import VersionMatch

_MAX_URI: Final = 2048


def _wrong(what: str) -> Malformed:
    return Malformed(CODE, f"a parameter is not {what}")


def _uuid(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 16:
        raise _wrong("a UUID of 16 bytes (private enterprise numbers are not supported)")
    return value


def _sha256(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 32:
        raise _wrong("a SHA-256 digest of 32 bytes")
    return value


def _digest(value: object) -> Digest:
    return Digest.decode(_bytes(value))


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise _wrong("a byte string")
    return value


def _uint(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise _wrong("an unsigned integer of 64 bits")
    return value


def _int(value: object) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise _wrong("an integer of 64 bits")
    return value


def _uri(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_URI or not value.isprintable():
        raise _wrong(f"a URI reference of at most {_MAX_URI} printable characters")
    return value


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false")
    return value


def _true(value: object) -> bool:
    if value is not True:
        raise _wrong("true, the only value this devguard supports")
    return value


_TYPES: Final[dict[int, Callable[[object], object]]] = {
    Parameter.VENDOR_IDENTIFIER: _uuid,
    Parameter.CLASS_IDENTIFIER: _uuid,
    Parameter.DEVICE_IDENTIFIER: _uuid,
    Parameter.IMAGE_DIGEST: _digest,
    Parameter.IMAGE_SIZE: _uint,
    Parameter.USE_BEFORE: _uint,
    Parameter.COMPONENT_SLOT: _uint,
    Parameter.STRICT_ORDER: _true,
    Parameter.SOFT_FAILURE: _bool,
    Parameter.CONTENT: _bytes,
    Parameter.URI: _uri,
    Parameter.SOURCE_COMPONENT: _uint,
    Parameter.INVOKE_ARGS: _bytes,
    Parameter.MINIMUM_BATTERY: _uint,
    Parameter.UPDATE_PRIORITY: _int,
    Parameter.VERSION: VersionMatch.decode,
    Parameter.SECURITY_VERSION: _uint,
    Parameter.SBOM_DIGEST: _sha256,
    Parameter.TEST_REPORT_DIGEST: _sha256,
    Parameter.THERAPY_IDLE: _true,
    Parameter.TWO_TECHNICIANS: _true,
}


def check_parameters(values: Mapping[int, object], components: int) -> dict[int, object]:
    """The decoded values by label; `Malformed` for an unknown parameter or a value of the wrong type."""
    checked: dict[int, object] = {}
    for key, value in values.items():
        kind = _TYPES.get(key)
        if kind is None:
            raise Malformed(CODE, f"parameter {key} is not one this devguard understands")
        checked[key] = kind(value)
    source = checked.get(Parameter.SOURCE_COMPONENT)
    if isinstance(source, int) and source >= components:
        raise Malformed(CODE, "a source component outside the component list")
    return checked
