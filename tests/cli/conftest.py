"""Every test of the command line runs in an empty folder, with a home of its own and nobody at a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import PASSPHRASE, World
from devguard.custody import pkcs8


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One vendor for all tests. What is patched to make it is put back at once: other folders' tests run after these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
        patch.delenv("DEVGUARD_HOME", raising=False)
        patch.setattr(pkcs8, "PARALLEL", 1)
        return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("DEVGUARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(pkcs8, "PARALLEL", 1)  # the least a reader takes: these tests make and open many keys


@pytest.fixture
def home(world: World, tmp_path: Path) -> Path:
    """A copy of the vendor's home, which is DEVGUARD_HOME for the test."""
    return world.copy(tmp_path)
