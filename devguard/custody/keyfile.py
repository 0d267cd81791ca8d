"""Key files: make one, read what it says openly, load its signer, export its public half.

The private key is in the file, encrypted, or on a token that the file names; who uses it sees no difference. A
private key file is created once with mode 0600 and never overwritten; loading refuses it when others can touch it.
Only a station's key, which a machine uses unattended, may be stored without a passphrase.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from devguard.cose.algorithms import EMITTED, Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.signer import Signer
from devguard.custody import pkcs8, tokenkeys
from devguard.custody.files import open_regular, read_descriptor, read_limited, write_new
from devguard.custody.keytext import KeyInfo, KeyText, check_texts, format_private, format_public, format_token, parse
from devguard.custody.memory import MemorySigner
from devguard.custody.pkcs11 import session
from devguard.custody.strength import check_strength
from devguard.custody.uri import TokenUri
from devguard.errors import Malformed, Refused

__all__ = [
    "FileSigner",
    "KeyInfo",
    "create_key",
    "create_token_key",
    "export_public",
    "is_private",
    "load_signer",
    "parse_info",
    "read_info",
]

MAX_KEY_FILE: Final = 16 * 1024
# EDHOC (RFC 9528) has no suite with ML-DSA or P-384 among those devguard runs.
_SESSION: Final = (Algorithm.ESP256, Algorithm.ED25519)
# C2SP signed notes, the form of a checkpoint, know no other key that devguard writes; cosignatures also ML-DSA-44.
_NOTES: Final = (Algorithm.ED25519,)
_COSIGNATURES: Final = (Algorithm.ED25519, Algorithm.ML_DSA_44)
_ROLE_ALGORITHMS: Final = {
    RoleName.TECHNICIAN: _SESSION,
    RoleName.DEVICE: _SESSION,
    RoleName.STATION: _NOTES,
    RoleName.WITNESS: _COSIGNATURES,
}


class FileSigner(Signer, Protocol):
    """The signer of a key file, wherever the private key is; `info` is what the file says openly."""

    @property
    def info(self) -> KeyInfo:
        """The header of the key file."""


class OpenedKey(MemorySigner):
    """The signer of a key file that holds its private key."""

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
    parallel: int | None = None,
) -> KeyInfo:
    """Make a key and store it at `path`, mode 0600, encrypted under `passphrase`. `parallel`: see `pkcs8.encrypt`.

    Raises `Malformed("key.malformed")` for bad texts; `Refused`: `signature.algorithm`, `key.purpose` (technician
    and device keys are ESP256 or Ed25519, station keys Ed25519, witness keys that or ML-DSA-44), `key.passphrase`
    (None is for stations only), `key.exists`; and what `write_new` raises.
    """
    check_texts(name, person, role)
    _check_purpose(role, algorithm)
    if passphrase is not None:
        pkcs8.check_passphrase(passphrase)
        check_strength(passphrase, (name, person, role))
    elif role != RoleName.STATION:
        raise Refused("key.passphrase", f"a {role} key needs a passphrase")
    _check_free(path)
    signer = MemorySigner.generate(algorithm)
    info = KeyInfo(name, person, str(RoleName(role)), signer.key, development)
    der = signer.private_der() if passphrase is None else pkcs8.encrypt(signer, passphrase, os.urandom, parallel)
    write_new(path, format_private(info, der, encrypted=passphrase is not None), 0o600)
    return info


def create_token_key(
    path: Path,
    uri: TokenUri,
    *,
    name: str,
    person: str,
    role: str,
    algorithm: Algorithm | None,
    development: bool,
    pin: Callable[[], bytes],
    existing: bool = False,
) -> tuple[KeyInfo, TokenUri]:
    """Make a key on a token (`existing`: take one that is there) and store the file that names it at `path`.

    The key is `uri.object`, or `name`. `algorithm` may be None for an existing key, and must be its own otherwise.
    Made or found, the key signs once before its file is written: what the file says openly is what the token signs
    with. When the file cannot be written, a key that was made is taken off the token again. Raises as `create_key`,
    and `key.token`, `key.pin`, `key.pin-locked`.
    """
    check_texts(name, person, role)
    if algorithm is not None:
        _check_purpose(role, algorithm)
    _check_free(path)
    if uri.object is None and (uri.id is None or not existing):
        uri = replace(uri, object=name)
    asked: list[bytes] = []
    with session(uri, lambda: tokenkeys.noted(asked, pin()), write=not existing) as (token, opened):
        secret = asked[0] if asked else b""
        if existing:
            found, pair = tokenkeys.existing(token, opened, uri, secret), None
        else:
            found, pair = tokenkeys.generate(token, opened, uri, algorithm or Algorithm.ESP256, secret)
        wanted = False
        try:
            if algorithm is not None and found.key.algorithm is not algorithm:
                raise Refused("signature.algorithm", f"the key on the token is {found.key.algorithm.label}")
            _check_purpose(role, found.key.algorithm)
            info = KeyInfo(name, person, str(RoleName(role)), found.key, development)
            write_new(path, format_token(info, found.uri), 0o600)
            wanted = True
        finally:
            if pair is not None and not wanted:
                tokenkeys.destroy(pair)
    return info, found.uri


def _check_purpose(role: str, algorithm: Algorithm) -> None:
    if algorithm not in EMITTED:
        raise Refused("signature.algorithm", f"devguard makes no {algorithm.label} keys")
    allowed = _ROLE_ALGORITHMS.get(RoleName(role), EMITTED)
    if algorithm not in allowed:
        names = " or ".join(one.label for one in allowed)
        hint = f"make it with --alg {allowed[0].label}"
        raise Refused("key.purpose", f"a {role} key is {names}, not {algorithm.label}", hint)


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise Refused("key.exists", f"{path} exists already")


def is_private(path: Path) -> bool:
    """Whether a key file leads to a private key, in itself or on a token; errors as `read_info`."""
    return parse(read_limited(path, MAX_KEY_FILE)).private


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


def load_signer(path: Path, passphrase: Callable[[], bytes], pin: Callable[[], bytes] | None = None) -> FileSigner:
    """The signer of a private key file; `passphrase` is asked only when the file needs one. `pin` is asked for a key
    on a token, `passphrase` where there is no `pin`.

    The mode is that of the opened file, links followed. Raises `Refused`: `key.file` (others can reach it, or it
    is not a regular file), `key.passphrase`, for a token `key.token`, `key.pin`, `key.pin-locked`;
    `Malformed("key.malformed")` for a public export, a broken file or a private half that is not the public one's;
    and what `read_limited` raises.
    """
    text = _read_private(path)
    if text.token is not None:
        return tokenkeys.TokenSigner(text.info, text.token, passphrase if pin is None else pin)
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
    return OpenedKey(opened.private, text.info)


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
    if os.name != "nt" and mode & 0o077 and text.private:
        raise Refused("key.file", f"{path} has mode {mode:04o}; others can reach it")
    return text
