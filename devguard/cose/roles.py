"""The roles a key can have, as one closed set shared by every room.

A role is the purpose of a key: which kind of object it may sign. The trust document gives the first seven a
threshold and holders; technicians and devices are vouched for by an authority and never appear in it.
"""

from __future__ import annotations

import enum


class RoleName(enum.StrEnum):
    """Every role of a key, by the name used in key files, trust documents and output."""

    ROOT = "root"
    RELEASE = "release"
    QUALITY = "quality"
    TECHNICIAN_AUTHORITY = "technician-authority"
    DEVICE_AUTHORITY = "device-authority"
    STATION = "station"
    WITNESS = "witness"
    TECHNICIAN = "technician"
    DEVICE = "device"


TRUST_ROLES: frozenset[RoleName] = frozenset(RoleName) - {RoleName.TECHNICIAN, RoleName.DEVICE}
"""The roles a trust document may list."""
