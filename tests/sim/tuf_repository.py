"""A TUF repository in memory that signs on demand, honest until told otherwise.

It is a `Source` as the shelf's reader wants one. Whoever holds the keys can change any signed part (`signed`), replace
what is served (`served`), or hand a role's keys to a thief (`keys`); what is served is signed when it is asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from builders import make_signer
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.shelf.freshness import ISSUED, issued_text, moment
from devguard.shelf.names import BINS, bin_digit, bin_role, prefixed
from devguard.shelf.signing import ShelfSigner, tuf_key

DAY = 86_400
TOP = ("root", "timestamp", "snapshot", "targets")
Served = bytes | Callable[[], Iterator[bytes]]


def key_of(name: str) -> MemorySigner:
    """A key that its name determines."""
    return make_signer(Algorithm.ED25519, f"shelf/{name}")


@dataclass
class TufRepository:
    """Honest at first: two of three root keys, one key for every other role."""

    now: int = field(default_factory=lambda: int(time.time()))
    signed: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, list[MemorySigner]] = field(default_factory=dict)
    served: dict[str, Served] = field(default_factory=dict)
    roots: list[bytes] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    history: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    label: str = "memory"

    def __post_init__(self) -> None:
        later = moment(self.now + 30 * DAY)
        self.keys = {name: [key_of(name)] for name in TOP}
        self.keys["root"] = [key_of(f"root {number}") for number in range(3)]
        self.signed = {
            "root": Root(expires=later, consistent_snapshot=True),
            "targets": Targets(expires=later, delegations=Delegations({}, {})),
            "snapshot": Snapshot(expires=later),
            "timestamp": Timestamp(expires=later),
        }
        self.signed["snapshot"].version = self.signed["timestamp"].version = 0
        self.seat("root", self.keys["root"], 2)
        for name in TOP[1:]:
            self.seat(name, self.keys[name])
        self.publish_root()
        self.publish()

    # the vendor's work

    def seat(self, role: str, keys: list[MemorySigner], threshold: int = 1) -> None:
        """Let `keys` sign a top-level role."""
        root = self.signed["root"]
        self.keys[role] = keys
        root.keys.update({one.key.fingerprint: tuf_key(one.key) for one in keys})
        root.roles[role] = Role([one.key.fingerprint for one in keys], threshold)

    def publish_root(self, signers: list[MemorySigner] | None = None) -> None:
        """Serve the next root, signed by its keys, or by `signers`."""
        self.signed["root"].version = len(self.roots) + 1
        self.roots.append(self.sign("root", signers))

    def line(self, model: str) -> None:
        """A product line with its bins."""
        key = self.keys.setdefault(model, [key_of(model)])
        public = {one.key.fingerprint: tuf_key(one.key) for one in key}
        later = moment(self.now + 30 * DAY)
        top = self.signed["targets"].delegations
        top.keys.update(public)
        top.roles[model] = DelegatedRole(model, list(public), 1, True, [f"{model}/*"])
        bins = {bin_role(model, d): DelegatedRole(bin_role(model, d), list(public), 1, True, None, [d]) for d in BINS}
        self.signed[model] = Targets(expires=later, delegations=Delegations(public, bins))
        for name in bins:
            self.signed[name] = Targets(expires=later)
            self.keys[name] = key

    def put(self, target: str, data: bytes, role: str | None = None) -> TargetFile:
        """A target, listed by `role` (default: where it belongs)."""
        info = TargetFile.from_data(target, data, ["sha256"])
        info.unrecognized_fields["custom"] = {"sequence": 1}
        model = target.partition("/")[0]
        name = role or ("targets" if model == "trust" else bin_role(model, bin_digit(target)))
        self.signed[name].targets[target] = info
        self.signed[name].version += 1
        self.files[f"targets/{prefixed(target, info.hashes)}"] = data
        return info

    def publish(self) -> None:
        """A snapshot of everything, and a timestamp of that."""
        snapshot, timestamp = self.signed["snapshot"], self.signed["timestamp"]
        snapshot.version += 1
        for role in self.signed:
            if role not in TOP or role == "targets":
                data = self.sign(role)
                snapshot.meta[f"{role}.json"] = self.meta(self.signed[role].version, data)
        data = self.sign("snapshot")
        timestamp.version += 1
        timestamp.snapshot_meta = self.meta(snapshot.version, data)
        timestamp.unrecognized_fields[ISSUED] = issued_text(self.now)

    def sign(self, role: str, signers: list[MemorySigner] | None = None) -> bytes:
        """A role's bytes, signed now by whoever holds its keys."""
        one = Metadata(self.signed[role])
        for signer in signers if signers is not None else self.keys[role]:
            one.sign(ShelfSigner(signer), append=True)
        data = one.to_bytes()
        self.history[f"metadata/{self.signed[role].version}.{role}.json"] = data
        return data

    @staticmethod
    def meta(version: int, data: bytes) -> MetaFile:
        return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})

    # serving

    def open(self, path: str) -> Iterator[bytes] | None:
        """What a reader gets."""
        self.asked.append(path)
        given = self.served.get(path)
        if given is not None:
            return iter((given,)) if isinstance(given, bytes) else given()
        if path == "metadata/timestamp.json":
            return iter((self.sign("timestamp"),))
        version, _, role = path.removeprefix("metadata/").removesuffix(".json").partition(".")
        if path.startswith("metadata/") and role == "root":
            number = int(version)
            return iter((self.roots[number - 1],)) if number <= len(self.roots) else None
        if path.startswith("metadata/"):
            data = self.history.get(path)
            return iter((data,)) if data is not None else None
        data = self.files.get(path)
        return iter((data,)) if data is not None else None

    def close(self) -> None:
        """Nothing is kept open."""


def endless() -> Iterator[bytes]:
    """Bytes without end; a reader that does not stop would never return."""
    return itertools.repeat(b" " * 4096)
