"""A station, its pump, a witness and another station: what each of them finds when the station's log is not the truth.

One story is made once, over a real pseudo-terminal; tests work in copies of its homes. The pump stays switched on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli_support import PASSPHRASE, STATION_OWN, Emulator, Result, World, devguard, emulator, ok, records
from devguard.custody.keyfile import load_signer
from devguard.evidence.log import EvidenceLog, read_records
from devguard.evidence.record import DigestOf, Record, Statement

SERIAL = "IP-71"
ACTIONS = frozenset(["update", "read-log"])


@dataclass
class Story:
    """`yesterday`: the home when the pump ran 1.0.0; `today`: when it ran 1.1.0; `kept`: what left the station."""

    world: World
    device: Emulator
    folder: Path
    grant: Path

    @property
    def yesterday(self) -> Path:
        return self.folder / "yesterday"

    @property
    def today(self) -> Path:
        return self.folder / "today"

    def kept(self, name: str) -> Path:
        return self.folder / "kept" / name

    def line(self, home: Path) -> list[object]:
        return ["--port", self.device.port, "--key", "tech", "--grant", self.grant, "--home", home]


@pytest.fixture(scope="module")
def story(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    (folder / "kept").mkdir()
    grant = world.grant(folder / "tech.grant", SERIAL, actions=ACTIONS)
    with emulator(world, folder, SERIAL) as device:
        home = world.copy(folder / "bench")
        one = Story(world, device, folder, grant)
        ok("push", world.suits["1.0.0"], *one.line(home), "--reason", "first release")
        ok("evidence", "checkpoint", "-o", one.kept("old.checkpoint"), "--home", home)
        ok("key", "export", "station", "--public", "-o", one.kept("station.pub"), "--home", home)
        ok("device", "info", *one.line(home), "-o", one.kept("old.report"))
        shutil.copytree(home, one.yesterday)
        ok("push", world.suits["1.1.0"], *one.line(home))
        ok("device", "log", *one.line(home), "-o", one.kept("device.log"))
        ok("device", "info", *one.line(home), "-o", one.kept("new.report"))
        ok("evidence", "checkpoint", "-o", one.kept("new.checkpoint"), "--home", home)
        shutil.copytree(home, one.today)
        yield one


@pytest.fixture
def today(story: Story, tmp_path: Path) -> Path:
    return Path(shutil.copytree(story.today, tmp_path / "home"))


@pytest.fixture
def yesterday(story: Story, tmp_path: Path) -> Path:
    return Path(shutil.copytree(story.yesterday, tmp_path / "home"))


def verify(home: Path, *more: object) -> Result:
    return devguard("evidence", "verify", "--home", home, *more, "--json")


def test_what_devices_and_technicians_signed_stands_in_the_log_and_holds(story: Story, today: Path) -> None:
    found = verify(today).json
    assert found["devices"] == {"reports": 7, "pushes": 2, "by_revoked_keys": 0, "devices": 1, "files": []}
    text = ok("evidence", "verify", "--home", today).out
    assert "agrees: 7 reports by 1 device, 2 pushes by technicians" in text
    begun = [one for one in read_records(today / "evidence") if one.action == "release.push-begun"]
    assert all({Statement.PUSH, Statement.GRANT, Statement.REPORT} <= set(one.statements) for one in begun)
    assert all(DigestOf.SESSION in one.digests for one in begun)
    done = [one for one in read_records(today / "evidence") if one.action == "release.push"]
    assert [len(one.details["sessions"].split()) for one in done] == [1, 1]  # the update; the last one is the digest
    for name in ("old.checkpoint", "new.checkpoint"):
        assert verify(today, "--earlier", story.kept(name)).status == 0
    for name in ("old.report", "new.report", "device.log"):
        assert verify(today, "--report", story.kept(name)).status == 0


def test_an_older_copy_of_everything_is_found_by_whatever_left_the_station(story: Story, yesterday: Path) -> None:
    """Log, memory and keys put back together, from one backup: they fit each other."""
    assert verify(yesterday).status == 0
    assert verify(yesterday, "--earlier", story.kept("old.checkpoint")).status == 0
    size = len(records(yesterday))
    for option, name in (("--earlier", "new.checkpoint"), ("--report", "new.report"), ("--report", "device.log")):
        result = verify(yesterday, option, story.kept(name))
        assert (result.status, result.code) == (1, "log.truncated"), name
        message = result.json["error"]["message"]
        assert f"record {size}" in message or f"record {size - 1}" in message
        assert name == "new.checkpoint" or f"device {SERIAL}" in message
    pushed = devguard("push", story.world.suits["1.1.0"], *story.line(yesterday), "--json")
    assert (pushed.status, pushed.code) == (1, "device.changed")


def test_a_log_begun_anew_contradicts_the_device_and_the_memory(story: Story, today: Path) -> None:
    shutil.rmtree(today / "evidence")
    assert verify(today).code == "log.truncated"
    EvidenceLog.open(today / "evidence", load_signer(today / "keys" / "station.key", lambda: b""))
    assert verify(today).code == "log.truncated"  # the memory
    (today / "memory.cbor").unlink()
    assert verify(today).status == 0
    for name in ("old.report", "new.report"):
        assert verify(today, "--report", story.kept(name)).code == "log.truncated"


# the station's key in the wrong hands


def station(home: Path) -> object:
    return load_signer(home / "keys" / "station.key", lambda: b"")


def rewritten(home: Path, change: Callable[[list[Record]], list[Record]]) -> None:
    """The whole log written anew by the station's own key, as a thief of it can."""
    kept = list(read_records(home / "evidence"))
    shutil.rmtree(home / "evidence")
    log = EvidenceLog.open(home / "evidence", station(home))  # type: ignore[arg-type] # a signer
    for record in change(kept):
        log.append(record)


