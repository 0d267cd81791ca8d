"""Invariant: what a station remembers is what its log names; anything else that lies there refuses, and writes nothing.

Recovery is by a person, by name, with the digest of the trust document they compared; then work goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cli_support import STATION_OWN, Result, World, devguard, ok, records
from devguard.cli.context import Invocation
from devguard.cli.home import Home
from devguard.cli.memory import Memory, decode, origin, peek, recall
from devguard.custody.keyfile import read_info
from devguard.errors import DevguardError, Malformed
from devguard.evidence.verify import verify_log
from devguard.grant.uses import Spent
from devguard.trust.document import read_trust

LATER = ("--expires", "2098-01-01")
YEAR = 365 * 86_400


@pytest.fixture(scope="module")
def kept(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A station with version 1 in `before`, and with version 2 in `home`."""
    folder = tmp_path_factory.mktemp("kept")
    home = folder / "home"
    shutil.copytree(world.home, home, ignore=STATION_OWN)
    ok("verify", world.suits["1.1.0"], "--home", home)
    shutil.copytree(home, folder / "before")
    ok("trust", "rotate", home / "trust", *LATER, "--home", home)
    ok("verify", world.suits["1.1.0"], "--home", home)
    return folder


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Path:
    """A copy of it; it is DEVGUARD_HOME."""
    return Path(shutil.copytree(kept / "home", tmp_path / "home"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def recover(home: Path, digest: str | None = None) -> Result:
    found = digest or ok("trust", "show", "--json").json["digest"]
    return devguard("trust", "recover", "--accept", found, "--person", "Sam Security", "--reason", "restored", "--json")


def code_of(call: Callable[..., object], *args: object) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args)
    return caught.value.code


def recalled(home: Path) -> Memory:
    station = Home(home)
    return recall(station, origin(station) or "")


def damaged(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << at % 8
    return bytes(changed)


def sweep(home: Path, places: Any, ends: Any) -> None:
    path = home / "memory.cbor"
    good = path.read_bytes()
    for data in (*(damaged(good, at) for at in places), *(good[:end] for end in ends), good + b"\0"):
        path.write_bytes(data)
        before = snapshot(home)
        assert code_of(recalled, home) == "trust.rollback"
        assert snapshot(home) == before
    path.write_bytes(good)
    assert recalled(home).trust_version == 2


def test_a_damaged_byte_and_a_lost_end(home: Path) -> None:
    size = len((home / "memory.cbor").read_bytes())
    chosen = Random(7)
    sweep(home, chosen.sample(range(size), 12), chosen.sample(range(size), 6))


@pytest.mark.slow
def test_every_damaged_byte_and_every_length(home: Path) -> None:
    size = len((home / "memory.cbor").read_bytes())
    sweep(home, range(size), range(size))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\x81" * 10_000, b"\x9b" + b"\xff" * 8, b"\x88\x02", b"\xff" * 70_000],
    ids=["empty", "number", "deep", "huge", "short", "noise"],
)
def test_a_memory_that_is_none(home: Path, data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data)
    (home / "memory.cbor").write_bytes(data)
    assert code_of(recalled, home) == "trust.rollback"


@pytest.mark.parametrize(
    "change",
    [(0, 2), (1, 7), (2, "1"), (2, True), (3, "x"), (4, []), (4, {"m": True}), (4, {1: 1}), (5, {b"x": [b"", 1]}),
     (5, {"x": [b"", 1, 1]}), (5, {b"x": [b"", True, 1]}), (6, None), (7, b"")],
    ids=str,
)  # fmt: skip
def test_fields_of_another_kind_are_no_memory(change: tuple[int, object]) -> None:
    from devguard import wire

    good = Memory("o", 1, bytes(32), {"m": 1}, {b"x": Spent(bytes(32), 1, 5)}, 9, 3)
    assert decode(good.encode()) == good
    fields: Any = wire.decode(good.encode())
    fields[change[0]] = change[1]
    with pytest.raises(Malformed):
        decode(wire.encode(fields))


# what somebody puts back

BACK: dict[str, tuple[tuple[str, ...], str | None]] = {
    "memory": (("memory.cbor",), "trust.rollback"),
    "evidence": (("evidence",), "log.truncated"),
    "trust": (("trust/current.trust",), "trust.rollback"),
    "trust and memory": (("trust/current.trust", "memory.cbor"), "trust.rollback"),
    "evidence and trust": (("evidence", "trust/current.trust"), "log.truncated"),
    "both": (("evidence", "memory.cbor"), None),  # they fit each other: a checkpoint kept elsewhere tells
}


def put_back(kept: Path, home: Path, names: tuple[str, ...]) -> None:
    for name in names:
        old, new = kept / "before" / name, home / name
        if old.is_dir():
            shutil.rmtree(new)
            shutil.copytree(old, new)
        else:
            shutil.copy(old, new)


@pytest.mark.parametrize("what", BACK)
def test_yesterdays_backup(world: World, kept: Path, home: Path, what: str) -> None:
    names, code = BACK[what]
    key = read_info(home / "keys" / "station.key").key
    earlier, size = verify_log(home / "evidence", key).checkpoint, len(records(home))
    put_back(kept, home, names)
    said = devguard("verify", world.suits["1.1.0"], "--json")
    assert said.code == code
    if code is None:
        assert said.json["accepted"] is True
        assert earlier.size == size
        assert code_of(lambda: verify_log(home / "evidence", key, earlier=(earlier,))).startswith("log.")
        assert recalled(home).trust_version == 2  # the kept chain leads there from version 1
        return
    for command in (("rotate", home / "trust", *LATER), ("follow", home / "trust"), ("check",)):
        assert devguard("trust", *command, "--json").code == code, command
    assert read_trust((home / "trust" / "current.trust").read_bytes()).version == (1 if "trust" in what else 2)
    assert recover(home, "00" * 32).code == "trust.rollback"
    assert recover(home).json["ok"] is True
    assert records(home)[-1]["actor"] == "Sam Security"
    assert str(code) in records(home)[-1]["details"]["found"]
    assert ok("verify", world.suits["1.1.0"], "--json").json["accepted"] is True
    ok("evidence", "verify")


def test_a_memory_removed_is_not_one_that_never_was(world: World, home: Path) -> None:
    (home / "memory.cbor").unlink()
    assert devguard("verify", world.suits["1.1.0"], "--json").code == "trust.rollback"
    assert recover(home).json["trust_version"] == 2
    assert recalled(home).trust_version == 2


def test_another_stations_memory_is_no_memory(world: World, kept: Path, home: Path, tmp_path: Path) -> None:
    other = world.copy(tmp_path / "other")
    ok("verify", world.suits["1.1.0"], "--home", other)
    shutil.copy(other / "memory.cbor", home / "memory.cbor")
    assert devguard("verify", world.suits["1.1.0"], "--json").code == "trust.rollback"
    assert peek(Home(home)) is None


def test_every_record_is_an_anchor_of_the_memory_there_was(home: Path) -> None:
    import hashlib

    rows = records(home)
    digests = [one["digests"]["memory"] for one in rows]
    assert len(digests) == len(rows)
    assert len(set(digests)) > 1
    assert hashlib.sha256((home / "memory.cbor").read_bytes()).hexdigest() == digests[-1]


def test_a_tampered_log_is_not_recovered(home: Path) -> None:
    segment = max((home / "evidence").glob("segment-*"), key=lambda path: path.stat().st_size)
    segment.write_bytes(damaged(segment.read_bytes(), segment.stat().st_size - 9))
    before = snapshot(home)
    assert str(recover(home, ok("trust", "show", "--json").json["digest"]).code).startswith("log.")
    assert snapshot(home) == before


# the clock


def test_a_clock_that_ran_far_ahead_is_recovered_from(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, suit = int(time.time()), world.suits["1.1.0"]
    clock = [real + 10 * YEAR]
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: clock[0]))
    assert devguard("verify", suit, "--json").status == 0  # nobody can tell yet
    clock[0] = real
    refused = devguard("verify", suit, "--json")
    assert (refused.status, refused.code) == (1, "clock.rollback")
    assert devguard("trust", "follow", home / "trust", "--json").code == "clock.rollback"
    assert "clock.rollback" in recover(home).json["found"]
    assert ok("verify", suit, "--json").json["accepted"] is True
    assert recalled(home).latest == real
    ok("evidence", "verify")


