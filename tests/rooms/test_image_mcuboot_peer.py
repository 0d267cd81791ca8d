"""imgtool side by side: images it makes are sound here, and where its `verify` and the bootloader differ is a table.

`docs/mcuboot.md` lists the same differences; a new one fails here first.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from devguard.image.mcuboot import McubootReport, inspect_mcuboot
from devguard.image.mcuboot_keys import image_key_from_pem
from image_support import area, image, tlv

main = pytest.importorskip("imgtool.main", reason="imgtool is not installed")
from click.testing import CliRunner  # noqa: E402  # imgtool brings it

KEYS: dict[str, Callable[[], Any]] = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
FORMS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "counter": ("-s", "7"),
    "dependency": ("-d", "(1, 1.2.3+0)"),
    "ids": ("--vid", "devices.example", "--cid", "pump"),
    "boot-record": ("--boot-record", "APP"),
    "full-key": ("--public-key-format", "full"),
    "custom": ("--custom-tlv", "0x01a1", "0xdeadbeef"),
    "padded": ("--pad", "--confirm"),
    "rom-fixed": ("--rom-fixed", "0x10000"),
    "lzma2": ("--compression", "lzma2"),
    "lzma2-thumb": ("--compression", "lzma2armthumb", "-s", "3"),
    "big-endian": ("-e", "big", "-s", "7"),
    "sha512": ("--sha", "512"),
    "pure": ("--pure",),
}
ONLY = {"sha512": {"ed25519"}, "pure": {"ed25519"}}
# What imgtool itself cannot verify though it made it.
UNVERIFIED = {"big-endian"}
PAIRS = [(key, form) for key, form in itertools.product(KEYS, FORMS) if key in ONLY.get(form, KEYS)]
QUICK = [pair for pair in PAIRS if pair[0] == "ed25519" or pair[1] in ("plain", "lzma2")]


@cache
def pem(name: str) -> bytes:
    private: bytes = KEYS[name]().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private


def signed(folder: Path, key: str, form: str) -> bytes:
    """An image as imgtool makes it."""
    (folder / "key.pem").write_bytes(pem(key))
    (folder / "in.bin").write_bytes(b"firmware of a pump " * 300)
    command = ["sign", "-k", f"{folder}/key.pem", "-v", "1.2.3+4", "-H", "32", "--pad-header", "-S", "0x10000"]
    done = CliRunner().invoke(main.imgtool, [*command, *FORMS[form], f"{folder}/in.bin", f"{folder}/out.bin"])
    assert done.exit_code == 0, done.output
    return (folder / "out.bin").read_bytes()


def accepted(folder: Path, data: bytes) -> bool:
    """Whether `imgtool verify` takes it with the key; an exception of its own is a no."""
    (folder / "out.bin").write_bytes(data)
    done = CliRunner().invoke(main.imgtool, ["verify", "-k", f"{folder}/key.pem", f"{folder}/out.bin"])
    return done.exit_code == 0


def look(data: bytes, key: str) -> McubootReport:
    return inspect_mcuboot(io.BytesIO(data), image_key_from_pem(pem(key)))


def check(folder: Path, key: str, form: str) -> None:
    data = signed(folder, key, form)
    report = look(data, key)
    assert report.problems == ()
    assert report.fields["signature_valid"] is True
    assert accepted(folder, data) is (form not in UNVERIFIED)
    flipped = bytearray(data)
    flipped[50] ^= 1
    assert look(bytes(flipped), key).problems
    assert not accepted(folder, bytes(flipped))


@pytest.mark.parametrize(("key", "form"), QUICK)
def test_what_imgtool_makes_is_sound(tmp_path: Path, key: str, form: str) -> None:
    check(tmp_path, key, form)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "form"), PAIRS)
def test_all_that_imgtool_makes_is_sound(tmp_path: Path, key: str, form: str) -> None:
    check(tmp_path, key, form)


def test_what_is_said_of_each_form(tmp_path: Path) -> None:
    def of(form: str) -> dict[str, Any]:
        return look(signed(tmp_path, "ed25519", form), "ed25519").fields

    assert of("counter")["security_counter"] == 7
    assert of("dependency")["dependencies"] == [{"image": 1, "version": "1.2.3+0"}]
    record = of("boot-record")["boot_record"]
    assert (record["type"], record["version"]) == ("APP", "1.2.3")
    packed = of("lzma2")
    assert packed["flags"] == ["compressed-lzma2"]
    assert (len(packed["decompressed_digest"]), packed["decompressed_signature"]) == (64, "digest")
    assert of("lzma2-thumb")["flags"] == ["compressed-lzma2", "compressed-arm-thumb"]
    assert "byte first" in of("big-endian")["note"]
    assert of("pure")["signature"] == "pure"


@pytest.mark.parametrize("form", ["lzma2", "lzma2-thumb"])
def test_what_a_compressed_image_unpacks_to_is_checked(tmp_path: Path, form: str) -> None:
    """Each TLV about compression changed, and hash and signature of the packed image made anew around it."""
    data = signed(tmp_path, "ed25519", form)
    good = look(data, "ed25519")
    rows = {row["name"]: row for row in good.fields["tlvs"]}  # type: ignore[attr-defined]  # a list of dicts
    expected = {
        "decompressed-size": ("image.format", "the body unpacks to"),
        "decompressed-sha": ("image.digest", "the unpacked image's hash is"),
        "decompressed-signature": ("signature.invalid", "the signature is not one of"),
    }
    for name, (code, detail) in expected.items():
        changed, at = bytearray(data), rows[name]["offset"]
        changed[at + 4] ^= 1
        found = [(one.code, one.detail[: len(detail)], one.offset) for one in look(bytes(changed), "ed25519").problems]
        assert (code, detail, at) in found, name
    body = bytearray(data)
    body[33] = 0xFF
    assert any("LZMA2 properties" in one.detail for one in look(bytes(body), "ed25519").problems)
    both = bytearray(data)
    both[17] |= 0x02
    assert any("both LZMA1 and LZMA2" in one.detail for one in look(bytes(both), "ed25519").problems)


def test_a_body_that_unpacks_without_end_is_let_go_at_its_size() -> None:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 17, "lc": 3, "lp": 1, "pb": 2}]
    bomb = b"\x0b" + bytes(((2 * 5 + 1) * 9 + 3,)) + lzma.compress(bytes(64 << 20), lzma.FORMAT_RAW, filters=filters)
    size = (1000).to_bytes(4, "little")
    data = image(bomb, protected=tlv(0x70, size) + tlv(0x71, bytes(32)), flags=0x400)
    report = inspect_mcuboot(io.BytesIO(data), None)
    assert any("unpacks to" in one.detail for one in report.problems)
    huge = image(bomb, protected=tlv(0x70, b"\xff" * 4) + tlv(0x71, bytes(32)), flags=0x400)
    assert {one.code for one in inspect_mcuboot(io.BytesIO(huge), None).problems} == {"image.size"}


def test_where_imgtool_and_the_bootloader_differ(tmp_path: Path) -> None:
    """(imgtool accepts, devguard's codes) for each row of docs/mcuboot.md that is about verifying."""
    data = signed(tmp_path, "ed25519", "plain")
    rows = {row["name"]: row for row in look(data, "ed25519").fields["tlvs"]}  # type: ignore[attr-defined]
    info = rows["sha256"]["offset"] - 4

    def changed(at: int, value: int) -> bytes:
        return data[:at] + bytes((value,)) + data[at + 1 :]

    def with_tlv(*more: bytes) -> bytes:
        tlvs = data[info + 4 :] + b"".join(more)
        return data[:info] + area(0x6907, tlvs)

    key, _ = rows["keyhash"]["offset"], rows["ed25519"]["offset"]
    empty_key = data[:info] + area(0x6907, data[info + 4 : key] + tlv(1, b"") + data[key + 36 :])
    table = {
        "another key's hash": (changed(key + 4, data[key + 4] ^ 1), True, {"key.unknown"}),
        "an empty key hash": (empty_key, True, {"key.unknown"}),
        "an unprotected security counter": (with_tlv(tlv(0x50, bytes(4))), True, {"image.format"}),
        "an unprotected type 0x0150": (with_tlv(tlv(0x0150, bytes(4))), True, {"image.format"}),
        "bytes behind the end": (data + b"more", True, {"image.trailing"}),
        "erased flash behind the end": (data + b"\xff" * 64, True, set()),
        "a flipped body": (changed(60, data[60] ^ 1), False, {"image.digest", "signature.invalid"}),
        "a flipped version": (changed(20, 9), False, {"image.digest", "signature.invalid"}),
        "cut in its signature": (data[:-9], False, {"image.format"}),
        "no image": (b"", False, {"image.format"}),
        "pure, it says": (with_tlv(tlv(0x25, b"\x01")), False, {"signature.invalid"}),
        "pure, it says wrongly": (with_tlv(tlv(0x25, b"\x02")), False, {"image.format"}),
    }
    found = {
        name: (accepted(tmp_path, bad), {one.code for one in look(bad, "ed25519").problems})
        for name, (bad, _, _) in table.items()
    }
    assert found == {name: (peer, codes) for name, (_, peer, codes) in table.items()}


def test_a_compressed_image_that_is_encrypted_is_opened_and_unpacked(tmp_path: Path) -> None:
    """What no `verify` of imgtool looks at: both layers off, then hash and signature of what runs."""
    from cryptography.hazmat.primitives.asymmetric import x25519

    from devguard.image.mcuboot_encryption import device_key

    device = x25519.X25519PrivateKey.generate()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "device.pub").write_bytes(device.public_key().public_bytes(serialization.Encoding.PEM, form))
    private = device.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem("ed25519"))
    (tmp_path / "in.bin").write_bytes(b"firmware of a pump " * 300)
    command = ["sign", "-k", f"{tmp_path}/key.pem", "-v", "1.2.3", "-H", "32", "--pad-header", "-S", "0x10000"]
    command += ["--compression", "lzma2armthumb", "-E", f"{tmp_path}/device.pub"]
    done = CliRunner().invoke(main.imgtool, [*command, f"{tmp_path}/in.bin", f"{tmp_path}/out.bin"])
    assert done.exit_code == 0, done.output
    data = (tmp_path / "out.bin").read_bytes()
    key = image_key_from_pem(pem("ed25519"))
    opened = inspect_mcuboot(io.BytesIO(data), key, device_key(private))
    assert opened.problems == ()
    assert (opened.fields["signature_valid"], opened.fields["decompressed_signature"]) == (True, "digest")
    assert not accepted(tmp_path, data)
    closed = inspect_mcuboot(io.BytesIO(data), key)
    assert [one.detail for one in closed.problems] == ["encrypted, needs the device key"]
