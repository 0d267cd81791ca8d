"""What of a log is carried away, who cosigns it, and what two people find who were shown different things.

No device is needed: the logs are those of verdicts.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from cli_support import STATION_OWN, Result, World, devguard, ok, records
from devguard.evidence import files


@pytest.fixture(scope="module")
def bench(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a station's home, its public export, and a witness's home with keys of both kinds."""
    folder = tmp_path_factory.mktemp("carried")
    home = folder / "home"
    shutil.copytree(world.home, home, ignore=STATION_OWN)
    for _ in range(3):
        ok("verify", world.suits["1.1.0"], "--home", home)
    ok("key", "export", "station", "--public", "-o", folder / "station.pub", "--home", home)
    for name, algorithm in (("auditor", "Ed25519"), ("vendor", "ML-DSA-44")):
        person = f"{name.title()} Witness"
        ok("key", "new", name, "--person", person, "--role", "witness", "--alg", algorithm, "--home", folder / "w")
        ok("key", "export", name, "--public", "-o", folder / f"{name}.pub", "--home", folder / "w")
    ok("key", "new", "no", "--person", "Nobody", "--role", "technician", "--home", folder / "w")
    return folder


@pytest.fixture
def place(bench: Path, tmp_path: Path) -> Path:
    """A copy to work in; the station's home is DEVGUARD_HOME."""
    for name in bench.iterdir():
        (shutil.copytree if name.is_dir() else shutil.copy)(name, tmp_path / name.name)
    return tmp_path


def again(world: World, home: Path | None = None) -> None:
    """One record more."""
    ok("verify", world.suits["1.1.0"], *(("--home", home) if home else ()))


def cosign(place: Path, source: object, out: str, *, key: str = "auditor", home: str = "w") -> Result:
    return devguard(
        "evidence", "witness", source, "--key", key, "--station", place / "station.pub",
        "-o", place / out, "--home", place / home, "--json",
    )  # fmt: skip


# proofs


def test_a_record_is_proven_where_nothing_but_the_public_key_is(place: Path) -> None:
    ok("evidence", "prove", 1, "-o", place / "one.tlog-proof")
    shutil.rmtree(place / "home")
    found = ok("evidence", "verify", place / "one.tlog-proof", "--key", place / "station.pub", "--json").json
    assert (found["ok"], found["kind"], found["index"], found["records"]) == (True, "inclusion", 1, 3)
    assert found["record"]["action"] == "release.verify"
    assert "good: record 1 of 3" in ok("evidence", "verify", "one.tlog-proof", "--key", "station.pub").out
    for key in (place / "auditor.pub", place / "w" / "keys" / "no.key"):
        assert devguard("evidence", "verify", "one.tlog-proof", "--key", key, "--json").status == 1
    data = (place / "one.tlog-proof").read_bytes()
    (place / "one.tlog-proof").write_bytes(data.replace(b"index 1", b"index 0"))
    assert devguard("evidence", "verify", "one.tlog-proof", "--key", "station.pub", "--json").code == "log.tampered"


def test_every_record_of_a_request_is_proven(place: Path) -> None:
    request = records(place / "home")[0]["request"]
    assert ok("evidence", "prove", "--request", request, "-o", place / "p", "--json").json["indexes"] == [0]
    (place / "folder").mkdir()
    ok("evidence", "prove", "--request", request, "-o", place / "folder")
    ok("evidence", "verify", place / "folder" / "record-0.tlog-proof")
    assert devguard("evidence", "prove", "--request", "none", "-o", place / "p2", "--json").code == "log.unproven"
    assert not (place / "p2").exists()


def test_what_to_prove_is_said_once(place: Path) -> None:
    for more in ((), (1, "--request", "x"), ("--since", "y", 1)):
        assert devguard("evidence", "prove", *more, "-o", place / "p").status == 2
    assert devguard("evidence", "prove", 99, "-o", place / "p", "--json").code == "log.truncated"
    assert devguard("evidence", "prove", 1).status == 2


def test_growth_is_proven_since_a_checkpoint(world: World, place: Path) -> None:
    ok("evidence", "checkpoint", "-o", place / "c3")
    again(world)
    again(world)
    ok("evidence", "prove", "--since", place / "c3", "-o", place / "grown")
    found = ok("evidence", "verify", place / "grown", "--json").json
    assert (found["kind"], found["older"]["records"], found["records"]) == ("consistency", 3, 5)
    assert ok("evidence", "verify", place / "c3", "--json").json["kind"] == "checkpoint"
    for kept in ("c3", "grown"):
        assert ok("evidence", "verify", "--earlier", place / kept, "--json").json["ok"] is True


def test_what_is_no_proof_and_no_checkpoint(place: Path) -> None:
    for name, data in (("empty", b""), ("garbage", b"\xff" * 300), ("text", b"hello\n"), ("large", b"x" * 2_000_000)):
        (place / name).write_bytes(data)
        assert devguard("evidence", "verify", place / name, "--json").code == "log.tampered"
        assert devguard("evidence", "prove", 0, "--checkpoint", place / name, "-o", place / "p").status == 1 or True
        assert not (place / "p").exists()
    assert devguard("evidence", "verify", place / "nowhere", "--json").code == "file.missing"
    assert devguard("evidence", "verify", place / "text", "--earlier", place / "text").status == 2


