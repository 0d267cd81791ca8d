"""The bytes of a trust document's payload, locked: documents on devices and shelves depend on them.

Vectors are added here, never changed.
"""

from __future__ import annotations

from builders import DAY, NOW
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.trust import codec

PAYLOAD_1 = bytes.fromhex(
    "ad01010207031a6b488080041a6d2b058005f506a301820181a201a4010220012158202db3d3e9af78d9524f3f8d9d9f"
    "e9a9a05f838f172bfa6e672bc91d17099fb2b2225820625014d9302321ed984c86978fff6f69aac4509c77c7e414f609"
    "096614fb77f602695268656120526f6f7402820181a401a30101200621582082cbd386bfe1ea2f44a4c0590a347abc25"
    "b086240a0c6194ca3963aeca3cd859026c52656d792052656c65617365041a6b49d200051a6b4b238006820181a301a3"
    "0101200621582081dfcfc83710b9bdb869be7f546d0769a805767a6030fb89057fb07100670d28026742656e63682031"
    "03f507815820000000000000000000000000000000000000000000000000000000000000000008a16c696e73756c696e"
    "2d70756d700309100a81582001010101010101010101010101010101010101010101010101010101010101010b815820"
    "02020202020202020202020202020202020202020202020202020202020202020c040df5"
)
DIGEST_1 = "a2443a0a522e35e7ce177880ed112de4b7d059e2c664092068dfb41f4ed4fa46"


def test_every_field_of_format_1() -> None:
    doc = codec.decode_payload(PAYLOAD_1)
    assert (doc.version, doc.issued, doc.expires) == (7, NOW - DAY, NOW + 365 * DAY)
    assert doc.development
    assert doc.require_device_nonce
    assert (doc.max_step, doc.grant_epoch, dict(doc.floors)) == (16, 4, {"insulin-pump": 3})
    assert doc.revoked == {bytes(32)}
    assert doc.revoked_releases == {b"\x01" * 32}
    assert doc.kept_releases == {b"\x02" * 32}
    assert doc.digest.hex() == DIGEST_1
    entries = [(name, entry) for name, role in doc.roles.items() for entry in role.keys]
    assert [(name, entry.person, entry.key.algorithm, entry.development) for name, entry in entries] == [
        (RoleName.ROOT, "Rhea Root", Algorithm.ESP256, False),
        (RoleName.RELEASE, "Remy Release", Algorithm.ED25519, False),
        (RoleName.STATION, "Bench 1", Algorithm.ED25519, True),
    ]
    assert (entries[1][1].not_before, entries[1][1].not_after) == (NOW, NOW + DAY)
    assert codec.encode_payload(doc) == PAYLOAD_1
