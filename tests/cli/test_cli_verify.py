"""`devguard verify`: every refusal the contract names, its exit status, and the same JSON schema for yes and no."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from builders import make_envelope, make_release, make_vendor
from cli_support import PROGRAMMER, PUMP, VENDOR, World, devguard, ok, records
from devguard.manifest.envelope import encode_envelope, read_envelope

KEYS = {"file", "accepted", "code", "checks", "release", "signatures"}


def judged(*args: object) -> tuple[int, dict]:
    result = devguard("verify", *args, "--json")
    data = result.json
    assert set(data) >= KEYS
    assert (result.status == 0) == data["accepted"] == (data["code"] is None)
    assert result.err == ""
    return result.status, data


def payload_at(path: Path) -> tuple[int, int]:
    with path.open("rb") as stream:
        payload = next(iter(read_envelope(stream).payloads.values()))
    return payload.offset, payload.size


def test_accepted(world: World, home: Path) -> None:
    status, data = judged(world.suits["1.1.0"])
    assert status == 0
    assert data["file"] == str(world.suits["1.1.0"])
    assert all(check["ok"] and check["name"] and check["detail"] and check["standard"] for check in data["checks"])
    release = data["release"]
    assert (release["vendor"], release["model"], release["version"], release["sequence"]) == (VENDOR, PUMP, "1.1.0", 2)
    assert release["size"] == 6002
    assert len(release["digest"]) == 64
    assert [(one["role"], one["person"], one["alg"], one["ok"]) for one in data["signatures"]] == [
        ("release", "Remy Release", "ESP256", True),
        ("quality", "Quinn Quality", "ML-DSA-65", True),
    ]
    assert all(len(one["key"]) == 64 for one in data["signatures"])
    assert [(one["action"], one["code"]) for one in records(home)] == [("release.verify", None)]


def test_accepted_as_a_table(world: World, home: Path) -> None:
    result = ok("verify", world.suits["1.1.0"], "--model", PUMP, "--installed", "1")
    assert result.out.startswith("ACCEPTED")
    assert "sequence 2 follows 1" in result.out
    assert "Quinn Quality (quality), ML-DSA-65" in result.out
    assert result.err == ""


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--installed", "3"], "version.rollback"),
        (["--installed", "2"], "version.current"),
        (["--model", PROGRAMMER], "image.class"),
        (["--now", "2099-06-01"], "trust.expired"),
        (["--now", "2001-01-01T00:00:00+02:00"], "trust.not-yet"),
    ],
)
def test_refused_for_this_device_and_time(world: World, home: Path, options: list[str], code: str) -> None:
    status, data = judged(world.suits["1.1.0"], *options)
    assert (status, data["code"]) == (1, code)
    assert data["release"]["version"] == "1.1.0"
    assert records(home)[-1]["code"] == code
    shown = devguard("verify", world.suits["1.1.0"], *options)
    assert shown.status == 1
    assert shown.out.startswith(f"REFUSED {code}")
    assert "do: " in shown.out


@pytest.mark.parametrize(
    ("installed", "code"),
    [("1.0.0", "version.current"), ("1.1.0", "version.rollback"), ("0.9.0", None), ("1.0.0-rc.1", None)],
)
def test_compared_with_the_installed_version(world: World, home: Path, installed: str, code: str | None) -> None:
    status, data = judged(world.suits["1.0.0"], "--installed", installed)
    assert (status, data["code"]) == (0 if code is None else 1, code)


@pytest.mark.parametrize("text", ["banana", "", "²", "1.1", "1" * 5000, "-1", "1.0.0\n"])
def test_installed_is_a_version_or_a_number(world: World, home: Path, text: str) -> None:
    result = devguard("verify", world.suits["1.1.0"], f"--installed={text}")
    assert result.status == 2
    assert "--installed" in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("fields", "options", "code"),
    [
        ({"signers": ()}, [], "signature.missing"),
        ({"signers": ("release",)}, [], "signature.hybrid"),
        ({"signers": ("quality",)}, [], "signature.hybrid"),
        ({"signers": ("root", "quality")}, [], "key.purpose"),
        ({"sequence": 20}, ["--installed", "3"], "version.exhausted"),
        ({"use_before": 1_600_000_000}, [], "release.expired"),
        ({"use_before": 2_000_000_000}, ["--now", "2034-01-01"], "release.expired"),
        ({"serials": ("IP-1",)}, ["--model", PUMP, "--serial", "IP-2"], "image.device"),
        ({"vendor": "other.example"}, ["--model", PUMP], "image.vendor"),
    ],
)
def test_refused_for_what_it_is(
    world: World, home: Path, tmp_path: Path, fields: dict, options: list[str], code: str
) -> None:
    status, data = judged(world.suit(tmp_path / "x.suit", **fields), *options)
    assert (status, data["code"]) == (1, code)


def test_signed_by_strangers(world: World, home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.suit").write_bytes(make_release(make_vendor(99)))
    assert judged(tmp_path / "x.suit")[1]["code"] == "key.unknown"


def test_too_few_people(world: World, tmp_path: Path) -> None:
    vendor = make_vendor(1, thresholds={"release": 2}, issued=1_700_000_000, expires=4_000_000_000)
    (tmp_path / "v.trust").write_bytes(vendor.trust_bytes)
    (tmp_path / "x.suit").write_bytes(make_release(vendor))
    assert judged(tmp_path / "x.suit", "--trust", tmp_path / "v.trust")[1]["code"] == "signature.threshold"


def test_a_signature_over_something_else(world: World, home: Path, tmp_path: Path) -> None:
    good, other = world.envelope(), world.envelope(sequence=3)
    (tmp_path / "x.suit").write_bytes(encode_envelope(replace(good, auth_blocks=other.auth_blocks)))
    assert judged(tmp_path / "x.suit")[1]["code"] == "signature.invalid"


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_bit_of_the_image(world: World, home: Path, tmp_path: Path, place: float) -> None:
    data = bytearray(world.suits["1.1.0"].read_bytes())
    offset, size = payload_at(world.suits["1.1.0"])
    data[offset + int((size - 1) * place)] ^= 0x10
    (tmp_path / "x.suit").write_bytes(data)
    status, found = judged(tmp_path / "x.suit")
    assert (status, found["code"]) == (1, "image.digest")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "envelope.malformed"),
        (b"garbage, not CBOR", "envelope.malformed"),
        (b"\xd8\x6b\xa0", "envelope.malformed"),
        (b"\x9f" * 10_000, "envelope.malformed"),
        (b"\xd8\x6b\xa1\x02\x5b" + b"\xff" * 8, "envelope.malformed"),
        (b"\xd8\x6b\xba\xff\xff\xff\xff", "envelope.malformed"),
    ],
)
def test_no_envelope(world: World, home: Path, tmp_path: Path, data: bytes, code: str) -> None:
    (tmp_path / "x.suit").write_bytes(data)
    status, found = judged(tmp_path / "x.suit")
    assert status == 3
    assert found["code"] in (code, "envelope.not-deterministic")
    assert found["release"] is None
    assert found["signatures"] == []


def test_bytes_after_the_end(world: World, home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.suit").write_bytes(world.suits["1.1.0"].read_bytes() + b"\0")
    status, data = judged(tmp_path / "x.suit")
    assert (status, data["code"]) == (3, "image.trailing")


def sample(size: int) -> list[int]:
    return sorted({0, 1, 2, 3, size - 1, *range(7, size, max(1, size // 40))})


def test_truncated_anywhere(world: World, home: Path, tmp_path: Path) -> None:
    data = world.suits["1.1.0"].read_bytes()
    for end in sample(len(data)):
        (tmp_path / "x.suit").write_bytes(data[:end])
        status, found = judged(tmp_path / "x.suit")
        assert status == 3, (end, found["code"])


def test_a_flipped_bit_anywhere(world: World, home: Path, tmp_path: Path) -> None:
    data = world.suits["1.1.0"].read_bytes()
    for at in sample(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        (tmp_path / "x.suit").write_bytes(changed)
        status, found = judged(tmp_path / "x.suit")
        assert status in (1, 3), at
        assert found["code"], at


@pytest.mark.slow
def test_flipped_bits_all_over(world: World, tmp_path: Path, home: Path) -> None:
    """Every position is swept where the verdict is tested; here every seventh, through the whole command."""
    small = world.suit(tmp_path / "small.suit", image=b"x" * 16)
    data = small.read_bytes()
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        (tmp_path / "x.suit").write_bytes(changed)
        assert judged(tmp_path / "x.suit")[0] in (1, 3), at


def test_a_batch(world: World, home: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"x")
    files = [world.suits["1.0.0"], tmp_path / "garbage", world.suit(tmp_path / "u.suit", signers=()), tmp_path / "none"]
    result = devguard("verify", *files, "--json")
    assert result.status == 3
    assert list(result.json) == ["files"]
    rows = result.json["files"]
    assert [row["code"] for row in rows] == [None, "envelope.malformed", "signature.missing", "file.missing"]
    assert all(set(row) >= KEYS for row in rows)
    assert devguard("verify", files[0], files[2]).status == 1
    assert devguard("verify", files[0], world.suits["1.1.0"]).status == 0
    assert len(records(home)) == 4 + 2 + 2


def ihex(data: bytes, *, outside: bool = False) -> str:
    lines = []
    for at in range(0, len(data), 16):
        part = bytes([len(data[at : at + 16]), at >> 8 & 0xFF, at & 0xFF, 0]) + data[at : at + 16]
        lines.append(":" + (part + bytes([-sum(part) & 0xFF])).hex().upper())
    if outside:  # four bytes at 0x10001014
        lines += [":020000041000EA", ":04101400DEADBEEFA0"]
    return "\n".join([*lines, ":00000001FF", ""])


def test_a_bare_image_with_its_envelope(world: World, home: Path, tmp_path: Path) -> None:
    bare = world.image
    assert judged(bare, "--envelope", world.suits["1.1.0"])[0] == 0
    assert judged(world.folder / "image-1.0.0.bin", "--envelope", world.suits["1.1.0"])[1]["code"] == "image.size"
    (tmp_path / "flipped.bin").write_bytes(bytes([bare.read_bytes()[0] ^ 1]) + bare.read_bytes()[1:])
    assert judged(tmp_path / "flipped.bin", "--envelope", world.suits["1.1.0"])[1]["code"] == "image.digest"
    (tmp_path / "image.hex").write_text(ihex(bare.read_bytes()))
    assert judged(tmp_path / "image.hex", "--envelope", world.suits["1.1.0"])[0] == 0
    (tmp_path / "extra.hex").write_text(ihex(bare.read_bytes(), outside=True))
    status, data = judged(tmp_path / "extra.hex", "--envelope", world.suits["1.1.0"])
    assert (status, data["accepted"], data["code"]) == (3, False, "image.range")  # nobody signed those bytes
    allowed = ("--ignore-range", "0x10001000-0x10002000")
    status, data = judged(tmp_path / "extra.hex", "--envelope", world.suits["1.1.0"], *allowed)
    assert (status, data["accepted"]) == (0, True)
    assert any("0x10001000" in note for note in data["notes"])
    (tmp_path / "broken.hex").write_text(ihex(bare.read_bytes()).replace("0", "1", 1))
    status, data = judged(tmp_path / "broken.hex", "--envelope", world.suits["1.1.0"])
    assert (status, data["accepted"]) == (3, False)
    assert data["code"] == "image.format"


def test_a_detached_release(world: World, home: Path, tmp_path: Path) -> None:
    image = world.image.read_bytes()
    (tmp_path / "d.suit").write_bytes(encode_envelope(world.envelope(image=image, detached=True)))
    assert judged(world.image, "--envelope", tmp_path / "d.suit")[0] == 0
    status, data = judged(tmp_path / "d.suit")
    assert (status, data["accepted"], data["code"]) == (1, False, "image.digest")


def test_one_envelope_is_for_one_image(world: World, home: Path) -> None:
    assert devguard("verify", world.image, world.image, "--envelope", world.suits["1.1.0"]).status == 2


@pytest.mark.parametrize("args", [["nowhere.suit"], ["."], ["/dev/null"], ["x" * 5000], ["\udcff.suit"]])
def test_no_such_file(world: World, home: Path, args: list[str]) -> None:
    status, data = judged(*args)
    assert (status, data["code"]) == (3, "file.missing")


def test_without_trust(world: World, home: Path) -> None:
    shutil.rmtree(home / "trust")
    status, data = judged(world.suits["1.1.0"])
    assert (status, data["code"]) == (1, "trust.missing")
    assert judged(world.suits["1.1.0"], "--trust", world.trust)[0] == 0
    assert judged(world.suits["1.1.0"], "--trust", world.image)[1]["code"] == "trust.malformed"
    assert judged(world.suits["1.1.0"], "--trust", "nowhere")[1]["code"] == "file.missing"


def test_an_unknown_model_keeps_the_schema(world: World, home: Path) -> None:
    result = devguard("verify", world.suits["1.1.0"], "--model", "toaster", "--json")
    assert result.status == 1
    assert set(result.json) >= KEYS | {"error"}
    assert result.json["accepted"] is False


def test_the_file_changes_while_it_is_read(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from devguard.cli import judging

    path = tmp_path / "x.suit"
    shutil.copy(world.suits["1.1.0"], path)
    honest = judging._measure

    def slow(*args: object) -> object:
        found = honest(*args)
        with path.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(judging, "_measure", slow)
    status, data = judged(path)
    assert (status, data["code"]) == (1, "file.changed")


def test_a_development_key_in_production_trust(world: World, home: Path, tmp_path: Path) -> None:
    ok("key", "new", "devkey", "--person", "Dora", "--role", "release", "--development")
    result = devguard(
        "trust", "init", tmp_path / "t", "--root", "root", "--threshold", 1, "--expires", "2090-01-01",
        "--role", "release=devkey", "--json",
    )  # fmt: skip
    assert (result.status, result.code) == (1, "key.development")
    assert not (tmp_path / "t" / "current.trust").exists()


def test_hostile_text_cannot_speak_to_the_terminal(world: World, home: Path) -> None:
    hostile = Path(os.fsdecode(b"a\x1b]0;owned\x07\xff.suit"))
    result = devguard("verify", hostile)
    assert result.status == 3
    assert "\x1b" not in result.out
    assert "\x07" not in result.out
    result.out.encode("utf-8")
    json.dumps(devguard("verify", hostile, "--json").json).encode("utf-8")


def test_unsigned_envelope_of_a_stranger_shows_its_claims_only(world: World, home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.suit").write_bytes(encode_envelope(make_envelope()))
    status, data = judged(tmp_path / "x.suit")
    assert (status, data["code"]) == (1, "signature.missing")
    assert data["release"]["version"] == "1.1.0"
