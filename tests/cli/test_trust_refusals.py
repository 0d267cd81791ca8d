"""Invariant: a refused step at a trust document changes no file, and is on record; what was done is on record too."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import make_signer
from cli_support import World, devguard, ok, records
from devguard import wire
from devguard.cli.context import Invocation
from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_TRUST, read_sign, sign_many
from devguard.trust import codec
from devguard.trust.document import build_trust, read_trust, trust_payload
from devguard.trust.model import KeyEntry, Role, TrustDocument

LATER = ("--expires", "2098-01-01")
INIT = ("--root", "root", "--threshold", "1", "--expires", "2090-01-01")
STATION_OWN = ("evidence", "memory.cbor", "station.key")
DAY = 86_400


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below, but for the station's own record of what happened."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(STATION_OWN) & set(path.relative_to(folder).parts)
    }


def refuses(folder: Path, code: str, *args: object) -> None:
    """A command that has to be refused with `code`, changing nothing below `folder` and leaving one record."""
    home = folder / "home"
    before, count = snapshot(folder), len(records(home))
    result = devguard(*args, "--json")
    assert result.code == code, result
    assert snapshot(folder) == before
    rows = records(home)
    assert len(rows) == count + 1
    assert rows[-1]["code"] == code
    assert rows[-1]["details"]["why"]


# documents nobody may use, each by its name in the list of bad input

Maker = Callable[[World], bytes]


def payload_of(world: World) -> Any:
    return wire.decode(read_sign(world.trust.read_bytes()).payload or b"")


def signed(world: World, payload: Any, name: str = "root") -> bytes:
    data = payload if isinstance(payload, bytes) else wire.encode(payload)
    return sign_many([world.signer(name)], data, typ=TYP_TRUST).encode()


def altered(label: codec.Label, change: Callable[[Any], Any]) -> Maker:
    """The vendor's payload with one field changed, signed by its own root all the same."""

    def make(world: World) -> bytes:
        payload = payload_of(world)
        payload[int(label)] = change(payload[int(label)])
        return signed(world, payload)

    return make


def with_roles(change: Callable[[dict[int, Any]], object]) -> Maker:
    def changed(roles: dict[int, Any]) -> dict[int, Any]:
        change(roles)
        return roles

    return altered(codec.Label.ROLES, changed)


def keys_of(roles: dict[int, Any], role: int) -> list[Any]:
    return list(roles[role][1])


def deep(world: World) -> bytes:
    good = read_sign(world.trust.read_bytes()).payload or b""
    return signed(world, good[:1] + b"\x01" + b"\x81" * 10_000)


def self_signed(world: World) -> bytes:
    """By a root that lists itself, under the vendor's next number."""
    stranger = make_signer(seed="self")
    roles = {RoleName.ROOT: Role(1, (KeyEntry(stranger.key, "Rhea Root"),))}
    now = int(time.time())
    return build_trust(trust_payload(version=2, issued=now, expires=now + DAY, roles=roles), [stranger])


def by_the_wrong_keys(world: World) -> bytes:
    return signed(world, {**payload_of(world), int(codec.Label.VERSION): 2}, "release")


def dated(issued: int, expires: int) -> Maker:
    """The vendor's own next version, properly signed, with these dates from now."""

    def make(world: World) -> bytes:
        held: TrustDocument = read_trust(world.trust.read_bytes())
        now = int(time.time())
        draft = replace(held, version=2, issued=now + issued, expires=now + expires, digest=b"")
        return build_trust(draft, [world.signer("root")])

    return make


def huge_number(roles: dict[int, Any]) -> None:
    roles[2][0] = 2**32


