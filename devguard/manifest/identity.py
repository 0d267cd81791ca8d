"""Who a device is, as SUIT condition arguments: vendor, class and device identifiers.

All three are version 5 UUIDs (RFC 9562 section 5.5) as draft-ietf-suit-manifest recommends for its vendor,
class and device identifier parameters: the vendor under the DNS namespace, a class (model and hardware
revision) under its vendor, a device (serial number) under its class. Sixteen raw bytes each.
"""

from __future__ import annotations

import uuid

from devguard.errors import LocalProtocolError


def vendor_id(domain: str) -> bytes:
    """The vendor identifier of a DNS name, for example "devices.example"; names compare without case."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, domain.lower()).bytes


def class_id(vendor: bytes, model: str, revision: str) -> bytes:
    """The class identifier of one hardware revision of a model; `vendor` is the 16-byte vendor identifier."""
    return uuid.uuid5(_namespace(vendor), f"{model}/{revision}").bytes


def device_id(class_id: bytes, serial: str) -> bytes:
    """The device identifier of one serial number; `class_id` is the 16-byte class identifier."""
    return uuid.uuid5(_namespace(class_id), serial).bytes


def _namespace(identifier: bytes) -> uuid.UUID:
    if len(identifier) != 16:
        raise LocalProtocolError("wire.malformed", f"a UUID namespace has 16 bytes, not {len(identifier)}")
    return uuid.UUID(bytes=bytes(identifier))
