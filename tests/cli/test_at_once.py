"""Invariant: of two commands that change one file at once, both changes are in it, or one was refused and told so."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_support import Result, World, devguard, finish, ok, records, start, until
from devguard.cli import home as home_of
from devguard.custody import locks
from devguard.custody.locks import locked
from devguard.trust.document import read_trust

LATER = ("--expires", "2098-01-01")
ROOTS = ("root", "root2", "root3")


class Elsewhere:
    """One command in a process of its own, at work from the moment it is made."""

    def __init__(self, folder: Path, *args: object) -> None:
        self.out, self.err = folder / "out", folder / "err"
        folder.mkdir()
        self.process = os.fork()
        if self.process:
            return
        status = 99
        try:
            with self.out.open("w") as out, self.err.open("w") as err:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                result = devguard(*args)
                out.write(result.out)
                err.write(result.err)
                status = result.status
        finally:
            os._exit(status)

    def end(self) -> Result:
        """Wait for it and take what it said."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return Result(status, self.out.read_text(), self.err.read_text())


@contextlib.contextmanager
def waiting_for(path: Path, tmp_path: Path, *args: object) -> Iterator[Elsewhere]:
    """A command elsewhere that has come as far as the lock of `path`, which this process holds."""
    reached = tmp_path / "reached"
    with locked(path), pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "PATIENCE", 0.0)
        patch.setattr(locks.time, "sleep", lambda _: reached.touch())
        other = Elsewhere(tmp_path / "other", *args)
        until(reached.exists, "the other to reach the lock")
        yield other


def test_two_signatures_at_once_are_both_in(world: World, home: Path, tmp_path: Path) -> None:
    suit = world.suit(tmp_path / "r.suit", signers=())
    with waiting_for(suit, tmp_path, "release", "sign", suit, "--key", "quality", "--json") as other:
        ok("release", "sign", suit, "--key", "release")
    done = other.end()
    assert (done.status, done.json["signatures"], done.json["complete"]) == (0, 2, True)
    assert ok("verify", suit, "--json").json["accepted"] is True
    assert [one["actor"] for one in records(home)[:2]] == ["Remy Release", "Quinn Quality"]


@pytest.mark.slow
def test_an_attached_signature_waits_its_turn(world: World, home: Path, tmp_path: Path) -> None:
    suit = world.suit(tmp_path / "r.suit", signers=())
    ok("release", "sign", suit, "--key", "quality", "-o", tmp_path / "q.sig")
    with waiting_for(suit, tmp_path, "release", "sign", suit, "--attach", tmp_path / "q.sig", "--json") as other:
        ok("release", "sign", suit, "--key", "release")
    assert other.end().json["signatures"] == 2


def test_two_root_signatures_at_once_are_both_in(world: World, home: Path, tmp_path: Path) -> None:
    for name in ROOTS[1:]:
        ok("key", "new", name, "--person", name, "--role", "root", "--alg", "Ed25519", "--out", tmp_path / name)
        ok("key", "export", tmp_path / name, "--public", "-o", tmp_path / f"{name}.pub")
    folder = tmp_path / "t"
    made = ("--root", f"root,{tmp_path}/root2.pub,{tmp_path}/root3.pub", "--threshold", 3, "--expires", "2090-01-01")
    ok("trust", "init", folder, *made)
    sign = ("trust", "sign", folder / "1.trust", "--json", "--key")
    with waiting_for(folder / "current.trust", tmp_path, *sign, tmp_path / "root2") as other:
        assert ok(*sign, tmp_path / "root3").json["complete"] is False
    assert other.end().json["complete"] is True
    assert (folder / "current.trust").read_bytes() == (folder / "1.trust").read_bytes()


def test_two_signatures_on_a_shelf_s_root_at_once_are_both_in(tmp_path: Path) -> None:
    pytest.importorskip("tuf")
    home, shelf, pending = tmp_path / "home", tmp_path / "shelf", tmp_path / "shelf" / "pending.root.json"
    for name in ("one", "two", "three"):
        ok("key", "new", name, "--person", name, "--role", "root", "--out", tmp_path / f"{name}.key")
        ok("key", "export", tmp_path / f"{name}.key", "--public", "-o", tmp_path / f"{name}.pub")
    ok("key", "new", "release", "--person", "Remy", "--role", "release", "--home", home)
    roots = [f"--root={tmp_path / name}.pub" for name in ("one", "two", "three")]
    made = ok("shelf", "init", shelf, *roots, "--threshold", 3, "--targets", "release", "--json").json
    assert made["complete"] is False
    key = tmp_path / "two.key"
    with waiting_for(pending, tmp_path, "shelf", "sign", shelf, "--key", key, "--json") as other:
        ok("shelf", "sign", shelf, "--key", tmp_path / "one.key")
    assert other.end().status == 0
    assert ok("shelf", "sign", shelf, "--key", tmp_path / "three.key", "--json").json["complete"] is True


def test_versions_made_at_once_follow_each_other(world: World, home: Path, tmp_path: Path) -> None:
    folder = home / "trust"
    with waiting_for(folder / "current.trust", tmp_path, "trust", "rotate", folder, *LATER, "--max-step", 5) as other:
        ok("trust", "revoke", folder, "--grant-epoch", 4, *LATER)
    done = other.end()
    assert done.status == 0, done.err
    newest = read_trust((folder / "current.trust").read_bytes())
    assert (newest.version, newest.grant_epoch, newest.max_step) == (3, 4, 5)


