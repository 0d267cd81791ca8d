"""Grants that pass through several hands: requested, signed by two authorities, handed on, taken back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli_support import PROGRAMMER, PUMP, Result, World, devguard, ok, records

ISSUE = ("grant", "issue", "--authority", "authority", "-o", "g.grant")
WISH = ("--model", PUMP, "--serial", "IP-1", "--action", "update", "--hours", "06:00-18:00", "--sequences", "2-5",
        "--max-uses", "2", "--expires", "4h", "--reason", "field action 7")  # fmt: skip


@pytest.fixture
def asked(home: Path, tmp_path: Path) -> Path:
    """Tess' request, made at her own station."""
    ok("grant", "request", "--key", "tech", *WISH, "-o", "r.request")
    return tmp_path / "r.request"


# a request


def test_a_request_is_answered_as_asked(home: Path, asked: Path) -> None:
    shown = ok("grant", "show", asked, "--json").json["request"]
    assert (shown["person"], shown["serials"], shown["reason"]) == ("Tess Technician", ["IP-1"], "field action 7")
    assert shown["hours"] == "06:00-18:00"
    assert "Tess Technician asks for a grant" in ok("grant", "show", asked).out
    result = ok(*ISSUE, "--request", asked, "--json")
    assert "Tess Technician asks for a grant" in result.err  # before the key is opened
    assert "compare name and key" in result.err
    made = result.json
    assert (made["models"], made["serials"], made["hours"], made["max_uses"]) == ([PUMP], ["IP-1"], "06:00-18:00", 2)
    assert made["sequences"] == [2, 5]
    assert made["holder"] == shown["holder"]
    assert records(home)[-1]["details"]["request"] == made["cti"]
    again = ok("grant", "issue", "--authority", "authority", "-o", "h.grant", "--request", asked, "--json").json
    assert again["cti"] == made["cti"]  # asked once, granted once: a device counts both as one


def test_a_request_without_a_wish_leaves_all_to_the_authority(home: Path, tmp_path: Path) -> None:
    ok("grant", "request", "--key", "tech", "-o", "r.request")
    assert devguard(*ISSUE, "--request", "r.request").status == 2
    assert not (tmp_path / "g.grant").exists()
    made = ok(*ISSUE, "--request", "r.request", "--model", PUMP, "--any-serial", "--json").json
    assert (made["models"], made["serials"]) == ([PUMP], ["*"])


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--serial", "IP-1", "--max-uses", "1"], None),
        (["--expires", "1h", "--hours", "08:00-09:00", "--sequences", "3"], None),
        (["--site", "ward-4"], None),
        (["--serial", "IP-2"], "grant.scope"),
        (["--model", PROGRAMMER], "grant.scope"),
        (["--model", "*"], "grant.scope"),
        (["--action", "recover"], "grant.scope"),
        (["--hours", "05:00-18:00"], "grant.scope"),
        (["--hours", "18:00-06:00"], "grant.scope"),
        (["--sequences", "1-5"], "grant.scope"),
        (["--max-uses", "3"], "grant.scope"),
        (["--expires", "5h"], "grant.scope"),
    ],
    ids=str,
)
def test_an_authority_may_narrow_a_request_and_nothing_else(
    home: Path, tmp_path: Path, asked: Path, more: list[str], code: str | None
) -> None:
    result = devguard(*ISSUE, "--request", asked, *more)
    assert result.code == code, result.err
    assert (tmp_path / "g.grant").exists() is (code is None)
    if code is not None:
        assert records(home)[-1]["code"] == code


def test_a_request_meets_the_list_of_technicians(home: Path, asked: Path) -> None:
    ok("technician", "add", "second", "--any-site", "--trained-until", "2090-01-01")
    assert devguard(*ISSUE, "--request", asked).code == "grant.technician"
    ok("technician", "add", "tech", "--site", "ward-4", "--training", f"{PUMP}=2090-01-01")
    made = ok(*ISSUE, "--request", asked, "--json").json
    assert (made["sites"], made["trained_until"]) == (["ward-4"], "2090-01-01T00:00:00Z")
    ok("technician", "suspend", "tech")
    assert devguard(*ISSUE, "--request", asked).code == "grant.revoked"


