"""`devguard evidence`: shows what happened, and finds any damage to any file of the log without writing one byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli_support import STATION_OWN, World, devguard, ok, records


@pytest.fixture(scope="module")
def kept(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a log of some length."""
    home = tmp_path_factory.mktemp("kept") / "home"
    shutil.copytree(world.home, home, ignore=STATION_OWN)
    for _ in range(6):
        ok("verify", world.suits["1.1.0"], world.suits["1.0.0"], "--home", home)
    devguard("verify", world.image, "--home", home)
    return home


@pytest.fixture
def log(kept: Path, tmp_path: Path) -> Path:
    """A copy of it to damage; it is DEVGUARD_HOME."""
    shutil.copytree(kept, tmp_path / "home")
    return tmp_path / "home"


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_good(log: Path) -> None:
    before = snapshot(log)
    data = ok("evidence", "verify", "--json").json
    assert (data["ok"], data["records"], data["interrupted"]) == (True, 13, False)
    assert len(data["root"]) == 64
    assert "good: 13 records" in ok("evidence", "verify").out
    assert snapshot(log) == before


def test_show(log: Path) -> None:
    before = snapshot(log)
    rows = ok("evidence", "show", "--json").json["records"]
    assert [row["index"] for row in rows] == list(range(13))
    assert rows[-1]["code"] == "envelope.malformed"
    assert rows[0]["release"] == "insulin-pump 1.1.0"
    assert len(ok("evidence", "show", "--last", 2).out.splitlines()) == 2
    assert devguard("evidence", "show", "--last", 0).status == 2
    assert snapshot(log) == before


def damaged() -> str:
    result = devguard("evidence", "verify", "--json")
    assert result.status == 1, result.out
    assert result.code in ("log.tampered", "log.truncated")
    return str(result.code)


def files(log: Path) -> list[Path]:
    return sorted(path for path in (log / "evidence").rglob("*") if path.is_file())


