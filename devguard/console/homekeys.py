"""Whose keys lie in a home: of a key file only its public part is read, and shown."""

from __future__ import annotations

from typing import Any

from devguard.console.settings import Places
from devguard.custody.keyfile import read_info
from devguard.errors import DevguardError


def keys_of(home: Places, role: str) -> list[dict[str, Any]]:
    """{"name", "person"} of every private key of a role, by name; what is no key file is left out."""
    found = []
    for path in home.private_keys():
        try:
            info = read_info(path)
        except DevguardError:
            continue
        if info.role == role:
            found.append({"name": path.stem, "person": info.person})
    return found
