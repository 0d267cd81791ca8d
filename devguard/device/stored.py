"""One stored file of a device: format, content, SHA-256 over it. The checksum finds damage; it proves no origin."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any, Final

from devguard import wire
from devguard.custody.files import read_limited
from devguard.device import fields
from devguard.errors import DevguardError, Refused

MAX_FILE: Final = 1 << 20
_FORMAT: Final = 1


def wrap(content: bytes) -> bytes:
    """`content` as it is stored."""
    return wire.encode([_FORMAT, content, hashlib.sha256(content).digest()])


def unwrap(data: bytes, what: str, most: int = MAX_FILE) -> bytes:
    """The content of stored bytes; `Refused("device.state")` for anything else."""
    parts: list[Any] = fields.items(fields.load(data, what), what, count=3)
    if isinstance(parts[0], int) and parts[0] > _FORMAT:
        raise Refused("device.state", f"stored {what} of a newer format than this devguard knows", "update devguard")
    content, digest = fields.blob(parts[1], what, limit=most), fields.blob(parts[2], what, 32)
    if parts[0] != _FORMAT or not hmac.compare_digest(hashlib.sha256(content).digest(), digest):
        raise fields.damaged(what)
    return content


def read_file(path: Path, most: int = MAX_FILE) -> bytes:
    """The bytes of a stored file; `Refused("device.state")` where they cannot be read."""
    try:
        return read_limited(path, most)
    except DevguardError as error:
        raise Refused("device.state", f"{path.name} cannot be read: {error.message}") from error
