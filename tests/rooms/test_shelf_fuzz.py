"""Metadata with any one thing wrong in it, signed by the keys that may sign it.

Invariant: a refresh ends in success or in a coded refusal; a refused one leaves every byte on disk as it was; no name
that is none of a shelf's was asked for. The keys are stolen here, so nothing is stopped at the signature.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical

from devguard.errors import DevguardError
from devguard.shelf.carry import carry
from devguard.shelf.client import Shelf
from devguard.shelf.names import bin_digit, bin_role, check_path
from shelf_support import PUMP, TufRepository, bench, state, vendor_repository

BIN = bin_role(PUMP, bin_digit(f"{PUMP}/1.1.0.suit"))
ROLES = ("root", "timestamp", "snapshot", "targets", PUMP, BIN)
WRONG: list[Any] = [
    None, True, False, -1, 0, 1, 1.5, float("inf"), float("nan"), 1 << 31, 1 << 63, 10**300, 10**4000,
    "", "x", "\0", "../x", "%2e", "\ud800", "\u0663", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z",
    "2106-02-08T00:00:00Z", "2026-02-30T00:00:00Z", "x" * 10_000,
    [], {}, [[]], {"": {}}, ["x"] * 3000, {f"k{n}": n for n in range(3000)}, {f"{PUMP}~{n}": {} for n in range(300)},
]  # fmt: skip


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every position in nested JSON."""
    if at:
        yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))


def broken(signed: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """One thing replaced, left out or added."""
    signed = copy.deepcopy(signed)
    *above, last = data.draw(st.sampled_from(list(places(signed))))
    holder: Any = signed
    for key in above:
        holder = holder[key]
    how = data.draw(st.sampled_from(["replace", "replace", "leave out", "add", "rename"]))
    wrong = data.draw(st.sampled_from([*WRONG, deep(50), deep(900)]))
    if how == "leave out":
        del holder[last]
    elif how == "add" and isinstance(holder, dict):
        holder[data.draw(st.sampled_from(["paths", "delegations", "succinct_roles", "custom", "../x", "x"]))] = wrong
    elif how == "rename" and isinstance(holder, dict):
        holder[data.draw(st.sampled_from(["", "../x", "a\0", "targets.json", "x.json", "\ud800"]))] = holder.pop(last)
    else:
        holder[last] = wrong
    return signed


def signed_by(repo: TufRepository, role: str, signed: dict[str, Any]) -> bytes:
    """Metadata in TUF's form around `signed`, whatever that is."""
    try:
        message = encode_canonical(signed).encode()
    except (FormatError, ValueError, TypeError, RecursionError):
        message = b"what is signed cannot be told"
    signatures = [{"keyid": one.key.fingerprint, "sig": one.sign(message).hex()} for one in repo.keys[role]]
    return json.dumps({"signatures": signatures, "signed": signed}).encode("utf-8", "replace")


def attack(repo: TufRepository, role: str, data: st.DataObject) -> None:
    """The next state of the repository has a role in it with one thing wrong."""
    repo.served.clear()
    if role != "root":
        repo.signed[role].version += role not in ("timestamp", "snapshot")
    version = len(repo.roots) + 1 if role == "root" else repo.signed[role].version + (role == "snapshot")
    repo.publish()
    honest = json.loads(repo.roots[-1] if role == "root" else repo.sign(role))["signed"]
    honest["version"] = version if role != "timestamp" else honest["version"]
    forged = signed_by(repo, role, broken(honest, data))
    repo.served["metadata/timestamp.json" if role == "timestamp" else f"metadata/{version}.{role}.json"] = forged
    snapshot, timestamp = repo.signed["snapshot"], repo.signed["timestamp"]
    if role in snapshot_roles(repo):
        snapshot.meta[f"{role}.json"] = repo.meta(version, forged)
        forged = repo.sign("snapshot")
        repo.served[f"metadata/{snapshot.version}.snapshot.json"] = forged
    if role not in ("root", "timestamp"):
        timestamp.snapshot_meta = repo.meta(snapshot.version, forged)


def snapshot_roles(repo: TufRepository) -> set[str]:
    return repo.signed.keys() - {"root", "timestamp", "snapshot"}


def tried(folder: Path, data: st.DataObject, *, carried: bool = False) -> None:
    repo = vendor_repository()
    shelf: Shelf = bench(folder, repo)
    shelf.refresh(repo, int(time.time()))
    role = data.draw(st.sampled_from(ROLES))
    for _ in range(3):
        before = state(folder)
        repo.asked.clear()
        attack(repo, role, data)
        try:
            shelf.refresh(repo, int(time.time()))
            shelf.listing(int(time.time()))
            if carried:
                carry(shelf, repo, folder.parent / f"{folder.name}-stick", int(time.time()))
        except DevguardError:
            if role != "root":  # a root that was verified is kept, whatever follows
                assert state(folder) == before or shelf_moved(before, folder)
        for path in repo.asked:
            assert check_path(path) == path


def shelf_moved(before: dict[str, str], folder: Path) -> bool:
    """Whether the refresh succeeded and only the listing behind it was refused."""
    return state(folder)["shelf/state"] != before["shelf/state"]


@settings(max_examples=10, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_metadata_with_one_thing_wrong(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tried(tmp_path_factory.mktemp("fuzz"), data)


@pytest.mark.slow
@settings(
    max_examples=300,
    phases=[Phase.generate],
    derandomize=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_metadata_with_one_thing_wrong_at_length(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tried(tmp_path_factory.mktemp("fuzz"), data, carried=True)