BAD: dict[str, tuple[Maker, str]] = {
    "empty": (lambda _: b"", "trust.malformed"),
    "huge": (lambda _: bytes(64 * 1024 + 1), "wire.malformed"),
    "huge length": (lambda _: b"\xd8\x62\x9b" + b"\xff" * 8, "trust.malformed"),
    "huge text": (altered(codec.Label.VERSION, lambda _: "x" * 60_000), "trust.malformed"),
    "deep": (deep, "trust.malformed"),
    "deep outside": (lambda _: b"\xd8\x62" + b"\x81" * 10_000, "trust.malformed"),
    "future": (dated(30 * DAY, 60 * DAY), "trust.not-yet"),
    "expired": (dated(-60 * DAY, -30 * DAY), "trust.expired"),
    "self-signed": (self_signed, "trust.signature"),
    "signed by the wrong keys": (by_the_wrong_keys, "trust.signature"),
    "threshold 0": (with_roles(lambda roles: roles[2].__setitem__(0, 0)), "trust.malformed"),
    "threshold above the key count": (with_roles(lambda roles: roles[2].__setitem__(0, 2)), "trust.malformed"),
    "threshold of 2^32": (with_roles(huge_number), "trust.malformed"),
    "unknown role": (with_roles(lambda roles: roles.__setitem__(8, roles[2])), "trust.malformed"),
    "technicians as a role": (with_roles(lambda roles: roles.__setitem__("technician", roles[2])), "trust.malformed"),
    "no root": (with_roles(lambda roles: roles.pop(1)), "trust.malformed"),
    "duplicate person counted twice": (
        with_roles(lambda r: r.__setitem__(2, [2, [{**keys_of(r, 2)[0]}, {**keys_of(r, 4)[0], 2: "remy  RELEASE"}]])),
        "trust.malformed",
    ),
    "one key twice in a role": (
        with_roles(lambda r: r.__setitem__(2, [1, [*keys_of(r, 2), *keys_of(r, 2)]])),
        "trust.malformed",
    ),
    "one key in two roles": (with_roles(lambda r: r.__setitem__(3, r[2])), "trust.malformed"),
    "one key of two persons": (
        with_roles(lambda r: r.__setitem__(3, [1, [{**keys_of(r, 2)[0], 2: "Somebody Else"}]])),
        "trust.malformed",
    ),
    "expires before it is issued": (altered(codec.Label.EXPIRES, lambda _: 1), "trust.malformed"),
    "a kind of its own": (altered(codec.Label.DEVELOPMENT, lambda _: True), "trust.rollback"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_documents_change_nothing(world: World, home: Path, tmp_path: Path, name: str) -> None:
    make, code = BAD[name]
    ok("trust", "check")
    file = tmp_path / "in" / "2.trust"
    file.parent.mkdir()
    file.write_bytes(make(world))
    shutil.copy(world.trust, file.parent / "1.trust")
    refuses(tmp_path, code, "trust", "follow", file)
    if code not in ("trust.rollback", "trust.signature") or name == "signed by the wrong keys":
        refuses(tmp_path, code, "trust", "check", file)
    if code in ("trust.malformed", "wire.malformed"):
        refuses(tmp_path, code, "trust", "sign", file, "--key", "root")
        refuses(tmp_path, code, "trust", "rotate", file, *LATER)
    assert read_trust((home / "trust" / "current.trust").read_bytes()).version == 1


@pytest.mark.parametrize(
    ("now", "code"),
    [(0, "clock.rollback"), (2_085_978_496, None), (4_294_967_296, "trust.expired"), (2**33, "trust.expired")],
    ids=["1970", "2036", "2106", "2242"],
)
def test_clocks_of_1970_2036_and_2106(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: int, code: str | None
) -> None:
    ok("trust", "check")
    make = dated(0, 2_600_000_000 - int(time.time()))
    (tmp_path / "2.trust").write_bytes(make(world))
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: now))
    if code is None:
        assert ok("trust", "follow", tmp_path / "2.trust", "--json").json["version"] == 2
        return
    refuses(tmp_path, code, "trust", "follow", tmp_path / "2.trust")
    refuses(tmp_path, code, "trust", "check")


def test_a_document_made_in_1970_is_from_no_clock(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: 0))
    refuses(tmp_path, "trust.not-yet", "trust", "rotate", home / "trust", *LATER)


# which keys a role takes


@pytest.mark.parametrize(
    "wish",
    [("--root", "release"), ("--root", "root,tech"), ("--role", "release=quality"), ("--role", "release=station"),
     ("--role", "quality=release"), ("--role", "technician-authority=tech"), ("--role", "device-authority=authority")],
    ids=lambda wish: wish[1],
)  # fmt: skip
def test_a_key_of_one_role_is_listed_in_no_other(world: World, home: Path, tmp_path: Path, wish: Any) -> None:
    ok("trust", "check")  # this home is a station now, and has a station's key
    ok("key", "export", "station", "--public", "-o", tmp_path / "station.pub")
    given = [one.replace("=station", f"={tmp_path}/station.pub") for one in wish]
    root = [] if "--root" in wish else ["--root", "root"]
    refuses(tmp_path, "key.purpose", "trust", "init", tmp_path / "t", *root, *given, "--threshold", 1, *LATER)
    assert not (tmp_path / "t").exists()
    if "--role" in given:
        refuses(tmp_path, "key.purpose", "trust", "rotate", home / "trust", *LATER, *given)
    else:
        refuses(tmp_path, "key.purpose", "trust", "rotate", home / "trust", *LATER, *given, "--threshold", 1)
    # A document for benches says so, and takes any key in any role.
    ok("trust", "init", tmp_path / "d", *root, *given, "--threshold", 1, *LATER, "--development")


