"""What is said to a device that is nobody, and what it says: messages in clear, before there is any key.

The numbers, the order of the fields and the encoding are those of `verbs`, which see.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Enrol:
    """Factory: who this device is to be. `site` may be empty; the challenge makes the answer fresh."""

    model: str
    revision: str
    serial: str
    site: str
    challenge: bytes


@dataclass(frozen=True, slots=True)
class EnrolKeys:
    """Device: a request (`session.enrolment`) signed by each key it has just made."""

    requests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EnrolTrust:
    """Factory: a piece of the trust document; `ending` as in `TrustChain`, without chains."""

    piece: bytes
    ending: int


@dataclass(frozen=True, slots=True)
class EnrolCredentials:
    """Factory: the credential of each key, in the order of the requests. With it the device is enrolled."""

    credentials: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EnrolTaken:
    """Device: the named verb took effect."""

    verb: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """Ask a decommissioned device for its certificate, once more."""


@dataclass(frozen=True, slots=True)
class ErasureReply:
    """Device: the certificate it keeps."""

    certificate: bytes