def test_following_waits_for_who_follows(world: World, home: Path, tmp_path: Path) -> None:
    station = world.copy(tmp_path / "station")
    ok("trust", "rotate", home / "trust", *LATER)
    ok("trust", "rotate", home / "trust", *LATER)
    part = tmp_path / "part"
    part.mkdir()
    for name in ("1.trust", "2.trust"):
        (part / name).write_bytes((home / "trust" / name).read_bytes())
    (part / "current.trust").write_bytes((part / "2.trust").read_bytes())
    current = station / "trust" / "current.trust"
    with waiting_for(current, tmp_path, "trust", "follow", part, "--home", station, "--json") as other:
        ok("trust", "follow", home / "trust", "--home", station)
    assert other.end().code == "trust.rollback"  # it has only version 2; 3 is in use by now
    assert read_trust(current.read_bytes()).version == 3


def test_who_waits_too_long_is_refused_and_nothing_is_lost(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suit = world.suit(tmp_path / "r.suit", signers=())
    before = suit.read_bytes()
    monkeypatch.setattr(locks, "WAIT", 0.05)
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    with locked(suit):
        refused = Elsewhere(tmp_path / "other", "release", "sign", suit, "--key", "release").end()
    assert (refused.status, refused.code) == (4, "file.busy")
    assert "waiting for it" in refused.err
    assert suit.read_bytes() == before
    assert records(home)[-1]["code"] == "file.busy"


def test_what_one_remembers_the_other_does_not_forget(world: World, home: Path, tmp_path: Path) -> None:
    ok("verify", world.suits["1.1.0"])
    with waiting_for(home / "memory.cbor", tmp_path, "verify", world.suits["1.1.0"], "--json") as other:
        ok("trust", "rotate", home / "trust", *LATER)
    assert other.end().status == 0
    assert ok("status", "--no-ports", "--json").json["memory"]["trust_version"] == 2
    ok("evidence", "verify")


def test_many_stations_commands_at_once_are_all_on_record_and_one_memory(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok("verify", world.suits["1.1.0"])
    ok("trust", "rotate", home / "trust", *LATER)
    every = [Elsewhere(tmp_path / f"p{at}", "verify", world.suits["1.1.0"], "--json") for at in range(8)]
    assert {one.end().status for one in every} == {0}
    assert ok("evidence", "verify", "--json").json["records"] == len(records(home)) == 11
    assert ok("status", "--no-ports", "--json").json["memory"]["trust_version"] == 2
    assert sorted(path.name for path in home.iterdir()) == ["evidence", "keys", "memory.cbor", "trust"]


@pytest.mark.slow
def test_programs_of_their_own_change_one_release(world: World, home: Path, tmp_path: Path) -> None:
    suit = world.suit(tmp_path / "r.suit", signers=())
    both = [start("release", "sign", suit, "--key", name, "--json") for name in ("release", "quality")]
    said = sorted(finish(one).json["signatures"] for one in both)
    assert said == [1, 2]
    assert json.loads(ok("verify", suit, "--json").out)["accepted"] is True


def test_a_document_kept_by_two_at_once_is_one(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two first documents at once: the home takes one, and never the second over it."""
    (home / "trust" / "current.trust").unlink()
    (home / "trust" / "1.trust").unlink()
    init = ("--root", "root", "--threshold", 1, "--expires", "2090-01-01", "--json")
    with waiting_for(home / "trust" / "current.trust", tmp_path, "trust", "init", tmp_path / "a", *init) as other:
        ok("trust", "init", tmp_path / "b", *init)
    assert other.end().status == 0
    assert (home / "trust" / "current.trust").read_bytes() == (tmp_path / "b" / "1.trust").read_bytes()


def test_a_look_at_the_memory_meets_a_writer(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and log are not read at one moment: a record that comes in between is no old state put back."""
    from devguard.cli import memory

    ok("verify", world.suits["1.1.0"])
    inner, met = memory.newest_with, []

    def meeting(*args: Any) -> Any:
        if not met:
            met.append(1)
            ok("trust", "rotate", home / "trust", *LATER, "-q")
        return inner(*args)

    monkeypatch.setattr(memory, "newest_with", meeting)
    station = home_of.Home(home)
    assert memory.recall(station, memory.origin(station) or "").trust_version == 2
    assert met


def test_two_suspensions_at_once_are_both_in(world: World, home: Path, tmp_path: Path) -> None:
    with waiting_for(home / "technicians.cbor", tmp_path, "technician", "suspend", "second", "--json") as other:
        ok("technician", "suspend", "tech")
    assert other.end().json["epoch"] == 2  # it saw the first one
    gone = ok("technician", "list", "--json").json["suspended"]
    assert sorted(one["person"] for one in gone) == ["Tess Technician", "Tom Technician"]


def test_two_authorities_at_once_are_both_in_a_grant(world: World, home: Path, tmp_path: Path) -> None:
    ok("key", "new", "theo", "--person", "Theo Authority", "--role", "technician-authority", "--alg", "Ed25519")
    ok("key", "new", "tina", "--person", "Tina Authority", "--role", "technician-authority", "--alg", "Ed25519")
    role = "technician-authority=authority,theo,tina:3"
    ok("trust", "rotate", home / "trust", "--role", role, *LATER)
    whom = ("--technician", "tech", "--model", "insulin-pump", "--serial", "IP-1")
    ok("grant", "issue", "--authority", "authority", *whom, "-o", "g.grant")
    file = tmp_path / "g.grant"
    with waiting_for(file, tmp_path, "grant", "sign", file, "--authority", "theo", "--json") as other:
        ok("grant", "sign", file, "--authority", "tina")
    assert other.end().json["complete"] is True
    ok("grant", "check", file)
