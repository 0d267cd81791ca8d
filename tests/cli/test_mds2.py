"""`devguard mds2 export` on real homes: what is there decides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli_support import World, devguard, ok


def told(*more: object) -> dict[str, dict[str, Any]]:
    data = ok("mds2", "export", "--json", *more).json
    return {f"{one['section']} {one['name']}": one for part in data["sections"] for one in part["answers"]}


def test_an_empty_home_answers_too(tmp_path: Path) -> None:
    found = told()
    assert {one["section"] for one in found.values()} >= {"MPII", "AUDT", "RMOT", "CNFS"}
    assert found["AUDT kept"]["answer"] == found["CSUP release"]["answer"] == "no"
    assert found["PAUT token"]["answer"] == "not applicable"
    assert not (tmp_path / "home" / "evidence").exists()  # asking is no action


def test_a_vendors_home(world: World, home: Path) -> None:
    found = told()
    assert found["CSUP quality"]["evidence"] == ["trust roles.quality 1 of 1, version 1"]
    assert found["AUDT witness"]["answer"] == "no"
    assert found["PAUT token"]["answer"] == "no"
    assert "key tech passphrase" in found["PAUT token"]["evidence"]
    assert found["STCF keys"]["answer"] == "yes"
    assert found["AUDT kept"]["answer"] == "no"
    ok("verify", world.suits["1.1.0"])
    found = told()
    assert (found["AUDT kept"]["answer"], found["AUDT kept"]["evidence"][0]) == ("yes", "records 1")
    assert found["STCF keys"]["why"].startswith("but for the station's own")


def test_settings_extras_lists_and_models_count(world: World, home: Path) -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed (extra sbom)")
    (home / "config.toml").write_text('[push]\nknown-exploited = "k"\n[release.sign]\nknown-exploited = "k"\n')
    ok("technician", "add", "tech", "--site", "ward-3", "--trained-until", "2098-01-01")
    found = told("--model", "insulin-pump")
    assert found["SBOM known"]["answer"] == found["AUTH list"]["answer"] == found["RDMP models"]["answer"] == "yes"
    assert found["AUTH two"]["answer"] == "no"
    assert found["CNFS checked"]["evidence"] == ["config push.known-exploited", "config release.sign.known-exploited"]
    assert told("--model", "pacemaker-programmer")["AUTH two"]["evidence"][0] == "model pacemaker-programmer"
    assert "mcumgr-legacy" in told()["RDMP models"]["why"]


def test_a_file_and_a_page(home: Path, tmp_path: Path) -> None:
    ok("mds2", "export", "-o", "mds2.json")
    data = json.loads((tmp_path / "mds2.json").read_text())
    assert (data["format"], len(data["sections"])) == (1, 23)
    text = ok("mds2", "export").out
    assert "PLOK  locks one can touch" in text
    assert "not applicable Is there a lock on the case or the port?" in text


def test_a_log_that_does_not_hold_answers_nothing(world: World, home: Path) -> None:
    ok("verify", world.suits["1.1.0"])
    segment = next((home / "evidence").glob("segment-*.log"))
    data = bytearray(segment.read_bytes())
    data[data.index(b"release.verify")] ^= 1
    segment.write_bytes(data)
    assert devguard("mds2", "export", "--json").code == "log.tampered"
    shutil.rmtree(home / "evidence")
    assert devguard("mds2", "export", "--json").code == "log.truncated"


def test_a_trust_document_that_does_not_hold_answers_nothing(home: Path) -> None:
    (home / "trust" / "current.trust").write_bytes(b"none")
    assert devguard("mds2", "export", "--json").status == 3