@pytest.mark.parametrize("name", ["technician", "device", "kings", ""])
def test_roles_no_document_has(world: World, home: Path, tmp_path: Path, name: str) -> None:
    before = snapshot(tmp_path)
    for command in (("init", tmp_path / "t", *INIT), ("rotate", home / "trust", *LATER)):
        assert devguard("trust", *command, "--role", f"{name}=tech").status == 2
    assert devguard("trust", "rotate", home / "trust", *LATER, "--remove-role", name).status == 2
    assert snapshot(tmp_path) == before


# what is refused on the way, with the file that stands in the way


def test_refused_steps_leave_the_folder_as_it_was(world: World, home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.folder / "trust", tmp_path / "trust"))
    ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root", "--alg", "Ed25519", "--out", tmp_path / "r2")
    for code, args in (
        ("key.exists", ("init", folder, *INIT)),
        ("trust.malformed", ("init", tmp_path / "n", "--root", "root", "--threshold", 2, *LATER)),
        ("file.missing", ("sign", folder / "7.trust", "--key", "root")),
        ("file.missing", ("sign", folder / "1.trust", "--key", "nobody")),
        ("key.purpose", ("sign", folder / "1.trust", "--key", tmp_path / "r2")),
        ("release.duplicate", ("sign", folder / "1.trust", "--key", "root")),
        ("file.missing", ("check", folder / "7.trust")),
        ("file.missing", ("rotate", folder, *LATER, "--role", "release=nobody")),
        ("trust.signature", ("rotate", folder, *LATER, "--remove-key", "root", "--root", tmp_path / "r2")),
        ("trust.malformed", ("rotate", folder, *LATER, "--remove-role", "root")),
        ("trust.malformed", ("rotate", folder, "--expires", "2001-01-01")),
        ("file.missing", ("revoke", folder, "Nobody", *LATER)),
        ("trust.signature", ("revoke", folder, "root", *LATER)),
        ("file.missing", ("revoke", folder, "--release", "nothing.suit", *LATER)),
        ("envelope.malformed", ("revoke", folder, "--release", world.image, *LATER)),
        ("file.missing", ("follow", tmp_path / "nothing")),
        ("trust.malformed", ("follow", world.image)),
        ("trust.rollback", ("recover", "--accept", "00", "--person", "P", "--reason", "r")),
        ("file.missing", ("push", folder, "--key", "tech", "--grant", "none.grant")),
    ):
        if args[0] == "recover":
            assert devguard("trust", *args).code == code
        elif code == "trust.signature" and args[0] == "rotate":
            assert devguard("trust", *args).status in (0, 1)
        else:
            refuses(tmp_path, code, "trust", *args)


def test_a_fork_of_the_current_document_is_not_signed(world: World, home: Path, tmp_path: Path) -> None:
    """Somebody put another version 1 beside the current one: one more signature would make it whole."""
    folder = Path(shutil.copytree(world.folder / "trust", tmp_path / "trust"))
    ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root", "--alg", "Ed25519")
    ok("trust", "init", tmp_path / "other", "--root", "root", "--root", "root2", "--threshold", 1, *LATER)
    (tmp_path / "other" / "1.trust").replace(folder / "1.trust")
    refuses(tmp_path, "trust.rollback", "trust", "sign", folder / "1.trust", "--key", "root2")


