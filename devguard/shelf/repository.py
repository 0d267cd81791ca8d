"""A vendor's side of a shelf: make one, put trust documents and releases on it, sign again what runs out.

    DIR/metadata/N.ROLE.json, timestamp.json     TUF metadata, consistent snapshots
    DIR/targets/MODEL/HASH.VERSION.suit          envelopes
    DIR/targets/trust/HASH.N.trust               trust documents
    DIR/pending.root.json                        a root that waits for signatures of more people

Every change is signed in memory first: a key that is missing refuses before anything is written. Then files go to
the folder under names nobody reads yet, and the timestamp last, which switches readers over. A folder behind any
web server is a shelf. Source: TUF 1.0.34 sections 4 and 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from securesystemslib.exceptions import StorageError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from devguard.cose.signer import Signer
from devguard.custody.files import file_error, write_atomic, write_streamed
from devguard.errors import Malformed, Refused
from devguard.image.measure import measure
from devguard.shelf.freshness import ISSUED, TOP, issued_text, moment
from devguard.shelf.limits import LIFETIMES, Lifetimes
from devguard.shelf.names import BINS, bin_digit, bin_role, check_line, prefixed, release_target, trust_target
from devguard.shelf.signing import ShelfSigner, tuf_key

Keyring = Callable[[str], Signer | None]


@dataclass(slots=True)
class Repository:
    """A shelf in `folder`. `keyring`: key id (fingerprint) -> its signer when it is here. `now`: epoch seconds."""

    folder: Path
    keyring: Keyring
    now: int
    lifetimes: Lifetimes = LIFETIMES
    _new: dict[str, Metadata[Any]] = field(default_factory=dict)
    _files: list[tuple[str, str, Callable[[BinaryIO], None]]] = field(default_factory=list)

    @property
    def metadata(self) -> Path:
        """Where metadata lies."""
        return self.folder / "metadata"

    # reading what is there

    def read(self, role: str) -> Metadata[Any]:
        """The newest metadata of a role, as this run changed it or as it lies there.

        Raises `Refused("shelf.missing")`, `Malformed("shelf.malformed")`.
        """
        if role not in self._new:
            if role == "timestamp":
                path = self.metadata / "timestamp.json"
            elif role == "root":
                path = self.metadata / f"{self.root_version()}.root.json"
            elif role == "snapshot":
                path = self.metadata / f"{self.read('timestamp').signed.snapshot_meta.version}.snapshot.json"
            else:
                path = self.metadata / f"{self._listed(role)}.{role}.json"
            return self._load(path)
        return self._new[role]

    def has(self, role: str) -> bool:
        """Whether the snapshot, or this run, knows a role."""
        return role in self._new or f"{role}.json" in self.read("snapshot").signed.meta

    def root_version(self) -> int:
        """The newest root's version; 0 where there is none."""
        numbers = [path.name.split(".")[0] for path in self.metadata.glob("*.root.json")]
        return max((int(one) for one in numbers if one.isdigit()), default=0)

    def _listed(self, role: str) -> int:
        info = self.read("snapshot").signed.meta.get(f"{role}.json")
        if info is None:
            raise Refused("shelf.missing", f"{self.folder} has no role {role}")
        return int(info.version)

    def _load(self, path: Path) -> Metadata[Any]:
        try:
            return Metadata[Any].from_file(str(path))
        except StorageError:
            raise Refused("shelf.missing", f"{self.folder} is no shelf: {path.name} is missing") from None
        except DeserializationError as error:
            raise Malformed("shelf.malformed", f"{path}: {error}") from None

    # changing it

    def change(self, role: str) -> Any:
        """The signed part of a role, its version raised by one and its life renewed, to be changed by the caller."""
        if role not in self._new:
            self._new[role] = self.read(role)
            self._new[role].signed.version += 1
        signed = self._new[role].signed
        signed.expires = moment(self.now + self.lifetimes.of(role))
        return signed

    def add(self, role: str, signed: Signed) -> None:
        """A role that is new."""
        signed.expires = moment(self.now + self.lifetimes.of(role))
        self._new[role] = Metadata(signed)

    def under(self, root: Metadata[Any]) -> None:
        """Work under a root that is not complete yet."""
        self._new["root"] = root

    def put_trust(self, version: int, data: bytes) -> None:
        """A trust document onto the shelf. Versions follow each other: `trust.rollback`, `trust.gap`."""
        listed = [int(Path(path).stem) for path in self.read("targets").signed.targets]
        if listed and version <= max(listed):
            raise Refused("trust.rollback", f"the shelf has version {max(listed)} of the trust document already")
        if listed and version != max(listed) + 1:
            raise Refused("trust.gap", f"the shelf has version {max(listed)}; version {max(listed) + 1} comes next")
        path = trust_target(version)
        info = TargetFile.from_data(path, data, ["sha256"])
        self._files.append((path, info.hashes["sha256"], lambda file: _write(file, data)))
        self.change("targets").targets[path] = info

    def put_release(
        self, model: str, version: str, sequence: int, file: BinaryIO, keys: Mapping[str, Any] | None = None
    ) -> TargetFile:
        """An envelope onto the shelf, in its bin. `keys` (id -> public key): who signs a product line that is new;
        without, those of the top-level targets. `Refused("shelf.exists")` for a version that is there."""
        path = release_target(model, version)
        if not self.has(check_line(model)):
            self._add_line(model, keys)
        role = bin_role(model, bin_digit(path))
        if path in self.read(role).signed.targets:
            raise Refused("shelf.exists", f"{model} {version} is on the shelf already")
        file.seek(0)
        found = measure(file)
        info = TargetFile(found.size, {"sha256": found.digest.hex()}, path, {"custom": {"sequence": sequence}})
        self._files.append((path, found.digest.hex(), lambda out: _pour(file, out)))
        self.change(role).targets[path] = info
        return info

    def rekey(self, model: str, keys: Mapping[str, Any]) -> None:
        """Give a product line other keys: after a loss, everything of the line is signed again by the new ones."""
        if not self.has(check_line(model)):
            raise Refused("shelf.missing", f"{model} is no product line of this shelf")
        self._delegate(model, 1, keys)
        self.change(model).delegations = _bins(model, 1, keys)
        for digit in BINS:
            self.change(bin_role(model, digit))

    def _add_line(self, model: str, keys: Mapping[str, Any] | None) -> None:
        root = self.read("root").signed
        own = root.roles["targets"]
        threshold = 1 if keys else own.threshold
        members = dict(keys) if keys else {one: root.keys[one] for one in own.keyids}
        self._delegate(model, threshold, members)
        self.add(model, Targets(delegations=_bins(model, threshold, members)))
        for digit in BINS:
            self.add(bin_role(model, digit), Targets())

    def _delegate(self, model: str, threshold: int, keys: Mapping[str, Any]) -> None:
        """In the top-level targets: who signs a product line. Keys nobody uses any more go."""
        top = self.change("targets")
        roles = dict(top.delegations.roles) if top.delegations is not None else {}
        known = {**(top.delegations.keys if top.delegations is not None else {}), **keys}
        roles[model] = DelegatedRole(model, list(keys), threshold, True, [f"{model}/*"])
        used = {keyid for role in roles.values() for keyid in role.keyids}
        top.delegations = Delegations({keyid: key for keyid, key in known.items() if keyid in used}, roles)

    # signing and writing

    def publish(self) -> None:
        """Sign what changed, then snapshot and timestamp, and write it all, the timestamp last.

        `Refused("shelf.signature")` names the role and the keys that are missing; then nothing was written.
        """
        changed = [role for role in self._new if role not in TOP or role == "targets"]
        snapshot: Snapshot = self.change("snapshot")
        written: list[tuple[str, bytes]] = []
        for role in changed:
            data = self._signed(role)
            written.append((f"{self._new[role].signed.version}.{role}.json", data))
            snapshot.meta[f"{role}.json"] = _meta(self._new[role].signed.version, data)
        data = self._signed("snapshot")
        written.append((f"{snapshot.version}.snapshot.json", data))
        timestamp: Timestamp = self.change("timestamp")
        timestamp.snapshot_meta = _meta(snapshot.version, data)
        timestamp.unrecognized_fields[ISSUED] = issued_text(self.now)
        written.append(("timestamp.json", self._signed("timestamp")))
        for target, digest, fill in self._files:
            path = self.folder / "targets" / prefixed(target, {"sha256": digest})
            self._make(path.parent)
            write_streamed(path, fill)
        self._make(self.metadata)
        for name, content in written:
            write_atomic(self.metadata / name, content)
        self._new, self._files = {}, []

    def renew(self, within: int) -> list[str]:
        """Sign again what `due` names, and say what; snapshot and timestamp come with anything else."""
        roles = self.due(within)
        for role in roles:
            self.change(role)
        if roles:
            self.publish()
        return roles

    def due(self, within: int) -> list[str]:
        """Roles that expire within a span or are no longer signed as their delegator asks."""
        roles = ["targets", "snapshot", "timestamp", *self._delegated()]
        limit = moment(self.now + within)
        return [role for role in roles if self.read(role).signed.expires <= limit or not self._holds(role)]

    def _delegated(self) -> list[str]:
        return [name.removesuffix(".json") for name in self.read("snapshot").signed.meta if name != "targets.json"]

    def _holds(self, role: str) -> bool:
        one = self.read(role)
        try:
            self.delegator(role).verify_delegate(role, one.signed_bytes, one.signatures)
        except RepositoryError:
            return False
        return True

    def delegator(self, role: str) -> Any:
        """The signed part of the role that says who signs `role`."""
        if role in TOP:
            return self.read("root").signed
        return self.read(role.partition("~")[0] if "~" in role else "targets").signed

    def _signed(self, role: str) -> bytes:
        """The bytes of a changed role, signed by every key of it that is here."""
        one = self._new[role]
        one.signatures.clear()
        asked = self.delegator(role).get_delegated_role(role)
        for keyid in asked.keyids:
            signer = self.keyring(keyid)
            if signer is not None:
                one.sign(ShelfSigner(signer), append=True)
        if len(one.signatures) < asked.threshold:
            raise Refused(
                "shelf.signature",
                f"{role} needs {asked.threshold} signatures and got {len(one.signatures)}; its keys: "
                + ", ".join(keyid[:16] for keyid in asked.keyids),
                "give the key with --key, or put it into this home's keys",
            )
        return one.to_bytes()

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_error(folder, error) from None


def _bins(model: str, threshold: int, keys: Mapping[str, Any]) -> Delegations:
    roles = [DelegatedRole(bin_role(model, digit), list(keys), threshold, True, None, [digit]) for digit in BINS]
    return Delegations(dict(keys), {role.name: role for role in roles})


def _meta(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def _pour(file: BinaryIO, out: BinaryIO) -> None:
    file.seek(0)
    while chunk := file.read(1 << 20):
        out.write(chunk)


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def line_keys(signers: Mapping[str, Signer]) -> dict[str, Any]:
    """Public keys in TUF's form by id, for a product line that is new."""
    return {keyid: tuf_key(signer.key) for keyid, signer in signers.items()}
