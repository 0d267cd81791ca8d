"""Invariant: a private key is born protected, is never overwritten, and opens only whole and with its passphrase."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devguard.cose.algorithms import EMITTED, Algorithm
from devguard.cose.roles import TRUST_ROLES, RoleName
from devguard.cose.sign import sign1
from devguard.custody import keyfile, keytext, pkcs8
from devguard.custody.keyfile import KeyInfo, create_key, export_public, load_signer, parse_info, read_info
from devguard.custody.memory import MemorySigner
from devguard.errors import DevguardError, LocalProtocolError, Malformed, Refused

SECRET = "pass phrase with ü".encode()
ED = MemorySigner.from_seed(Algorithm.ED25519, bytes(range(32)))


def code_of(call: Callable[..., object], *args: object, **named: object) -> str:
    with pytest.raises(DevguardError) as caught:
        call(*args, **named)
    return caught.value.code


def never() -> bytes:
    raise AssertionError("the passphrase was asked for")


def make(path: Path, **changes: object) -> KeyInfo:
    given: dict[str, object] = {"name": "alice-release", "person": "Alice Zoë", "role": "release"}
    given |= {"algorithm": Algorithm.ESP256, "development": False, "passphrase": SECRET}
    return create_key(path, **(given | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Ed25519 release key, made once; tests copy it before they change it."""
    path = tmp_path_factory.mktemp("keys") / "kept.key"
    make(path, algorithm=Algorithm.ED25519)
    return path


def copied(kept: Path, tmp_path: Path, text: bytes | None = None) -> Path:
    path = tmp_path / "copy.key"
    path.write_bytes(kept.read_bytes() if text is None else text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("algorithm", EMITTED, ids=lambda algorithm: algorithm.label)
def test_create_read_load_sign(tmp_path: Path, algorithm: Algorithm) -> None:
    path = tmp_path / "alice.key"
    info = make(path, algorithm=algorithm, development=True)
    assert (info.name, info.person, info.role, info.development) == ("alice-release", "Alice Zoë", "release", True)
    assert info.algorithm is algorithm
    assert read_info(path) == info
    assert path.stat().st_mode & 0o777 == 0o600
    signer = load_signer(path, lambda: SECRET)
    assert (signer.info, signer.key, signer.algorithm) == (info, info.key, algorithm)
    assert sign1(signer, b"payload", typ=None).verify(info.key) == b"payload"
    assert os.listdir(tmp_path) == ["alice.key"]


def test_no_private_byte_is_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile.MemorySigner, "generate", classmethod(lambda cls, algorithm: ED))
    path = tmp_path / "key"
    make(path, algorithm=Algorithm.ED25519)
    parsed = keytext.parse(path.read_bytes())
    assert parsed.encrypted
    assert bytes(range(32)) not in (parsed.der or b"")
    assert b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in path.read_bytes()
    assert repr(ED) == f"<MemorySigner Ed25519 {ED.key.fingerprint}>"


def test_public_export(kept: Path, tmp_path: Path) -> None:
    info = read_info(kept)
    data = export_public(info)
    assert data.startswith(b"devguard-public-key: 1\nname: alice-release\n")
    assert b"PRIVATE" not in data
    assert len(data.splitlines()) == 7
    assert parse_info(data) == info
    assert parse_info(data.replace(b"\n", b"\r\n")) == info
    path = tmp_path / "alice.pub"
    path.write_bytes(data)
    assert read_info(path) == info
    assert code_of(load_signer, path, never) == "key.malformed"


def test_wrong_passphrases_refuse(kept: Path) -> None:
    for wrong in (b"", SECRET[:-1], SECRET + b"\n", b"x" * 1024, b"x" * 100_000):
        assert code_of(load_signer, kept, lambda wrong=wrong: wrong) == "key.passphrase"


def test_passphrase_rules_at_creation(tmp_path: Path) -> None:
    for role in RoleName:
        if role is not RoleName.STATION:
            wish = {"role": role.value, "algorithm": Algorithm.ED25519, "passphrase": None}
            assert code_of(make, tmp_path / "k", **wish) == "key.passphrase"
    assert code_of(make, tmp_path / "k", passphrase=b"") == "key.passphrase"
    assert code_of(make, tmp_path / "k", passphrase=b"x" * 1025) == "key.passphrase"
    assert os.listdir(tmp_path) == []


