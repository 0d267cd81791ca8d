"""Every attack that TUF and Uptane name, against a repository that signs on demand.

Invariant: an attack ends in its code, gives out nothing, and leaves every byte on disk as it was.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile, Targets

from builders import NOW, changed
from devguard.errors import DevguardError
from devguard.shelf.client import Offer, Shelf
from devguard.shelf.freshness import ISSUED, issued_text, moment
from devguard.shelf.names import bin_digit, bin_role, prefixed
from devguard.shelf.signing import tuf_key
from shelf_support import DAY, PROGRAMMER, PUMP, SUIT, VENDOR, TufRepository, bench, endless, key_of, repo, state

__all__ = ["repo"]
TIMESTAMP = "metadata/timestamp.json"
THIEF = key_of("thief")
BIN = bin_role(PUMP, bin_digit(f"{PUMP}/1.1.0.suit"))


def now() -> int:
    return int(time.time())


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(DevguardError) as caught:
        call()
    return caught.value.code


def get(shelf: Shelf, repo: TufRepository, model: str = PUMP, version: str = "1.1.0") -> bytes:
    with shelf.release(repo, model, version, now()) as file:
        return file.read()


def test_the_honest_repository_is_read(repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    done = shelf.refresh(repo, now())
    assert (done.trust_version, shelf.trust_document(1)) == (1, VENDOR.trust_bytes)
    fresh, rows = shelf.listing(now())
    assert [(row.model, row.version, row.size) for row in rows] == [
        (PUMP, "1.1.0", len(SUIT)),
        (PROGRAMMER, "1.1.0", 16),
    ]
    assert fresh == shelf.freshness()
    assert get(shelf, repo) == SUIT


# attacks on what is served: name -> (code, what the attacker does)


def serve(path: str, what: Callable[[TufRepository], object]) -> Callable[[TufRepository], None]:
    def attack(repo: TufRepository) -> None:
        repo.served[path] = what(repo)  # type: ignore[assignment]

    return attack


def by_thief(role: str) -> Callable[[TufRepository], None]:
    """Valid metadata, signed by a key nobody named."""

    def attack(repo: TufRepository) -> None:
        repo.keys[role] = [THIEF]
        if role == BIN:
            repo.signed[role].version += 1
        repo.signed["targets"].version += role == "targets"
        repo.publish()

    return attack


def expired(role: str) -> Callable[[TufRepository], None]:
    def attack(repo: TufRepository) -> None:
        repo.signed[role].expires = moment(repo.now - 1)
        repo.signed[role].version += role not in ("snapshot", "timestamp", "root")
        if role == "root":
            repo.publish_root()
        repo.publish()

    return attack


def old_timestamp(repo: TufRepository) -> None:
    repo.signed["timestamp"].version -= 1


def old_snapshot(repo: TufRepository) -> None:
    """The online key is stolen: a newer snapshot that lists an older bin."""
    repo.publish()
    snapshot = repo.signed["snapshot"]
    snapshot.meta[f"{BIN}.json"].version -= 1
    repo.signed["timestamp"].version += 1
    repo.signed["timestamp"].snapshot_meta = repo.meta(snapshot.version, repo.sign("snapshot"))


def dropped(repo: TufRepository) -> None:
    """The online key is stolen: a newer snapshot without a product line."""
    repo.publish()
    snapshot = repo.signed["snapshot"]
    del snapshot.meta[f"{BIN}.json"]
    repo.signed["timestamp"].version += 1
    repo.signed["timestamp"].snapshot_meta = repo.meta(snapshot.version, repo.sign("snapshot"))


def mixed_snapshot(repo: TufRepository) -> None:
    """The timestamp of today with the snapshot of yesterday."""
    old = repo.history[f"metadata/{repo.signed['snapshot'].version}.snapshot.json"]
    repo.publish()
    repo.served[f"metadata/{repo.signed['snapshot'].version}.snapshot.json"] = old


def mixed_bin(repo: TufRepository) -> None:
    """Today's snapshot with a bin of yesterday."""
    old = repo.history[f"metadata/{repo.signed[BIN].version}.{BIN}.json"]
    repo.signed[BIN].version += 1
    repo.publish()
    repo.served[f"metadata/{repo.signed[BIN].version}.{BIN}.json"] = old


def root(version_change: int, signers: Callable[[TufRepository], list[object]]) -> Callable[[TufRepository], None]:
    def attack(repo: TufRepository) -> None:
        repo.publish_root(signers(repo))  # type: ignore[arg-type]
        if version_change:
            repo.signed["root"].version += version_change
            repo.roots[-1] = repo.sign("root", signers(repo))  # type: ignore[arg-type]

    return attack


def longer_bin(repo: TufRepository) -> None:
    repo.signed[BIN].version += 1
    repo.publish()
    repo.served[f"metadata/{repo.signed[BIN].version}.{BIN}.json"] = endless


