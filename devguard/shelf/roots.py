"""Roots: the first one, and every later one. k of n people sign offline; who is missing may sign another day.

A root lies in DIR/pending.root.json until the threshold of its own keys, and of the root before it, is met. Then it
becomes DIR/metadata/N.root.json and is never written again. Two who sign at once wait for each other.
Source: TUF 1.0.34 sections 4.3 and 6.1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from devguard.cose.keys import CoseKey
from devguard.custody.files import file_error, read_limited, write_atomic, write_new
from devguard.custody.locks import locked
from devguard.errors import Malformed, Refused
from devguard.shelf.freshness import moment
from devguard.shelf.limits import LIMITS
from devguard.shelf.repository import Repository
from devguard.shelf.signing import ShelfSigner, tuf_key

PENDING = "pending.root.json"


@dataclass(frozen=True, slots=True)
class Members:
    """Who signs what at the top: keys and threshold of root and targets, the one online key."""

    root: Sequence[CoseKey]
    root_threshold: int
    targets: Sequence[CoseKey]
    targets_threshold: int
    online: CoseKey


def make_root(members: Members, version: int, expires: int) -> Root:
    """The signed part of a root. `Refused("shelf.signature")` for a threshold no set of keys can meet."""
    root = Root(version=version, expires=moment(expires), consistent_snapshot=True)
    for name, keys, threshold in (
        ("root", members.root, members.root_threshold),
        ("targets", members.targets, members.targets_threshold),
        ("snapshot", (members.online,), 1),
        ("timestamp", (members.online,), 1),
    ):
        ids = list(dict.fromkeys(key.fingerprint for key in keys))
        if not 1 <= threshold <= len(ids):
            raise Refused("shelf.signature", f"a threshold of {threshold} over {len(ids)} different {name} keys")
        root.roles[name] = Role(ids, threshold)
        root.keys.update({key.fingerprint: tuf_key(key) for key in keys})
    offline = {key.fingerprint for key in (*members.root, *members.targets)}
    if members.online.fingerprint in offline:
        raise Refused("shelf.signature", "the online key is a root or targets key too", "give the online key its own")
    return root


def create(repository: Repository, members: Members, trust: tuple[int, bytes] | None) -> str:
    """A new shelf. What is still missing of the root's signatures is returned as text, "" for nothing.

    `Refused("shelf.exists")` where there is one, `Refused("shelf.signature")` when a key of targets or the online key
    is not here.
    """
    if repository.root_version() or (repository.folder / PENDING).exists():
        raise Refused("shelf.exists", f"there is a shelf in {repository.folder} already")
    root = make_root(members, 1, repository.now + repository.lifetimes.root)
    one = Metadata(root)
    missing = _sign(repository, one, None)
    repository.under(one)
    repository.add("targets", Targets())
    repository.add("snapshot", Snapshot())
    repository.add("timestamp", Timestamp())
    if trust is not None:
        repository.put_trust(*trust)
    repository.publish()
    _write(repository, one, missing)
    return missing


def rotate(repository: Repository, members: Members) -> tuple[str, int]:
    """The next root, signed by the keys of both roots that are here: what is still missing as text, its version."""
    with locked(repository.folder / PENDING):
        if (repository.folder / PENDING).exists():
            raise Refused("shelf.exists", "a root waits for signatures already", "devguard shelf sign DIR --key KEY")
        old = repository.read("root")
        one = Metadata(make_root(members, old.signed.version + 1, repository.now + repository.lifetimes.root))
        missing = _sign(repository, one, old.signed)
        _write(repository, one, missing)
        return missing, one.signed.version


def complete(repository: Repository) -> tuple[str, int]:
    """Add the signatures of keys that are here to the root that waits: what is still missing as text, its version."""
    path = repository.folder / PENDING
    with locked(path):
        try:
            one = Metadata[Root].from_bytes(read_limited(path, LIMITS.root_size))
        except DeserializationError as error:
            raise Malformed("shelf.malformed", f"{path}: {error}") from None
        before = repository.root_version()
        missing = _sign(repository, one, repository.read("root").signed if before else None)
        _write(repository, one, missing)
        return missing, one.signed.version


def _sign(repository: Repository, one: Metadata[Root], old: Root | None) -> str:
    asked = dict.fromkeys([*one.signed.roles["root"].keyids, *(old.roles["root"].keyids if old is not None else ())])
    for keyid in asked:
        signer = None if keyid in one.signatures else repository.keyring(keyid)
        if signer is not None:
            one.sign(ShelfSigner(signer), append=True)
    result = one.signed.get_root_verification_result(old, one.signed_bytes, one.signatures)
    if result:
        return ""
    lacking = [part for part in (result.first, result.second) if not part]
    texts = [
        f"{part.threshold - len(part.signed)} of " + ", ".join(sorted(keyid[:16] for keyid in part.unsigned))
        for part in lacking
    ]
    return "; ".join(dict.fromkeys(texts))


def _write(repository: Repository, one: Metadata[Root], missing: str) -> None:
    pending = repository.folder / PENDING
    if missing:
        write_atomic(pending, one.to_bytes())
        return
    write_new(repository.metadata / f"{one.signed.version}.root.json", one.to_bytes(), exists="shelf.exists")
    try:
        os.unlink(pending)
    except FileNotFoundError:
        return
    except OSError as error:
        raise file_error(Path(pending), error) from None
