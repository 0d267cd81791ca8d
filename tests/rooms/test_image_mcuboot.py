"""MCUboot images: imgtool is the peer; where it differs from the bootloader's rules, the bootloader is right."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError, Malformed
from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot import McubootReport, inspect_mcuboot
from devguard.image.mcuboot_keys import image_key, image_key_from_pem
from image_support import SIGNER, area, digest, image, tlv

KEYS = {"ed25519_key2": "root-ed25519-2", "ed25519_unknown_key": "root-ed25519-unknown", "p256": "root-ec-p256"}
KEY = image_key(SIGNER.public_key())


def codes(report: McubootReport) -> set[str]:
    return {problem.code for problem in report.problems}


def look(data: bytes, key: object = None) -> McubootReport:
    return inspect_mcuboot(io.BytesIO(data), key)  # type: ignore[arg-type]  # tests pass every key form


def test_every_vector_is_judged_as_the_bootloader_would(vectors: Path) -> None:
    folder = vectors / "mcuboot"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, said in manifest.items():
        stem = KEYS.get(name) or {"p256": "root-ec-p256", "rsa2": "root-rsa-2048"}.get(name[:4], "root-ed25519")
        key = image_key_from_pem((folder / "keys" / f"{stem}.pub.pem").read_bytes())
        data = (folder / "images" / f"{name}.bin").read_bytes()
        report = look(data, key)
        if "_enc_" in name:
            assert codes(report) == {"image.format"}
            assert "encrypted" in report.problems[0].detail
        elif name == "unsigned_sha256":
            assert codes(report) == {"signature.missing"}
            assert not look(data).problems
        elif name.startswith("neg_"):
            assert report.problems, name
            assert said["expected"].startswith("reject")
        else:
            assert not report.problems, (name, report.problems)
            assert report.fields["signature_valid"] is True
            assert said["verify_out"].endswith(report.fields["digest"]["sha256"])  # type: ignore[index]  # a dict


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("neg_body_bitflip", "image.digest"),
        ("neg_empty", "image.format"),
        ("neg_header_only", "image.format"),
        ("neg_img_size_overflow", "image.format"),
        ("neg_no_hash_tlv", "image.digest"),
        ("neg_seccnt_tampered", "image.digest"),
        ("neg_sig_bitflip", "signature.invalid"),
        ("neg_truncated_body", "image.format"),
        ("neg_truncated_tlv", "image.format"),
        ("neg_version_tampered", "image.digest"),
        ("neg_wrong_keyhash", "key.unknown"),
    ],
)
def test_negative_vectors_fail_for_their_reason(vectors: Path, name: str, code: str) -> None:
    stem = "root-ec-p256" if name == "neg_seccnt_tampered" else "root-ed25519"
    key = image_key_from_pem((vectors / "mcuboot" / "keys" / f"{stem}.pub.pem").read_bytes())
    assert code in codes(look((vectors / "mcuboot" / "images" / f"{name}.bin").read_bytes(), key))


def test_fields_of_vectors(vectors: Path) -> None:
    folder = vectors / "mcuboot" / "images"
    counted = look((folder / "p256_seccnt7.bin").read_bytes()).fields
    assert counted["security_counter"] == 7
    assert counted["version"] == "1.2.3+4"
    assert counted["published_test_key"] == "root-ec-p256"
    named = look((folder / "p256_vid_cid.bin").read_bytes()).fields
    assert named["vendor_id"] == "bcc169656f3a53389d83d8b565c63bc7"
    assert named["class_id"] == "8878f8e421665ae294adcf182e86dc88"
    custom = look((folder / "p256_customtlv_01a1.bin").read_bytes()).fields
    assert "vendor-01a1" in [entry["name"] for entry in custom["tlvs"]]  # type: ignore[attr-defined]  # a list of dicts
    json.dumps(custom)


def test_every_field_has_its_place() -> None:
    data = image(protected=tlv(0x50, bytes(4)) + tlv(0x01A1, b"own"))
    rows = look(data).fields["places"]
    assert isinstance(rows, list)
    ends = [row["offset"] + row["size"] for row in rows]
    bare = [row for row in rows if row["offset"] < 32]
    assert [row["offset"] for row in bare] == [0, 4, 8, 10, 12, 16, 20, 21, 22, 24, 28]
    assert [row["value"] for row in bare] == [
        int.from_bytes(data[row["offset"] : row["offset"] + row["size"]], "little") for row in bare
    ]
    assert [row["offset"] for row in rows[12:]] == ends[11:-1], "what follows the body stands without a gap"
    assert ends[-1] == len(data)
    assert rows[11]["name"] == "protected area"
    assert [row["meaning"] for row in rows if row["name"] == "vendor-01a1"] == ["a vendor's own"]


def imgtool(tmp_path: Path, key: object, *options: str) -> bytes:
    pem = key.private_bytes(  # type: ignore[attr-defined]  # any private key
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "in.bin").write_bytes(b"firmware" * 64)
    command = [str(Path(sys.executable).with_name("imgtool")), "sign", "-k", "key.pem", "-v", "1.2.3", "-H", "32"]
    command += ["--pad-header", "-S", "0x10000", *options, "in.bin", "out.bin"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return (tmp_path / "out.bin").read_bytes()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), ["--pad-sig"]),
        (lambda: ec.generate_private_key(ec.SECP384R1()), []),
        (lambda: rsa.generate_private_key(65537, 3072), []),
        (ed25519.Ed25519PrivateKey.generate, ["--sha", "512"]),
        (ed25519.Ed25519PrivateKey.generate, ["--pure"]),
    ],
    ids=["p256-padded", "p384", "rsa3072", "ed25519-sha512", "ed25519-pure"],
)
def test_what_imgtool_signs_we_accept_and_a_flip_we_refuse(tmp_path: Path, make: object, options: list[str]) -> None:
    private = make()  # type: ignore[operator]  # a key factory
    data = imgtool(tmp_path, private, *options)
    report = look(data, image_key_from_pem((tmp_path / "key.pem").read_bytes()))
    assert not report.problems
    assert report.fields["signature_valid"] is True
    assert report.fields["signature"] == ("pure" if "--pure" in options else "digest")
    flipped = bytearray(data)
    flipped[40] ^= 1
    assert "signature.invalid" in codes(look(bytes(flipped), private.public_key()))
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    assert codes(look(data, other)) == {"key.unknown"}


def test_padding_and_a_boot_trailer_are_no_problem(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    for options, align, okay in (
        (["--pad"], 8, False),
        (["--pad", "--confirm"], 8, True),
        (["--pad", "--confirm", "--align", "32", "--max-align", "32"], 32, True),
    ):
        data = imgtool(tmp_path, private, *options)
        report = look(data, private.public_key())
        assert not report.problems, options
        assert report.fields["trailer"] == {
            "max_align": align,
            "image_ok": okay,
            "copy_done": False,
            "swap_type": None,
        }
        middle = bytearray(data)
        middle[len(data) // 2] = 0x41
        assert codes(look(bytes(middle))) == {"image.trailing"}
        for at in (17, 23, 24 if align == 8 else 64):
            worse = bytearray(data)
            worse[-at] = 0x42
            assert codes(look(bytes(worse))) == {"image.trailing"}, (options, at)


def test_only_erased_flash_may_follow() -> None:
    data = image()
    assert not look(data + b"\xff" * 5000, KEY).problems
    problems = look(data + b"\xff" * 100 + b"x" + b"\xff" * 10, KEY).problems
    assert [(problem.code, problem.offset) for problem in problems] == [("image.trailing", len(data) + 100)]
    assert codes(look(data + b"\x00" * 8)) == {"image.trailing"}


def test_a_signature_counts_only_right_behind_its_key() -> None:
    data = image()
    at = data.index(tlv(1, KEY.hashes[0]))
    swapped = data[:at] + data[at + 36 :] + data[at : at + 36]
    assert codes(look(swapped, KEY)) == {"key.unknown"}
    twice = image(extra=tlv(0x24, bytes(64)))
    assert not look(twice, KEY).problems, "a nameless signature is ignored, as the bootloader ignores it"
    assert codes(look(image(extra=tlv(1, KEY.hashes[0]) + tlv(0x24, bytes(64))), KEY)) == {"signature.invalid"}


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\x30", b"\x30\xff", bytes(200)])
def test_odd_signatures_are_invalid(signature: bytes) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    for key in (KEY, image_key(private.public_key()), image_key(CoseKey.from_public(private.public_key()))):
        good = image()
        start = good.rindex(tlv(1, KEY.hashes[0]))
        hash_tlv = good[start - 36 : start]
        tlvs = hash_tlv + tlv(1, key.hashes[0]) + tlv(key.signature_type, signature)
        assert codes(look(good[: start - 40] + area(layout.INFO_MAGIC, tlvs), key)) == {"signature.invalid"}


def test_algorithm_must_fit_the_key() -> None:
    good = image()
    start = good.rindex(tlv(1, KEY.hashes[0]))
    signed, hash_tlv = good[: start - 40], good[start - 36 : start]
    wrong_type = area(layout.INFO_MAGIC, hash_tlv + tlv(1, KEY.hashes[0]) + tlv(0x22, bytes(70)))
    assert codes(look(signed + wrong_type, KEY)) == {"signature.algorithm"}
    sha384 = tlv(0x11, digest(signed, hashes.SHA384())) + tlv(1, KEY.hashes[0]) + tlv(0x24, SIGNER.sign(bytes(48)))
    assert codes(look(signed + area(layout.INFO_MAGIC, sha384), KEY)) == {"signature.algorithm"}


def test_security_tlvs_must_be_protected_and_of_their_length() -> None:
    assert not look(image(protected=tlv(0x50, bytes(4))), KEY).problems
    assert codes(look(image(extra=tlv(0x50, bytes(4))), KEY)) == {"image.format"}
    assert codes(look(image(protected=tlv(0x50, bytes(5))), KEY)) == {"image.format"}
    twice = look(image(protected=tlv(0x50, bytes(4)) + tlv(0x50, b"\1\0\0\0")), KEY)
    assert [(one.code, one.offset) for one in twice.problems] == [("image.format", 116)]
    needs = look(image(protected=tlv(0x40, bytes.fromhex("010000000102030004000000"))), KEY)
    assert needs.fields["dependencies"] == [{"image": 1, "version": "1.2.3+4"}]


def test_both_sizes_of_the_protected_area_must_agree() -> None:
    """Even in an image whose hash and signature fit: the bootloader refuses before it looks at them."""
    header, body = bytearray(image()[:32]), b"firmware" * 9
    header[10:12] = (20).to_bytes(2, "little")
    for protected in (area(layout.PROTECTED_MAGIC, tlv(0x50, bytes(4))), b""):
        signed = bytes(header) + body + protected
        tlvs = tlv(0x10, digest(signed)) + tlv(1, KEY.hashes[0]) + tlv(0x24, SIGNER.sign(digest(signed)))
        report = look(signed + area(layout.INFO_MAGIC, tlvs), KEY)
        assert codes(report) == {"image.format"}
        assert "protected" in report.problems[0].detail


def test_a_type_is_two_bytes() -> None:
    report = look(image(protected=tlv(0x0150, bytes(9))), KEY)
    assert not report.problems, "0x0150 is not the security counter 0x50"
    assert "security_counter" not in report.fields


def test_encrypted_and_odd_flags() -> None:
    for flags in (4, 8):
        report = look(image(flags=flags), KEY)
        assert codes(report) == {"image.format"}
        assert report.problems[0].detail == "encrypted, needs the device key"
    assert "both" in look(image(flags=12)).problems[0].detail
    assert "0x80000000" in look(image(flags=1 << 31)).problems[0].detail


def test_every_truncation_and_every_sampled_flip_is_a_problem() -> None:
    data = image(protected=tlv(0x50, bytes(4)))
    for cut in range(len(data)):
        assert look(data[:cut], KEY).problems, cut
    for bit in range(0, len(data) * 8, 5):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert look(bytes(flipped), KEY).problems, bit


@pytest.mark.slow
def test_every_flip_is_a_problem() -> None:
    data = image(protected=tlv(0x50, bytes(4)))
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert look(bytes(flipped), KEY).problems, bit


@given(st.binary(max_size=120), st.integers(0, 260), st.binary(max_size=40))
def test_garbage_never_raises(noise: bytes, at: int, patch: bytes) -> None:
    assert look(noise, KEY).problems
    data = image()
    look(data[:at] + patch + data[at + len(patch) :], KEY)


def test_a_flood_of_bad_tlvs_is_bounded() -> None:
    report = look(image(extra=tlv(0x50, b"") * 16000), KEY)
    assert len(report.problems) == 64
    assert len(report.fields["tlvs"]) == 256  # type: ignore[arg-type]  # a list


def test_keys_that_no_bootloader_takes() -> None:
    for bad in (b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(Malformed) as caught:
            image_key_from_pem(bad)
        assert caught.value.code == "key.malformed"
    with pytest.raises(Malformed):
        image_key(ec.generate_private_key(ec.SECP521R1()).public_key())
    with pytest.raises(DevguardError) as weak:
        image_key(ed25519.Ed25519PublicKey.from_public_bytes(bytes(32)))
    assert weak.value.code == "key.weak"
