"""Encrypted and big-endian MCUboot images, made by imgtool, read with the device's key; what imgtool cannot verify.

Key wrapping (AES-KW) has no maker in imgtool: those images are made here.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from devguard.errors import Malformed
from devguard.image import mcuboot_layout as layout
from devguard.image.kind import Kind, recognise
from devguard.image.mcuboot import McubootReport, inspect_mcuboot
from devguard.image.mcuboot_encryption import DeviceKey, PlainReader, device_key
from devguard.image.mcuboot_keys import image_key
from image_support import area, digest, tlv
from packets_support import mutations

SIGNER = ec.derive_private_key(0xD0D0, ec.SECP256R1())
SIGNING = image_key(SIGNER.public_key())
ED_SIGNER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM, PKCS8, BARE = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
BODY = bytes(range(256)) * 9 + b"tail"


def private_pem(key: Any) -> bytes:
    data = key.private_bytes(PEM, PKCS8, BARE)
    assert isinstance(data, bytes)
    return data


@pytest.fixture(scope="module")
def devices() -> dict[str, Any]:
    return {
        "ec256": ec.derive_private_key(0xE0E0, ec.SECP256R1()),
        "x25519": x25519.X25519PrivateKey.from_private_bytes(bytes(range(32))),
        "rsa2048": rsa.generate_private_key(65537, 2048),
    }


def signer_for(device: Any) -> Any:
    """imgtool encrypts for a key of the kind it signs with."""
    if isinstance(device, rsa.RSAPrivateKey):
        return device
    return SIGNER if isinstance(device, ec.EllipticCurvePrivateKey) else ED_SIGNER


def made(folder: Path, *options: str, device: Any) -> bytes:
    """An image signed (and, for a device key that can, encrypted) by imgtool."""
    signer = signer_for(device)
    body, out = folder / "body.bin", folder / "image.bin"
    body.write_bytes(BODY)
    (folder / "sign.pem").write_bytes(private_pem(signer))
    more: list[str] = []
    if not isinstance(device, ed25519.Ed25519PrivateKey):
        (folder / "enc.pem").write_bytes(device.public_key().public_bytes(PEM, SPKI))
        more = ["-E", str(folder / "enc.pem")]
    given = [
        "-k",
        str(folder / "sign.pem"),
        "-H",
        "0x200",
        "--pad-header",
        "-v",
        "1.2.3+4",
        "-S",
        "0x40000",
        "--align",
        "8",
    ]
    command = [sys.executable, "-m", "imgtool.main", "sign", *given, *more, *options, str(body), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out.read_bytes()


def look(data: bytes, device: DeviceKey | None = None, key: Any = SIGNING) -> McubootReport:
    return inspect_mcuboot(io.BytesIO(data), key, device)


def opened(data: bytes, device: Any, *, signer: Any = None) -> McubootReport:
    return look(data, device_key(private_pem(device)), (signer or signer_for(device)).public_key())


CASES = [
    ("ec256", ()),
    ("ec256", ("--encrypt-keylen", "256")),
    ("x25519", ()),
    ("x25519", ("--encrypt-keylen", "256")),
    ("x25519", ("--hmac-sha", "512")),
    ("rsa2048", ()),
    ("rsa2048", ("--encrypt-keylen", "256")),
    ("x25519", ("-e", "big")),
]


@pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_what_imgtool_encrypts_is_verified(
    kind: str, options: tuple[str, ...], devices: dict[str, Any], tmp_path: Path
) -> None:
    device = devices[kind]
    data = made(tmp_path, *options, device=device)
    assert BODY[:64] not in data
    report = opened(data, device)
    assert report.problems == ()
    assert report.fields["signature_valid"] is True
    assert report.fields["body_encrypted"] is True
    closed = look(data)
    assert [problem.code for problem in closed.problems] == ["image.format"]
    assert "signature_valid" not in closed.fields
    other = {"ec256": "x25519", "x25519": "rsa2048", "rsa2048": "ec256"}[kind]
    wrong = look(data, device_key(private_pem(devices[other])))
    assert [problem.code for problem in wrong.problems] == ["key.unknown"]


def test_another_device_of_the_same_kind_opens_nothing(devices: dict[str, Any], tmp_path: Path) -> None:
    strangers = {
        "ec256": ec.derive_private_key(7, ec.SECP256R1()),
        "x25519": x25519.X25519PrivateKey.generate(),
        "rsa2048": rsa.generate_private_key(65537, 2048),
    }
    for kind, stranger in strangers.items():
        report = opened(made(tmp_path, device=devices[kind]), stranger, signer=signer_for(devices[kind]))
        assert [problem.code for problem in report.problems] == ["key.unknown"], kind


def test_one_flipped_bit_of_the_body_is_found(devices: dict[str, Any], tmp_path: Path) -> None:
    data = bytearray(made(tmp_path, device=devices["x25519"]))
    data[0x200 + 77] ^= 0x10
    codes = {problem.code for problem in opened(bytes(data), devices["x25519"]).problems}
    assert codes == {"image.digest", "signature.invalid"}


def test_an_image_left_in_clear_for_the_primary_slot(devices: dict[str, Any], tmp_path: Path) -> None:
    data = made(tmp_path, "--clear", device=devices["x25519"])
    assert BODY[:64] in data
    for key in (None, device_key(private_pem(devices["x25519"]))):
        report = look(data, key, ED_SIGNER.public_key())
        assert report.fields["body_encrypted"] is False
        assert report.problems == ()


def test_big_endian_images(tmp_path: Path) -> None:
    signer = ED_SIGNER
    options = ("-e", "big", "-s", "9", "-d", "(1, 1.2.3+0)")
    data = made(tmp_path, *options, device=signer)
    assert recognise(data[:4096]) is Kind.MCUBOOT
    report = look(data, key=signer.public_key())
    assert report.problems == ()
    assert (report.fields["byte_order"], report.fields["version"]) == ("big", "1.2.3+4")
    assert report.fields["security_counter"] == 9
    assert report.fields["dependencies"] == [{"image": 1, "version": "1.2.3+0"}]
    mixed = layout.LITTLE.header.build(dict(layout.BIG.header.parse(data[:32]))) + data[32:]
    assert look(mixed, key=signer.public_key()).problems


def wrapped(size: int, key: bytes, kek: bytes, flags: int | None = None) -> bytes:
    """An image encrypted for a key-wrapping key, signed by SIGNER."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import utils

    number = layout.LITTLE.header.build(
        {
            "magic": layout.IMAGE_MAGIC,
            "load_address": 0,
            "header_size": 32,
            "protected_size": 0,
            "image_size": len(BODY),
            "flags": (0x008 if size == 32 else 0x004) if flags is None else flags,
            "major": 1,
            "minor": 0,
            "revision": 0,
            "build": 0,
            "padding": 0,
        }
    )
    hashed = digest(number + BODY)
    signature = SIGNER.sign(hashed, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    tlvs = tlv(layout.SHA256, hashed) + tlv(layout.KEYHASH, SIGNING.hashes[0]) + tlv(layout.ECDSA, signature)
    tlvs += tlv(0x31, keywrap.aes_key_wrap(kek, key))
    secret = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(BODY)
    return number + secret + area(layout.INFO_MAGIC, tlvs)


def wrapping(kek: bytes) -> DeviceKey:
    return device_key(base64.b64encode(kek) + b"\n")


@pytest.mark.parametrize("size", [16, 32])
def test_key_wrapping(size: int) -> None:
    kek, key = bytes(range(100, 100 + size)), bytes(range(size))
    data = wrapped(size, key, kek)
    assert look(data, wrapping(kek)).problems == ()
    assert look(data, wrapping(kek)).fields["signature_valid"] is True
    assert [one.code for one in look(data, wrapping(bytes(size))).problems] == ["key.unknown"]


def test_header_and_key_must_say_the_same() -> None:
    kek, key = bytes(16), bytes(range(16))
    none = look(wrapped(16, key, kek, flags=0), wrapping(kek))
    assert "not encrypted" in none.problems[0].detail
    longer = look(wrapped(16, key, kek, flags=0x008), wrapping(kek))
    assert longer.problems[0].code == "key.unknown"
    plain = look(b"", wrapping(kek))
    assert plain.problems[0].code == "image.format"


def test_the_published_vectors(vectors: Path) -> None:
    folder = vectors / "mcuboot"
    held = json.loads((folder / "keys" / "published_test_keys.json").read_text())
    for image, kind in (("p256_enc_ec256", "enc-ec256-priv"), ("rsa2048_enc_rsa2048", "enc-rsa2048-priv")):
        secret = serialization.load_der_private_key(bytes.fromhex(held[kind]["private_pkcs8_der_hex"]), None)
        report = look((folder / "images" / f"{image}.bin").read_bytes(), device_key(private_pem(secret)), None)
        assert report.problems == ()


@pytest.mark.parametrize("bad", [b"", b"short", bytes(16), bytes(17), b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 5000])
def test_what_is_no_device_key(bad: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        device_key(bad)
    assert caught.value.code == "key.malformed"
    with pytest.raises(Malformed):
        device_key(private_pem(ed25519.Ed25519PrivateKey.generate()))


def test_reading_anywhere_gives_the_same_bytes() -> None:
    key, start = bytes(range(16)), 37
    secret = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(BODY)
    file = b"h" * start + secret + b"t" * 50
    whole = b"h" * start + BODY + b"t" * 50
    reader = PlainReader(io.BytesIO(file), start, len(BODY), key)
    for at, size in ((0, 40), (36, 2), (37, 1), (38, 17), (52, 33), (start + len(BODY) - 3, 9), (len(file) - 1, 5)):
        reader.seek(at)
        got = bytearray()
        while len(got) < size and (part := reader.read(size - len(got))):
            got += part
        assert bytes(got) == whole[at : at + size]


def test_damage_is_answered_in_problems(devices: dict[str, Any], tmp_path: Path) -> None:
    data = made(tmp_path, device=devices["x25519"])[: 0x200 + len(BODY) + 400]
    key = device_key(private_pem(devices["x25519"]))
    for bad in mutations(data, 5, 150):
        look(bad, key)