def test_a_station_key_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "station.key"
    info = make(path, role="station", algorithm=Algorithm.ED25519, passphrase=None)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signer(path, never).key == info.key
    other = path.read_bytes().replace(b"role: station", b"role: release")
    assert code_of(load_signer, copied(path, tmp_path, other), never) == "key.passphrase"


def test_roles_and_algorithms(tmp_path: Path) -> None:
    assert frozenset(RoleName) - TRUST_ROLES == {"technician", "device"}
    for role in ("technician", "device"):
        for algorithm in set(EMITTED) - {Algorithm.ESP256, Algorithm.ED25519}:
            assert code_of(make, tmp_path / "k", role=role, algorithm=algorithm) == "key.purpose"
    # Checkpoints are signed notes, and cosignatures have two types; trust takes no other key for them.
    for role, algorithms in (("station", {Algorithm.ED25519}), ("witness", {Algorithm.ED25519, Algorithm.ML_DSA_44})):
        for algorithm in set(EMITTED) - algorithms:
            assert code_of(make, tmp_path / "k", role=role, algorithm=algorithm) == "key.purpose"
    for algorithm in set(Algorithm) - set(EMITTED):
        assert code_of(make, tmp_path / "k", algorithm=algorithm) == "signature.algorithm"
    assert make(tmp_path / "t", role="technician").role == "technician"
    for role in ("Release", "", "admin", "release ", "release\nx"):
        assert code_of(make, tmp_path / "k", role=role) == "key.malformed"
    assert os.listdir(tmp_path) == ["t"]


@pytest.mark.parametrize("field", ["name", "person"])
@pytest.mark.parametrize(
    "text",
    [
        "a\ufe0f",
        "a\u034fb",
        "a\u3164b",
        "a\u2800b",
        "a\U000e0101",
        "",
        " a",
        "a ",
        "a\nrole: root",
        "a\r",
        "a\0",
        "a\tb",
        "\u202ea",
        "a\u200b",
        "a\u2028b",
        "x" * 129,
        "e\u0308",
    ],
)
def test_texts_that_mislead_refuse(tmp_path: Path, field: str, text: str) -> None:
    assert code_of(make, tmp_path / "k", **{field: text}) == "key.malformed"
    assert os.listdir(tmp_path) == []


def test_names_are_no_paths(tmp_path: Path) -> None:
    for name in ("../x", "a/b", "a\\b", ".hidden", "-o"):
        assert code_of(make, tmp_path / "k", name=name) == "key.malformed"


def test_keys_are_never_overwritten(kept: Path, tmp_path: Path) -> None:
    before = kept.read_bytes()
    assert code_of(make, kept) == "key.exists"
    assert kept.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert code_of(make, tmp_path / "link") == "key.exists"
    station = {"role": "station", "algorithm": Algorithm.ED25519, "passphrase": None}
    assert code_of(make, tmp_path / "absent" / "k", **station) == "file.missing"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_key_others_can_reach_refuses(kept: Path, tmp_path: Path, mode: int) -> None:
    path = copied(kept, tmp_path)
    path.chmod(mode)
    assert code_of(load_signer, path, never) == "key.file"
    assert read_info(path).name == "alice-release"