def future(repo: TufRepository) -> None:
    repo.now += 400 * DAY
    repo.publish()
    repo.signed["timestamp"].unrecognized_fields[ISSUED] = issued_text(repo.now)


def change_line(change: Callable[[Targets], None], role: str = PUMP) -> Callable[[TufRepository], None]:
    """A product line's key is stolen, and the online key too."""

    def attack(repo: TufRepository) -> None:
        change(repo.signed[role])
        repo.signed[role].version += 1
        repo.publish()

    return attack


def other_line(targets: Targets) -> None:
    path = next(p for n in itertools.count() if bin_digit(p := f"{PROGRAMMER}/9.0.{n}.suit") == BIN[-1])
    targets.targets[path] = TargetFile.from_data(path, b"wrong software", ["sha256"])


def escape(targets: Targets) -> None:
    targets.targets["../../etc/passwd"] = TargetFile.from_data("x", b"", ["sha256"])


def own_release(targets: Targets) -> None:
    path = f"{PUMP}/6.6.6.suit"
    targets.targets[path] = TargetFile.from_data(path, b"evil", ["sha256"])


def delegate(name: str) -> Callable[[Targets], None]:
    def change(targets: Targets) -> None:
        keys = {THIEF.key.fingerprint: tuf_key(THIEF.key)}
        roles = dict(targets.delegations.roles) if targets.delegations and targets.delegations.roles else {}
        first = DelegatedRole(name, list(keys), 1, False, None, list("0123456789abcdef"))
        kept = targets.delegations.keys if targets.delegations else {}
        roles.pop(name, None)
        targets.delegations = Delegations({**kept, **keys}, {name: first, **roles})

    return change


def helped(name: str, role: str = PUMP) -> Callable[[TufRepository], None]:
    """A line's key is stolen, and so is the online key: the thief's own role stands before the bins."""

    def attack(repo: TufRepository) -> None:
        repo.signed[name] = Targets(expires=moment(repo.now + DAY))
        repo.keys[name] = [THIEF]
        change_line(delegate(name), role)(repo)

    return attack


def by_paths(targets: Targets) -> None:
    """The bins stay; another role stands before them for the same releases."""
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    keys = list(targets.delegations.keys)
    targets.delegations.roles = {
        "evil": DelegatedRole("evil", keys, 1, False, [f"{PUMP}/*"]),
        **targets.delegations.roles,
    }


def beside(repo: TufRepository) -> None:
    repo.signed["evil"] = Targets(expires=moment(repo.now + DAY))
    repo.keys["evil"] = repo.keys[PUMP]
    own_release(repo.signed["evil"])
    change_line(by_paths)(repo)


def wide(targets: Targets) -> None:
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    targets.delegations.roles[PUMP].paths = ["*/*"]


def revoked(targets: Targets) -> None:
    """The line's key is replaced in the top-level targets, and nothing of the line is signed again."""
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    targets.delegations.keys[THIEF.key.fingerprint] = tuf_key(THIEF.key)
    targets.delegations.roles[PUMP].keyids = [THIEF.key.fingerprint]


def unlisted_trust(repo: TufRepository) -> None:
    repo.signed["targets"].targets.clear()
    repo.signed["targets"].version += 1
    repo.publish()


def other_trust(repo: TufRepository) -> None:
    repo.put("trust/1.trust", changed(VENDOR, version=1, issued=NOW - 2 * DAY).trust_bytes)
    repo.publish()


def mislabelled_trust(repo: TufRepository) -> None:
    repo.put("trust/2.trust", VENDOR.trust_bytes)
    repo.publish()


