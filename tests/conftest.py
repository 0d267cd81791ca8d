"""Shared fixtures: where third-party vectors are, and one hypothesis profile (seeded, no deadline)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import postgres as postgresql
from needs import missing
from softhsm import Tokens, absent

if TYPE_CHECKING:
    from devguard.ledger.store import Store

settings.register_profile(
    "devguard", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "check", deadline=None, derandomize=False, max_examples=600, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("DEVGUARD_HYPOTHESIS", "devguard"))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder of third-party test data beside the checkout; the test skips, saying so, where it is missing."""
    folder = ROOT.parent / "shared" / "vectors"
    if not folder.is_dir():
        missing("third-party vectors are not beside this checkout (../shared/vectors)")
    return folder


@pytest.fixture
def lrzsz() -> None:
    """lrzsz, and the C compiler for its shim; the test skips, saying so, where one is not installed."""
    if shutil.which("rz") is None or shutil.which("sz") is None:
        missing("lrzsz is not installed (Debian: apt-get install lrzsz)")
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        missing("there is no C compiler for lrzsz's shim")


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """A SoftHSM2 with an empty store of its own; the test skips, saying so, where it is not installed."""
    lacking = absent()
    if lacking is not None:
        missing(lacking)
    return Tokens(tmp_path / "softhsm", monkeypatch)


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Server]:
    """A PostgreSQL server of this test process; the test skips, saying so, where it is not installed."""
    with postgresql.server() as one:
        yield one


@pytest.fixture
def postgres_url(postgres: postgresql.Server) -> Iterator[str]:
    """The URL of a store on PostgreSQL with the tables of this devguard and nothing in them."""
    url = postgres.ledger()
    yield url
    postgres.drop(url)


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with the tables of this devguard and nothing in them, to be copied."""
    from devguard.ledger.store import Store, sqlite_url

    path = tmp_path_factory.mktemp("empty") / "ledger.sqlite"
    Store.open(sqlite_url(path)).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store with nothing in it: each test that asks for it runs on both databases."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    from devguard.ledger.store import sqlite_url

    folder = tmp_path / "home" / "ledger"
    folder.mkdir(parents=True, mode=0o700)
    return sqlite_url(Path(shutil.copyfile(request.getfixturevalue("empty_sqlite"), folder / "ledger.sqlite")))


@pytest.fixture
def store(ledger_url: str) -> Iterator[Store]:
    """An open store, on both databases in turn."""
    from devguard.ledger.store import Store

    with Store.open(ledger_url) as one:
        yield one