def forged(home: Path, **changes: object) -> Record:
    """A push that never was, made of one that was."""
    begun = next(one for one in read_records(home / "evidence") if one.action == "release.push-begun")
    fields = {name: getattr(begun, name) for name in Record.__slots__}
    return Record(**{**fields, "time": list(read_records(home / "evidence"))[-1].time, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"statements": {}},
        {"request": "0123456789abcdef"},
        {"device": "IP-72"},
        {"digests": {DigestOf.MANIFEST: b"m" * 32, DigestOf.GRANT: b"g" * 32}},
    ],
    ids=["unsigned", "another request", "another device", "another release"],
)
def test_the_stations_key_alone_forges_no_push(today: Path, changes: dict[str, object]) -> None:
    made = forged(today, **changes)
    if changes.get("statements") != {}:
        made = forged(today, **changes, statements={k: v for k, v in made.statements.items() if k in (3, 4)})
    log = EvidenceLog.open(today / "evidence", station(today))  # type: ignore[arg-type] # a signer
    index = log.append(made)
    result = verify(today)
    assert (result.status, result.code) == (1, "log.tampered")
    assert f"record {index}:" in result.json["error"]["message"]


def test_a_push_by_an_authority_nobody_knows_is_not_taken_for_one(story: Story, today: Path, tmp_path: Path) -> None:
    """With a grant and a technician of their own making."""
    from devguard.cose.algorithms import Algorithm
    from devguard.custody.memory import MemorySigner
    from devguard.evidence.push_statement import PushStatement
    from devguard.grant.claims import issue_grant, read_grant

    made = forged(today)
    true = read_grant(made.statements[Statement.GRANT])
    thief, mine = (MemorySigner.from_seed(Algorithm.ESP256, name.ljust(40, b".")) for name in (b"boss", b"tech"))
    cwt = read_grant(
        issue_grant([thief], issuer="Thea Authority", subject="Tess Technician", holder=mine.key, scope=true.scope,
                    now=made.time, expires=made.time + 3600, cti=bytes(16))
    ).untagged  # fmt: skip
    digest = hashlib.sha256(cwt).digest()
    log = EvidenceLog.open(today / "evidence", station(today))  # type: ignore[arg-type] # a signer
    said = PushStatement(
        made.request, SERIAL, "update", made.digests[DigestOf.MANIFEST], digest, made.time, log.checkpoint.text()
    ).sign(mine)
    log.append(
        forged(
            today,
            digests={**made.digests, DigestOf.GRANT: digest},
            statements={Statement.PUSH: said, Statement.GRANT: cwt},
        )
    )
    result = verify(today)
    assert (result.status, result.code) == (1, "key.unknown")
    assert f"record {log.size - 1}:" in result.json["error"]["message"]


@pytest.mark.parametrize("what", ["dropped", "reworded", "swapped"])
def test_a_history_rewritten_by_the_stations_key_contradicts_what_others_signed_in_it(today: Path, what: str) -> None:
    def change(kept: list[Record]) -> list[Record]:
        if what == "dropped":
            return kept[1:]
        if what == "swapped":
            return [kept[1], kept[0], *kept[2:]]
        fields = {name: getattr(kept[0], name) for name in Record.__slots__}
        return [Record(**{**fields, "actor": "Somebody Else"}), *kept[1:]]

    rewritten(today, change)
    result = verify(today)
    assert (result.status, result.code) == (1, "log.tampered")
    assert "countersigned" in result.json["error"]["message"]