@pytest.mark.parametrize("now", [0, 2**31, 2**32 + 86_400], ids=["1970", "2038", "2106"])
def test_clocks_of_other_centuries(world: World, home: Path, monkeypatch: pytest.MonkeyPatch, now: int) -> None:
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: now))
    said = devguard("verify", world.suits["1.1.0"], "--json")
    assert said.code == {0: "clock.rollback", 2**31: None}.get(now, "trust.expired")
    assert devguard("trust", "rotate", home / "trust", *LATER).status in (0, 1, 3)
    assert records(home)[-1]["action"].startswith("trust.")
    ok("evidence", "verify")


def test_spent_uses_are_forgotten_only_when_nobody_could_use_them(home: Path) -> None:
    memory = Memory("o", spent={b"a": Spent(bytes(32), 1, 1000), b"b": Spent(bytes(32), 1, 3000)}, latest=500)
    assert memory.with_time(520) is memory
    assert set(memory.with_time(999).spent) == {b"a", b"b"}
    assert set(memory.with_time(1000).spent) == {b"b"}


# documents given by hand


def given(home: Path, path: Path, world: World) -> str | None:
    return devguard("verify", world.suits["1.1.0"], "--trust", path, "--json").code


def test_an_older_or_forked_document_of_the_same_root_is_refused(
    world: World, kept: Path, home: Path, tmp_path: Path
) -> None:
    assert given(home, home / "trust" / "2.trust", world) is None
    assert given(home, home / "trust" / "1.trust", world) == "trust.rollback"
    other = tmp_path / "other"
    shutil.copytree(kept / "before", other)
    ok("trust", "rotate", other / "trust", *LATER, "--max-step", 9, "--home", other)
    assert given(home, other / "trust" / "2.trust", world) == "trust.rollback"  # a fork
    assert given(other, world.trust, world) == "trust.rollback"
    before = snapshot(home / "trust")
    assert devguard("push", world.suits["1.1.0"], "--trust", world.trust, "--json").code == "trust.rollback"
    assert devguard("grant", "check", world.image, "--trust", world.trust).status in (1, 3)
    assert devguard("device", "info", "--port", "nowhere", "--trust", world.trust).code == "trust.rollback"
    assert snapshot(home / "trust") == before
    warned = ok("trust", "check", world.trust, "--json").json["warnings"]
    assert any("trust.rollback" in one for one in warned)


