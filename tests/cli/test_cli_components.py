"""A model of two components on the command line: described, built, signed, verified, inspected, pushed, reported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import make_envelope, make_image, sign_envelope
from cli_support import PROGRAMMER, World, devguard, emulator, ok
from devguard.cli.files import payload_reader
from devguard.device.models import load_model
from devguard.manifest.envelope import encode_envelope, read_envelope, write_envelope

IMAGES = {"application": make_image(9000, "application"), "telemetry": make_image(5001, "telemetry")}
WHOLE = b"".join(IMAGES.values())
TABLE = """
[[component]]
id = "{id}"
image = "{id}.bin"
format = "raw"
"""


def describe(folder: Path, *components: str, **fields: object) -> Path:
    """A description of a release of these components, in this order, with their images beside it."""
    for name, data in IMAGES.items():
        (folder / f"{name}.bin").write_bytes(data)
    given = {"version": "1.1.0", "sequence": 1, **fields}
    head = World.description(model=PROGRAMMER, **given).partition("[[component]]")[0]
    path = folder / "release.toml"
    path.write_text(head + "".join(TABLE.format(id=name) for name in components or tuple(IMAGES)))
    return path


def signed(world: World, folder: Path, *options: object) -> Path:
    """A release, built by the command and signed by two people."""
    suit = folder / "release.suit"
    ok("release", "build", describe(folder), "-o", suit, *options)
    with suit.open("rb") as stream:
        envelope = read_envelope(stream)
        payloads = {name: payload_reader(stream, envelope, name) for name in envelope.payloads}
        envelope = sign_envelope(envelope, [world.signer("release"), world.signer("quality")])
        with (folder / "signed").open("wb") as out:
            write_envelope(envelope, payloads, out)  # type: ignore[arg-type]
    return (folder / "signed").replace(suit)


def rows(images: Mapping[str, bytes] = IMAGES) -> list[dict[str, Any]]:
    return [
        {"id": name, "digest": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in images.items()
    ]


def judged(*args: object) -> tuple[int, dict[str, Any]]:
    result = devguard("verify", *args, "--json")
    assert (result.status == 0) == result.json["accepted"] == (result.json["code"] is None)
    return result.status, result.json


def test_a_draft_names_both_and_becomes_a_release(world: World, home: Path, tmp_path: Path) -> None:
    made = ok("release", "new", PROGRAMMER, "1.0.0", "--json").json
    assert made["components"] == list(IMAGES)
    path = Path(made["path"])
    text = path.read_text()
    assert [line for line in text.splitlines() if line.startswith("id = ")] == [f'id = "{name}"' for name in IMAGES]
    (path.parent / "images").mkdir()
    for name, data in IMAGES.items():
        (path.parent / "images" / f"{PROGRAMMER}-{name}-1.0.0.bin").write_bytes(data)
    built = ok("release", "build", path, "-o", tmp_path / "x.suit", "--json").json
    assert built["components"] == {one["id"]: {"digest": one["digest"], "size": one["size"]} for one in rows()}


def test_build_and_sign_show_both(world: World, home: Path, tmp_path: Path) -> None:
    text = ok("release", "build", describe(tmp_path), "-o", tmp_path / "x.suit").out
    for one in rows():
        assert f"{one['id']}: {one['size']} bytes" in text
    assert "14001 bytes in all" in text
    sign = ok("release", "sign", tmp_path / "x.suit", "--key", "release")
    assert all(one["digest"] in sign.out for one in rows())
    again = ok("release", "sign", tmp_path / "x.suit", "--key", "quality", "--json").json
    assert again["components"] == {one["id"]: {"digest": one["digest"], "size": one["size"]} for one in rows()}


def test_a_description_may_list_them_in_any_order(world: World, home: Path, tmp_path: Path) -> None:
    built = [
        ok("release", "build", describe(tmp_path, *order), "-o", tmp_path / "x.suit", "--json").json["manifest_digest"]
        for order in (("application", "telemetry"), ("telemetry", "application"))
    ]
    assert built[0] == built[1]


@pytest.mark.parametrize("left", list(IMAGES))
def test_a_release_without_one_is_not_built(world: World, home: Path, tmp_path: Path, left: str) -> None:
    result = devguard("release", "build", describe(tmp_path, left), "-o", tmp_path / "x.suit")
    assert (result.status, result.code) == (1, "release.components")
    other = next(name for name in IMAGES if name != left)
    assert f'[[component]] with id = "{other}"' in result.err
    assert not (tmp_path / "x.suit").exists()


def test_images_too_large_together_are_not_built(world: World, home: Path, tmp_path: Path) -> None:
    path = describe(tmp_path)
    for name in IMAGES:
        with (tmp_path / f"{name}.bin").open("wb") as file:
            file.truncate(4_096_001)
    result = devguard("release", "build", path, "-o", tmp_path / "x.suit", "--json")
    assert (result.status, result.code) == (1, "device.slot")


def test_verify_measures_both_and_names_both(world: World, home: Path, tmp_path: Path) -> None:
    suit = signed(world, tmp_path)
    for options in ([], ["--model", PROGRAMMER]):
        status, data = judged(suit, *options)
        assert status == 0
        assert data["release"]["components"] == rows()
        assert (data["release"]["size"], data["release"]["digest"]) == (14001, hashlib.sha256(WHOLE).hexdigest())
    text = ok("verify", suit, "--model", PROGRAMMER).out
    assert "all that the model has" in text
    assert all(one["digest"] in text for one in rows())
    one = judged(world.suits["1.1.0"])[1]["release"]
    assert [(part["id"], part["digest"], part["size"]) for part in one["components"]] == [
        ("application", one["digest"], one["size"])
    ]


@pytest.mark.parametrize("name", list(IMAGES))
def test_a_flipped_bit_in_either_is_found(world: World, home: Path, tmp_path: Path, name: str) -> None:
    suit = signed(world, tmp_path)
    with suit.open("rb") as stream:
        offset = read_envelope(stream).payloads[f"#{name}"].offset
    data = bytearray(suit.read_bytes())
    data[offset + 77] ^= 1
    suit.write_bytes(data)
    status, shown = judged(suit)
    assert (status, shown["code"], shown["release"]["digest"]) == (1, "image.digest", None)


@pytest.mark.parametrize(
    ("components", "code"),
    [(("application",), "release.components"), (("telemetry", "application"), "release.components")],
)
def test_a_release_of_other_components_is_refused_for_the_model(
    world: World, home: Path, tmp_path: Path, components: tuple[str, ...], code: str
) -> None:
    """Signed by people who can, over a manifest that `release build` would not write."""
    facts = replace(load_model(PROGRAMMER).facts, components=components)
    made = make_envelope({name: IMAGES[name] for name in components}, model=facts, revisions=("revA",))
    suit = tmp_path / "x.suit"
    suit.write_bytes(encode_envelope(sign_envelope(made, [world.signer("release"), world.signer("quality")])))
    assert judged(suit)[0] == 0
    status, data = judged(suit, "--model", PROGRAMMER)
    assert (status, data["code"]) == (1, code)
    assert next(check for check in data["checks"] if check["name"] == "components")["code"] == code


class TestApart:
    """Images beside the envelope."""

    @pytest.fixture
    def suit(self, world: World, home: Path, tmp_path: Path) -> Path:
        suit = signed(world, tmp_path, "--detached")
        assert suit.stat().st_size < 5000
        return suit

    def named(self, **files: str) -> list[str]:
        return [f"--component={name}={file}" for name, file in files.items()]

    def test_each_image_is_named(self, suit: Path) -> None:
        status, data = judged(suit, *self.named(telemetry="telemetry.bin", application="application.bin"))
        assert (status, data["release"]["digest"]) == (0, hashlib.sha256(WHOLE).hexdigest())

    def test_intel_hex_images_are_flattened(self, suit: Path, tmp_path: Path) -> None:
        lines = []
        for at in range(0, len(IMAGES["telemetry"]), 16):
            piece = IMAGES["telemetry"][at : at + 16]
            body = bytes([len(piece)]) + at.to_bytes(2, "big") + b"\x00" + piece
            lines.append(f":{body.hex().upper()}{-sum(body) & 0xFF:02X}")
        (tmp_path / "t.hex").write_text("\n".join([*lines, ":00000001FF", ""]))
        assert judged(suit, *self.named(telemetry="t.hex", application="application.bin"))[0] == 0

    @pytest.mark.parametrize(
        ("files", "code"),
        [
            ({}, "image.digest"),
            ({"application": "application.bin"}, "image.digest"),
            ({"application": "telemetry.bin", "telemetry": "application.bin"}, "image.size"),
            ({"application": "application.bin", "telemetry": "application.bin"}, "image.size"),
            ({"application": "application.bin", "radio": "telemetry.bin"}, "release.components"),
            (
                {"application": "application.bin", "telemetry": "telemetry.bin", "radio": "telemetry.bin"},
                "release.components",
            ),
        ],
    )
    def test_any_others_are_refused(self, suit: Path, files: dict[str, str], code: str) -> None:
        status, data = judged(suit, *self.named(**files))
        assert (status, data["code"]) == (1, code)

    def test_a_missing_file_is_missing(self, suit: Path) -> None:
        status, data = judged(suit, *self.named(application="application.bin", telemetry="nowhere.bin"))
        assert (status, data["code"]) == (3, "file.missing")

    def test_one_image_with_its_envelope_is_told_what_to_do(self, suit: Path, world: World, tmp_path: Path) -> None:
        (tmp_path / "both.bin").write_bytes(WHOLE)
        whole = tmp_path / "whole"
        whole.mkdir()
        for envelope in (suit, signed(world, whole)):  # the images inside it do not speak for the file that was given
            for image in ("application.bin", "both.bin", "release.toml"):
                status, data = judged(image, "--envelope", envelope)
                assert (status, data["code"]) == (1, "release.components")
                detail = next(check["detail"] for check in data["checks"] if check["code"] == "release.components")
                assert "--component application=FILE --component telemetry=FILE" in detail

    def test_a_file_beside_goes_before_the_image_inside(self, world: World, home: Path, tmp_path: Path) -> None:
        suit = signed(world, tmp_path)
        assert judged(suit, *self.named(telemetry="telemetry.bin"))[0] == 0
        (tmp_path / "telemetry.bin").write_bytes(IMAGES["telemetry"][:-1] + b"x")
        assert judged(suit, *self.named(telemetry="telemetry.bin"))[1]["code"] == "image.digest"
        assert judged(suit)[0] == 0

    @pytest.mark.parametrize(
        "args",
        [
            ["release.suit", "--component", "application"],
            ["release.suit", "--component", "=application.bin"],
            ["release.suit", "--component", "application="],
            ["release.suit", "--component", "application=a", "--component", "application=b"],
            ["release.suit", "release.suit", "--component", "application=application.bin"],
            ["application.bin", "--envelope", "release.suit", "--component", "application=application.bin"],
        ],
    )
    def test_what_makes_no_sense_is_a_usage_error(self, suit: Path, args: list[str]) -> None:
        assert devguard("verify", *args).status == 2

    def test_the_only_image_of_a_release_may_be_named_too(self, world: World, home: Path, tmp_path: Path) -> None:
        envelope = world.envelope(image=world.image.read_bytes(), detached=True)
        (tmp_path / "d.suit").write_bytes(encode_envelope(envelope))
        assert judged(tmp_path / "d.suit", *self.named(application=str(world.image)))[0] == 0


def test_inspect_lists_both(world: World, home: Path, tmp_path: Path) -> None:
    data = ok("inspect", signed(world, tmp_path), "--json").json
    fields = data["fields"]
    assert data["problems"] == []
    assert fields["release"]["components"] == {
        one["id"]: {"digest": one["digest"], "size": one["size"]} for one in rows()
    }
    assert fields["manifest"]["components"] == [["application"], ["telemetry"]]
    assert {name: (row["size"], row["matches"]) for name, row in fields["payloads"].items()} == {
        f"#{name}": (len(data), True) for name, data in IMAGES.items()
    }


def test_from_two_files_to_the_device_s_report(world: World, home: Path, tmp_path: Path) -> None:
    """Build, verify, push, report: both changed together, sent from one private copy."""
    suit = signed(world, tmp_path)
    with emulator(world, tmp_path, "PP-7", model=PROGRAMMER) as device:
        grants = [
            world.grant(tmp_path / f"{name}.grant", "PP-7", model=PROGRAMMER, name=name) for name in ("tech", "second")
        ]
        options = ["--port", device.port, "--key", "tech", "--grant", grants[0]]
        text = ok("push", suit, *options, "--second-key", "second", "--second-grant", grants[1]).out
        report = ok("device", "info", *options, "--json").json["report"]
    for one in rows():
        assert f"runs {one['id']} 1.1.0: {one['size']} bytes, digest {one['digest'][:16]}" in text
    assert report["components"] == [{**one, "version": "1.1.0"} for one in rows()]
    assert report["image_digest"] == hashlib.sha256(WHOLE).hexdigest()
    assert report["confirmed"]
