"""`devguard technician`: the list, what it forbids at once, how soon elsewhere, and what cannot be put back."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from cli_support import PROGRAMMER, PUMP, Result, World, devguard, ok, records
from devguard.link.driver import SerialDriver

ADD = ("technician", "add", "tech", "--site", "ward-4", "--trained-until", "2090-01-01")
ISSUE = ("grant", "issue", "--authority", "authority", "--model", PUMP, "--serial", "IP-1")


def issue(out: object, *more: object, who: str = "tech") -> Result:
    return devguard(*ISSUE, "--technician", who, "-o", out, *more)


def code(result: Result) -> str | None:
    return result.code


def test_add_show_list(home: Path) -> None:
    made = ok(*ADD, "--json").json
    assert (made["name"], made["person"], made["sites"]) == ("tech", "Tess Technician", ["ward-4"])
    assert made["training"] == {"*": "2090-01-01T00:00:00Z"}
    assert made["suspended"] is False
    row = records(home)[-1]
    assert row["action"] == "technician.add"
    assert row["details"]["holder"] == made["fingerprint"]
    assert ok("technician", "list", "--json").json["technicians"] == [made]
    assert made["fingerprint"] in ok("technician", "list").out
    shown = ok("technician", "show", "tech", "--json").json
    assert len(shown["words"].split()) > 8
    assert (home / "technicians.cbor").stat().st_mode & 0o777 == 0o600


def test_by_public_export_and_under_another_name(home: Path, tmp_path: Path) -> None:
    ok("key", "export", "tech", "--public", "-o", tmp_path / "t.pub")
    made = ok("technician", "add", tmp_path / "t.pub", "--name", "t-4711", "--person", "TESS technician", "--any-site",
              "--training", f"{PUMP}=2090-01-01", "--training", f"{PROGRAMMER}=2089-01-01", "--json").json  # fmt: skip
    assert (made["name"], made["sites"]) == ("t-4711", ["*"])
    assert sorted(made["training"]) == [PUMP, PROGRAMMER]
    assert ok(*ISSUE, "--technician", "t-4711", "-o", "g.grant", "--json").json["trained_until"].startswith("2090")


@pytest.mark.parametrize(
    ("args", "status", "code"),
    [
        (["add", "tech"], 2, None),
        (["add", "tech", "--site", "a"], 2, None),
        (["add", "tech", "--site", "a", "--any-site", "--trained-until", "2090-01-01"], 2, None),
        (["add", "tech", "--site", "a", "--training", "2090-01-01"], 2, None),
        (["add", "tech", "--site", "a", "--training", "x=soon"], 2, None),
        (["add", "nobody", "--site", "a", "--trained-until", "2090-01-01"], 3, "file.missing"),
        (["add", "authority", "--site", "a", "--trained-until", "2090-01-01"], 1, "key.purpose"),
        (["add", "tech", "--person", "Tom", "--site", "a", "--trained-until", "2090-01-01"], 1, "grant.technician"),
        (["add", "tech", "--name", "../x", "--site", "a", "--trained-until", "2090-01-01"], 3, "grant.malformed"),
        (["add", "tech", "--name", "A B", "--site", "a", "--trained-until", "2090-01-01"], 3, "grant.malformed"),
        (["add", "tech", "--site", "\x07", "--trained-until", "2090-01-01"], 3, "grant.malformed"),
        (["add", "tech", "--site", "", "--trained-until", "2090-01-01"], 3, "grant.malformed"),
        (["add", "tech", "--site", "a", "--trained-until", "0001-01-01"], 3, "grant.malformed"),
        (["show", "nobody"], 1, "grant.technician"),
        (["change", "nobody", "--any-site"], 1, "grant.technician"),
        (["change", "nobody"], 2, None),
        (["suspend", "nobody"], 3, "file.missing"),
        (["reinstate", "nobody"], 3, "file.missing"),
        (["import", "nowhere"], 3, "file.missing"),
        (["export", "--authority", "tech", "-o", "x"], 1, "key.purpose"),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, list) else "",
)
def test_bad_wishes_change_nothing(home: Path, tmp_path: Path, args: list[str], status: int, code: str | None) -> None:
    result = devguard("technician", *args)
    assert (result.status, result.code if code else None) == (status, code), result.err
    assert not (home / "technicians.cbor").exists()
    assert not (tmp_path / "x").exists()
    if code is not None and args[0] != "show":
        assert records(home)[-1]["code"] == code


def test_a_name_and_a_key_are_one_technicians(home: Path) -> None:
    ok(*ADD)
    again = ("technician", "add", "tech", "--any-site", "--trained-until", "2090-01-01")
    assert devguard(*again).code == "grant.technician"
    assert devguard(*again, "--name", "other").code == "grant.technician"
    second = ("technician", "add", "second", "--name", "tech", "--any-site", "--trained-until", "2090-01-01")
    assert devguard(*second).code == "grant.technician"
    assert len(ok("technician", "list", "--json").json["technicians"]) == 1


# what the list forbids


def test_a_listed_technician_gets_what_the_list_allows(home: Path) -> None:
    ok(*ADD)
    made = issue("g.grant", "--json").json
    assert (made["sites"], made["trained_until"]) == (["ward-4"], "2090-01-01T00:00:00Z")
    assert "site" not in made["any"]
    assert "training" not in made["any"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--site", "ward-5"], "grant.scope"),
        (["--site", "*"], "grant.scope"),
        (["--trained-until", "2091-01-01"], "grant.training"),
        (["--model", PROGRAMMER], "grant.training"),
        (["--model", "*"], "grant.training"),
    ],
    ids=str,
)
def test_a_listed_technician_gets_no_more(home: Path, tmp_path: Path, more: list[str], code: str) -> None:
    ok("technician", "add", "tech", "--site", "ward-4", "--training", f"{PUMP}=2090-01-01")
    assert issue("g.grant", *more).code == code
    assert not (tmp_path / "g.grant").exists()
    assert records(home)[-1]["code"] == code


def test_training_lapses_and_is_renewed(home: Path) -> None:
    ok("technician", "add", "tech", "--site", "ward-4", "--trained-until", "2020-01-01")
    refused = issue("g.grant")
    assert (refused.status, refused.code) == (1, "grant.training")
    ok("technician", "change", "tech", "--trained-until", "2090-01-01")
    assert issue("g.grant").status == 0
    assert records(home)[-2]["action"] == "technician.change"
    assert ok("technician", "list", "--json").json["technicians"][0]["sites"] == ["ward-4"]


def test_whoever_is_not_on_a_list_that_is_kept_gets_nothing(home: Path, tmp_path: Path) -> None:
    ok(*ADD)
    assert issue("g.grant", who="second").code == "grant.technician"
    ok("key", "export", "tech", "--public", "-o", tmp_path / "t.pub")
    assert issue("g.grant", who=str(tmp_path / "t.pub")).status == 0
    ok("key", "new", "card", "--person", "Tess Technician", "--role", "technician")
    assert issue("h.grant", who="card").code == "grant.technician"  # the person is known, the key is not
    forged = (tmp_path / "t.pub").read_text().replace("Tess Technician", "Somebody Else")
    (tmp_path / "f.pub").write_text(forged)  # Tess' card under another name
    assert issue("h.grant", who=str(tmp_path / "f.pub")).code == "grant.technician"


# suspended


def test_suspension_is_at_once_here_and_says_how_soon_elsewhere(world: World, home: Path) -> None:
    ok(*ADD)
    made = issue("g.grant", "--expires", "2h", "--json").json
    epoch = made["epoch"]
    told = ok("technician", "suspend", "tech", "--reason", "left yesterday", "--json").json
    assert told["last_grant_ends"] == made["expires"]
    assert (told["epoch"], told["epoch_raised"]) == (epoch + 1, True)
    assert told["latest_possible"] > made["expires"]
    assert records(home)[-1]["details"]["person"] == "Tess Technician"
    for refused in (
        issue("h.grant"),
        devguard("grant", "check", "g.grant"),
        devguard("grant", "delegate", "g.grant", "--key", "tech", "--to", "second", "-o", "d.grant"),
        devguard("push", world.suits["1.1.0"], "--key", "tech", "--grant", "g.grant", "--dry-run", "--json"),
    ):
        assert (refused.status, refused.code) == (1, "grant.revoked")
        assert records(home)[-1]["code"] == "grant.revoked"
    ok("technician", "add", "second", "--any-site", "--trained-until", "2090-01-01")
    assert issue("s.grant", "--json", who="second").json["epoch"] == epoch + 1  # carried by whoever gets the next
    listed = ok("technician", "list", "--json").json["technicians"]
    assert [(one["name"], one["suspended"]) for one in listed] == [("second", False), ("tech", True)]
    assert "SUSPENDED since" in ok("technician", "show", "tech").out


def test_the_words_of_a_suspension(home: Path) -> None:
    ok(*ADD)
    until = issue("g.grant", "--expires", "2h", "--json").json["expires"]
    out = ok("technician", "suspend", "tech").out
    assert f"the last grant of Tess Technician known here ends at {until} (" in out
    assert "devices that see a grant of epoch 1 before then refuse older ones at once" in out
    assert "technician export" in out
    assert "epoch 1, as before" in ok("technician", "suspend", "tech").out
    other = ok("technician", "suspend", "second").out
    assert "no open grant of Tom Technician is known here; one issued elsewhere ends at" in other


def test_whoever_is_not_on_the_list_is_suspended_by_their_key(home: Path, tmp_path: Path) -> None:
    issue("g.grant")
    told = ok("technician", "suspend", home / "keys" / "tech.key", "--json").json
    assert told["person"] == "Tess Technician"
    assert devguard("grant", "check", "g.grant").code == "grant.revoked"
    assert issue("h.grant").code == "grant.revoked"
    others = ok("technician", "list", "--json").json["suspended"]
    assert [one["person"] for one in others] == ["Tess Technician"]
    ok("technician", "reinstate", "tech", "--reason", "a mistake")
    assert ok("grant", "check", "g.grant", "--json").json["ok"]


def test_a_grant_that_lies_here_tells_when_it_ends_too(world: World, home: Path) -> None:
    (home / "grants").mkdir()
    world.grant(home / "grants" / "a.grant", "IP-1", hours=3)
    ends = ok("technician", "suspend", "tech", "--json").json["last_grant_ends"]
    assert ends == ok("grant", "show", home / "grants" / "a.grant", "--json").json["expires"]


def test_the_epoch_stops_where_devices_stop_following(home: Path) -> None:
    issue("g.grant", who="second")
    for number in range(1, 17):
        told = ok("grant", "revoke", "g.grant", "--json").json
        assert (told["epoch"], told["epoch_raised"]) == (number, True)
    told = ok("technician", "suspend", "tech", "--json").json
    assert (told["epoch"], told["epoch_raised"]) == (16, False)
    assert "devguard trust revoke --grant-epoch" in ok("technician", "suspend", "tech").out
    made = issue("g.grant", "--json", who="second").json
    assert made["epoch"] == 16
    assert ok("grant", "check", "g.grant", "--json").json["ok"]
    older = ok(*ISSUE, "--technician", "second", "--epoch", "3", "-o", "h.grant")
    assert "epoch 3 is older than 16, in force here" in older.err


def test_a_lost_card_stays_suspended_when_its_owner_comes_back(world: World, home: Path, tmp_path: Path) -> None:
    ok(*ADD)
    issue("old.grant")
    ok("technician", "suspend", "tech", "--reason", "card lost")
    ok("key", "new", "card", "--person", "Tess Technician", "--role", "technician")
    ok("technician", "change", "tech", "--key", "card")
    ok("technician", "reinstate", "tech", "--reason", "new card")
    assert issue("new.grant").status == 0
    assert devguard("grant", "check", "old.grant").code == "grant.revoked"
    assert ok("grant", "check", "new.grant", "--json").json["ok"]


# what is refused before a port is opened


def test_a_suspended_technician_opens_no_port(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SerialDriver, "open", lambda *_: pytest.fail("a port was opened"))
    grant = world.grant(tmp_path / "g.grant", "IP-1")
    ok("technician", "suspend", "tech")
    for command in ("push", "push --protocol smp"):
        args = [*command.split(), world.suits["1.1.0"], "--port", "/dev/null", "--key", "tech", "--grant", grant]
        refused = devguard(*args, "--json")
        assert (refused.status, refused.code) == (1, "grant.revoked")
        assert set(refused.json) >= {"accepted", "code", "device", "report", "link"}


# signed lists, from the authority to other stations


@pytest.fixture
def bench(world: World, tmp_path: Path) -> Path:
    """Another station with the same trust document."""
    return world.copy(tmp_path / "bench")


def test_a_suspension_travels_as_a_signed_list(world: World, home: Path, bench: Path, tmp_path: Path) -> None:
    grant = world.grant(tmp_path / "g.grant", "IP-1")
    ok("grant", "check", grant, "--home", bench)
    ok("technician", "suspend", "tech", "--reason", "private")
    made = ok("technician", "export", "--authority", "authority", "-o", "l.suspensions", "--json").json
    assert made["epoch"] == 1
    assert records(home)[-1]["actor"] == "Thea Authority"
    assert b"private" not in (tmp_path / "l.suspensions").read_bytes()
    taken = ok("technician", "import", "l.suspensions", "--home", bench, "--json").json
    assert (taken["changed"], taken["lifts"]) == (2, True)
    assert records(bench)[-1]["details"]["suspended"] == "Tess Technician"
    assert devguard("grant", "check", grant, "--home", bench).code == "grant.revoked"
    assert ok("technician", "import", "l.suspensions", "--home", bench, "--json").json["changed"] == 0
    assert devguard("technician", "reinstate", "tech", "--home", bench).code == "grant.revoked"
    ok("technician", "reinstate", "tech", "--reason", "a mistake")
    shutil.copy("l.suspensions", "old.suspensions")
    ok("technician", "export", "--authority", "authority", "-o", "l.suspensions")
    ok("technician", "import", "l.suspensions", "--home", bench)
    ok("technician", "import", "old.suspensions", "--home", bench)  # played back: says nothing new
    assert ok("grant", "check", grant, "--home", bench, "--json").json["ok"]


def test_a_list_by_nobody_in_the_document_is_not_taken(home: Path, bench: Path, tmp_path: Path) -> None:
    ok("technician", "suspend", "tech")
    ok("key", "new", "impostor", "--person", "Ivo", "--role", "technician-authority")
    ok("technician", "export", "--authority", "impostor", "-o", "l")
    assert devguard("technician", "import", "l", "--home", bench).code == "key.unknown"
    data = bytearray((tmp_path / "l").read_bytes())
    for at in range(0, len(data), max(1, len(data) // 12)):
        data[at] ^= 0x10
        (tmp_path / "x").write_bytes(data)
        assert devguard("technician", "import", "x", "--home", bench).status in (1, 3)
        data[at] ^= 0x10
    for junk in (b"", b"\x9f" * 5000, bytes(70_000)):
        (tmp_path / "x").write_bytes(junk)
        assert devguard("technician", "import", "x", "--home", bench).status == 3
    assert not (bench / "technicians.cbor").exists()


# what cannot be put back


def test_yesterdays_list_is_noticed(home: Path, tmp_path: Path) -> None:
    ok(*ADD)
    issue("g.grant")
    before = (home / "technicians.cbor").read_bytes()
    ok("technician", "suspend", "tech")
    (home / "technicians.cbor").write_bytes(before)
    again = (*ISSUE, "--technician", "tech", "-o", "h.grant")
    for command in (("technician", "list"), ("grant", "check", "g.grant"), again, ("technician", "suspend", "tech")):
        assert devguard(*command).code == "trust.rollback", command
    (home / "technicians.cbor").unlink()
    assert devguard("grant", "check", "g.grant").code == "trust.rollback"
    status = ok("status", "--no-ports", "--json").json
    assert status["technicians"]["code"] == "trust.rollback"
    digest = ok("trust", "show", "--json").json["digest"]
    (home / "technicians.cbor").write_bytes(before)
    ok("trust", "recover", "--accept", digest, "--person", "Sam Security", "--reason", "restored from backup")
    assert ok("technician", "list", "--json").json["technicians"][0]["suspended"] is False
    ok("evidence", "verify")


def test_a_list_somebody_planted_is_none(world: World, home: Path, tmp_path: Path) -> None:
    other = world.copy(tmp_path / "other")
    ok(*ADD, "--home", other)
    shutil.copy(other / "technicians.cbor", home / "technicians.cbor")
    assert issue("g.grant").code == "trust.rollback"
    assert devguard("technician", "list").code == "trust.rollback"


def test_a_list_whose_writer_was_cut_off_before_the_last_step_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(*ADD)
    from devguard.cli import standing

    def cut(_path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(standing, "_settle", cut)
        assert devguard("technician", "suspend", "tech").status == 130
    assert (home / "technicians.next").exists()
    assert issue("g.grant").code == "grant.revoked"
    ok("technician", "add", "second", "--any-site", "--trained-until", "2090-01-01")
    assert not (home / "technicians.next").exists()
    listed = ok("technician", "list", "--json").json["technicians"]
    assert [(one["name"], one["suspended"]) for one in listed] == [("second", False), ("tech", True)]


def test_a_record_that_cannot_be_written_changes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ok(*ADD)
    from devguard.errors import LinkError
    from devguard.evidence.log import EvidenceLog

    def full(*_: object) -> None:
        raise LinkError("log.full", "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceLog, "append", full)
        assert devguard("technician", "suspend", "tech").code == "log.full"
    assert issue("g.grant").status == 0


def test_status_shows_grants_suspensions_and_training(world: World, home: Path) -> None:
    ok(*ADD)
    soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 5 * 86_400))
    ok("technician", "add", "second", "--any-site", "--training", f"{PUMP}={soon}")
    (home / "grants").mkdir()
    world.grant(home / "grants" / "a.grant", "IP-1")
    world.grant(home / "grants" / "b.grant", "IP-2", name="second")
    ok("technician", "suspend", "tech", "--reason", "left")
    data = ok("status", "--no-ports", "--json").json
    assert [(row["valid"], row.get("code")) for row in data["grants"]] == [(False, "grant.revoked"), (True, None)]
    people = data["technicians"]
    assert [(one["person"], one["reason"]) for one in people["suspended"]] == [("Tess Technician", "left")]
    assert [(one["name"], one["model"]) for one in people["training"]] == [("second", PUMP)]
    out = ok("status", "--no-ports").out
    assert "grant  a.grant: Tess Technician on IP-1, grant.revoked" in out
    assert "SUSPENDED Tess Technician since" in out
    assert f"training of second for {PUMP} until" in out
