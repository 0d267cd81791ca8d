"""Who a device is, as SUIT condition arguments: vendor, class and device identifiers.

All three are version 5 UUIDs (RFC 9562 section 5.5) as draft-ietf-suit-manifest recommends for its vendor,
class and device identifier parameters: the vendor under the DNS namespace, a class (model and hardware
revision) under its vendor, a device (serial number) under its class. Sixteen raw bytes each.
"""

from __future__ import annotations

import hashlib
from typing import Final

from devguard.errors import LocalProtocolError

_DNS: Final = bytes.fromhex("6ba7b8109dad11d180b400c04fd430c8")  # the DNS namespace, RFC 9562 section 6.6


def vendor_id(domain: str) -> bytes:
    """The vendor identifier of a DNS name, for example "devices.example"; names compare without case."""
    return _uuid5(_DNS, domain.lower())


def class_id(vendor: bytes, model: str, revision: str) -> bytes:
    """The class identifier of one hardware revision of a model; `vendor` is the 16-byte vendor identifier."""
    return _uuid5(vendor, f"{model}/{revision}")


def device_id(class_id: bytes, serial: str) -> bytes:
    """The device identifier of one serial number; `class_id` is the 16-byte class identifier."""
    return _uuid5(class_id, serial)


def _uuid5(namespace: bytes, name: str) -> bytes:
    if len(namespace) != 16:
        raise LocalProtocolError("wire.malformed", f"a UUID namespace has 16 bytes, not {len(namespace)}")
    value = bytearray(hashlib.sha1(namespace + name.encode(), usedforsecurity=False).digest()[:16])
    value[6] = value[6] & 0x0F | 0x50  # version 5
    value[8] = value[8] & 0x3F | 0x80  # the variant of RFC 9562
    return bytes(value)
