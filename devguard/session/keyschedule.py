"""EDHOC key schedule for suites with SHA-256 (RFC 9528 section 4, appendices G and H).

Pure functions from secrets and transcripts to keys, and `SessionKeys`, the immutable value a completed
handshake leaves: PRK_out with its exporter and its key update. Whoever holds an older `SessionKeys` can
compute every later one, so owners drop it as soon as they have moved on.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from devguard import wire
from devguard.session.suites import Suite

HASH_LENGTH: Final = 32
_EXPAND_MAX: Final = 255 * HASH_LENGTH


class Label(enum.IntEnum):
    """info_label of EDHOC_KDF (section 4.1.2 and appendix H)."""

    KEYSTREAM_2 = 0
    SALT_3E2M = 1
    MAC_2 = 2
    K_3 = 3
    IV_3 = 4
    SALT_4E3M = 5
    MAC_3 = 6
    PRK_OUT = 7
    K_4 = 8
    IV_4 = 9
    PRK_EXPORTER = 10
    KEY_UPDATE = 11


def digest(data: bytes) -> bytes:
    """The EDHOC hash, SHA-256."""
    return hashlib.sha256(data).digest()


def extract(salt: bytes, secret: bytes) -> bytes:
    """EDHOC_Extract: HKDF-Extract with SHA-256."""
    return hmac.digest(salt, secret, "sha256")


def kdf(prk: bytes, label: int, context: bytes, length: int) -> bytes:
    """EDHOC_KDF(PRK, info_label, context, length); `length` from 1 to 8160 bytes."""
    info = wire.encode(label) + wire.encode(context) + wire.encode(length)
    return HKDFExpand(hashes.SHA256(), length, info).derive(prk)


def transcript_2(g_y: bytes, message_1: bytes) -> bytes:
    """TH_2 = H(G_Y, H(message_1))."""
    return digest(wire.encode(g_y) + wire.encode(digest(message_1)))


def transcript_next(previous: bytes, plaintext: bytes, cred: bytes) -> bytes:
    """TH_3 from TH_2, PLAINTEXT_2, CRED_R; TH_4 from TH_3, PLAINTEXT_3, CRED_I."""
    return digest(wire.encode(previous) + plaintext + cred)


def xor_keystream_2(prk_2e: bytes, th_2: bytes, data: bytes) -> bytes:
    """PLAINTEXT_2 to CIPHERTEXT_2 and back; parts beyond 8160 bytes use negative labels (appendix G)."""
    stream = b"".join(
        kdf(prk_2e, -(at // _EXPAND_MAX), th_2, min(_EXPAND_MAX, len(data) - at))
        for at in range(0, len(data), _EXPAND_MAX)
    )
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")


def context_2(c_r: bytes, id_cred: bytes, th_2: bytes, cred: bytes) -> bytes:
    """context_2 without EAD; `c_r`, `id_cred` and `cred` are CBOR items already (kid not compact here)."""
    return c_r + id_cred + wire.encode(th_2) + cred


def context_3(id_cred: bytes, th_3: bytes, cred: bytes) -> bytes:
    """context_3 without EAD."""
    return id_cred + wire.encode(th_3) + cred


def to_be_signed(id_cred: bytes, th: bytes, cred: bytes, mac: bytes) -> bytes:
    """Sig_structure of the COSE_Sign1 whose signature is Signature_or_MAC_x (RFC 9052 section 4.4)."""
    return wire.encode(["Signature1", id_cred, wire.encode(th) + cred, mac])


def associated_data(th: bytes) -> bytes:
    """Enc_structure of message_3 and message_4 (RFC 9052 section 5.3)."""
    return wire.encode(["Encrypt0", b"", th])


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """PRK_out of a completed session, with the suite that made it. Its repr shows no secret."""

    suite: Suite
    prk_out: bytes = field(repr=False)

    def exporter(self, label: int, context: bytes, length: int) -> bytes:
        """EDHOC_Exporter(label, context, length), section 4.2.1."""
        prk_exporter = kdf(self.prk_out, Label.PRK_EXPORTER, b"", HASH_LENGTH)
        return kdf(prk_exporter, label, context, length)

    def updated(self, context: bytes) -> SessionKeys:
        """EDHOC_KeyUpdate(context), appendix H."""
        return SessionKeys(self.suite, kdf(self.prk_out, Label.KEY_UPDATE, context, HASH_LENGTH))
