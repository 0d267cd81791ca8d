"""`devguard grant`: issued by an authority to one person's key, shown as it is, checked as a device would."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import PROGRAMMER, PUMP, World, devguard, ok, records

ISSUE = ("grant", "issue", "--authority", "authority", "--technician", "tech", "--model", PUMP, "-o", "g.grant")


def test_issue_show_check(world: World, home: Path) -> None:
    made = ok(*ISSUE, "--serial", "IP-1", "--expires", "2h", "--max-uses", 3, "--json").json
    assert (made["issuer"], made["technician"]) == ("Thea Authority", "Tess Technician")
    assert (made["models"], made["serials"], made["actions"], made["max_uses"]) == ([PUMP], ["IP-1"], ["update"], 3)
    assert "serial" not in " ".join(made["any"])
    assert ok("grant", "show", "g.grant", "--json").json.items() <= made.items()
    assert "Tess Technician may update insulin-pump, serial IP-1" in ok("grant", "show", "g.grant").out
    assert ok("grant", "check", "g.grant", "--json").json["ok"] is True
    assert [(one["action"], one["actor"]) for one in records(home)][:1] == [("grant.issue", "Thea Authority")]


def test_to_a_public_export(world: World, home: Path, tmp_path: Path) -> None:
    ok("key", "export", "tech", "--public", "-o", tmp_path / "t.pub")
    args = [str(tmp_path / "t.pub") if one == "tech" else one for one in ISSUE]
    assert ok(*args, "--serial", "IP-1", "--json").json["technician"] == "Tess Technician"


def test_what_is_wide_is_said(world: World, home: Path) -> None:
    assert "WIDE: any" in ok(*ISSUE, "--any-serial").out
    assert ok("grant", "show", "g.grant", "--json").json["serials"] == ["*"]


def test_bound_to_a_release(world: World, home: Path, tmp_path: Path) -> None:
    made = ok(*ISSUE, "--serial", "IP-1", "--release", world.suits["1.1.0"], "--json").json
    assert len(bytes.fromhex(made["release"])) >= 32
    pushed = devguard("push", world.suits["1.0.0"], "--key", "tech", "--grant", "g.grant", "--dry-run", "--json")
    assert (pushed.status, pushed.code) == (1, "grant.scope")
    assert ok("push", world.suits["1.1.0"], "--key", "tech", "--grant", "g.grant", "--dry-run", "--json").json[
        "accepted"
    ]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--serial", "IP-2"], "grant.scope"),
        (["--model", "pacemaker-programmer"], "grant.scope"),
        (["--action", "recover"], "grant.action"),
        (["--now", "2090-01-01"], "grant.expired"),
    ],
)
def test_refused(world: World, home: Path, tmp_path: Path, options: list[str], code: str) -> None:
    world.grant(tmp_path / "g.grant", "IP-1")
    result = devguard("grant", "check", "g.grant", *options)
    assert (result.status, result.code) == (1, code)
    assert records(home)[-1]["code"] == code


def test_not_yet(world: World, home: Path, tmp_path: Path) -> None:
    world.grant(tmp_path / "g.grant", "PP-1", model=PROGRAMMER)  # a model with a clock of its own
    result = devguard("grant", "check", "g.grant", "--now", "2001-01-01")
    assert (result.status, result.code) == (1, "grant.not-yet")


def test_signed_by_the_wrong_key(world: World, home: Path, tmp_path: Path) -> None:
    for name, code in (("release", "key.purpose"), ("tech", "key.purpose"), ("nobody", "file.missing")):
        args = [name if one == "authority" else one for one in ISSUE]
        assert devguard(*args, "--serial", "IP-1").code == code
    args = ["quality" if one == "tech" else one for one in ISSUE]
    assert devguard(*args, "--serial", "IP-1").code == "key.purpose"
    assert not (tmp_path / "g.grant").exists()


def test_nobody_grants_to_themselves(world: World, home: Path) -> None:
    ok("key", "new", "thea-too", "--person", "thea  AUTHORITY", "--role", "technician")
    args = ["thea-too" if one == "tech" else one for one in ISSUE]
    assert devguard(*args, "--serial", "IP-1").code == "grant.signature"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 2),
        (["--serial", "IP-1", "--any-serial"], 2),
        (["--serial", "IP-1", "--expires", "soon"], 2),
        (["--serial", "IP-1", "--expires", "13h"], 3),
        (["--serial", "IP-1", "--expires", "0s"], 3),
        (["--serial", "IP-1", "--expires", "999999999d"], 3),
        (["--serial", "IP-1", "--max-uses", "0"], 2),
        (["--serial", "IP-1", "--max-uses", "70000"], 2),
        (["--serial", "IP-1", "--action", "dance"], 2),
        (["--serial", "IP-1", "--device-nonce", "xyz"], 2),
        (["--serial", "IP-1", "--device-nonce", "00"], 3),
        (["--serial", "IP-1", "--trained-until", "0001-01-01"], 3),
        (["--serial", "IP-1", "--epoch", "-1"], 2),
        (["--serial", ""], 3),
        (["--serial", "a\x1b[0m"], 3),
        (["--serial", "\udcff"], 2),
        (["--serial", "x" * 200], 3),
        (["--serial", "IP-1", "--release", "nowhere"], 3),
    ],
)
def test_bad_wishes(world: World, home: Path, tmp_path: Path, options: list[str], status: int) -> None:
    result = devguard(*ISSUE, *options)
    assert result.status == status, result.err
    assert "\x1b" not in result.err
    assert not (tmp_path / "g.grant").exists()


def test_training(world: World, home: Path, tmp_path: Path) -> None:
    world.grant(tmp_path / "t.grant", "IP-1", trained_until=1_600_000_000)
    assert devguard("grant", "check", "t.grant").code == "grant.training"


def test_a_changed_grant(world: World, home: Path, tmp_path: Path) -> None:
    data = world.grant(tmp_path / "g.grant", "IP-1").read_bytes()
    for at in range(0, len(data), max(1, len(data) // 50)):
        changed = bytearray(data)
        changed[at] ^= 0x20
        (tmp_path / "x.grant").write_bytes(changed)
        assert devguard("grant", "check", "x.grant").status in (1, 3), at
    for end in range(0, len(data), max(1, len(data) // 25)):
        (tmp_path / "x.grant").write_bytes(data[:end])
        assert devguard("grant", "show", "x.grant").status == 3


def test_of_another_authority(world: World, home: Path, tmp_path: Path) -> None:
    ok("key", "new", "impostor", "--person", "Ivo", "--role", "technician-authority")
    args = ["impostor" if one == "authority" else one for one in ISSUE]
    ok(*args, "--serial", "IP-1")
    assert devguard("grant", "check", "g.grant").code == "key.unknown"


def test_status_counts_what_is_kept(world: World, home: Path) -> None:
    (home / "grants").mkdir()
    world.grant(home / "grants" / "a.grant", "IP-1")
    (home / "grants" / "b.grant").write_bytes(b"broken")
    (home / "keys" / "broken.key").write_bytes(b"broken")
    data = ok("status", "--no-ports", "--json").json
    assert data["trust"]["ok"] is True
    assert [row.get("code") for row in data["grants"]] == [None, "grant.malformed"]
    assert 470 < data["grants"][0]["minutes_left"] <= 480
    assert {"name": "broken", "code": "key.malformed"} in data["keys"]
    assert "a.grant: Tess Technician on IP-1" in ok("status", "--no-ports").out


def test_of_an_epoch_that_is_over_or_cannot_be(world: World, home: Path, tmp_path: Path) -> None:
    """The trust document's epoch is the least a device has; its own is not known here, and that is said."""
    ok("trust", "revoke", home / "trust", "--grant-epoch", 4, "--expires", "2098-01-01")
    for epoch, code in ((3, "grant.revoked"), (4, None), (20, None), (90, None)):
        world.grant(tmp_path / "g.grant", "IP-1", epoch=epoch)
        result = devguard("grant", "check", "g.grant", "--json")
        assert result.code == code, epoch
        if code is None:
            assert any("grant epoch" in one and str(epoch) in one for one in result.json["not_known"])
    assert "not known here: the device's grant epoch" in ok("grant", "check", "g.grant").out
    for device, code in ((90, None), (74, None), (91, "grant.revoked"), (73, "grant.revoked")):
        told = devguard("grant", "check", "g.grant", "--device-epoch", device, "--json")
        assert told.code == code, device
        if code is None:
            assert told.json["not_known"] == []


def test_what_only_the_device_knows_is_said(world: World, home: Path, tmp_path: Path) -> None:
    world.grant(tmp_path / "g.grant", "IP-1", max_uses=2, device_nonce=bytes(16))
    unknown = ok("grant", "check", "g.grant", "--json").json["not_known"]
    assert len(unknown) == 3
    assert any("nonce" in one for one in unknown)
    assert any("uses" in one for one in unknown)