def test_an_authority_does_not_answer_its_own_request(home: Path, tmp_path: Path) -> None:
    ok("key", "new", "thea-too", "--person", "thea  AUTHORITY", "--role", "technician")
    ok("grant", "request", "--key", "thea-too", *WISH, "-o", "r.request")
    assert devguard(*ISSUE, "--request", "r.request").code == "grant.signature"
    assert devguard("grant", "request", "--key", "authority", "-o", "x").code == "key.purpose"
    assert not (tmp_path / "g.grant").exists()


def test_requests_that_are_none(home: Path, tmp_path: Path, asked: Path) -> None:
    data = asked.read_bytes()
    bad = tmp_path / "bad"
    for junk in (b"", b"garbage", b"\x9f" * 3000, bytes(20_000), *(data[:end] for end in range(0, len(data), 40))):
        bad.write_bytes(junk)
        result = devguard(*ISSUE, "--request", bad)
        assert result.status == 3, junk[:20]
    for at in range(0, len(data), 23):
        bad.write_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])
        assert devguard(*ISSUE, "--request", bad).status in (1, 3)
    assert not (tmp_path / "g.grant").exists()
    assert devguard(*ISSUE, "--request", asked, "--technician", "tech").status == 2
    assert devguard(*ISSUE).status == 2


