"""Keys whose private half anybody can download: they are development keys whatever a document says of them.

The list is of RFC 9679 thumbprints, each with where its private half can be had. It catches the key that was copied
out of a bootloader's repository, out of a standard or out of a test suite and forgotten there, and the key that came of
a random source that was none; it is no replacement for the development mark, which covers a vendor's own. Published
RSA and X25519 keys need no row: they are no keys here at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PUBLISHED_TEST_KEYS: Final[Mapping[bytes, str]] = MappingProxyType(
    {
        bytes.fromhex(thumbprint): origin
        for thumbprint, origin in (
            ("cf649e41d07f059d7c4a6f81879c383dce9644cad0e6cd6a311d560375a3c4d5", "MCUboot cypress-test-ec-p256"),
            ("9970a5b9e488165f06ef1630efac22c016c34da0e189f44e987721889ecd9b93", "MCUboot enc-ec256"),
            ("7e60053d1bdd374a71d12ab3b00ec4b0833d21558b128908a0d993d5c70da3ea", "MCUboot root-ec-p256"),
            ("742b328b7f2813405ca178aab69ccbce9703ec88952dc09fb46880349290c180", "MCUboot root-ec-p384"),
            ("0754d8680c7529c46be8f82161a508323dc9b66db2621dad7e018fd04a465546", "MCUboot root-ed25519-2"),
            ("8f7f37a36c4c271e89c9e0d02e4a145455be3c43f3a3b4b9087541628606c6a5", "MCUboot root-ed25519-unknown"),
            ("d775ee3931d4e8a21c82633f0a7e5731fd5a53fee923bf72b95ca5819dab0a8a", "MCUboot root-ed25519"),
            ("431d45bf3a680b4fcb1c5b2856317e09ecdfd5c89b961523cb46c0730c51354d", "MCUboot bad-ec-p256"),
            ("eba41d53f6bba61a2122f021935eede1d989417f21e80ffce9611be3c562cd39", "MCUboot mynewt key_ec256"),
            ("82dd323ebe203e08ebc03146f2a5574fb23e83f0cd0069b52b7da09fdf37f2ca", "MCUboot mynewt key_ec256_2"),
            ("562806df19e7284a64e1fe4d425baf373fdca80922a3f0a5a0fd28ecaa4a1c3c", "TF-M root-EC-P256_1"),
            ("bb7765f617f55c111a9102fe6eb01e45ec0393633f87bef165fdcc1d6930789a", "TF-M root-EC-P384_1"),
            ("078c18f110f432ff780cd8dae58069a2a0d82277cbc66450c8581dd47d96a22e", "TF-M tfm_initial_attestation_key"),
            ("a3a13de5e3c98f06f8a6086eb9dba47d3ac0bbb8cd7c677b9e09d4ed9c6701cd", "TF-M psoc64 TFM_S_KEY"),
            ("ca9e35f23b2b525fb4fc83f512b0dcac4ac29e457e873a5d6a7313f71690b33c", "SUIT manifest draft, example key"),
            ("6d4f7fca97556e2d380bd72c547b174dce0efee1064de24ac29f7a37805ed971", "securesystemslib tests, pem ecdsa"),
            (
                "0e9c5e7055e1d48f142b03a373f339e77bfcfe6ea1603fb01a791818987a7243",
                "securesystemslib tests, pem ecdsa_secp384r1",
            ),
            ("e519f2f68761a658c34731f26e0d5d776ea9a24f25662b9fc262fba666600600", "securesystemslib tests, pem ed25519"),
            (
                "866eefbd6718c8846cd7ddfe43fc74ab1daac4538ff8514ea2ec2d410a415743",
                "RFC 8032 test 1, RFC 8037, COSE examples",
            ),
            ("5c840f7a40230170abdee5151a594efdf270f7a89825f5c310badf6b589c5c59", "RFC 8032 test 2"),
            ("51d53691575b17e32587f41e5b9c85feeec5cccd5c0826be4abd2dfe7d33a6ee", "RFC 8032 test 3"),
            ("cd55fdba7a00e29f11e2e57078e21817a1c536a8a9cff1e2e1e5bbf2f6f20fba", "RFC 8032 test 1024"),
            ("475943c2f96229239487efdda9bce3de5d27e1429da311d137aef9a9a5e765f5", "RFC 8032 test ctx"),
            ("2ffbb2aaeb94ef052ce26987198fb95f679d647c10bade79b0dc590a2f0183d3", "RFC 8410 Ed25519"),
            ("4d5820fa2865825dac8833b009e54b9290191adf7a9be466d45c98a4f5bee303", "RFC 9421 test-key-ed25519"),
            ("65d6416739d5dcde00f8e6ca4e9f4a6e8b035e695a5fa122e7fc0e4735f11fc9", "RFC 9421 test-key-ecc-p256"),
            ("28f88b756ce29d7c38f2b842492abb2430021500af40532a512561acea0f610f", "RFC 9500 testECCP256"),
            ("edf88199a721b9d0cd98b41c2947f301cb4afb803e9d1606be9a513212df71d1", "RFC 9500 testECCP384"),
            ("750ca40795ab23e51a75dc76fa12c052f6f6c57ba8a732337b91f096592b6ef6", "RFC 6979 P-256"),
            ("a876460dc02fb84b5882306e6eb8d31264a31fed5cffb655169eb9abf1cef1cc", "RFC 6979 P-384"),
            ("d0a4a8710d07765e3e7c0156ab145023a0d9b512d499db7c0e40f5720c4b3cf6", "RFC 7515 P-256"),
            ("00e1688373124a36f7c3204ef20f73c37be4bb0f34e72f45d7d38ee8dffa4c43", "RFC 7517 P-256"),
            ("251e4be53824469566ce397d70e7fcb752277493b525448dc6071c82987b922b", "RFC 7518 P-256, Alice"),
            ("82d5a5edc41547349bc9e1edd2d369e11bdfbfe8d7c91f1b3ec8a9280246ed19", "RFC 7518 P-256, Bob"),
            ("496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec", "COSE examples, meriadoc.brandybuck"),
            ("b71d9fc27ee9ce61a60560b2eeeef7f6934a6b9d57ce122b2b12e932cacbf1d9", "COSE examples, P-256 key 11"),
            ("e7eed51eaa0fc76cfd74ccd11309fac8d1d7fbdc2f9f807541f98c8b62abe779", "COSE examples, peregrin.took"),
            ("6a485f48946bff5ad2d1f0ecee2d45753633b8098e691ace7098e2ba83e3fefd", "RFC 8392 P-256"),
            ("6d2fa0f356b17af590e91c0100de2fa77a07b0c54616a6b9d7c172fab40a2a97", "COSE examples, P-384 key"),
            ("4a6eedd394c599c176d39dab6dc9db651cd3fd7f701a568661d476a122921223", "DSSE protocol example"),
            ("3c32d165c79816126baf1c98ec77512ad37b709062bbc730620cb8d39f6d2821", "RFC 9529 trace 1, responder"),
            ("633993b568b5ef114744ded1a3065723a5e9af64fd28112bb5430929da22b137", "RFC 9529 trace 1, initiator"),
            ("6685ed13979449d6fcc43335388b095fbf90fdd5f340d37eb9868dbf05a4f6a4", "RFC 9529 trace 2, responder"),
            ("de752d2eddf889951d6f12c5ac2962fee7a440cbf2816c1460f5473a25b6e5c6", "RFC 9529 trace 2, initiator"),
            ("b8969ab4b37da9f0684e42647eb8a0be8b5b661ebf5d76f0583bf5b8d3a8059a", "RFC 9964 ML-DSA-44, zero seed"),
            ("043f891cb4855f4d87e0c87bf1fe38174b540b8b84ae6b3d6c99600b963544a1", "RFC 9881 ML-DSA-44, seed 00 to 1f"),
            ("b788acf242f1f1d6532926d816e76e1636874267f2a48c84c4e65789ab80cc02", "RFC 9964 ML-DSA-65, zero seed"),
            ("eea6088cda05d86e23663298fcb744ec2f9494b76a6897091663bde56110508b", "RFC 9881 ML-DSA-65, seed 00 to 1f"),
            ("d9bc439f97bd6d4093e68f0f3fcf09c9a97adf888ed7308dd565247a166cb4fa", "RFC 9964 ML-DSA-87, zero seed"),
            ("620b2fdac49238e5f98e7f5c7a9dcf78b8d294ab3e4ebbd51bb8fd2e2336936d", "RFC 9881 ML-DSA-87, seed 00 to 1f"),
            ("6f7deef65d54a69905d309a53cb13fc7e9b9a40a32ca0fd4a09c71199c3f07cd", "trivial Ed25519, seed 00"),
            ("dd2fb4e18b5e1ce30c4633aaa5f681da79c3b32998cc5aa21b1149c37231a6ac", "trivial Ed25519, seed 01"),
            ("6017b69ae7ccc169898dcc47a71e17eee107bba76185b4198a226dbba365395f", "trivial Ed25519, seed ff"),
            ("be5de2f4bcdc383add3fc9827d345f1a37c6a06026b38696fb3229c003b35f49", "trivial Ed25519, seed 00 to 1f"),
            ("b5d5e1275063b1bec731a51c1133b69e5ae5812fe66d167516e88f3fadae55a4", "trivial P-256, private key 1"),
            ("18d4f417c4f5de8cc84b31e14f45e44a9167bd6dad0ea430b3e0f43e33098f33", "trivial P-384, private key 1"),
            ("2f2a4a430243cb1e69aff37e3a6d8f5753815ccb87c548ff4eea1bf82ee9532e", "trivial P-256, private key 2"),
            ("9099ca53d3dd42b1d30eee5e36a1538c67d368758b22f30a229c8f5b69863bb9", "trivial P-384, private key 2"),
            ("bcd48776591b338f2ab7e8f0c6815d21ee4cd40a9cca93193ef33eccb0d61a87", "RFC 8032 test SHA(abc)"),
            ("280dfa157b9fb11f6aac08ce419fc7d9bc5acafcd77a14c3f6e612bfb2c164e9", "python-tuf tests, snapshot_key"),
            ("78ae34f25b3b8aae8ff4fb6fb7e9e5e1ff86cfd1d4614f05f651ed5692aa7445", "python-tuf tests, delegation_key"),
            ("a23f7a9dfc770ad32f660aa97919b57e5ba3683e88bdc63c2b039027e0da3ecf", "python-tuf tests, root_key2"),
            (
                "4c9d13885e69d66ee8f23adcca39676bb3eba93d4081f4113e4d457450bd6806",
                "securesystemslib tests, keystore ed25519",
            ),
            ("b4158477c3d7ff96103c0a58693adf3aeeb25f65787545f431ce8fdaa7b85ddd", "securesystemslib tests, ssh ed25519"),
            (
                "5358fac72280acb762db79b3c30a01c47aa6f21afb98e227d54a095dbbc195f6",
                "securesystemslib tests, legacy ed25519",
            ),
            (
                "9f0f1653dfbdda1c6b22e366611213c86b5fe9320b8711de00eca834f6c45367",
                "securesystemslib tests, legacy ecdsa",
            ),
            ("8301a9fd6162e87f9a44d6261a64ac913bde2134a2d64a6d35a3d68fc2a31983", "securesystemslib tests, ssh ecdsa"),
            (
                "b2faef97000db69ba3458a0b0a1dc722745feed52cfe12bbd2ecdb0041239eb3",
                "securesystemslib tests, keystore ecdsa",
            ),
            ("ee68d119aa0da5c5365ec7f69e4bfee5e62083322d2e5faeeff1ebe2ad9f3a3a", "securesystemslib tests, mldsa44"),
            ("4c83c4cfde3dca4e67d2b33ffccbff584a2b591c926c3d412afaa7a2d7cbac15", "securesystemslib tests, mldsa65"),
            ("6370aac516d6e2b49c96b8dc5182cce01fa0c463c898cd8a347a50c3c76cf309", "securesystemslib tests, mldsa87"),
        )
    }
)
