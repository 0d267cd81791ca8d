"""COSE signature algorithms: registry numbers, command-line names, hash and curve of each.

Numbers are those of the IANA COSE registry: RFC 9053 section 2 (ES256, ES384, ES512, EdDSA), RFC 9864 (the
fully-specified ESP256, ESP384, ESP512, Ed25519, Ed448) and RFC 9964 (ML-DSA). What policy lets a key sign with
is not decided here but by `CoseKey.allows`.
"""

from __future__ import annotations

import enum
from typing import Final

from devguard.errors import Malformed


class Algorithm(enum.IntEnum):
    """A COSE signature algorithm that this room can verify."""

    ES256 = -7
    EDDSA = -8
    ESP256 = -9
    ED25519 = -19
    ES384 = -35
    ES512 = -36
    ML_DSA_44 = -48
    ML_DSA_65 = -49
    ML_DSA_87 = -50
    ESP384 = -51
    ESP512 = -52
    ED448 = -53

    @property
    def label(self) -> str:
        """The name used on the command line and in output, for example `ESP256` or `ML-DSA-65`."""
        return _LABELS[self]

    @property
    def is_post_quantum(self) -> bool:
        """Whether the algorithm withstands a quantum computer (ML-DSA, FIPS 204)."""
        return self in POST_QUANTUM


POST_QUANTUM: Final = frozenset({Algorithm.ML_DSA_44, Algorithm.ML_DSA_65, Algorithm.ML_DSA_87})

EMITTED: Final = (
    Algorithm.ESP256,
    Algorithm.ESP384,
    Algorithm.ED25519,
    Algorithm.ML_DSA_44,
    Algorithm.ML_DSA_65,
    Algorithm.ML_DSA_87,
)
"""The algorithms devguard makes keys and signatures with; everything else it only verifies."""

_LABELS: Final = {
    Algorithm.ES256: "ES256",
    Algorithm.EDDSA: "EdDSA",
    Algorithm.ESP256: "ESP256",
    Algorithm.ED25519: "Ed25519",
    Algorithm.ES384: "ES384",
    Algorithm.ES512: "ES512",
    Algorithm.ML_DSA_44: "ML-DSA-44",
    Algorithm.ML_DSA_65: "ML-DSA-65",
    Algorithm.ML_DSA_87: "ML-DSA-87",
    Algorithm.ESP384: "ESP384",
    Algorithm.ESP512: "ESP512",
    Algorithm.ED448: "Ed448",
}
_BY_LABEL: Final = {label: algorithm for algorithm, label in _LABELS.items()}


def algorithm_named(label: str) -> Algorithm:
    """The algorithm of a command-line name; `Malformed("signature.algorithm")` for any other text."""
    try:
        return _BY_LABEL[label]
    except KeyError:
        known = ", ".join(algorithm.label for algorithm in EMITTED)
        raise Malformed("signature.algorithm", f"no algorithm is named {label[:40]!r}; known: {known}") from None


def algorithm_label(number: int) -> str:
    """The name of a registry number, or the number itself when this version does not know it."""
    try:
        return Algorithm(number).label
    except ValueError:
        return str(number)