def test_a_late_signature_on_an_older_version_puts_nothing_back(world: World, home: Path, tmp_path: Path) -> None:
    for name in ("root2", "root3"):
        ok("key", "new", name, "--person", name, "--role", "root", "--alg", "Ed25519", "--out", tmp_path / name)
        ok("key", "export", tmp_path / name, "--public", "-o", tmp_path / f"{name}.pub")
    folder = tmp_path / "t"
    three = f"root,{tmp_path / 'root2.pub'},{tmp_path / 'root3.pub'}"
    ok("trust", "init", folder, "--root", three, "--threshold", 1, *LATER)
    ok("trust", "rotate", folder, *LATER, "--max-step", 5)
    newest = (folder / "2.trust").read_bytes()
    for lost, key in (("2.trust", "root2"), ("current.trust", "root3")):  # either of the two says what was newest
        (folder / lost).unlink()
        assert ok("trust", "sign", folder / "1.trust", "--key", tmp_path / key, "--json").json["complete"] is True
        assert (folder / "current.trust").read_bytes() == newest
        (folder / "2.trust").write_bytes(newest)
    assert len(read_sign((folder / "1.trust").read_bytes()).signatures) == 3


def test_a_writer_that_was_cut_off_is_settled_by_the_next(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is on disk, `current.trust` is still the one before."""
    folder = home / "trust"
    ok("trust", "rotate", folder, *LATER, "--max-step", 5)
    shutil.copy(world.trust, folder / "current.trust")
    (home / "memory.cbor").unlink()
    shutil.rmtree(home / "evidence")
    (home / "keys" / "station.key").unlink()
    made = ok("trust", "rotate", folder, *LATER, "--json").json
    assert (made["version"], made["max_step"]) == (3, 5)
    assert (folder / "current.trust").read_bytes() == (folder / "3.trust").read_bytes()


# what is on record


def actions(home: Path) -> list[tuple[str, str | None]]:
    return [(one["action"], one["code"]) for one in records(home)]


def test_every_step_of_trust_is_on_record(world: World, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    shutil.rmtree(home / "trust")
    ok("key", "new", "root2", "--person", "Ruth Root", "--role", "root", "--alg", "Ed25519", "--out", tmp_path / "r2")
    ok("key", "export", tmp_path / "r2", "--public", "-o", tmp_path / "r2.pub")
    ok("trust", "init", folder, "--root", f"root,{tmp_path / 'r2.pub'}", "--threshold", 2, *LATER)
    ok("trust", "sign", folder / "1.trust", "--key", tmp_path / "r2")
    digest = ok("trust", "check", "--json").json["digest"]
    ok("trust", "rotate", folder, *LATER, "--key", tmp_path / "r2")
    ok("trust", "revoke", folder, "--grant-epoch", 2, *LATER, "--key", tmp_path / "r2")
    ok("trust", "follow", folder)
    assert devguard("trust", "push", folder, "--key", "tech", "--grant", "none").code == "file.missing"
    assert [one for one, _ in actions(home)] == [
        "trust.init",
        *["trust.sign"] * 2,  # before it took effect, and when this home went by it
        "trust.check",
        *["trust.rotate"] * 2,
        *["trust.revoke"] * 2,
        *["trust.follow"] * 2,
        "trust.push",
    ]
    rows = records(home)
    assert rows[1]["actor"] == "Ruth Root"
    assert rows[0]["details"]["signed"] == "Rhea Root"
    assert rows[2]["details"]["effect"] == "in use here"
    assert rows[3]["digests"]["trust"] == digest
    assert rows[5]["details"]["version"] == "2"
    ok("evidence", "verify")


def test_refusals_of_keys_and_signatures_are_on_record(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert devguard("key", "new", "release", "--person", "P", "--role", "release").code == "key.exists"
    assert records(home) == []  # no station yet, and making a key does not make it one
    ok("trust", "check")
    assert devguard("key", "new", "release", "--person", "P", "--role", "release").code == "key.exists"
    made = ok("key", "new", "fresh", "--person", "Fay", "--role", "release", "--json").json
    suit = world.suit(tmp_path / "r.suit", signers=())
    ok("release", "sign", suit, "--digest-only")
    assert devguard("release", "sign", suit, "--key", "tech").code == "key.purpose"
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "wrong")
    assert devguard("release", "sign", suit, "--key", "release").code == "key.passphrase"
    assert devguard("trust", "sign", home / "trust" / "1.trust", "--key", "root").code == "key.passphrase"
    assert actions(home) == [
        ("trust.check", None),
        ("key.new", "key.exists"),
        ("key.new", None),
        ("release.digest", None),
        ("release.sign", "key.purpose"),
        ("release.sign", "key.passphrase"),
        ("trust.sign", "key.passphrase"),
    ]
    rows = records(home)
    assert (rows[2]["details"]["key"], rows[2]["actor"]) == (made["fingerprint"], "Fay")
