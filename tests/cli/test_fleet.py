"""`devguard fleet age` on a log of real pushes, and what support dates do to verify and push."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cli_support import World, devguard, emulator, ok, records
from devguard.cli.home import Home
from devguard.evidence.log import read_records
from devguard.evidence.record import DigestOf, Statement

SERIAL = "IP-81"
PAST, FUTURE = 1_700_000_000, 4_000_000_000


@pytest.fixture(scope="module")
def pushed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose pump runs 1.0.0, and which has verified 1.1.0."""
    folder = tmp_path_factory.mktemp("fleet")
    home = world.copy(folder / "bench")
    grant = world.grant(folder / "tech.grant", SERIAL, sites=frozenset(["ward-3"]))
    with emulator(world, folder, SERIAL, "--site", "ward-3") as device:
        line = ["--port", device.port, "--key", "tech", "--grant", grant, "--home", home]
        old = world.suit(folder / "1.0.0.suit", version="1.0.0", sequence=1, end_of_support=PAST)
        refused = devguard("push", old, *line, "--json")
        assert (refused.code, refused.status, refused.json["accepted"]) == ("release.unsupported", 1, False)
        assert "release insulin-pump 1.0.0 ended on 2023-11-14" in refused.json["error"]["message"]
        ok("push", old, *line, "--accept-unsupported", "Olga Officer")
    ok("verify", world.suits["1.1.0"], "--home", home)
    return home


@pytest.fixture
def mine(pushed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pushed, tmp_path / "home"))


def test_who_accepted_it_is_on_record(pushed: Path) -> None:
    by_action = {
        one["action"]: one["details"].get("accepted-unsupported") for one in records(pushed) if not one["code"]
    }
    for action in ("release.push-begun", "release.push"):
        assert by_action[action] == "Olga Officer: support of release insulin-pump 1.0.0 ended on 2023-11-14"
    refused = next(one for one in records(pushed) if one["code"] == "release.unsupported")
    assert "accepted-unsupported" not in refused["details"]


def test_one_row_a_device(mine: Path) -> None:
    found = ok("fleet", "age", "--json").json
    (row,) = found["devices"]
    assert (row["serial"], row["model"], row["version"], row["sequence"]) == (SERIAL, "insulin-pump", "1.0.0", 1)
    assert (row["confirmed"], row["sites"], row["newest"]) == (True, ["ward-3"], "1.1.0")
    assert row["behind"] == {"versions": 1, "days": 0}
    assert row["support"]["release"].startswith("2023-11-14")
    assert row["support"]["model"] == "2036-12-31T00:00:00Z"
    assert row["red"] == ["support of its release ended on 2023-11-14"]
    assert (found["red"], found["shelf"], found["records"]) == (1, None, len(records(mine)))
    text = ok("fleet", "age").out
    assert SERIAL in text
    assert "RED  support of its release ended" in text
    assert "1 device, 1 red" in text


@pytest.mark.parametrize(("option", "value", "count"), [
    ("--model", "insulin-pump", 1), ("--model", "pacemaker-programmer", 0), ("--site", "ward-3", 1), ("--site", "x", 0),
])  # fmt: skip
def test_filters(mine: Path, option: str, value: str, count: int) -> None:
    assert len(ok("fleet", "age", option, value, "--json").json["devices"]) == count


def test_behind_is_red_after_so_many_days(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0 days behind 1.1.0" in ok("fleet", "age", "--behind", "0d", "--json").json["devices"][0]["red"]
    real = time.time
    monkeypatch.setattr("devguard.cli.context.Invocation.now", lambda _: int(real()) + 91 * 86_400)
    assert "91 days behind 1.1.0" in ok("fleet", "age", "--json").json["devices"][0]["red"][0]
    assert not any("behind" in why for why in ok("fleet", "age", "--behind", "92d", "--json").json["devices"][0]["red"])


def test_a_log_that_does_not_hold_says_nothing(mine: Path) -> None:
    segment = sorted((mine / "evidence").glob("segment-*.log"))[-1]
    data = bytearray(segment.read_bytes())
    data[data.index(b"Olga Officer")] ^= 1
    segment.write_bytes(data)
    refused = devguard("fleet", "age", "--json")
    assert (refused.code, refused.status) == ("log.tampered", 1)


def test_without_a_trust_document_nobody_vouches_for_reports(mine: Path) -> None:
    (mine / "trust" / "current.trust").unlink()
    assert devguard("fleet", "age", "--json").code == "trust.missing"


def test_without_a_log(home: Path) -> None:
    assert devguard("fleet", "age", "--json").code == "log.missing"


def test_verify_shows_support_and_refuses_nothing(world: World, home: Path, tmp_path: Path) -> None:
    for end, ended in ((PAST, True), (FUTURE, False)):
        suit = world.suit(tmp_path / f"{end}.suit", version="2.0.0", sequence=3, end_of_support=end)
        found = ok("verify", suit, "--json").json
        assert (found["accepted"], found["support"]["ended"]) == (True, ended)
        assert json.dumps(found["notes"]).count("ended on") == int(ended)
    plain = ok("verify", world.suits["1.1.0"], "--json").json
    assert plain["support"] == {"release": None, "model": "2036-12-31T00:00:00Z", "ended": False}
    assert "release supported until 2096-10-02, model supported until 2036-12-31" in ok("verify", suit).out


def test_an_acceptance_opens_nothing_else(world: World, home: Path, tmp_path: Path) -> None:
    grant = world.grant(tmp_path / "x.grant", "IP-1")
    push = ("--key", "tech", "--grant", grant, "--dry-run", "--json", "--accept-unsupported", "Olga Officer")
    old = {"version": "2.0.0", "sequence": 3, "end_of_support": PAST}
    ok("push", world.suit(tmp_path / "good.suit", **old), *push)
    short = world.suit(tmp_path / "short.suit", **old, signers=("release",))
    assert devguard("push", short, *push).code == "signature.hybrid"
    other = world.grant(tmp_path / "y.grant", "IP-1", models=frozenset(["pacemaker-programmer"]))
    refused = devguard("push", tmp_path / "good.suit", *push[:2], "--grant", other, *push[4:])
    assert refused.code is not None
    assert refused.code.startswith("grant.")
    for name in ("", " ", "x" * 101):
        assert devguard("push", tmp_path / "good.suit", *push[:-1], name).status == 2


def test_a_report_that_the_device_did_not_sign_is_no_row(mine: Path) -> None:
    """The station's own log holds, and lies: what the station wrote, the device's key does not vouch for."""
    log = Home(mine).evidence()
    told = [one for one in read_records(mine / "evidence") if Statement.REPORT in one.statements][-1]
    signed = bytearray(told.statements[Statement.REPORT])
    signed[-1] ^= 1
    digests = {**told.digests, DigestOf.REPORT: hashlib.sha256(signed).digest()}
    log.append(replace(told, digests=digests, statements={**told.statements, Statement.REPORT: bytes(signed)}))
    assert devguard("fleet", "age", "--json").code == "log.tampered"
