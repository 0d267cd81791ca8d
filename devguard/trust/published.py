"""Keys whose private half anybody can download: they are development keys whatever a document says of them.

The list is of RFC 9679 thumbprints. It catches the key that was copied out of a bootloader's repository or out
of a standard and forgotten there; it is no replacement for the development mark, which covers a vendor's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PUBLISHED_TEST_KEYS: Final[Mapping[bytes, str]] = MappingProxyType(
    {
        bytes.fromhex(thumbprint): origin
        for thumbprint, origin in (
            ("7e60053d1bdd374a71d12ab3b00ec4b0833d21558b128908a0d993d5c70da3ea", "MCUboot root-ec-p256"),
            ("742b328b7f2813405ca178aab69ccbce9703ec88952dc09fb46880349290c180", "MCUboot root-ec-p384"),
            ("d775ee3931d4e8a21c82633f0a7e5731fd5a53fee923bf72b95ca5819dab0a8a", "MCUboot root-ed25519"),
            ("0754d8680c7529c46be8f82161a508323dc9b66db2621dad7e018fd04a465546", "MCUboot root-ed25519-2"),
            ("9970a5b9e488165f06ef1630efac22c016c34da0e189f44e987721889ecd9b93", "MCUboot enc-ec256"),
            ("ca9e35f23b2b525fb4fc83f512b0dcac4ac29e457e873a5d6a7313f71690b33c", "SUIT manifest draft, example key"),
            ("b71d9fc27ee9ce61a60560b2eeeef7f6934a6b9d57ce122b2b12e932cacbf1d9", "COSE examples, P-256 key 11"),
            ("6d2fa0f356b17af590e91c0100de2fa77a07b0c54616a6b9d7c172fab40a2a97", "COSE examples, P-384 key"),
            ("866eefbd6718c8846cd7ddfe43fc74ab1daac4538ff8514ea2ec2d410a415743", "RFC 8032 test 1, COSE examples"),
        )
    }
)
