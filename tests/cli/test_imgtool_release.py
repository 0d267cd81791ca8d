"""A release whose image imgtool made: devguard signs and verifies it, and imgtool still verifies the image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devguard.cli import main

IMGTOOL = Path(sys.executable).with_name("imgtool")


def run(*args: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    with pytest.raises(SystemExit) as ended:
        main.main([*map(str, args), "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def imgtool(*args: str | Path) -> None:
    subprocess.run([str(IMGTOOL), *map(str, args)], check=True, capture_output=True)


def test_an_mcuboot_image_travels_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not IMGTOOL.exists():
        pytest.skip("imgtool is not in this environment (install the test extra)")
    monkeypatch.setenv("DEVGUARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "not secret: a test")
    monkeypatch.chdir(tmp_path)
    body, key, image = tmp_path / "body.bin", tmp_path / "mcuboot.pem", tmp_path / "app.bin"
    body.write_bytes(bytes(range(256)) * 64)
    imgtool("keygen", "-k", key, "-t", "ecdsa-p256")
    imgtool(
        "sign", "-k", key, "--version", "1.2.0", "--header-size", "0x200", "--pad-header", "--slot-size", "0x60000",
        "--align", "4", body, image,
    )  # fmt: skip
    for name, role, algorithm in (
        ("root", "root", "Ed25519"),
        ("r", "release", "ESP256"),
        ("q", "quality", "ML-DSA-44"),
    ):
        assert run("key", "new", name, "--person", name, "--role", role, "--alg", algorithm, capsys=capsys)[0] == 0
    roles = ["--role", "release=r:1", "--role", "quality=q:1"]
    assert (
        run(
            "trust", "init", "t", "--root", "root", "--threshold", "1", "--expires", "2099-01-01", *roles, capsys=capsys
        )[0]
        == 0
    )
    assert run("release", "new", "insulin-pump", "1.2.0", capsys=capsys)[0] == 0
    description = tmp_path / "firmware_manifests" / "insulin-pump" / "1.2.0.toml"
    (description.parent / "images").mkdir()
    (description.parent / "images" / "insulin-pump-1.2.0.bin").write_bytes(image.read_bytes())
    assert run("release", "build", description, "-o", "app.suit", capsys=capsys)[0] == 0
    for name in ("r", "q"):
        assert run("release", "sign", "app.suit", "--key", name, capsys=capsys)[0] == 0

    status, verdict = run("verify", "app.suit", capsys=capsys)
    assert (status, verdict["accepted"]) == (0, True)
    status, verdict = run("verify", image, "--envelope", "app.suit", capsys=capsys)
    assert (status, verdict["accepted"]) == (0, True)
    public = tmp_path / "mcuboot.pub.pem"
    imgtool("getpub", "-k", key, "-e", "pem", "-o", public)
    status, seen = run("inspect", image, "--mcuboot-key", public, capsys=capsys)
    assert (status, seen["kind"], seen["problems"]) == (0, "mcuboot", [])
    imgtool("verify", "-k", key, image)
    assert image.read_bytes() in (tmp_path / "app.suit").read_bytes()
