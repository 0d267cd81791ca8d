"""Key files: make one, read what it says openly, load its signer, export its public half.

A private key file is created once with mode 0600 and never overwritten; loading refuses it when others can touch
it. Only a station's key, which a machine uses unattended, may be stored without a passphrase.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devguard.cose.algorithms import EMITTED, Algorithm
from devguard.cose.roles import RoleName
from devguard.custody import pkcs8
from devguard.custody.files import open_regular, read_descriptor, read_limited, write_new
from devguard.custody.keytext import KeyInfo, KeyText, check_texts, format_private, format_public, parse
from devguard.custody.memory import MemorySigner
from devguard.errors import Malformed, Refused

__all__ = ["FileSigner", "KeyInfo", "create_key", "export_public", "load_signer", "parse_info", "read_info"]

MAX_KEY_FILE: Final = 16 * 1024
# EDHOC (RFC 9528) has no suite with ML-DSA or P-384 among those devguard runs.
_SESSION_ROLES: Final = frozenset({RoleName.TECHNICIAN, RoleName.DEVICE})
_SESSION_ALGORITHMS: Final = frozenset({Algorithm.ESP256, Algorithm.ED25519})


class FileSigner(MemorySigner):
    """The signer of an opened key file; `info` is what the file says openly."""

    __slots__ = ("_info",)

    def __init__(self, private_key: object, info: KeyInfo) -> None:
        super().__init__(private_key)
        self._info = info

    @property
    def info(self) -> KeyInfo:
        """The header of the key file."""
        return self._info


def create_key(
    path: Path,
    *,
    name: str,
    person: str,
    role: str,
    algorithm: Algorithm,
    development: bool,
    passphrase: bytes | None,
) -> KeyInfo:
    """Make a key and store it at `path`, mode 0600, encrypted under `passphrase`.

    Raises `Malformed("key.malformed")` for bad texts; `Refused`: `signature.algorithm`, `key.purpose` (technician
    and device keys are ESP256 or Ed25519), `key.passphrase` (None is for stations only), `key.exists`; and what
    `write_new` raises.
    """
    check_texts(name, person, role)
    if algorithm not in EMITTED:
        raise Refused("signature.algorithm", f"devguard makes no {algorithm.label} keys")
    if role in _SESSION_ROLES and algorithm not in _SESSION_ALGORITHMS:
        raise Refused("key.purpose", f"a {role} key is ESP256 or Ed25519, not {algorithm.label}")
    if passphrase is not None:
        pkcs8.check_passphrase(passphrase)
    elif role != RoleName.STATION:
        raise Refused("key.passphrase", f"a {role} key needs a passphrase")
    if os.path.lexists(path):
        raise Refused("key.exists", f"{path} exists already")
    signer = MemorySigner.generate(algorithm)
    info = KeyInfo(name, person, str(RoleName(role)), signer.key, development)
    der = signer.private_der() if passphrase is None else pkcs8.encrypt(signer, passphrase, os.urandom)
    write_new(path, format_private(info, der, encrypted=passphrase is not None), 0o600)
    return info


def parse_info(data: bytes) -> KeyInfo:
    """What the bytes of a private key file or public export say openly; errors as `keytext.parse`."""
    return parse(data).info


def read_info(path: Path) -> KeyInfo:
    """What a private key file or public export says openly; no passphrase, nothing is proved.

    Raises as `keytext.parse` and `read_limited`.
    """
    return parse_info(read_limited(path, MAX_KEY_FILE))


def export_public(info: KeyInfo) -> bytes:
    """The public export of a key: a short text that holds nothing secret."""
    return format_public(info)


def load_signer(path: Path, passphrase: Callable[[], bytes]) -> FileSigner:
    """The signer of a private key file; `passphrase` is asked only when the file needs one.

    The mode is that of the opened file, links followed. Raises `Refused`: `key.file` (others can reach it, or it
    is not a regular file), `key.passphrase`; `Malformed("key.malformed")` for a public export, a broken file or a
    private half that is not the public one's; and what `read_limited` raises.
    """
    text = _read_private(path)
    if text.der is None:
        raise Malformed("key.malformed", f"{path} is a public export and cannot sign")
    if text.encrypted:
        pkcs8.check_structure(text.der)
        opened = pkcs8.decrypt(text.der, passphrase())
    elif text.info.role == RoleName.STATION:
        opened = MemorySigner.from_der(text.der)
    else:
        raise Refused("key.passphrase", f"a {text.info.role} key without a passphrase is not used")
    if opened.key != text.info.key:
        raise Malformed("key.malformed", f"{path}: the private key does not belong to the public key above it")
    return FileSigner(opened.private, text.info)


def _read_private(path: Path) -> KeyText:
    try:
        descriptor = open_regular(path)
    except Malformed as error:
        if os.path.exists(path):
            raise Refused("key.file", error.message) from None
        raise
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        text = parse(read_descriptor(descriptor, path, MAX_KEY_FILE))
    finally:
        os.close(descriptor)
    if os.name != "nt" and mode & 0o077 and text.der is not None:
        raise Refused("key.file", f"{path} has mode {mode:04o}; others can reach it")
    return text
