"""`devguard advisory new`: a draft on a release, from its bill, snapshots and statements."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli_support import World, devguard, ok, records
from sbom_support import bill, catalogue, component

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed (extra sbom)")
csaf = pytest.importorskip("csaf.csaf.v20", reason="the csaf package is not installed")

TODAY = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")


@pytest.fixture
def built(world: World, home: Path, tmp_path: Path) -> Path:
    (tmp_path / "image.bin").write_bytes(b"image" * 500)
    (tmp_path / "bill.json").write_bytes(bill(component("mbedtls", "2.28.0", supplier={"name": "Arm"})))
    text = world.description(version="3.0.0", sequence=3) + '\n[sbom]\nfile = "bill.json"\n'
    (tmp_path / "pump.toml").write_text(text)
    (tmp_path / "kev.json").write_bytes(catalogue(("CVE-2024-0001", "Arm", "Mbed TLS"), released=TODAY))
    ok("release", "build", "pump.toml", "-o", "pump.suit")
    return tmp_path / "pump.suit"


def test_a_draft(built: Path, home: Path, tmp_path: Path) -> None:
    made = ok("advisory", "new", built, "--known-exploited", "kev.json", "--id", "DG-1", "-o", "a.json", "--json").json
    assert (made["vulnerabilities"], made["to_write"] > 0) == (1, True)
    document = json.loads((tmp_path / "a.json").read_text())
    assert csaf.validate(document).overall_valid
    (one,) = document["vulnerabilities"]
    assert one["cve"] == "CVE-2024-0001"
    (product,) = one["product_status"]["under_investigation"]
    assert product == ok("inspect", built, "--json").json["fields"]["manifest_digest"]["value"]


@pytest.mark.parametrize(
    ("change", "code"),
    [("pump.suit", "file.missing"), ("pump.cdx.json", "sbom.missing"), ("kev.json", "file.missing")],
)
def test_what_is_missing_leaves_no_draft(built: Path, tmp_path: Path, change: str, code: str) -> None:
    (tmp_path / change).unlink()
    new = ("advisory", "new", built, "--known-exploited", "kev.json", "--id", "DG-1", "-o", "a.json", "--json")
    assert devguard(*new).code == code
    assert not (tmp_path / "a.json").exists()


def test_without_a_catalogue_is_a_slip(built: Path) -> None:
    assert devguard("advisory", "new", built, "--id", "x", "-o", "a.json").status == 2


def test_it_is_on_record_where_a_log_is_kept(built: Path, home: Path) -> None:
    devguard("verify", built)  # begins the log
    ok("advisory", "new", built, "--known-exploited", "kev.json", "--id", "DG-1", "-o", "a.json")
    assert records(home)[-1]["action"] == "advisory.new"