def test_a_newer_document_is_taken_when_its_chain_is_there(
    world: World, kept: Path, home: Path, tmp_path: Path
) -> None:
    vendor = tmp_path / "vendor"
    shutil.copytree(kept / "home", vendor)
    ok("trust", "rotate", vendor / "trust", *LATER, "--home", vendor)
    ok("trust", "rotate", vendor / "trust", *LATER, "--home", vendor)
    alone = tmp_path / "alone" / "new.trust"
    alone.parent.mkdir()
    alone.write_bytes((vendor / "trust" / "4.trust").read_bytes())
    assert given(home, vendor / "trust" / "4.trust", world) is None
    assert given(home, alone, world) == "trust.gap"
    alone.write_bytes((vendor / "trust" / "3.trust").read_bytes())
    assert given(home, alone, world) is None  # the next one: what is held vouches for it


def test_a_next_document_that_nobody_vouched_for_is_refused(world: World, home: Path, tmp_path: Path) -> None:
    """A root key that was rotated away makes a whole document of its own, with a higher number."""
    from builders import NOW, make_signer
    from devguard.cose.roles import RoleName
    from devguard.trust.document import build_trust, trust_payload
    from devguard.trust.model import KeyEntry, Role

    ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root", "--alg", "Ed25519")
    ok("trust", "rotate", home / "trust", *LATER, "--root", "root2", "--threshold", 1)
    old = world.signer("root")
    for version, code in ((1, "trust.rollback"), (3, "trust.rollback"), (4, "trust.signature"), (9, "trust.gap")):
        roles = {RoleName.ROOT: Role(1, (KeyEntry(old.key, "Rhea Root"),))}
        data = build_trust(
            trust_payload(version=version, issued=NOW - YEAR, expires=NOW + 9 * YEAR, roles=roles), [old]
        )
        (tmp_path / "forged.trust").write_bytes(data)
        assert given(home, tmp_path / "forged.trust", world) == code, version
    stranger = make_signer(seed="another vendor")
    roles = {RoleName.ROOT: Role(1, (KeyEntry(stranger.key, "Somebody"),))}
    data = build_trust(trust_payload(version=1, issued=NOW - YEAR, expires=NOW + YEAR, roles=roles), [stranger])
    (tmp_path / "forged.trust").write_bytes(data)
    assert given(home, tmp_path / "forged.trust", world) == "key.unknown"  # another vendor's: a person said so