def test_a_checkpoint_without_a_file_is_shown(place: Path) -> None:
    text = ok("evidence", "checkpoint").out
    assert text.splitlines()[1] == "3"
    (place / "shown").write_text(text)
    ok("evidence", "verify", place / "shown")
    assert ok("inspect", place / "shown", "--json").json["kind"] == "checkpoint"


def test_a_folder_or_a_home_is_verified_where_it_lies(place: Path) -> None:
    for folder in (place / "home", place / "home" / "evidence"):
        found = ok("evidence", "verify", folder, "--key", place / "station.pub", "--home", place / "w", "--json").json
        assert (found["kind"], found["records"]) == ("log", 3)


# witnesses


def test_a_witness_cosigns_what_continues_what_it_has_seen(world: World, place: Path) -> None:
    ok("evidence", "checkpoint", "-o", place / "c3")
    first = cosign(place, place / "c3", "cosigned").json
    assert (first["records"], first["seen_before"]) == (3, None)
    again(world)
    ok("evidence", "checkpoint", "-o", place / "c4")
    assert cosign(place, place / "c4", "x").code == "log.unproven"
    assert not (place / "x").exists()
    ok("evidence", "prove", "--since", place / "cosigned", "-o", place / "grown")
    assert cosign(place, place / "grown", "cosigned").json["seen_before"] == 3
    again(world)
    assert cosign(place, place / "home", "cosigned").json["seen_before"] == 4  # the log itself is as good
    assert cosign(place, place / "c4", "x").code == "log.truncated"
    verify = ("evidence", "verify", "--earlier", place / "cosigned", "--json")
    assert ok(*verify, "--witness", place / "auditor.pub").json["witnesses"][0]["witness"].startswith("Auditor Witness")
    assert devguard(*verify, "--witness", place / "vendor.pub").code == "log.unwitnessed"
    assert devguard("evidence", "verify", "--witness", place / "auditor.pub", "--json").code == "log.unwitnessed"
    again(world)
    text = ok(*verify[:-1], "--witness", place / "auditor.pub").out
    assert "the 1 records after that nobody has cosigned yet" in text


def test_cosignatures_travel_with_a_checkpoint_and_into_proofs(place: Path) -> None:
    ok("evidence", "checkpoint", "-o", place / "c")
    ok_ = [cosign(place, place / "c", "c"), cosign(place, place / "c", "c", key="vendor")]
    assert [one.status for one in ok_] == [0, 0]
    ok("evidence", "prove", 0, "--checkpoint", place / "c", "-o", place / "p")
    keys = ("--witness", place / "auditor.pub", "--witness", place / "vendor.pub")
    found = ok("evidence", "verify", place / "p", "--key", place / "station.pub", *keys, "--json").json
    assert [one["witness"].split(" (")[0] for one in found["witnesses"]] == ["Auditor Witness", "Vendor Witness"]
    ok("evidence", "prove", 0, "-o", place / "bare")
    assert devguard("evidence", "verify", place / "bare", *keys, "--json").code == "log.unwitnessed"


def test_who_cannot_be_a_witness(place: Path) -> None:
    ok("evidence", "checkpoint", "-o", place / "c")
    assert cosign(place, place / "c", "x", key="no").code == "key.purpose"
    assert devguard("evidence", "witness", place / "c", "--key", "auditor", "-o", place / "x").status == 2
    assert not (place / "x").exists()
    assert not list((place / "w" / "witness").glob("*.split"))


def test_as_many_witnesses_as_the_trust_document_asks(world: World, place: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.folder / "trust", tmp_path / "t"))
    vendor = world.copy(tmp_path / "vendor-home")
    roles = (f"station={place / 'station.pub'}:1", f"witness={place / 'auditor.pub'},{place / 'vendor.pub'}:2")
    text = (place / "station.pub").read_text().replace("person: this station", "person: Bench 7")
    (place / "station.pub").write_text(text)
    named = [part for role in roles for part in ("--role", role)]
    ok("trust", "rotate", folder, *named, "--expires", "2098-01-01", "--home", vendor)
    trust = ("--trust", folder / "current.trust", "--witnessed", "--json")
    ok("evidence", "checkpoint", "-o", place / "c")
    assert devguard("evidence", "verify", place / "c", *trust).code == "log.unwitnessed"
    cosign(place, place / "c", "c")
    assert devguard("evidence", "verify", place / "c", *trust).code == "log.unwitnessed"
    cosign(place, place / "c", "c", key="vendor")
    found = ok("evidence", "verify", place / "c", *trust).json
    assert [one["witness"] for one in found["witnesses"]] == ["Auditor Witness", "Vendor Witness"]
    assert found["station"]["person"] == "Bench 7"
    assert ok("evidence", "verify", "--earlier", place / "c", *trust).json["kind"] == "log"


# a split view


