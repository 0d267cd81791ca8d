"""Erasing what makes a device somebody's: one marker that says it has begun, and steps that can be done again.

    erasure.cbor   [what the certificate will say, SHA-256 of identity.cbor, the certificate or nothing]

The marker is durable before the first file goes, so a power cut leaves the device as it was or erasing, and the next
start ends what was begun. The certificate is signed when all but the keys is gone, and kept; then the keys go. Files
are overwritten, synced and removed; what a disk keeps of blocks it has moved is the disk's affair.
Source: attack B04 of the catalogue; NIST SP 800-88.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devguard import wire
from devguard.custody.files import file_error, sync_folder, write_atomic
from devguard.device import fields
from devguard.device.stored import read_file, unwrap, wrap
from devguard.device.therapy_files import NAMES
from devguard.errors import LocalProtocolError

MARKER: Final = "erasure.cbor"
IDENTITY: Final = "identity.cbor"
ERASED: Final = ("trust", "therapy", "settings", "credentials", "site", "keys")
"""What a certificate says is gone."""
_BEFORE_KEYS: Final = ("current.trust", *NAMES)
_WHAT: Final = "erasure"
Sign = Callable[[bytes], bytes]
"""The certificate over its content, by the device's first key."""


class Erasing:
    """The erasure of one state directory, begun or not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._content = self._identity = b""
        self.certificate: bytes | None = None
        self.begun = (folder / MARKER).exists()
        if self.begun:
            content, identity, certificate = fields.items(
                fields.load(unwrap(read_file(folder / MARKER), _WHAT), _WHAT), _WHAT, count=3
            )
            self._content, self._identity = fields.blob(content, _WHAT), fields.blob(identity, _WHAT, 32)
            self.certificate = None if certificate is None else fields.blob(certificate, _WHAT)

    def begin(self, content: bytes) -> None:
        """From here on the device is being erased, whatever happens. `content`: what the certificate will say."""
        self._content = content
        self._identity = hashlib.sha256(read_file(self._folder / IDENTITY)).digest()
        self._keep()

    def finish(self, sign: Sign) -> bytes:
        """Erase what is still there, in order; the certificate. Done again after a cut it ends the same way."""
        for name in _BEFORE_KEYS:
            shred(self._folder / name)
        if self.certificate is None:
            self.certificate = sign(self._content)
            self._keep()
        shred(self._folder / IDENTITY)
        for path in sorted(self._folder.glob("device-*.key")):
            shred(path)
        return self.certificate

    @property
    def unfinished(self) -> bool:
        """Whether what was to be erased is still there, and is not a new identity given since."""
        path = self._folder / IDENTITY
        if not self.begun:
            return False
        if not path.exists():
            return any(self._folder.glob("device-*.key")) or self.certificate is None
        return hashlib.sha256(read_file(path)).digest() == self._identity

    def forget(self) -> None:
        """The device is somebody again: its certificate is history, and the bench has it."""
        shred(self._folder / MARKER)
        self.begun, self.certificate = False, None

    def _keep(self) -> None:
        if not self._content:
            raise LocalProtocolError("device.state", "an erasure without what it says")
        parts = [self._content, self._identity, self.certificate]
        write_atomic(self._folder / MARKER, wrap(wire.encode(parts)), 0o600)
        self.begun = True


def shred(path: Path) -> None:
    """Overwrite a file, sync it, remove its name; nothing where there is none. `file.unreadable` where that fails."""
    try:
        with contextlib.suppress(FileNotFoundError):
            with path.open("r+b") as file:
                file.write(bytes(os.fstat(file.fileno()).st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
            sync_folder(path.parent)
    except OSError as error:
        raise file_error(path, error) from None