def test_a_history_without_what_technicians_signed_contradicts_the_devices(today: Path) -> None:
    def change(kept: list[Record]) -> list[Record]:
        return [one for one in kept if DigestOf.MANIFEST not in one.digests]

    rewritten(today, change)
    (today / "memory.cbor").unlink()
    result = verify(today)
    assert (result.status, result.code) == (1, "log.tampered")
    assert f"device {SERIAL} countersigned" in result.json["error"]["message"]


def of(record: Record, **changes: object) -> Record:
    return Record(**{**{name: getattr(record, name) for name in Record.__slots__}, **changes})


def test_a_history_dated_back_as_a_whole_contradicts_technicians_and_devices(today: Path) -> None:
    """Time does not go back in it anywhere; the log of the station alone cannot tell."""
    month = 30 * 86_400
    rewritten(today, lambda kept: [of(one, time=one.time - month) for one in kept])
    (today / "memory.cbor").unlink()
    result = verify(today)
    assert (result.status, result.code) == (1, "log.tampered")
    assert "is dated" in result.json["error"]["message"]

    def unsigned(kept: list[Record]) -> list[Record]:
        """The same without what technicians signed: the devices' clock floors are left."""
        reported = [one for one in kept if Statement.PUSH not in one.statements]
        bare = {name: Statement[name] for name in ("REPORT", "CREDENTIAL")}
        return [
            of(one, statements={kind: one.statements[kind] for kind in bare.values() if kind in one.statements})
            for one in reported
        ]

    rewritten(today, lambda kept: [of(one, time=max(one.time - 11 * month, 0)) for one in unsigned(kept)])
    result = verify(today)
    assert (result.status, result.code) == (1, "log.tampered")
    assert "which the device knew was past" in result.json["error"]["message"]


