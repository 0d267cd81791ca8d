"""Every test of the command line runs in an empty folder, with a home of its own and nobody at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import chromium, serving, tab
from cli_support import PASSPHRASE, World
from devguard.custody import pkcs8
from devguard.ledger.store import Store

__all__ = ["chromium", "serving", "tab"]  # fixtures that live in tests/browser.py


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One vendor for all tests. What is patched to make it is put back at once: other folders run after these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
        patch.delenv("DEVGUARD_HOME", raising=False)
        patch.setattr(pkcs8, "PARALLEL", 1)
        return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module", autouse=True)
def _cheap_keys() -> Iterator[None]:
    """What the modules' own fixtures make keys with; put back after each module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
        patch.setattr(pkcs8, "PARALLEL", 1)  # the least a reader takes: these tests make and open many keys
        yield


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("DEVGUARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def home(world: World, tmp_path: Path) -> Path:
    """A copy of the vendor's home, which is DEVGUARD_HOME for the test."""
    return world.copy(tmp_path)


@pytest.fixture
def url(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The group's store, which DEVGUARD_STORE names."""
    Store.open(ledger_url).close()
    monkeypatch.setenv("DEVGUARD_STORE", ledger_url)
    return ledger_url