def test_an_old_request_is_not_answered(home: Path, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from devguard.cli.context import Invocation

    now = Invocation().now()
    for passed, code in ((25 * 3600, "grant.expired"), (-3600, None)):
        monkeypatch.setattr(Invocation, "now", lambda *_, then=now + passed: then)
        assert devguard(*ISSUE, "--request", asked).code == (code or "clock.rollback")


# options that are new


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--hours", "6-18"], 2),
        (["--hours", "06:00-06:00"], 2),
        (["--hours", "23:00-25:00"], 2),
        (["--hours", "00:00-24:00"], 0),
        (["--sequences", "5-2"], 2),
        (["--sequences", "x"], 2),
        (["--sequences", "99999999999999999999"], 3),
        (["--sequences", "7"], 0),
        (["--from", "2026-13-01"], 2),
        (["--from", "2090-01-01"], 0),
    ],
    ids=str,
)
def test_hours_sequences_and_a_later_begin(home: Path, tmp_path: Path, options: list[str], status: int) -> None:
    result = devguard(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", *options)
    assert result.status == status, result.err
    assert (tmp_path / "g.grant").exists() is (status == 0)


def test_releases_are_named_in_one_way(world: World, home: Path) -> None:
    two = ("--release", world.suits["1.1.0"], "--sequences", "2")
    assert devguard(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", *two).status == 2
    made = ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", "--sequences", "1", "--json").json
    assert (made["sequences"], made["release"], "release" in made["any"]) == ([1, 1], None, False)
    pushed = devguard("push", world.suits["1.1.0"], "--key", "tech", "--grant", "g.grant", "--dry-run", "--json")
    assert pushed.code == "grant.scope"


def test_what_is_left_out_is_shown_as_wide(home: Path) -> None:
    made = ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1")
    assert "WIDE: any site, any release, any hours, any uses, any training" in made.out


# two authorities


@pytest.fixture
def two(world: World, home: Path, tmp_path: Path) -> Path:
    """The home's trust document asks for two authorities; Theo's key is in a home of his own."""
    theo = tmp_path / "theo"
    shutil.copytree(home, theo)
    ok("key", "new", "theo", "--person", "Theo Authority", "--role", "technician-authority", "--home", theo)
    ok("key", "export", "theo", "--public", "-o", tmp_path / "theo.pub", "--home", theo)
    role = f"technician-authority=authority,{tmp_path / 'theo.pub'}:2"
    ok("trust", "rotate", home / "trust", "--role", role, "--expires", "2098-01-01")
    ok("trust", "follow", home / "trust", "--home", theo)
    (theo / "keys" / "authority.key").unlink()
    return theo


def half(home: Path, *more: object) -> Result:
    return ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", "--json", *more)


def test_with_a_threshold_of_two_it_takes_two_authorities(world: World, home: Path, two: Path) -> None:
    made = half(home).json
    assert (made["complete"], made["missing"]) == (False, 1)
    again = ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", "-o", "x.grant").out
    assert "NOT YET GOOD: 1 more authority has to sign it: devguard grant sign x.grant --authority KEY" in again
    assert devguard("grant", "check", "g.grant").code == "grant.signature"
    pushed = devguard("push", world.suits["1.1.0"], "--key", "tech", "--grant", "g.grant", "--dry-run")
    assert pushed.code == "grant.signature"
    whole = ok("grant", "sign", "g.grant", "--authority", "theo", "--home", two, "--json").json
    assert (whole["complete"], whole["missing"], whole["cti"]) == (True, 0, made["cti"])
    assert [(row["action"], row["actor"]) for row in records(two)][-1] == ("grant.sign", "Theo Authority")
    assert ok("grant", "check", "g.grant", "--json").json["ok"]
    ok("push", world.suits["1.1.0"], "--key", "tech", "--grant", "g.grant", "--dry-run")


def test_one_authority_does_not_sign_twice_nor_for_themselves(home: Path, two: Path, tmp_path: Path) -> None:
    half(home)
    before = (tmp_path / "g.grant").read_bytes()
    assert devguard("grant", "sign", "g.grant", "--authority", "authority").code == "grant.signature"
    ok("key", "new", "thea-two", "--person", "THEA authority", "--role", "technician-authority")
    assert devguard("grant", "sign", "g.grant", "--authority", "thea-two").code == "grant.signature"
    ok("key", "new", "tess-two", "--person", "tess TECHNICIAN", "--role", "technician-authority")
    assert devguard("grant", "sign", "g.grant", "--authority", "tess-two").code == "grant.signature"
    assert devguard("grant", "sign", "g.grant", "--authority", "release").code == "key.purpose"
    ok("technician", "suspend", "tech", "--home", two)
    assert devguard("grant", "sign", "g.grant", "--authority", "theo", "--home", two).code == "grant.revoked"
    assert (tmp_path / "g.grant").read_bytes() == before


def test_a_grant_made_for_one_is_not_signed_by_a_second(world: World, home: Path, two: Path, tmp_path: Path) -> None:
    world.grant(tmp_path / "one.grant", "IP-1")
    assert devguard("grant", "sign", "one.grant", "--authority", "theo", "--home", two).code == "grant.signature"
    for junk in (b"", b"garbage", bytes(20_000)):
        (tmp_path / "x").write_bytes(junk)
        assert devguard("grant", "sign", "x", "--authority", "theo", "--home", two).status == 3


def test_a_suspension_by_one_of_two_is_taken_and_lifted_by_both(home: Path, two: Path, tmp_path: Path) -> None:
    half(home)
    ok("grant", "sign", "g.grant", "--authority", "theo", "--home", two)
    ok("technician", "suspend", "tech", "--home", two)
    ok("technician", "export", "--authority", "theo", "-o", "l", "--home", two)
    taken = ok("technician", "import", "l", "--json").json
    assert (taken["changed"], taken["lifts"]) == (2, False)
    assert devguard("grant", "check", "g.grant").code == "grant.revoked"
    ok("technician", "reinstate", "tech", "--home", two)
    assert "to lift a suspension 2 authorities sign" in ok("technician", "export", "--authority", "theo", "-o", "l",
                                                           "--home", two).out  # fmt: skip
    assert "suspensions it would lift stay" in ok("technician", "import", "l").out
    assert devguard("grant", "check", "g.grant").code == "grant.revoked"
    ok("technician", "sign", "l", "--authority", "authority")
    assert ok("technician", "import", "l", "--json").json["lifts"] is True
    assert ok("grant", "check", "g.grant", "--json").json["ok"]


# handed on


def test_a_grant_is_handed_on_and_narrowed(world: World, home: Path, tmp_path: Path) -> None:
    ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", "--serial", "IP-2")
    made = ok("grant", "delegate", "g.grant", "--key", "tech", "--to", "second", "--serial", "IP-2", "--expires", "1h",
              "-o", "d.grant", "--json").json  # fmt: skip
    assert (made["technician"], made["serials"], made["delegated"]) == ("Tom Technician", ["IP-2"], True)
    assert records(home)[-1]["action"] == "grant.delegate"
    assert ok("grant", "check", "d.grant", "--json").json["ok"]
    assert devguard("grant", "check", "d.grant", "--serial", "IP-1").code == "grant.scope"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--to", "second", "--serial", "IP-3"], "grant.scope"),
        (["--to", "second", "--any-serial"], "grant.scope"),
        (["--to", "second", "--action", "recover"], "grant.scope"),
        (["--to", "second", "--expires", "12h"], "grant.scope"),
        (["--to", "tech"], "grant.scope"),
        (["--to", "authority"], "key.purpose"),
        (["--to", "second", "--key", "second"], "grant.holder"),
    ],
    ids=str,
)
def test_nothing_more_is_handed_on(home: Path, tmp_path: Path, more: list[str], code: str) -> None:
    ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1")
    key = [] if "--key" in more else ["--key", "tech"]
    assert devguard("grant", "delegate", "g.grant", *key, *more, "-o", "d.grant").code == code
    assert not (tmp_path / "d.grant").exists()
    assert records(home)[-1]["code"] == code


