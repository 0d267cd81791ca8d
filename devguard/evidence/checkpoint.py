"""Checkpoints: the log's size and root as a C2SP tlog-checkpoint in a signed note, by an Ed25519 station key.

Pure. Only signature type 0x01 is made and verified here; witnesses' types are `cosign`'s. A note is read strictly:
canonical base64, no control characters, at most 16 signatures; signatures of keys we were not given are ignored, as
signed-note asks.
Anyone can check a checkpoint with `verifier_key()` and a stock signed-note tool.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from devguard.cose.algorithms import Algorithm
from devguard.cose.curves import Curve
from devguard.cose.keys import CoseKey
from devguard.cose.sign import Signer
from devguard.errors import Malformed, Refused
from devguard.evidence.tree import HASH_SIZE, MAX_SIZE

MAX_NOTE: Final = 64 * 1024  # sixteen signatures, post-quantum ones among them
MAX_SIGNATURES: Final = 16
_ED25519: Final = b"\x01"
_DASH: Final = "— "
_CODE: Final = "log.tampered"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Head of a log: whose it is, how many records it has, and the RFC 6962 root over them (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """The note text that is signed: origin, size and root, one line each."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n".encode()


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: key name, 4-byte key id, signature bytes. Proves nothing until it is verified."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note taken apart; its text must be ignored until a signature by a known key was verified."""

    text: bytes
    signatures: tuple[NoteSignature, ...]


def check_station_key(key: CoseKey) -> None:
    """`Refused("signature.algorithm")` unless the key is Ed25519, the one type our notes are signed with."""
    if key.crv != Curve.ED25519 or not key.allows(Algorithm.ED25519):
        raise Refused("signature.algorithm", "the evidence log is signed with an Ed25519 station key")


def origin_of(key: CoseKey) -> str:
    """Origin line and key name of the log that a station key signs."""
    return f"devguard/{key.fingerprint[:16]}"


def key_id(name: str, key: CoseKey) -> bytes:
    """First four bytes of SHA-256(name || 0x0A || 0x01 || public key), see signed-note "Signatures"."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.x).digest()[:4]


def verifier_key(key: CoseKey) -> str:
    """The station key as a signed-note verifier key: name+hex id+base64(0x01 || public key)."""
    check_station_key(key)
    name = origin_of(key)
    return f"{name}+{key_id(name, key).hex()}+{base64.b64encode(_ED25519 + key.x).decode('ascii')}"


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The checkpoint as a signed note, the key named by the origin line."""
    check_station_key(signer.key)
    text = checkpoint.text()
    line = signature_line(checkpoint.origin, key_id(checkpoint.origin, signer.key), signer.sign(text))
    return text + b"\n" + line


def signature_line(name: str, identity: bytes, signature: bytes) -> bytes:
    """One line of a note: who signed, with which key (4-byte id), and the signature."""
    return f"{_DASH}{name} {base64.b64encode(identity + signature).decode('ascii')}\n".encode()


def read_note(data: bytes) -> Note:
    """A signed note taken apart; `Malformed("log.tampered")` for anything that is not exactly one."""
    if len(data) > MAX_NOTE:
        raise Malformed(_CODE, f"a note of {len(data)} bytes; at most {MAX_NOTE} are read")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(_CODE, "a checkpoint is not UTF-8 text") from None
    if any(character < " " and character != "\n" for character in whole):
        raise Malformed(_CODE, "a checkpoint holds control characters")
    text, blank, rest = whole.rpartition("\n\n")
    lines = rest.split("\n")
    if not blank or not text or lines.pop() != "" or not 0 < len(lines) <= MAX_SIGNATURES:
        raise Malformed(_CODE, "a checkpoint is not a text, an empty line and signature lines")
    return Note((text + "\n").encode(), tuple(_signature(line) for line in lines))


def _signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not name or "+" in name or any(map(str.isspace, name)):
        raise Malformed(_CODE, "a signature line of a checkpoint does not parse")
    blob = unbase64(encoded)
    if len(blob) < 5:
        raise Malformed(_CODE, "a signature line of a checkpoint is too short")
    return NoteSignature(name, blob[:4], blob[4:])


def unbase64(text: str) -> bytes:
    """Bytes of canonical base64; `Malformed("log.tampered")` for any other text."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(_CODE, "a checkpoint holds text that is not base64") from None
    # Stray bits behind the last byte would be a second spelling of the same note.
    if base64.b64encode(data).decode("ascii") != text:
        raise Malformed(_CODE, "base64 in a checkpoint is not canonical")
    return data


def parse_text(text: bytes) -> Checkpoint:
    """The checkpoint a note text says; `Malformed("log.tampered")` otherwise. Extension lines refuse: we write none."""
    lines = text.decode("utf-8").split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise Malformed(_CODE, "a checkpoint is not origin, size and root")
    digits, root = lines[1], unbase64(lines[2])
    size = plain_number(digits)
    if size >= MAX_SIZE or len(root) != HASH_SIZE:
        raise Malformed(_CODE, "size or root in a checkpoint has an impossible length")
    return Checkpoint(lines[0], size, root)


def plain_number(digits: str) -> int:
    """A decimal number without leading zeros, at most 19 digits; `Malformed("log.tampered")` for any other text."""
    if not digits.isascii() or not digits.isdigit() or (digits[0] == "0" and digits != "0") or len(digits) > 19:
        raise Malformed(_CODE, f"{digits[:24]!r} is not a plain decimal number")
    return int(digits)


def open_checkpoint(data: bytes, key: CoseKey, *, alone: bool = False) -> Checkpoint:
    """The checkpoint in a note, after its signature by `key` held.

    `alone` also refuses further signature lines (our own files carry one). Raises `Malformed("log.tampered")` for
    bytes that are no checkpoint, `Refused("log.tampered")` when the key did not sign it or another log is meant,
    `Refused("signature.algorithm")` for a key that is not Ed25519.
    """
    check_station_key(key)
    note = read_note(data)
    checkpoint = parse_text(note.text)
    if checkpoint.origin != origin_of(key):
        raise Refused(_CODE, f"a checkpoint of {checkpoint.origin!r} where one of {origin_of(key)} was expected")
    name, identity = checkpoint.origin, key_id(checkpoint.origin, key)
    ours = [s for s in note.signatures if s.name == name and s.key_id == identity]
    if not ours or (alone and len(note.signatures) != 1):
        raise Refused(_CODE, "the checkpoint is not signed by this station's key")
    for signature in ours:
        verify_ed25519(key, note.text, signature.signature, "the signature of the checkpoint does not hold")
    return checkpoint


def verify_ed25519(key: CoseKey, message: bytes, signature: bytes, problem: str) -> None:
    """`Refused("log.tampered", problem)` unless `signature` over `message` is by `key`."""
    try:
        key.verify(Algorithm.ED25519, message, signature)
    except Refused:
        raise Refused(_CODE, problem) from None
