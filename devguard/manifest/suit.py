"""Labels of SUIT envelopes and manifests, and the two small values every other module shares.

draft-ietf-suit-manifest-37 section 8 and its CDDL, draft-ietf-suit-update-management-14 section 4 and 5, the few
labels of draft-ietf-suit-trust-domains that devguard names in order to refuse them, and devguard's private labels
(-257 and below: the range both registries leave to the author of a manifest processor). Labels only: what a command
does is in `interpreter`, what a release may contain is in `release`.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import Final

from devguard import wire
from devguard.errors import Malformed

ENVELOPE_TAG: Final = 107
PEN_TAG: Final = 112
CODE: Final = "envelope.malformed"

SHA256: Final = -16
SHA384: Final = -43
SHA512: Final = -44
HASHES: Final = {SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
_SIZES: Final = {SHA256: 32, SHA384: 48, SHA512: 64}


class EnvelopeKey(enum.IntEnum):
    """Labels of the outer map that are not manifest members (section 8.2)."""

    AUTHENTICATION = 2
    MANIFEST = 3


class ManifestKey(enum.IntEnum):
    """Labels of the manifest map (section 8.4)."""

    VERSION = 1
    SEQUENCE_NUMBER = 2
    COMMON = 3
    REFERENCE_URI = 4
    COMPONENT_ID = 5
    SET_VERSION = 6
    COSWID = 14
    TEXT = 23


class Section(enum.IntEnum):
    """Manifest members that are command sequences."""

    VALIDATE = 7
    LOAD = 8
    INVOKE = 9
    DEPENDENCY_RESOLUTION = 15
    PAYLOAD_FETCH = 16
    CANDIDATE_VERIFICATION = 18
    INSTALL = 20
    UNINSTALL = 24


# Members a recipient can do without: an offer drops them (section 5.4 and the CDDL's "recipient-unnecessary").
DISPENSABLE: Final = frozenset({int(ManifestKey.TEXT), int(ManifestKey.COSWID)})
SEVERABLE: Final = DISPENSABLE | {
    int(Section.DEPENDENCY_RESOLUTION),
    int(Section.PAYLOAD_FETCH),
    int(Section.CANDIDATE_VERIFICATION),
    int(Section.INSTALL),
}


class CommonKey(enum.IntEnum):
    """Labels of suit-common (section 8.4.5)."""

    DEPENDENCIES = 1
    COMPONENTS = 2
    SHARED_SEQUENCE = 4


class Command(enum.IntEnum):
    """Conditions and directives (sections 8.4.9 and 8.4.10; update management section 5; private ones)."""

    CONDITION_VENDOR_IDENTIFIER = 1
    CONDITION_CLASS_IDENTIFIER = 2
    CONDITION_IMAGE_MATCH = 3
    CONDITION_USE_BEFORE = 4
    CONDITION_COMPONENT_SLOT = 5
    CONDITION_CHECK_CONTENT = 6
    CONDITION_DEPENDENCY_INTEGRITY = 7
    CONDITION_IS_DEPENDENCY = 8
    DIRECTIVE_PROCESS_DEPENDENCY = 11
    DIRECTIVE_SET_COMPONENT_INDEX = 12
    CONDITION_ABORT = 14
    DIRECTIVE_TRY_EACH = 15
    DIRECTIVE_WRITE = 18
    DIRECTIVE_SET_PARAMETERS = 19
    DIRECTIVE_OVERRIDE_PARAMETERS = 20
    DIRECTIVE_FETCH = 21
    DIRECTIVE_COPY = 22
    DIRECTIVE_INVOKE = 23
    CONDITION_DEVICE_IDENTIFIER = 24
    CONDITION_IMAGE_NOT_MATCH = 25
    CONDITION_MINIMUM_BATTERY = 26
    CONDITION_UPDATE_AUTHORIZED = 27
    CONDITION_VERSION = 28
    DIRECTIVE_WAIT = 29
    DIRECTIVE_SWAP = 31
    DIRECTIVE_RUN_SEQUENCE = 32
    DIRECTIVE_UNLINK = 33
    DIRECTIVE_OVERRIDE_MULTIPLE = 34
    DIRECTIVE_COPY_PARAMS = 35
    CONDITION_SECURITY_VERSION = -257
    CONDITION_SBOM_DIGEST = -258
    CONDITION_TEST_REPORT_DIGEST = -259
    CONDITION_THERAPY_IDLE = -260
    CONDITION_TWO_TECHNICIANS = -261


class Parameter(enum.IntEnum):
    """Parameters of commands (section 8.4.8; update management section 4; private ones)."""

    VENDOR_IDENTIFIER = 1
    CLASS_IDENTIFIER = 2
    IMAGE_DIGEST = 3
    USE_BEFORE = 4
    COMPONENT_SLOT = 5
    STRICT_ORDER = 12
    SOFT_FAILURE = 13
    IMAGE_SIZE = 14
    CONTENT = 18
    URI = 21
    SOURCE_COMPONENT = 22
    INVOKE_ARGS = 23
    DEVICE_IDENTIFIER = 24
    FETCH_ARGUMENTS = 25
    MINIMUM_BATTERY = 26
    UPDATE_PRIORITY = 27
    VERSION = 28
    WAIT_INFO = 29
    COMPONENT_METADATA = 30
    SECURITY_VERSION = -257
    SBOM_DIGEST = -258
    TEST_REPORT_DIGEST = -259
    THERAPY_IDLE = -260
    TWO_TECHNICIANS = -261


class TextKey(enum.IntEnum):
    """Integer labels of a language's text map (section 8.4.4)."""

    MANIFEST_DESCRIPTION = 1
    UPDATE_DESCRIPTION = 2