@pytest.mark.parametrize("kind", [Statement.CHALLENGE, Statement.REPORT, Statement.CREDENTIAL])
def test_a_statement_that_was_changed_makes_its_record_false(today: Path, kind: Statement) -> None:
    kept = list(read_records(today / "evidence"))
    at = next(index for index, one in enumerate(kept) if one.action == "device.report")
    changed = bytearray(kept[at].statements[kind])
    changed[len(changed) // 2] ^= 1
    log = EvidenceLog.open(today / "evidence", station(today))  # type: ignore[arg-type] # a signer
    index = log.append(of(kept[at], time=kept[-1].time, statements={**kept[at].statements, kind: bytes(changed)}))
    result = verify(today)
    assert result.status == 1
    assert f"record {index}" in result.json["error"]["message"]


def test_the_true_history_written_anew_is_the_same_log(story: Story, today: Path) -> None:
    """Nothing but the records goes into the tree: the check above is not satisfied by accident."""
    before = verify(today).json["root"]
    rewritten(today, lambda kept: kept)
    assert verify(today).json["root"] == before
    assert verify(today, "--earlier", story.kept("new.checkpoint")).status == 0


def test_a_session_that_is_not_on_record_is_named_by_the_device(story: Story, today: Path) -> None:
    """Everything that a technician signed left out, so that no countersignature stands in the way."""

    def change(kept: list[Record]) -> list[Record]:
        return [one for one in kept if not one.statements and "session" not in str(one.digests)][:4]

    rewritten(today, change)
    (today / "memory.cbor").unlink()
    assert verify(today).status == 0
    result = verify(today, "--report", story.kept("device.log"))
    assert (result.status, result.code) == (1, "log.truncated")
    assert f"device {SERIAL} contradicts this log" in result.json["error"]["message"]
    assert verify(today, "--report", story.kept("device.log"), "--trust", today / "trust" / "current.trust").status == 1


# changes behind the station's back


@pytest.fixture
def another(story: Story, tmp_path: Path) -> Path:
    """Another station of the same vendor's trust, and a release that only it pushes."""
    home = tmp_path / "another"
    shutil.copytree(story.world.home, home, ignore=STATION_OWN)
    suit = story.world.suit(tmp_path / "1.2.0.suit", version="1.2.0", sequence=3)
    ok("push", suit, *story.line(home))
    return home


def test_a_device_changed_by_another_is_flagged_blocked_and_acknowledged_by_an_authority(
    story: Story, today: Path, another: Path, tmp_path: Path
) -> None:
    suit = story.world.suit(tmp_path / "1.3.0.suit", version="1.3.0", sequence=4)
    shown = ok("device", "info", *story.line(today), "--json").json
    assert {one["name"] for one in shown["changed"]} >= {"version", "image_digest", "manifest_digest", "sequence"}
    assert "CHANGED by somebody else" in ok("device", "info", *story.line(today)).out
    last = records(today)[-1]
    assert (last["action"], last["code"], last["device"]) == ("device.report", "device.changed", SERIAL)
    assert last["details"]["changed-version"] == "1.1.0 on record, 1.2.0 found"
    for _ in range(2):
        pushed = devguard("push", suit, *story.line(today), "--json")
        assert (pushed.status, pushed.code) == (1, "device.changed")
    home = ("--home", today, "--json")
    words = ("device", "acknowledge", SERIAL, "--reason", "bench 2 pushed it, work order 9", *home)
    assert devguard(*words, "--key", "tech").code == "key.purpose"  # the technician would do it for themselves
    assert devguard(*words, "--key", "nobody").status == 3
    assert devguard("device", "acknowledge", "IP-1", "--reason", "x", "--key", "authority", *home).code == (
        "device.unchanged"
    )
    done = ok(*words, "--key", "authority").json
    assert (done["person"], done["changes"]["changed-version"]) == ("Thea Authority", "1.1.0 on record, 1.2.0 found")
    assert devguard(*words, "--key", "authority").code == "device.unchanged"
    pushed = devguard("push", suit, *story.line(today), "--json")
    assert (pushed.status, pushed.code) == (5, "device.busy")  # by the device now: its three erasures are spent
    assert verify(today).json["devices"]["pushes"] == 3
    # The device's own log names the session that this station knows nothing of, until the other log is brought.
    log = tmp_path / "later.log"
    found = ok("device", "log", *story.line(today), "-o", log, "--json").json
    assert [one["code"] for one in found["contradictions"]] == ["log.tampered"]
    assert verify(today, "--report", log).code == "log.tampered"


def test_a_push_is_not_begun_where_no_room_is_left_for_its_records(
    story: Story, yesterday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, suit = os.pwrite, story.world.suit(tmp_path / "1.9.0.suit", version="1.9.0", sequence=9)

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    (yesterday / "evidence.reserve").unlink()
    settle(story, yesterday)
    before = records(yesterday)
    monkeypatch.setattr(os, "pwrite", full)
    pushed = devguard("push", suit, *story.line(yesterday), "--json")
    assert (pushed.status, pushed.code) == (4, "log.full")
    after = records(yesterday)[len(before) :]
    assert [one["action"] for one in after] == ["release.verify", "release.push"]
    assert after[-1]["code"] == "log.full"
    assert not (yesterday / "evidence.reserve").exists()
    assert verify(yesterday).status == 0


def settle(story: Story, home: Path) -> None:
    """An authority takes note of how the pump is found, whatever other tests did to it."""
    if ok("device", "info", *story.line(home), "--json").json["changed"]:
        ok("device", "acknowledge", SERIAL, "--reason", "a test", "--key", "authority", "--home", home)


# no secrets


def test_no_secret_and_no_therapy_value_is_in_any_record(story: Story, today: Path) -> None:
    kept = b"".join(path.read_bytes() for path in sorted((today / "evidence").iterdir()))
    therapy = (
        (story.device.state / "therapy.cbor").read_bytes() if (story.device.state / "therapy.cbor").exists() else b""
    )
    planted = [PASSPHRASE.encode(), b"maximum_bolus_milliunits", b"basal"]
    planted += [therapy] if therapy else []
    files = [*sorted((today / "keys").glob("*.key")), *sorted(story.device.state.glob("*.key"))]
    for path in files:
        body = b"".join(line for line in path.read_bytes().splitlines() if not line.startswith(b"-"))
        planted += [body[at : at + 32] for at in range(0, len(body) - 32, 16)]
    assert len(planted) > 200
    found = [mark for mark in planted if mark and mark in kept]
    assert not found
    assert b"Tess Technician" in kept  # the search finds what is there


def test_an_authority_that_was_revoked_since_is_counted_apart_and_one_that_nobody_lists_refuses(
    story: Story, today: Path, tmp_path: Path
) -> None:
    """The documents of before are walked; without them nobody can say whose word it was."""
    folder = Path(shutil.copytree(story.world.folder / "trust", tmp_path / "t"))
    vendor = story.world.copy(tmp_path / "vendor")
    ok("key", "new", "boss", "--person", "Bea Boss", "--role", "technician-authority", "--home", vendor)
    ok("trust", "rotate", folder, "--role", "technician-authority=boss:1", "--expires", "2098-01-01", "--home", vendor)
    ok("trust", "revoke", folder, "authority", "--expires", "2098-01-01", "--home", vendor)
    key = ("--key", story.kept("station.pub"))
    found = verify(today, today, *key, "--trust", folder / "current.trust")
    assert found.status == 1
    assert found.code == "key.unknown"  # of the station: this document lists none
    ok("trust", "follow", folder, "--home", today)
    apart = verify(today).json["devices"]
    assert (apart["pushes"], apart["by_revoked_keys"]) == (2, 2)
    for name in ("1.trust", "2.trust"):
        (today / "trust" / name).unlink()
    result = verify(today)
    assert (result.status, result.code) == (1, "key.revoked")
    assert "record 1" in result.json["error"]["message"]