def test_a_home_that_remembers_nothing_takes_what_it_is_given(world: World, home: Path, tmp_path: Path) -> None:
    fresh = world.copy(tmp_path / "fresh")
    shutil.rmtree(fresh / "trust")
    for _ in range(2):
        assert devguard("verify", world.suits["1.1.0"], "--trust", world.trust, "--home", fresh, "--json").status == 0


# nothing lowers what is remembered


@pytest.mark.parametrize("command", ["sign", "init", "check", "follow"])
def test_no_command_puts_an_older_document_back(world: World, home: Path, tmp_path: Path, command: str) -> None:
    folder = home / "trust"
    digest = recalled(home).trust_digest
    if command == "sign":
        ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root", "--alg", "Ed25519")
        assert devguard("trust", "sign", folder / "1.trust", "--key", "root").code == "release.duplicate"
        assert devguard("trust", "sign", folder / "1.trust", "--key", "root2").code == "key.purpose"
        shutil.copy(folder / "1.trust", tmp_path / "1.trust")
        assert devguard("trust", "sign", tmp_path / "1.trust", "--key", "root").code == "release.duplicate"
    elif command == "init":
        (folder / "current.trust").unlink()  # an accident, or somebody who wants the home to take another one
        made = ("--root", "root", "--threshold", 1, "--expires", "2090-01-01")
        assert "not kept for this home" in ok("trust", "init", tmp_path / "t", *made).err
        assert not (folder / "current.trust").exists()
        shutil.copy(folder / "2.trust", folder / "current.trust")
    elif command == "check":
        assert devguard("trust", "check", folder / "1.trust").status == 0
    else:
        assert devguard("trust", "follow", folder / "1.trust").code == "trust.rollback"
    ok("verify", world.suits["1.1.0"])
    assert recalled(home).trust_digest == digest
    assert (folder / "current.trust").read_bytes() == (folder / "2.trust").read_bytes()


def test_the_one_that_was_remembered_may_be_brought_back(world: World, home: Path, tmp_path: Path) -> None:
    station = Home(home)
    good = station.trust_file.read_bytes()
    station.trust_file.unlink()
    assert station.keep_trust((home / "trust" / "1.trust").read_bytes()) is False
    assert station.keep_trust(good) is True
    assert ok("verify", world.suits["1.1.0"], "--json").json["accepted"] is True


def test_a_crash_leaves_the_newest_of_two_states_and_no_step_back(world: World, home: Path) -> None:
    """memory.next is the one the log names, memory.cbor is older, and somebody puts a document between them in use."""
    old = (home / "memory.cbor").read_bytes()
    ok("trust", "rotate", home / "trust", *LATER)
    ok("verify", world.suits["1.1.0"])
    (home / "memory.next").write_bytes((home / "memory.cbor").read_bytes())
    (home / "memory.cbor").write_bytes(old)
    shutil.copy(home / "trust" / "2.trust", home / "trust" / "current.trust")
    devguard("evidence", "show")
    devguard("trust", "show")
    devguard("grant", "check", "nothing")  # writes a record, and the memory with it
    assert recalled(home).trust_version == 3
