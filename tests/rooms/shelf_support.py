"""A bench and a vendor for the tests of the shelf."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from builders import make_release, make_vendor
from devguard.shelf.client import Shelf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))
from tuf_repository import DAY, TufRepository, endless, key_of

__all__ = [
    "DAY",
    "PROGRAMMER",
    "PUMP",
    "SUIT",
    "VENDOR",
    "TufRepository",
    "bench",
    "endless",
    "key_of",
    "repo",
    "state",
]

PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"
VENDOR = make_vendor("shelf")
SUIT = make_release(VENDOR)


def vendor_repository() -> TufRepository:
    """Two product lines, one release each, one trust document."""
    repo = TufRepository()
    repo.line(PUMP)
    repo.line(PROGRAMMER)
    repo.put("trust/1.trust", VENDOR.trust_bytes)
    repo.put(f"{PUMP}/1.1.0.suit", SUIT)
    repo.put(f"{PROGRAMMER}/1.1.0.suit", b"another envelope")
    repo.publish()
    return repo


def bench(folder: Path, repo: TufRepository) -> Shelf:
    """A bench that knows the first root and nothing else."""
    shelf = Shelf(folder / "shelf")
    shelf.store.pin(repo.roots[0])
    return shelf


def state(folder: Path) -> dict[str, str]:
    """Every byte on disk, whatever generation it is in."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def repo() -> TufRepository:
    return vendor_repository()