def flips(log: Path, step: int) -> None:
    for path in files(log):
        data = path.read_bytes()
        for at in sorted({0, len(data) - 1, *range(0, len(data), max(1, len(data) // step))} if data else ()):
            changed = bytearray(data)
            changed[at] ^= 1 << at % 8
            path.write_bytes(changed)
            damaged()
        path.write_bytes(data)
    ok("evidence", "verify")


def test_a_flipped_byte_anywhere(log: Path) -> None:
    flips(log, 40)


@pytest.mark.slow
def test_a_flipped_byte_at_every_position(log: Path) -> None:
    flips(log, 1 << 30)


def test_the_first_bad_record_is_named(log: Path) -> None:
    segment = max(files(log), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert "record " in devguard("evidence", "verify").err


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_tail_cut_off(log: Path, share: float) -> None:
    for path in files(log):
        data = path.read_bytes()
        if data:
            path.write_bytes(data[: int((len(data) - 1) * share)])
            damaged()
            path.write_bytes(data)


def test_a_file_taken_away(log: Path) -> None:
    for path in files(log):
        data = path.read_bytes()
        if not data:
            continue
        path.unlink()
        assert devguard("evidence", "verify", "--json").status == 1
        path.write_bytes(data)
    ok("evidence", "verify")


def test_a_file_that_does_not_belong(log: Path) -> None:
    (log / "evidence" / "notes.txt").write_text("hello")
    damaged()


def test_the_whole_folder_gone(log: Path) -> None:
    shutil.rmtree(log / "evidence")
    assert damaged() == "log.truncated"
    shutil.rmtree(log / "keys")
    assert devguard("evidence", "verify").code == "log.missing"


def test_the_station_s_key_gone_or_another(world: World, log: Path) -> None:
    (log / "keys" / "station.key").unlink()
    assert devguard("evidence", "verify").status == 3
    result = devguard("verify", world.suits["1.1.0"], "--json")
    assert (result.status, result.json["accepted"], result.code) == (1, False, "log.truncated")
    shutil.rmtree(log / "evidence")
    ok("verify", world.suits["1.1.0"])  # a new station
    for path in files(log):
        path.unlink()


def test_a_key_lying_about_is_not_the_station_s(log: Path, tmp_path: Path, world: World) -> None:
    shutil.copy(log / "keys" / "release.key", tmp_path / "station")
    ok("evidence", "verify")


def test_with_the_public_half_alone(log: Path, tmp_path: Path) -> None:
    ok("key", "export", "station", "--public", "-o", tmp_path / "s.pub")
    shutil.rmtree(log / "keys")
    assert ok("evidence", "verify", "--key", tmp_path / "s.pub", "--json").json["records"] == 13


def test_another_station_s_key(world: World, log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    devguard("verify", world.image, "--home", other)
    assert devguard("evidence", "verify", "--key", other / "keys" / "station.key").status == 1


def listed(world: World, folder: Path, public: Path, *more: object) -> Path:
    """A trust document that lists a station's key."""
    shutil.copytree(world.folder / "trust", folder)
    vendor = world.copy(folder / "vendor")  # its trust document follows; the world's stays as it is for others
    text = public.read_text().replace("person: this station", "person: Bench 7")
    public.write_text(text)
    ok("trust", "rotate", folder, "--role", f"station={public}:1", "--expires", "2098-01-01", "--home", vendor)
    if more:
        ok("trust", "revoke", folder, *more, "--expires", "2098-01-01", "--home", vendor)
    return folder / "current.trust"


@pytest.fixture
def elsewhere(world: World, log: Path, tmp_path: Path) -> Path:
    """A copy of the station's evidence where its key is not, and its public export beside it."""
    ok("key", "export", "station", "--public", "-o", tmp_path / "bench-7.pub")
    other = tmp_path / "office"
    shutil.copytree(log / "evidence", other / "evidence")
    return other


def test_a_station_s_log_is_verified_by_the_key_a_trust_document_lists(
    world: World, elsewhere: Path, tmp_path: Path
) -> None:
    trust = listed(world, tmp_path / "t", tmp_path / "bench-7.pub")
    found = ok("evidence", "verify", "--trust", trust, "--home", elsewhere, "--json").json
    assert found["station"] == {"person": "Bench 7", "trust_version": 2}
    assert "Bench 7" in ok("evidence", "verify", "--trust", trust, "--home", elsewhere).out
    segment = next((elsewhere / "evidence").glob("segment-*"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"\0")
    assert devguard("evidence", "verify", "--trust", trust, "--home", elsewhere, "--json").code == "log.tampered"


def test_a_station_that_is_not_listed_or_revoked_or_out_of_its_time(
    world: World, elsewhere: Path, tmp_path: Path
) -> None:
    verify = ("evidence", "verify", "--json", "--home", elsewhere, "--trust")
    assert devguard(*verify, world.trust).code == "key.unknown"  # nobody of the role station at all
    public = tmp_path / "bench-7.pub"
    kept = public.read_text()
    revoked = listed(world, tmp_path / "r", public, public)
    assert devguard(*verify, revoked).code == "key.revoked"
    ok("key", "new", "other", "--person", "Bench 8", "--role", "station")
    ok("key", "export", "other", "--public", "-o", tmp_path / "other.pub")
    assert devguard(*verify, listed(world, tmp_path / "o", tmp_path / "other.pub")).code == "key.unknown"
    public.write_text(kept)
    both = listed(world, tmp_path / "b", public)
    assert devguard(*verify, both, "--key", tmp_path / "other.pub").code == "key.unknown"
    assert ok(*verify, both, "--key", public).json["ok"] is True
    assert devguard(*verify, tmp_path / "none.trust").code == "file.missing"
    segment = next((elsewhere / "evidence").glob("segment-*"))
    data = segment.read_bytes()
    segment.write_bytes(data[:4096] + bytes(8192) + data[12288:])  # no head at all
    assert devguard(*verify, both).code == "log.tampered"
    segment.unlink()
    assert devguard(*verify, both).code == "log.missing"


def test_no_more_records_after_damage(world: World, log: Path) -> None:
    segment = max(files(log), key=lambda path: path.stat().st_size)
    segment.write_bytes(segment.read_bytes()[:-1])
    result = devguard("verify", world.suits["1.1.0"], "--json")
    if result.status == 0:
        pytest.fail("a damaged log was continued")
    assert (result.status, result.json["accepted"]) == (1, False)
    assert str(result.code).startswith("log.")


def test_every_verdict_is_a_record(world: World, home: Path) -> None:
    devguard("verify", world.suits["1.1.0"], "nowhere")
    devguard("grant", "check", world.image)
    devguard("release", "sign", world.suits["1.1.0"], "--key", "release")
    assert [(one["action"], one["code"]) for one in records(home)] == [
        ("release.verify", None),
        ("release.verify", "file.missing"),
        ("grant.check", "grant.malformed"),
        ("release.sign", "release.duplicate"),
    ]
    ok("evidence", "verify")