ATTACKS: dict[str, tuple[str, Callable[[TufRepository], None]]] = {
    "arbitrary installation: timestamp of a stranger": ("shelf.signature", by_thief("timestamp")),
    "arbitrary installation: snapshot of a stranger": ("shelf.signature", by_thief("snapshot")),
    "arbitrary installation: targets of a stranger": ("shelf.signature", by_thief("targets")),
    "arbitrary installation: bin of a stranger": ("shelf.signature", by_thief(BIN)),
    "endless data: timestamp": ("shelf.endless", serve(TIMESTAMP, lambda _: endless)),
    "endless data: root": ("shelf.endless", serve("metadata/2.root.json", lambda _: endless)),
    "endless data: bin": ("shelf.endless", longer_bin),
    "extraneous dependencies: a line delegates on": ("shelf.malformed", helped("evil")),
    "extraneous dependencies: a line gives a bin away": ("shelf.signature", change_line(delegate(f"{PUMP}~0"))),
    "extraneous dependencies: a line delegates to a stranger": ("shelf.name", helped("thief/x")),
    "extraneous dependencies: a line delegates by paths too": ("shelf.malformed", beside),
    "extraneous dependencies: a bin delegates on": ("shelf.malformed", helped("evil", BIN)),
    "extraneous dependencies: a release outside the bins": ("shelf.malformed", change_line(own_release)),
    "extraneous dependencies: targets widen a line": ("shelf.malformed", change_line(wide, "targets")),
    "indefinite freeze: timestamp": ("shelf.freeze", expired("timestamp")),
    "indefinite freeze: snapshot": ("shelf.freeze", expired("snapshot")),
    "indefinite freeze: targets": ("shelf.freeze", expired("targets")),
    "indefinite freeze: bin": ("shelf.freeze", expired(BIN)),
    "mix and match: snapshot": ("shelf.mix", mixed_snapshot),
    "mix and match: bin": ("shelf.mix", mixed_bin),
    "rollback: timestamp": ("version.rollback", old_timestamp),
    "rollback: snapshot": ("version.rollback", old_snapshot),
    "rollback: a role vanishes": ("shelf.mix", dropped),
    "rollback: trust document vanishes": ("trust.rollback", unlisted_trust),
    "rollback: trust document becomes another": ("trust.rollback", other_trust),
    "wrong version: trust document": ("shelf.mix", mislabelled_trust),
    "wrong software: another line's release": ("shelf.name", change_line(other_line, BIN)),
    "wrong software: a path out of the folder": ("shelf.name", change_line(escape, BIN)),
    "key compromise: one root key of two": ("shelf.signature", root(0, lambda r: r.keys["root"][:1])),
    "key compromise: strangers' root": ("shelf.signature", root(0, lambda _: [THIEF, key_of("thief 2")])),
    "key compromise: a revoked line stays as it was": ("shelf.signature", change_line(revoked, "targets")),
    "rollback: root": ("trust.rollback", root(-1, lambda r: r.keys["root"])),
    "gap: root": ("trust.gap", root(1, lambda r: r.keys["root"])),
    "future": ("shelf.not-yet", future),
    "garbage": ("shelf.malformed", serve(TIMESTAMP, lambda _: b"\x00\xff")),
    "deep": ("shelf.malformed", serve(TIMESTAMP, lambda _: b"[" * 16_000)),
    "nothing": ("shelf.malformed", serve(TIMESTAMP, lambda _: b"")),
    "another role's file": ("shelf.mix", serve(TIMESTAMP, lambda r: r.sign("snapshot"))),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_by_its_code_and_changes_nothing(name: str, repo: TufRepository, tmp_path: Path) -> None:
    code, attack = ATTACKS[name]
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    before = state(tmp_path)
    attack(repo)
    assert refused(lambda: shelf.refresh(repo, now())) == code
    assert state(tmp_path) == before


# attacks on a release's bytes


def target_path(data: bytes = SUIT) -> str:
    return f"targets/{prefixed(f'{PUMP}/1.1.0.suit', TargetFile.from_data('x', data, ['sha256']).hashes)}"


@pytest.mark.parametrize(
    ("code", "data"),
    [("image.digest", b"\0" * len(SUIT)), ("image.digest", SUIT[:-1]), ("shelf.endless", SUIT + b"\0")],
    ids=["arbitrary installation", "cut", "appended"],
)
def test_a_release_of_other_bytes_is_not_given_out(code: str, data: bytes, repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    repo.served[target_path()] = data
    assert refused(lambda: get(shelf, repo)) == code


def test_endless_data_in_a_release(repo: TufRepository, tmp_path: Path) -> None:
    repo.served[target_path()] = endless
    assert refused(lambda: get(bench(tmp_path, repo), repo)) == "shelf.endless"


def test_a_release_announced_larger_than_any_is_not_asked_for(repo: TufRepository, tmp_path: Path) -> None:
    repo.signed[BIN].targets[f"{PUMP}/1.1.0.suit"].length = 1 << 63
    repo.signed[BIN].version += 1
    repo.publish()
    assert refused(lambda: get(bench(tmp_path, repo), repo)) == "shelf.endless"
    assert target_path() not in repo.asked


# fast-forward, recovery, stolen and revoked keys


def test_fast_forward_is_refused_after_recovery_too(repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    repo.signed["timestamp"].version = repo.signed["snapshot"].version = (1 << 31) - 2
    repo.publish()
    shelf.refresh(repo, now())
    repo.signed["timestamp"].version = repo.signed["snapshot"].version = 5
    repo.publish()
    assert refused(lambda: shelf.refresh(repo, now())) == "version.rollback"
    for role in ("timestamp", "snapshot"):
        repo.seat(role, [key_of(f"new {role}")])
    repo.publish_root()
    repo.publish()
    assert shelf.refresh(repo, now()).freshness.version == 7


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_stolen_key_is_worth_nothing_after_the_next_root(role: str, repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    stolen = repo.keys[role]
    del repo.signed["root"].keys[stolen[0].key.fingerprint]
    repo.seat(role, [key_of(f"new {role}")])
    repo.publish_root()
    repo.signed["targets"].version += 1
    repo.publish()
    shelf.refresh(repo, now())
    repo.keys[role] = stolen
    repo.signed["targets"].version += 1
    repo.publish()
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.signature"


def test_a_line_with_new_keys_refuses_the_old_ones(repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    stolen = {role: keys for role, keys in repo.keys.items() if role.startswith(PUMP)}
    repo.keys = {role: keys for role, keys in repo.keys.items() if not role.startswith(PUMP)}
    repo.keys[PUMP] = [key_of("new pump")]
    versions = {role: signed.version for role, signed in repo.signed.items()}
    releases = repo.signed[BIN].targets
    repo.line(PUMP)
    for role in stolen:
        repo.signed[role].version = versions[role] + 1
    repo.signed[BIN].targets.update(releases)
    repo.signed["targets"].version += 1
    repo.publish()
    shelf.refresh(repo, now())
    repo.keys[BIN] = stolen[BIN]
    repo.signed[BIN].version += 1
    repo.publish()
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.signature"


def test_a_bin_left_behind_by_a_revoked_line_key_is_not_kept(repo: TufRepository, tmp_path: Path) -> None:
    """The line gets a new key and one bin is not signed again: what is stored of it counts no more."""
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    old = repo.signed[BIN]
    versions = {role: signed.version for role, signed in repo.signed.items()}
    keys = repo.keys[BIN]
    repo.keys[PUMP] = [key_of("new pump")]
    repo.line(PUMP)
    for role in repo.signed:
        if role.startswith(PUMP):
            repo.signed[role].version = versions[role] + 1
    repo.signed[BIN], repo.keys[BIN] = old, keys
    repo.signed["targets"].version += 1
    repo.publish()
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.signature"


def test_a_verified_root_stays_when_what_follows_is_refused(repo: TufRepository, tmp_path: Path) -> None:
    """TUF 5.3.8: else whoever stole the old timestamp key could play yesterday's root again."""
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    stolen = repo.keys["timestamp"]
    del repo.signed["root"].keys[stolen[0].key.fingerprint]
    repo.seat("timestamp", [key_of("new timestamp")])
    repo.publish_root()
    repo.served[TIMESTAMP] = b""
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.malformed"
    del repo.served[TIMESTAMP]
    del repo.roots[1:]
    repo.keys["timestamp"] = stolen
    repo.publish()
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.signature"


def test_an_expired_root_freezes(repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    expired("root")(repo)
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.freeze"


@pytest.mark.parametrize("after_keeping", [False, True])
def test_the_caller_may_refuse_and_nothing_is_kept(after_keeping: bool, repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    before = state(tmp_path)
    repo.publish()

    def accept(offer: Offer) -> None:
        assert offer.documents == {1: VENDOR.trust_bytes}
        if after_keeping:
            offer.keep()
            assert state(tmp_path) != before
        raise DevguardError("trust.rollback", "no")

    assert refused(lambda: shelf.refresh(repo, now(), accept)) == "trust.rollback"
    assert state(tmp_path) == before


def test_a_bin_of_other_content_under_its_old_version_is_judged_too(repo: TufRepository, tmp_path: Path) -> None:
    """The line's key and the online key are stolen; versions alone would not tell that anything changed."""
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    before = state(tmp_path)
    other_line(repo.signed[BIN])
    repo.publish()
    assert refused(lambda: shelf.refresh(repo, now())) == "shelf.name"
    assert state(tmp_path) == before


@pytest.mark.parametrize(("year", "code"), [(1970, "shelf.not-yet"), (2036, "shelf.freeze"), (2106, "shelf.freeze")])
def test_a_clock_that_is_wrong(year: int, code: str, repo: TufRepository, tmp_path: Path) -> None:
    shelf = bench(tmp_path, repo)
    shelf.refresh(repo, now())
    before = state(tmp_path)
    moment_ = int(datetime(year, 2, 8, tzinfo=UTC).timestamp())
    assert refused(lambda: shelf.refresh(repo, moment_)) == code
    assert refused(lambda: shelf.listing(moment_)) == code
    assert state(tmp_path) == before


@pytest.mark.parametrize("name", [1, 0, True, None, ["x"], {"x": 1}])
def test_a_delegated_role_whose_name_is_no_text(name: object, repo: TufRepository, tmp_path: Path) -> None:
    """The tuf client takes any type there."""
    shelf = bench(tmp_path, repo)
    roles = repo.signed["targets"].delegations.roles
    roles[PUMP].name = name
    repo.signed["targets"].version += 1
    repo.publish()
    assert refused(lambda: shelf.refresh(repo, now())) in ("shelf.malformed", "shelf.signature")