def test_links_are_judged_by_what_they_lead_to(kept: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(kept)
    assert load_signer(link, lambda: SECRET).info == read_info(kept)
    path = copied(kept, tmp_path)
    path.chmod(0o644)
    link.unlink()
    link.symlink_to(path)
    assert code_of(load_signer, link, never) == "key.file"


def test_what_is_no_file_refuses(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert code_of(load_signer, tmp_path / "fifo", never) == "key.file"
    assert code_of(load_signer, tmp_path, never) == "key.file"
    assert code_of(load_signer, tmp_path / "absent", never) == "file.missing"
    assert code_of(read_info, tmp_path / "absent") == "file.missing"
    big = copied(tmp_path, tmp_path, b"x" * 20_000)
    assert code_of(load_signer, big, never) == "wire.malformed"


def test_the_private_half_must_belong_to_the_public_one(kept: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", algorithm=Algorithm.ED25519)
    mine, other = kept.read_bytes().split(b"\n\n"), (tmp_path / "other").read_bytes().split(b"\n\n")
    swapped = copied(kept, tmp_path, mine[0] + b"\n\n" + other[1])
    assert code_of(load_signer, swapped, lambda: SECRET) == "key.malformed"


def test_every_header_line_is_demanded(kept: Path, tmp_path: Path) -> None:
    lines = kept.read_bytes().split(b"\n")
    for at in range(8):
        assert code_of(parse_info, b"\n".join(lines[:at] + lines[at + 1 :])) == "key.malformed"
        assert code_of(parse_info, b"\n".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])) == "key.malformed"
    for old, new in (
        (b"devguard-key: 1", b"devguard-key:1"),
        (b"devguard-key: 1", b"\xef\xbb\xbfdevguard-key: 1"),
        (b"alg: Ed25519", b"alg: ESP256"),
        (b"development: no", b"development: maybe"),
        (b"role: release", b"role: boss"),
        (b"public: ", b"public: A"),
        (b"public: ", b"public:  "),
        (b"name: alice", b"name: \xff"),
        (b"-----END", b"----END"),
        (b"\n\n", b"\nextra: 1\n\n"),
    ):
        assert old in kept.read_bytes()
        assert code_of(parse_info, kept.read_bytes().replace(old, new, 1)) == "key.malformed", (old, new)
    public = read_info(kept).key.encode()
    assert len(public) % 3, "the last base64 digit has bits that decode to nothing"
    text = kept.read_bytes().split(b"\npublic: ")[1].split(b"\n")[0]
    twin = kept.read_bytes().replace(text, text[:-1] + bytes((text[-1] + 1,)))
    assert code_of(parse_info, twin) == "key.malformed"
    newer = kept.read_bytes().replace(b"devguard-key: 1", b"devguard-key: 2")
    assert code_of(parse_info, newer) == "envelope.version"
    assert code_of(parse_info, export_public(read_info(kept)) + b"x") == "key.malformed"
    assert code_of(parse_info, kept.read_bytes() + b"x") == "key.malformed"


def test_truncation_at_every_byte(kept: Path) -> None:
    data = kept.read_bytes()
    for cut in range(len(data) - 1):
        with pytest.raises((Malformed, Refused)):
            parse_info(data[:cut])
    assert parse_info(data[:-1]) == parse_info(data)
    public = export_public(read_info(kept))
    for cut in range(len(public) - 1):
        with pytest.raises((Malformed, Refused)):
            parse_info(public[:cut])


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: b"devguard-key: 1\nname: " + text.encode()))
@settings(max_examples=100)
def test_any_bytes_refuse_with_our_own_error(data: bytes) -> None:
    with pytest.raises((Malformed, Refused)):
        parse_info(data)


def sealed(seed: bytes = b"\7") -> bytes:
    return pkcs8.encrypt(ED, b"pw", lambda size: seed * size)


def test_pkcs8_opens_and_checks() -> None:
    data = sealed()
    assert pkcs8.decrypt(data, b"pw").key == ED.key
    assert sealed() == data != sealed(b"\x08")
    assert code_of(pkcs8.decrypt, data, b"px") == "key.passphrase"


