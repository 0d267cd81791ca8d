"""Which key signs what of a shelf: the keys named on the command line, then the private keys of this home.

A key is opened when a role asks for it and not before, so a passphrase is only asked for keys that sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from devguard.cli.context import Invocation
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cose.signer import Signer
    from devguard.custody.keyfile import KeyInfo

ONLINE: Final = "shelf-online"
_PERSONAL: Final = frozenset({"technician", "device"})


class Keys:
    """A keyring for `Repository`: fingerprint to signer."""

    def __init__(self, invocation: Invocation, references: Sequence[str] = (), fd: int | None = None) -> None:
        self._invocation = invocation
        self._fd = fd
        self._references = list(references)
        self._opened: dict[str, Signer | None] = {}

    def __call__(self, fingerprint: str) -> Signer | None:
        """The signer of a fingerprint; None when its private key is not here."""
        if fingerprint not in self._opened:
            self._opened[fingerprint] = self._find(fingerprint)
        return self._opened[fingerprint]

    def named(self) -> dict[str, Signer]:
        """The signers of the keys that were named, by fingerprint."""
        found = {}
        for reference in self._references:
            info = self._invocation.home.key_info(reference)
            usable(info, reference)
            signer = self(info.key.fingerprint)
            if signer is None:
                raise Refused("key.purpose", f"{reference} is a public key and cannot sign")
            found[info.key.fingerprint] = signer
        return found

    def _find(self, fingerprint: str) -> Signer | None:
        from devguard.custody.keyfile import is_private

        home = self._invocation.home
        for reference in [*self._references, *map(str, home.private_keys())]:
            try:
                info = home.key_info(reference)
            except DevguardError:
                if reference in self._references:
                    raise
                continue
            if info.key.fingerprint == fingerprint and is_private(home.key_path(reference)):
                return self._invocation.signer(reference, self._fd)
        return None


def usable(info: KeyInfo, reference: str, *, root: bool = False) -> KeyInfo:
    """A key that may sign metadata of a shelf; `Refused("key.purpose")`."""
    if info.role in _PERSONAL or (root and info.role != "root"):
        raise Refused(
            "key.purpose", f"{reference} is a {info.role} key and does not sign {'the root of ' * root}a shelf"
        )
    return info


def online_key(invocation: Invocation) -> KeyInfo:
    """This home's own online key, made at first use. Without a passphrase: a machine signs timestamps with it."""
    from devguard.cose.algorithms import Algorithm
    from devguard.custody.keyfile import create_key, read_info

    home = invocation.home
    path = home.make(home.keys) / f"{ONLINE}.key"
    if path.exists():
        return read_info(path)
    return create_key(
        path,
        name=ONLINE,
        person="this shelf",
        role="station",
        algorithm=Algorithm.ED25519,
        development=False,
        passphrase=None,
    )