# taken back


def test_a_grant_is_taken_back(world: World, home: Path, tmp_path: Path) -> None:
    made = ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", "--json").json
    world.grant(tmp_path / "other.grant", "IP-2")
    issued = ok("grant", "list", "--json").json["issued"]
    assert [(one["cti"], one["technician"]) for one in issued] == [(made["cti"], "Tess Technician")]
    assert [one["taken_back"] for one in issued] == [False]
    told = ok("grant", "revoke", made["cti"], "--reason", "sent to the wrong person", "--json").json
    assert "min left, epoch 0, TAKEN BACK" in ok("grant", "list").out
    assert (told["last_grant_ends"], told["epoch"]) == (made["expires"], 1)
    assert devguard("grant", "check", "g.grant").code == "grant.revoked"
    assert ok("grant", "check", "other.grant", "--json").json["ok"]
    ok("grant", "revoke", "other.grant")
    assert devguard("grant", "check", "other.grant").code == "grant.revoked"
    bench = world.copy(tmp_path / "bench")
    ok("technician", "export", "--authority", "authority", "-o", "l")
    ok("technician", "import", "l", "--home", bench)
    assert devguard("grant", "check", "g.grant", "--home", bench).code == "grant.revoked"


def test_everything_is_taken_back_by_the_next_epoch(home: Path) -> None:
    ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1")
    assert ok("grant", "revoke", "--all", "--json").json["epoch"] == 1
    assert ok("grant", "check", "g.grant", "--device-epoch", "0", "--json").json["ok"]
    assert devguard("grant", "check", "g.grant", "--device-epoch", "1").code == "grant.revoked"
    assert ok(*ISSUE, "--technician", "tech", "--model", PUMP, "--serial", "IP-1", "--json").json["epoch"] == 1


@pytest.mark.parametrize(
    ("args", "status"), [([], 2), (["--all", "x"], 2), (["nowhere"], 3), (["ABCD"], 3), (["{image}"], 3)], ids=str
)
def test_what_cannot_be_taken_back(world: World, home: Path, args: list[str], status: int) -> None:
    assert devguard("grant", "revoke", *(one.format(image=world.image) for one in args)).status == status
    assert not (home / "technicians.cbor").exists()


def test_grants_that_lie_here_are_listed(world: World, home: Path) -> None:
    assert "kept here: none" in ok("grant", "list").out
    (home / "grants").mkdir()
    world.grant(home / "grants" / "a.grant", "IP-1")
    world.grant(home / "grants" / "b.grant", "IP-2", hours=1)
    (home / "grants" / "c.grant").write_bytes(b"broken")
    rows = ok("grant", "list", "--json").json["grants"]
    assert [(row["file"], row.get("valid"), row.get("code")) for row in rows] == [
        ("a.grant", True, None), ("b.grant", True, None), ("c.grant", None, "grant.malformed")
    ]  # fmt: skip
    assert "a.grant: Tess Technician on IP-1, 4" in ok("grant", "list").out