def test_pkcs8_truncation_and_noise() -> None:
    data = sealed()
    for cut in range(len(data)):
        assert code_of(pkcs8.check_structure, data[:cut]) == "key.malformed"
    assert code_of(pkcs8.check_structure, data + b"\0") == "key.malformed"
    head = len(data) - 50
    for at in range(head):
        for value in (0, 0x7F, 0x80, 0x81, 0x82, 0x84, 0xFF):
            bad = bytearray(data)
            bad[at] = value
            with contextlib.suppress(Malformed):
                pkcs8.check_structure(bytes(bad))
    damaged = data[:-1] + bytes((data[-1] ^ 1,))
    assert code_of(pkcs8.decrypt, damaged, b"pw") == "key.passphrase"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("02024000", "02020400"),
        ("02024000", "02024001"),
        ("02024000", "02028000"),
        ("02024000020108", "02024000020109"),
        ("020105", "020100"),
        ("020105", "020111"),
        ("020105", "020185"),
        ("2b06010401da47040b", "2b06010401da47040c"),
        ("60864801650304012a", "606648016503040102"),
        ("2a864886f70d01050d", "2a864886f70d01050c"),
    ],
)
def test_weak_costly_or_foreign_encryption_refuses_before_any_work(old: str, new: str) -> None:
    data = sealed().hex()
    assert data.count(old) == 1
    assert code_of(pkcs8.decrypt, bytes.fromhex(data.replace(old, new)), b"pw") == "key.malformed"


@pytest.mark.parametrize(("cost", "parallel", "taken"), [(17, 4, True), (15, 16, True), (17, 5, False), (16, 9, False)])
def test_the_work_a_file_may_demand_is_bounded_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, cost: int, parallel: int, taken: bool
) -> None:
    class Idle:
        def __init__(self, **_: object) -> None: ...

        def derive(self, _: bytes) -> bytes:
            return bytes(32)

    monkeypatch.setattr(pkcs8, "Scrypt", Idle)
    monkeypatch.setattr(pkcs8, "COST", 1 << cost)
    monkeypatch.setattr(pkcs8, "PARALLEL", parallel)
    data = sealed()
    if taken:
        pkcs8.check_structure(data)
    else:
        assert code_of(pkcs8.check_structure, data) == "key.malformed"


def test_openssl_opens_the_file_and_we_open_openssl_s(kept: Path, tmp_path: Path) -> None:
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("the openssl tool is not on this machine")
    environment = {**os.environ, "PW": SECRET.decode()}

    def openssl(*arguments: str) -> bytes:
        return subprocess.run([tool, *arguments], env=environment, check=True, capture_output=True).stdout

    raw = openssl("pkey", "-in", str(kept), "-passin", "env:PW", "-pubout", "-outform", "DER")
    assert raw[-32:] == read_info(kept).key.x
    plain = openssl("pkey", "-in", str(kept), "-passin", "env:PW")
    (tmp_path / "plain.pem").write_bytes(plain)
    costs = ["-scrypt_N", "16384", "-scrypt_r", "8", "-scrypt_p", "1", "-passout", "env:PW"]
    again = openssl("pkcs8", "-topk8", "-scrypt", *costs, "-in", str(tmp_path / "plain.pem"))
    path = copied(kept, tmp_path, kept.read_bytes().split(b"\n\n")[0] + b"\n\n" + again)
    assert load_signer(path, lambda: SECRET).key == read_info(kept).key


def test_memory_signer_seeds() -> None:
    for algorithm in EMITTED:
        size = {Algorithm.ESP256: 40, Algorithm.ESP384: 56}.get(algorithm, 32)
        one, two = (MemorySigner.from_seed(algorithm, bytes([value]) * size) for value in (1, 2))
        assert one.key == MemorySigner.from_seed(algorithm, b"\1" * size).key != two.key
        assert MemorySigner.from_der(one.private_der()).key == one.key
        with pytest.raises(LocalProtocolError):
            MemorySigner.from_seed(algorithm, b"\1" * 31)
        if not algorithm.is_post_quantum:
            assert one.sign(b"m") == one.sign(b"m")
    with pytest.raises(LocalProtocolError):
        MemorySigner.from_seed(Algorithm.ED25519, b"\1" * 33)
    for bad in (b"", b"\x30\x00", bytes(100)):
        assert code_of(MemorySigner.from_der, bad) == "key.malformed"
    assert code_of(MemorySigner, object()) == "key.malformed"
    for algorithm in set(Algorithm) - set(EMITTED):
        assert code_of(MemorySigner.generate, algorithm) == "signature.algorithm"
        assert code_of(MemorySigner.from_seed, algorithm, bytes(32)) == "signature.algorithm"