class ComponentTextKey(enum.IntEnum):
    """Labels of a component's text (section 8.4.4)."""

    VENDOR_NAME = 1
    MODEL_NAME = 2
    VENDOR_DOMAIN = 3
    MODEL_INFO = 4
    COMPONENT_DESCRIPTION = 5
    COMPONENT_VERSION = 6


class Comparison(enum.IntEnum):
    """Comparison operators of suit-parameter-version."""

    GREATER = 1
    GREATER_EQUAL = 2
    EQUAL = 3
    LESSER_EQUAL = 4
    LESSER = 5


def strict(data: bytes) -> object:
    """The deterministic CBOR item in `data`, of which a private enterprise number may be a tag; `Malformed` else."""
    value: object = wire.decode(data, code=CODE, tags=(PEN_TAG,))
    return value


@dataclass(frozen=True, slots=True)
class Digest:
    """SUIT_Digest (section 10): a COSE hash algorithm and its output."""

    algorithm: int
    value: bytes

    @classmethod
    def from_value(cls, value: object) -> Digest:
        """From the decoded array `[algorithm, bytes]`; `Malformed` for any other shape."""
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise Malformed(CODE, "a SUIT digest is an array of an algorithm and bytes")
        algorithm, digest = value
        if type(algorithm) is not int or not isinstance(digest, bytes):
            raise Malformed(CODE, "a SUIT digest is an array of an algorithm and bytes")
        if len(digest) != _SIZES.get(algorithm, len(digest)):
            raise Malformed(CODE, f"a digest of {len(digest)} bytes does not fit algorithm {algorithm}")
        return cls(algorithm, digest)

    @classmethod
    def decode(cls, data: bytes) -> Digest:
        """From the encoded array; `Malformed` for anything else."""
        return cls.from_value(strict(data))

    @classmethod
    def of_member(cls, member: bytes, algorithm: int = SHA256) -> Digest:
        """Digest of `member` *with* its byte-string head, as sections 8.3 and 8.4.12 ask."""
        name = HASHES.get(algorithm)
        if name is None:
            raise Malformed(CODE, f"digest algorithm {algorithm} is not SHA-256, SHA-384 or SHA-512")
        return cls(algorithm, hashlib.new(name, wire.encode(member)).digest())

    def value_list(self) -> list[object]:
        """The array as it stands in CBOR."""
        return [self.algorithm, self.value]

    def encode(self) -> bytes:
        """The encoded array."""
        return wire.encode(self.value_list())
