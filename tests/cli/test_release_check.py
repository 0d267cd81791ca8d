"""`devguard release check` and `state`, and what `release sign`, `verify` and `push` do with what is inside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli_support import World, devguard, ok, records
from sbom_support import bill, catalogue, component

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed (extra sbom)")

TLS = bill(component("mbedtls", "2.28.0", supplier={"name": "Arm"}), component("zlib", "1.3.1"))
TODAY = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
SBOM = '\n[sbom]\nfile = "pump.cdx.json"\n'


@pytest.fixture
def built(world: World, home: Path, tmp_path: Path) -> Path:
    """An unsigned release that signs the digest of a bill with Mbed TLS in it; a catalogue that lists it, and none."""
    (tmp_path / "image.bin").write_bytes(b"image" * 500)
    (tmp_path / "pump.cdx.json").write_bytes(TLS)
    (tmp_path / "pump.toml").write_text(world.description(version="3.0.0", sequence=3) + SBOM)
    (tmp_path / "kev.json").write_bytes(catalogue(("CVE-2024-0001", "Arm", "Mbed TLS"), released=TODAY))
    (tmp_path / "quiet.json").write_bytes(catalogue(("CVE-2024-0002", "x", "y"), released=TODAY))
    made = ok("release", "build", "pump.toml", "-o", "built.suit", "--json").json
    assert made["sbom"] == "built.cdx.json"
    assert (tmp_path / "built.cdx.json").read_bytes() == TLS
    return tmp_path / "built.suit"


@pytest.mark.parametrize("what", ["pump.toml", "built.suit"])
def test_known_exploited(built: Path, what: str) -> None:
    found = devguard("release", "check", what, "--known-exploited", "kev.json", "--json")
    assert (found.status, found.json["code"], found.json["accepted"]) == (1, "release.vulnerable", False)
    (one,) = found.json["findings"]
    assert (one["part"], one["exploited"], one["status"], one["refuses"]) == (
        "mbedtls-ref",
        "CVE-2024-0001",
        None,
        True,
    )
    text = devguard("release", "check", what, "--known-exploited", "kev.json")
    assert "CVE-2024-0001 touches mbedtls 2.28.0: no statement" in text.out
    good = ok("release", "check", what, "--known-exploited", "quiet.json", "--json").json
    assert (good["accepted"], good["findings"], good["bill"]["parts"], good["undated"]) == (True, [], 2, 2)


STATE = ("release", "state", "CVE-2024-0001", "--sbom", "pump.cdx.json", "--part", "mbedtls-ref", "--key", "quality")
HARMLESS = ("--status", "not_affected", "--justification", "vulnerable_code_not_present")


def test_a_statement_settles_it(built: Path, home: Path) -> None:
    said = ok(*STATE, *HARMLESS, "--note", "built without PSK", "-o", "tls.vex", "--json").json
    assert (said["status"], said["by"]) == ("not_affected", "Quinn Quality")
    listed = ("release", "check", built, "--known-exploited", "kev.json", "--vex", "tls.vex")
    found = ok(*listed, "--json").json
    assert (found["accepted"], found["findings"][0]["justification"]) == (True, "vulnerable_code_not_present")
    assert "Quinn Quality" in ok(*listed).out
    (record,) = (one for one in records(home) if one["action"] == "release.state")
    assert (record["actor"], record["details"]["hole"]) == ("Quinn Quality", "CVE-2024-0001")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--status", "affected", "-o", "x.vex"), None),
        ((*HARMLESS, "-o", "x.vex", "--part", "mbedtl"), "sbom.statement"),
        ((*HARMLESS, "-o", "x.vex", "--key", "release"), "key.purpose"),
        ((*HARMLESS, "-o", "x.vex", "--sbom", "gone.json"), "file.missing"),
        ((*HARMLESS, "-o", "x.vex", "--sbom", "kev.json"), "sbom.malformed"),
    ],
)
def test_statements_that_are_not_made(built: Path, tmp_path: Path, more: tuple[str, ...], code: str | None) -> None:
    made = devguard(*STATE, *more, "--json")
    assert (made.code, (tmp_path / "x.vex").exists()) == (code, code is None)
    for half in (("--status", "not_affected"), ("--status", "fixed", "--justification", "component_not_present")):
        assert devguard(*STATE, *half, "-o", "y.vex").status == 2


def test_affected_is_no_way_past(built: Path) -> None:
    ok(*STATE, "--status", "affected", "-o", "tls.vex")
    found = devguard("release", "check", built, "--known-exploited", "kev.json", "--vex", "tls.vex", "--json")
    assert (found.code, found.json["findings"][0]["status"]) == ("release.vulnerable", "affected")


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"built.cdx.json": bill(component("other", "1"))}, "sbom.digest", 1),
        ({"built.cdx.json": None}, "sbom.missing", 1),
        ({"built.cdx.json": b"{"}, "sbom.malformed", 3),
        ({"kev.json": b"{"}, "sbom.snapshot", 3),
        ({"kev.json": None}, "file.missing", 3),
        ({"kev.json": catalogue(("CVE-1", "a", "b"), released="2020-01-01T00:00:00Z")}, "sbom.stale", 1),
        ({"kev.json": catalogue(("CVE-1", "a", "b"), released="2199-01-01T00:00:00Z")}, "sbom.stale", 1),
    ],
    ids=["another-bill", "no-bill", "no-json-bill", "no-json", "no-file", "stale", "future"],
)
def test_files_that_refuse(built: Path, tmp_path: Path, change: dict[str, Any], code: str, status: int) -> None:
    for name, data in change.items():
        (tmp_path / name).unlink()
        if data is not None:
            (tmp_path / name).write_bytes(data)
    found = devguard("release", "check", built, "--known-exploited", "kev.json", "--json")
    assert (found.code, found.status) == (code, status)
    signed = devguard("release", "sign", built, "--key", "release", "--known-exploited", "kev.json", "--json")
    assert (signed.code, signed.status) == (code, status)


def test_nobody_signs_what_is_known_to_be_exploited(built: Path, home: Path) -> None:
    before = built.read_bytes()
    refused = devguard("release", "sign", built, "--key", "release", "--known-exploited", "kev.json", "--json")
    assert (refused.code, built.read_bytes()) == ("release.vulnerable", before)
    assert records(home)[-1]["code"] == "release.vulnerable"
    (home / "config.toml").write_text('[release.sign]\nknown-exploited = "kev.json"\n')
    assert devguard("release", "sign", built, "--key", "release").code == "release.vulnerable"
    ok(*STATE, *HARMLESS, "-o", "tls.vex")
    ok("release", "sign", built, "--key", "release", "--vex", "tls.vex")
    ok("release", "sign", built, "--key", "quality", "--vex", "tls.vex")
    assert "parts by known exploited" in records(home)[-1]["details"]["inside"]
    ok("verify", built)


def test_nobody_pushes_it(world: World, built: Path, home: Path, tmp_path: Path) -> None:
    for name in ("release", "quality"):
        ok("release", "sign", built, "--key", name)
    grant = world.grant(tmp_path / "x.grant", "IP-1")
    push = ("push", built, "--key", "tech", "--grant", grant, "--dry-run", "--json")
    refused = devguard(*push, "--known-exploited", "kev.json")
    assert (refused.json["accepted"], refused.code, refused.status) == (False, "release.vulnerable", 1)
    assert records(home)[-1]["code"] == "release.vulnerable"
    ok(*push, "--known-exploited", "quiet.json")
    ok(*STATE, *HARMLESS, "-o", "tls.vex")
    ok(*push, "--known-exploited", "kev.json", "--vex", "tls.vex")
    ok(*push)


def test_a_trust_document_asks_for_bills(world: World, built: Path, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trust"
    folder.mkdir()
    (folder / "1.trust").write_bytes(world.trust.read_bytes())
    (folder / "current.trust").write_bytes(world.trust.read_bytes())
    shown = ok("trust", "rotate", folder, "--require-sbom", "--json").json
    assert shown["require_sbom"] is True
    plain = world.suit(tmp_path / "plain.suit")
    for trust, code in ((folder / "1.trust", None), (folder / "2.trust", "sbom.missing")):
        assert devguard("verify", plain, "--trust", trust, "--json", "--home", tmp_path / "other").code == code
    unlooked = devguard("release", "sign", built, "--key", "release", "--json")
    assert unlooked.code == "sbom.stale"
    for name in ("release", "quality"):
        ok("release", "sign", built, "--key", name, "--known-exploited", "quiet.json")
    found = ok("verify", built, "--json").json
    (check,) = (one for one in found["checks"] if one["name"] == "sbom")
    assert (check["ok"], "is signed" in check["detail"]) == (True, True)
    again = ok("trust", "rotate", folder, "--no-require-sbom", "--json").json
    assert again["require_sbom"] is False


def test_check_without_a_snapshot_is_a_slip(built: Path) -> None:
    assert devguard("release", "check", built).status == 2
    assert devguard("release", "sign", built, "--key", "release", "--sbom", "pump.cdx.json").status == 2


def test_json_on_every_exit(built: Path) -> None:
    for arguments in (("gone.suit",), ("kev.json",), (built,)):
        found = devguard("release", "check", *arguments, "--known-exploited", "kev.json", "--json")
        assert json.loads(found.out)["accepted"] is False


def test_dates_of_support(world: World, home: Path, tmp_path: Path) -> None:
    """Of the release, its model and its parts: shown before and after the build, and on record where a push looked."""
    end = [{"name": "devguard:end-of-support", "value": day} for day in ("2030-05-01", "2031-05-01")]
    parts = (component("zlib", "1.3.1", properties=end[1:]), component("mbedtls", "2.28.0", properties=end[:1]))
    (tmp_path / "image.bin").write_bytes(b"image" * 500)
    (tmp_path / "pump.cdx.json").write_bytes(bill(*parts))
    (tmp_path / "quiet.json").write_bytes(catalogue(("CVE-2024-0002", "x", "y"), released=TODAY))
    text = world.description(version="3.0.0", sequence=3)
    (tmp_path / "pump.toml").write_text(
        text.replace("[[component]]", "end_of_support = 2032-05-01\n\n[[component]]") + SBOM
    )
    ok("release", "build", "pump.toml", "-o", "built.suit")
    for what in ("pump.toml", "built.suit"):
        found = ok("release", "check", what, "--known-exploited", "quiet.json", "--json").json
        assert found["support"]["release"] == "2032-05-01T00:00:00Z"
        assert found["support"]["model"] == "2036-12-31T00:00:00Z"
        assert (found["unsupported"], found["undated"], found["support"]["ended"]) == ([], 0, False)
    for name in ("release", "quality"):
        ok("release", "sign", "built.suit", "--key", name)
    grant = world.grant(tmp_path / "x.grant", "IP-1")
    ok("push", "built.suit", "--key", "tech", "--grant", grant, "--dry-run", "--known-exploited", "quiet.json")
    details = records(home)[-1]["details"]
    seconds = [str(int(datetime(year, 5, 1, tzinfo=UTC).timestamp())) for year in (2030, 2032)]
    assert details["parts-supported-until"] == f"{seconds[0]} mbedtls 2.28.0"
    assert (details["supported-until"], details["sequence"]) == (seconds[1], "3")
