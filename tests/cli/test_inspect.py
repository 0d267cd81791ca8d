"""`devguard inspect`: every kind it looks inside, what it finds wrong, and that no file makes it fail otherwise.

Invariant: exit 0, 1, 3 or 4, one JSON object with the contract's keys, `code` the first problem's.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from builders import NOW, Seat, make_envelope, make_image, make_release, make_signer, make_vendor, sign_envelope
from devguard import wire
from devguard.cli.context import Invocation
from devguard.cli.inspect import STDIN_LIMIT, printable
from devguard.cli.main import devguard
from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import sign1, sign_many
from devguard.evidence.checkpoint import Checkpoint, origin_of, sign_checkpoint
from devguard.grant.claims import Scope, issue_grant
from devguard.grant.scope import ANY
from devguard.manifest.envelope import add_signature, encode_envelope, read_envelope, signature_payload
from devguard.trust.document import build_trust

VENDOR = make_vendor("inspect")
IMAGE = make_image(700)
RELEASE = make_release(VENDOR, IMAGE)
RELEASE_KEY = VENDOR.signer(RoleName.RELEASE).key


def pem(key: CoseKey) -> bytes:
    return key.to_public().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_pem(private: Any, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


class Look:
    """Writes what it is given to files and inspects them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, data: bytes, name: str = "file") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def run(self, *args: object, stdin: bytes = b"") -> tuple[int, str]:
        done = CliRunner().invoke(devguard, ["inspect", *map(str, args)], obj=Invocation(), input=stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return done.exit_code, done.output

    def json(self, *args: object, stdin: bytes = b"") -> dict[str, Any]:
        status, output = self.run(*args, "--json", stdin=stdin)
        data = json.loads(output)
        assert set(data) >= {"kind", "problems", "fields", "code"}
        assert all(set(one) == {"code", "detail", "offset"} for one in data["problems"])
        assert data["code"] == (data["problems"][0]["code"] if data["problems"] else None)
        assert (status == 0) == (not data["problems"])
        return {**data, "exit": status}

    def bytes(self, data: bytes, key: CoseKey | None = None) -> dict[str, Any]:
        options = [] if key is None else ["--cose-key", self.file(pem(key), "key.pem")]
        return self.json(self.file(data), *options)


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return Look(tmp_path)


# SUIT


@pytest.mark.parametrize(
    "name", ["example0_with_cose", "example1_with_cose", "example2_full_with_cose", "example2_severed_with_cose"]
)
def test_published_examples_are_without_problem_and_their_key_is_noted(look: Look, vectors: Path, name: str) -> None:
    found = look.json(vectors / "suit" / f"{name}.cbor", "--cose-key", vectors / "suit" / "public_key.pem")
    assert (found["exit"], found["kind"], found["problems"]) == (0, "suit-envelope", [])
    assert found["fields"]["signatures"] == [{"kid": None, "alg": "ES256", "valid": True}]
    assert found["fields"]["cose_key"]["published_test_key"] == "SUIT manifest draft, example key"
    assert found["fields"]["manifest"]["sequence_number"] == int(name[7])


@pytest.mark.parametrize("name", ["example0", "example1", "example2"])
def test_unsigned_examples_lack_a_signature_only_when_one_is_asked_for(look: Look, vectors: Path, name: str) -> None:
    path = vectors / "suit" / f"{name}_envelope.cbor"
    assert look.json(path)["problems"] == []
    found = look.json(path, "--cose-key", vectors / "suit" / "public_key.pem")
    assert (found["exit"], found["code"]) == (1, "signature.missing")


def test_libcsuit_envelopes(look: Look, vectors: Path) -> None:
    folder = vectors / "suit" / "libcsuit"
    key = folder / "key" / "trust_anchor_secp256r1_pub.pem"
    for path in sorted(folder.glob("*.suit")):
        found = look.json(path, "--cose-key", key)
        assert found["kind"] == "suit-envelope"
        assert [one["valid"] for one in found["fields"]["signatures"]] == [True], path.name
        if found["fields"]["tagged"]:
            assert found["problems"] == [], path.name
        else:
            assert [one["code"] for one in found["problems"]] == ["envelope.malformed"]
            assert "107" in found["problems"][0]["detail"]
            assert found["exit"] == 3
        if path.stem.endswith("expI"):
            assert found["fields"]["payloads"]["#tc"]["matches"] is True


def test_a_release_field_by_field(look: Look) -> None:
    found = look.bytes(RELEASE, RELEASE_KEY)
    assert found["problems"] == []
    release = found["fields"]["release"]
    assert (release["model"], release["version"], release["sequence"]) == ("insulin-pump", "1.1.0", 2)
    assert [one["valid"] for one in found["fields"]["signatures"]] == [True, None]
    assert found["fields"]["payloads"]["#main"]["matches"] is True
    assert found["fields"]["manifest"]["components"] == [["main"]]


def test_a_key_that_did_not_sign_is_unknown(look: Look) -> None:
    found = look.bytes(RELEASE, make_signer(seed="stranger").key)
    assert (found["exit"], found["code"]) == (1, "key.unknown")


def test_a_flipped_bit_in_the_payload_is_found_and_located(look: Look) -> None:
    at = RELEASE.index(IMAGE)
    found = look.bytes(RELEASE[: at + 9] + bytes([RELEASE[at + 9] ^ 4]) + RELEASE[at + 10 :])
    assert (found["exit"], found["code"]) == (1, "image.digest")
    assert found["problems"][0]["offset"] == at


def test_a_payload_of_another_size_is_found(look: Look) -> None:
    envelope = read_envelope(io.BytesIO(RELEASE))
    payload = replace(envelope.payloads["#main"], data=IMAGE + b"x", size=len(IMAGE) + 1)
    found = look.bytes(encode_envelope(replace(envelope, payloads={"#main": payload})))
    assert (found["exit"], found["code"]) == (1, "image.size")


def test_a_payload_that_nothing_signed_covers(look: Look) -> None:
    envelope = read_envelope(io.BytesIO(RELEASE))
    stray = replace(envelope, payloads={**envelope.payloads, "#other": envelope.payloads["#main"]})
    found = look.bytes(encode_envelope(stray), RELEASE_KEY)
    assert (found["exit"], found["code"]) == (1, "image.digest")
    assert "nothing signed covers it" in found["problems"][0]["detail"]


def test_a_broken_signature_by_the_key_is_invalid_though_another_one_holds(look: Look) -> None:
    signer = VENDOR.signer(RoleName.RELEASE)
    envelope = make_envelope(IMAGE)
    good = sign1(signer, signature_payload(envelope), typ=None, detached=True)
    bad = replace(good, signature=good.signature[:-1] + bytes([good.signature[-1] ^ 1]))
    both = add_signature(add_signature(envelope, good.encode()), bad.encode())
    found = look.bytes(encode_envelope(both), signer.key)
    assert (found["exit"], found["code"]) == (1, "signature.invalid")
    assert [one["valid"] for one in found["fields"]["signatures"]] == [True, False]


@pytest.mark.parametrize("size", [0, 63, 65])
def test_signatures_of_the_wrong_length(look: Look, size: int) -> None:
    signer = VENDOR.signer(RoleName.RELEASE)
    envelope = make_envelope(IMAGE)
    block = replace(sign1(signer, signature_payload(envelope), typ=None, detached=True), signature=bytes(size))
    found = look.bytes(encode_envelope(add_signature(envelope, block.encode())), signer.key)
    assert (found["exit"], found["code"]) == (1, "signature.invalid")


def test_a_signature_for_another_purpose_and_an_attached_payload(look: Look) -> None:
    signer = VENDOR.signer(RoleName.RELEASE)
    envelope = make_envelope(IMAGE)
    typed = sign1(signer, signature_payload(envelope), typ="application/other", detached=True).encode()
    assert look.bytes(encode_envelope(add_signature(envelope, typed)), signer.key)["code"] == "key.purpose"
    attached = sign1(signer, signature_payload(envelope), typ=None).encode()
    found = look.bytes(encode_envelope(add_signature(envelope, attached)))
    assert (found["exit"], found["code"]) == (3, "envelope.malformed")


def test_a_cose_sign_block_is_checked_signature_by_signature(look: Look) -> None:
    signers = VENDOR.release_signers
    envelope = make_envelope(IMAGE)
    many = replace(sign_many(signers, signature_payload(envelope), typ=None), payload=None)
    data = encode_envelope(add_signature(envelope, many.encode()))
    assert [one["valid"] for one in look.bytes(data, signers[1].key)["fields"]["signatures"]] == [None, True]
    assert look.bytes(data, make_signer(seed="stranger").key)["code"] == "key.unknown"


def test_a_changed_manifest_is_shown_and_refused(look: Look) -> None:
    envelope = read_envelope(io.BytesIO(RELEASE))
    other = make_envelope(IMAGE, sequence=3)
    found = look.bytes(encode_envelope(replace(envelope, manifest=other.manifest, severable=other.severable)))
    assert (found["exit"], found["code"]) == (3, "envelope.malformed")
    assert found["fields"]["manifest"]["sequence_number"] == 3


def test_a_severed_member_that_was_changed_is_found(look: Look) -> None:
    envelope = read_envelope(io.BytesIO(RELEASE))
    text = {key: value.replace(b"for tests", b"for fools") for key, value in envelope.severable.items()}
    assert text != envelope.severable
    found = look.bytes(encode_envelope(replace(envelope, severable=text)))
    assert (found["exit"], found["code"]) == (3, "envelope.malformed")
    assert "severed" in found["fields"]["manifest"]["text"]


def test_trailing_bytes(look: Look) -> None:
    assert look.bytes(RELEASE + b"\0")["code"] == "image.trailing"


def test_a_bare_manifest(look: Look) -> None:
    manifest = make_envelope(IMAGE).manifest
    for data, tagged in ((manifest, False), (b"\xd9\x04\x2e" + manifest, True)):
        found = look.bytes(data)
        assert (found["kind"], found["problems"], found["fields"]["tagged"]) == ("suit-manifest", [], tagged)
    assert look.bytes(manifest, RELEASE_KEY)["code"] == "signature.missing"


def test_a_published_key_that_signed_is_noted(look: Look) -> None:
    from devguard.custody.memory import MemorySigner

    rfc8032 = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    signer = MemorySigner.from_seed(Algorithm.ED25519, rfc8032)
    found = look.bytes(encode_envelope(sign_envelope(make_envelope(IMAGE), [signer])))
    assert found["problems"] == []
    assert found["fields"]["signatures"][0]["published_test_key"].startswith("RFC 8032")


# grants, trust documents, checkpoints


def a_grant(trained_until: int | None = None) -> bytes:
    sets = {name: frozenset({ANY}) for name in ("models", "serials", "sites")}
    scope = Scope(actions=frozenset({"update"}), epoch=3, any_release=True, trained_until=trained_until, **sets)
    return issue_grant(
        [VENDOR.signer(RoleName.TECHNICIAN_AUTHORITY)],
        issuer="Thea Authority",
        subject="Tim Technician",
        holder=make_signer(seed="tim").key,
        scope=scope,
        now=NOW,
        expires=NOW + 3600,
        cti=bytes(16),
    )


def test_a_grant_field_by_field(look: Look) -> None:
    authority = VENDOR.signer(RoleName.TECHNICIAN_AUTHORITY).key
    found = look.bytes(a_grant(), authority)
    assert (found["kind"], found["problems"]) == ("grant", [])
    fields = found["fields"]
    assert (fields["subject"], fields["not_before"]) == ("Tim Technician", "2027-01-15T08:00:00Z")
    assert fields["scope"]["epoch"] == 3
    assert set(fields["any"]) >= {"model", "serial", "site", "release"}
    assert fields["signatures"][0]["valid"] is True
    assert look.bytes(a_grant(), RELEASE_KEY)["code"] == "key.unknown"


def test_a_grant_beyond_the_calendar_is_still_shown(look: Look) -> None:
    found = look.bytes(a_grant(trained_until=1 << 39))
    assert found["fields"]["scope"]["trained_until"] == 1 << 39


def test_a_tampered_grant(look: Look) -> None:
    data = bytearray(a_grant())
    data[-1] ^= 1
    assert look.bytes(bytes(data))["problems"] == []
    found = look.bytes(bytes(data), VENDOR.signer(RoleName.TECHNICIAN_AUTHORITY).key)
    assert (found["exit"], found["code"]) == (1, "signature.invalid")
    assert look.bytes(bytes(data[:-1]))["code"] == "grant.malformed"


def test_a_trust_document_field_by_field(look: Look) -> None:
    found = look.bytes(VENDOR.trust_bytes, VENDOR.signer(RoleName.ROOT).key)
    assert (found["kind"], found["problems"]) == ("trust", [])
    assert found["fields"]["roles"]["release"]["threshold"] == 1
    assert [one["valid"] for one in found["fields"]["signatures"]] == [True, None]
    assert found["fields"]["published_test_keys"] == []


def test_a_trust_document_that_too_few_signed(look: Look) -> None:
    found = look.bytes(build_trust(replace(VENDOR.trust, digest=b""), [VENDOR.signer(RoleName.ROOT)]))
    assert (found["exit"], found["code"]) == (1, "trust.signature")
    assert found["fields"]["version"] == 1


def test_a_trust_document_with_a_changed_signature(look: Look) -> None:
    data = VENDOR.trust_bytes[:-1] + bytes([VENDOR.trust_bytes[-1] ^ 1])
    found = look.bytes(data)
    assert (found["exit"], found["code"]) == (1, "trust.signature")


def test_a_checkpoint(look: Look) -> None:
    station = VENDOR.signer(RoleName.STATION)
    note = sign_checkpoint(Checkpoint(origin_of(station.key), 7, bytes(range(32))), station)
    found = look.bytes(note, station.key)
    assert (found["kind"], found["problems"], found["fields"]["size"]) == ("checkpoint", [], 7)
    assert found["fields"]["signatures"][0]["valid"] is True
    broken = note.replace(b"\n7\n", b"\n8\n")
    assert look.bytes(broken)["problems"] == []
    assert (look.bytes(broken, station.key)["exit"], look.bytes(broken, station.key)["code"]) == (1, "log.tampered")


# firmware


def test_mcuboot_vectors_with_and_without_the_right_look(look: Look, vectors: Path) -> None:
    folder = vectors / "mcuboot"
    ed25519 = folder / "keys" / "root-ed25519.pub.pem"
    good = look.json(folder / "images" / "ed25519.bin", "--mcuboot-key", ed25519)
    assert (good["exit"], good["kind"], good["problems"]) == (0, "mcuboot", [])
    assert good["fields"]["published_test_key"] == "root-ed25519"
    assert good["fields"]["mcuboot_key"]["published_test_key"] == "root-ed25519"
    for name, code, status in (
        ("neg_body_bitflip", "image.digest", 1),
        ("neg_sig_bitflip", "signature.invalid", 1),
        ("neg_wrong_keyhash", "key.unknown", 1),
        ("neg_truncated_tlv", "image.format", 3),
        ("neg_empty", "image.format", 3),
    ):
        found = look.json(folder / "images" / f"{name}.bin", "--mcuboot-key", ed25519)
        assert (found["kind"], found["code"], found["exit"]) == ("mcuboot", code, status), name


def test_with_an_mcuboot_key_anything_is_judged_as_mcuboot(look: Look, vectors: Path) -> None:
    key = vectors / "mcuboot" / "keys" / "root-ed25519.pub.pem"
    found = look.json(look.file(RELEASE), "--mcuboot-key", key)
    assert (found["kind"], found["code"], found["exit"]) == ("mcuboot", "image.format", 3)


def test_of_a_private_mcuboot_key_the_public_half_is_used(look: Look, vectors: Path) -> None:
    private = make_signer(Algorithm.ED25519, seed="boot").private
    image = vectors / "mcuboot" / "images" / "ed25519.bin"
    found = look.json(image, "--mcuboot-key", look.file(private_pem(private), "boot.pem"))
    assert found["code"] == "key.unknown"
    found = look.json(image, "--mcuboot-key", look.file(private_pem(private, b"secret"), "boot.pem"))
    assert (found["code"], found["exit"], found["kind"]) == ("key.malformed", 3, "unknown")


def test_an_encrypted_image_needs_the_device_it_is_for(look: Look, vectors: Path) -> None:
    folder = vectors / "mcuboot"
    image, signer = folder / "images" / "p256_enc_ec256.bin", folder / "keys" / "root-ec-p256.pub.pem"
    stranger = look.file(private_pem(x25519.X25519PrivateKey.generate()), "enc.pem")
    found = look.json(image, "--mcuboot-enc-key", stranger)
    assert (found["kind"], found["code"], found["exit"]) == ("mcuboot", "key.unknown", 1)
    held = json.loads((folder / "keys" / "published_test_keys.json").read_text())["enc-ec256-priv"]
    secret = serialization.load_der_private_key(bytes.fromhex(held["private_pkcs8_der_hex"]), None)
    found = look.json(image, "--mcuboot-key", signer, "--mcuboot-enc-key", look.file(private_pem(secret), "own.pem"))
    assert (found["problems"], found["exit"], found["fields"]["signature_valid"]) == ([], 0, True)
    public = look.json(image, "--mcuboot-enc-key", folder / "keys" / "enc-ec256-pub.pem")
    assert public["code"] == "key.malformed"


IHEX = b":0400000001020304F2\n:00000001FF\n"


def test_intel_hex(look: Look) -> None:
    found = look.bytes(IHEX)
    assert (found["kind"], found["problems"]) == ("ihex", [])
    assert found["fields"]["segments"] == [{"start": 0, "end": 4}]
    wrong = look.bytes(IHEX.replace(b"F2", b"F3"))
    assert (wrong["code"], wrong["exit"], wrong["problems"][0]["offset"]) == ("image.format", 3, 0)


def test_raw_and_named_kinds(look: Look) -> None:
    raw = look.bytes((0x20004000).to_bytes(4, "little") + (0x1001).to_bytes(4, "little") + bytes(64))
    assert (raw["kind"], raw["problems"], raw["fields"]["reset_vector"]) == ("raw", [], 0x1001)
    for data, kind in ((b"\x7fELF" + bytes(60), "elf"), (b"UF2\n\x57\x51\x5d\x9e" + bytes(504), "uf2")):
        found = look.bytes(data)
        assert (found["kind"], found["code"], found["exit"]) == (kind, "image.format", 3)
    dfu = look.bytes(bytes(100) + b"\0\0\0\0\0\0\x1a\x01UFD\x10\0\0\0\0")
    assert dfu["kind"] == "dfu"


@pytest.mark.parametrize("data", [b"", b"hello", bytes(4096), b"\xff" * 9000])
def test_what_nobody_knows(look: Look, data: bytes) -> None:
    found = look.bytes(data)
    assert (found["kind"], found["code"], found["exit"]) == ("unknown", "image.format", 3)
    assert found["fields"]["size"] == len(data)


def test_a_cose_key_is_never_silently_ignored(look: Look) -> None:
    found = look.bytes(IHEX, RELEASE_KEY)
    assert (found["code"], found["exit"]) == ("signature.missing", 1)
    found = look.bytes(b"\x7fELF" + bytes(60), RELEASE_KEY)
    assert "signature.missing" in [one["code"] for one in found["problems"]]


# the command


def test_standard_input(look: Look) -> None:
    found = look.json("-", stdin=RELEASE)
    assert (found["kind"], found["problems"], found["file"]) == ("suit-envelope", [], "-")


def test_standard_input_is_bounded(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    assert STDIN_LIMIT == 64 << 20
    monkeypatch.setattr("devguard.cli.inspect.STDIN_LIMIT", 1000)
    found = look.json("-", stdin=bytes(1001))
    assert (found["code"], found["exit"]) == ("wire.malformed", 3)
    assert look.json("-", stdin=bytes(1000))["code"] == "image.format"


def test_files_that_cannot_be_read_keep_the_schema(look: Look, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        found = look.json(path)
        assert (found["kind"], found["code"], found["exit"], found["fields"]) == ("unknown", "file.missing", 3, {})


def test_keys_that_are_none(look: Look) -> None:
    file = look.file(RELEASE)
    for option in ("--cose-key", "--mcuboot-key", "--mcuboot-enc-key"):
        for bad in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"devguard-key: 1\n"):
            found = look.json(file, option, look.file(bad, "bad.pem"))
            assert (found["code"], found["exit"]) == ("key.malformed", 3), (option, bad)


def test_cose_keys_in_other_clothes(look: Look) -> None:
    from devguard.custody.keyfile import KeyInfo, export_public

    file = look.file(RELEASE)
    private = VENDOR.signer(RoleName.RELEASE).private
    assert look.json(file, "--cose-key", look.file(private_pem(private), "k"))["problems"] == []
    export = export_public(KeyInfo("rel", "Remy Release", "release", RELEASE_KEY, False))
    assert look.json(file, "--cose-key", look.file(export, "k"))["problems"] == []


def test_keys_of_two_kinds_are_a_usage_error(look: Look) -> None:
    status, _ = look.run(look.file(RELEASE), "--cose-key", "a", "--mcuboot-key", "b", "--json")
    assert status == 2


def test_people_read_fields_and_problems(look: Look) -> None:
    status, text = look.run(look.file(RELEASE))
    assert status == 0
    assert text.startswith("suit-envelope")
    assert "insulin-pump" in text
    assert text.endswith("no problem found\n")
    status, text = look.run(look.file(RELEASE[:-1]))
    assert status == 3
    assert "problem envelope.malformed" in text


def test_what_a_file_says_cannot_drive_the_terminal(look: Look) -> None:
    assert printable("plain text") == "plain text"
    hostile = make_release(VENDOR, IMAGE, summary="clean\x1b[2J\u202e")
    _, text = look.run(look.file(hostile))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\u001b[2J" in text


def test_it_runs_as_a_program_and_loads_nothing_it_does_not_need(look: Look) -> None:
    program = (
        "import sys\nfrom devguard.cli import main\n"
        "try:\n    main.main(['inspect', sys.argv[1], '--json'])\nfinally:\n"
        "    sys.stderr.write(str([n for n in ('rich', 'tuf', 'serial', 'construct') if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(look.file(RELEASE))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["kind"] == "suit-envelope"
    assert done.stderr == "[]"


# anything at all


def specimens() -> dict[str, bytes]:
    station = VENDOR.signer(RoleName.STATION)
    small = make_vendor("small", cast=(Seat(RoleName.ROOT, "Rhea Root"),), thresholds={})
    return {
        "release": make_release(VENDOR, IMAGE[:40], signers=[VENDOR.signer(RoleName.RELEASE)]),
        "manifest": make_envelope(IMAGE).manifest,
        "grant": a_grant(),
        "trust": small.trust_bytes,
        "checkpoint": sign_checkpoint(Checkpoint(origin_of(station.key), 7, bytes(range(32))), station),
        "ihex": IHEX.rstrip(),
    }


@pytest.mark.parametrize("name", list(specimens()))
def test_truncated_flipped_and_stuffed(look: Look, name: str) -> None:
    data = specimens()[name]
    chance = random.Random(name)
    positions = chance.sample(range(len(data)), min(len(data), 25))
    for at in positions:
        assert look.bytes(data[:at])["exit"] in (1, 3)
        look.bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        look.bytes(data[:at] + chance.randbytes(8) + data[at:])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(specimens()))
def test_every_flip_and_every_truncation(look: Look, name: str) -> None:
    data = specimens()[name]
    key = RELEASE_KEY if name == "release" else None
    for at in range(len(data)):
        look.bytes(data[:at])
        found = look.bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], key)
        if name == "release":
            assert found["problems"], at


@pytest.mark.parametrize(
    "head", [b"\x5b" + b"\xff" * 8, b"\x5a\xff\xff\xff\xff", b"\xbb" + b"\xff" * 8, b"\x81" * 10_000, b"\xa1" * 10_000]
)
def test_huge_lengths_and_deep_nesting(look: Look, head: bytes) -> None:
    for data in (head, b"\xd8\x6b\xa2\x02" + head, b"\xd8\x6b\xa2\x02\x41\x80\x03" + head):
        assert look.bytes(data)["exit"] == 3
    envelope = read_envelope(io.BytesIO(RELEASE))
    blocks = encode_envelope(replace(envelope, auth_blocks=(head,)))
    found = look.bytes(blocks, RELEASE_KEY)
    assert found["exit"] == 3
    assert found["problems"][0]["detail"].startswith("authentication block 0")
    manifest = encode_envelope(replace(envelope, manifest=wire.encode({1: 1, 2: 1, 3: head})))
    assert look.bytes(manifest)["exit"] == 3