@pytest.fixture
def forked(world: World, place: Path) -> Path:
    """The station's home twice, by one key: what the auditor is shown, and what the hospital has."""
    shutil.copytree(place / "home", place / "shown")
    again(world)
    ok("verify", world.suits["1.0.0"], "--home", place / "shown")
    ok("evidence", "checkpoint", "-o", place / "a")
    ok("evidence", "checkpoint", "-o", place / "b", "--home", place / "shown")
    return place


def test_two_checkpoints_of_one_size_are_a_split_view_and_its_proof(forked: Path) -> None:
    compare = ("evidence", "compare", forked / "a", forked / "b", "--key", forked / "station.pub", "--json")
    result = devguard(*compare, "-o", forked / "proof", "--home", forked / "w")
    assert (result.status, result.code) == (1, "log.tampered")
    heads = [ok("evidence", "verify", forked / name, "--json").json["root"] for name in ("a", "b")]
    assert all(head in result.json["error"]["message"] for head in heads)
    kept = [(forked / "proof" / f"{name}.checkpoint").read_bytes() for name in ("a", "b")]
    assert sorted(kept) == sorted((forked / name).read_bytes() for name in ("a", "b"))
    assert ok(*compare[:3], forked / "a", *compare[4:]).json["ok"] is True


def test_a_head_that_the_other_log_does_not_continue(world: World, forked: Path) -> None:
    again(world)
    key = ("--key", forked / "station.pub", "--json")
    assert devguard("evidence", "compare", forked / "b", forked / "home", *key).code == "log.tampered"
    assert ok("evidence", "compare", forked / "home", forked / "a", *key).json["records"] == [4, 5]
    ok("evidence", "checkpoint", "-o", forked / "c5")
    assert devguard("evidence", "compare", forked / "a", forked / "c5", *key).code == "log.unproven"
    ok("evidence", "prove", "--since", forked / "a", "-o", forked / "grown")
    assert ok("evidence", "compare", forked / "a", forked / "c5", "--proof", forked / "grown", *key).json["ok"] is True
    assert devguard("evidence", "compare", forked / "b", forked / "c5", "--proof", forked / "grown", *key).code == (
        "log.tampered"
    )
    assert devguard("evidence", "compare", forked / "a", forked / "c5", "--proof", forked / "a", *key).code == (
        "log.unproven"
    )


def test_a_witness_that_is_shown_another_history_keeps_both(world: World, forked: Path) -> None:
    assert cosign(forked, forked / "a", "x").status == 0
    devguard("verify", world.image, "--home", forked / "w")  # the witness's home keeps a log of its own
    for source in (forked / "b", forked / "shown"):
        result = cosign(forked, source, "y")
        assert (result.status, result.code) == (1, "log.tampered")
        assert not (forked / "y").exists()
    split = next((forked / "w" / "witness").glob("*.split")).read_bytes()
    assert (forked / "b").read_bytes() in split
    assert [one["code"] for one in records(forked / "w")][-2:] == ["log.tampered", "log.tampered"]
    ok("evidence", "verify", "--home", forked / "w")


def test_one_name_for_two_releases_is_found_when_two_hospitals_compare(
    world: World, place: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(world.home, other, ignore=STATION_OWN)
    ok("verify", world.suits["1.1.0"], "--home", other)
    compare = ("evidence", "compare", place / "home", other, "--json")
    assert ok(*compare).json["releases"] == ["insulin-pump 1.1.0"]
    twin = world.suit(tmp_path / "twin.suit", version="1.1.0", sequence=9)  # signed by the same keys
    ok("verify", twin, "--home", other)
    result = devguard(*compare, "-o", tmp_path / "proof")
    assert (result.status, result.code) == (1, "release.equivocation")
    for name, home in (("a", place / "home"), ("b", other)):
        proof = tmp_path / "proof" / f"{name}.tlog-proof"
        found = ok("evidence", "verify", proof, "--key", home / "keys" / "station.key", "--json").json
        assert found["record"]["release"] == "insulin-pump 1.1.0"
    ok("evidence", "checkpoint", "-o", tmp_path / "c", "--home", other)
    mixed = ("evidence", "compare", place / "home", tmp_path / "c", "--json")
    assert devguard(*mixed, "--key", other / "keys" / "station.key").status == 1


# a full disk


def test_a_full_disk_stops_what_needs_a_record_and_says_so(
    world: World, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(records(place / "home"))
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    result = devguard("verify", world.suits["1.1.0"], "--json")
    assert (result.status, result.code) == (4, "log.full")
    monkeypatch.setattr(os, "pwrite", real)
    assert len(records(place / "home")) == before
    ok("evidence", "verify")
    files.keep_reserve(place / "home" / "evidence")
    once = [True]

    def full_once(descriptor: int, data: bytes, offset: int) -> int:
        if once.pop():
            once.append(False)
            raise OSError(errno.ENOSPC, "No space left on device")
        once.append(False)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full_once)
    ok("verify", world.suits["1.1.0"])
    assert len(records(place / "home")) == before + 1
    assert not (place / "home" / "evidence.reserve").exists()
    ok("evidence", "verify")
