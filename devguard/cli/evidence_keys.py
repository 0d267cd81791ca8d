"""Which keys an evidence log, a proof or a checkpoint is judged by: one given, a trust document's, or the home's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Invocation
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devguard.cose.keys import CoseKey
    from devguard.evidence.witness import Demand
    from devguard.trust.document import KeyEntry, TrustDocument

trust_option = click.option(
    "--trust",
    "trust_file",
    type=click.Path(path_type=Path),
    help="The station's key has to be one this trust document lists; with it, no key need be here.",
)
key_option = click.option(
    "--key", "reference", metavar="KEY", help="The station's key or its public export (default: the home's)."
)


def evidence_folder(invocation: Invocation) -> Path:
    """The evidence folder of the home. Without one: no log was ever kept here, or somebody removed it whole."""
    home = invocation.home
    if not home.evidence_folder.is_dir():
        if (home.keys / "station.key").exists():
            raise Refused("log.truncated", f"{home.evidence_folder} is gone, though this station has kept a log")
        raise Refused("log.missing", f"{home.evidence_folder} does not exist")
    return home.evidence_folder


def log_in(folder: Path) -> Path:
    """The evidence log in a folder that was named: the folder itself, or a home with one."""
    inner = folder / "evidence"
    return inner if inner.is_dir() and not list(folder.glob("segment-*.log")) else folder


@dataclass(frozen=True, slots=True)
class Station:
    """Whose log it is: the key, and where a trust document lists it, who holds it."""

    key: CoseKey
    document: TrustDocument | None = None
    entry: KeyEntry | None = None

    def as_dict(self) -> dict[str, Any] | None:
        """For JSON: None where no trust document vouches for the key."""
        if self.document is None or self.entry is None:
            return None
        return {"person": self.entry.person, "trust_version": self.document.version}

    def text(self) -> str:
        """One line for people, or nothing."""
        if self.document is None or self.entry is None:
            return ""
        return f"\nstation {self.entry.person}, as trust document version {self.document.version} lists it"


def station_of(
    invocation: Invocation, origin: Callable[[], str], reference: str | None, trust_file: Path | None
) -> Station:
    """The key to judge by. `origin` says whose log it claims to be; it is asked only with a trust document.

    Raises `Refused`: `key.unknown`, `key.revoked`, `key.expired`, and the codes of the document and its time.
    """
    listed = None if trust_file is None else _listed(invocation, origin(), trust_file)
    if listed is not None and reference is None:
        return listed
    # A file "station" in the folder one happens to be in is not this station's key.
    key = invocation.home.key_info(reference or str(invocation.home.station_public())).key
    if listed is None:
        return Station(key)
    if key != listed.key:
        raise Refused("key.unknown", "the trust document lists another station's key for this log than the one given")
    return listed


def _listed(invocation: Invocation, origin: str, trust_file: Path) -> Station:
    from devguard.cose.roles import RoleName
    from devguard.evidence.checkpoint import origin_of
    from devguard.trust.document import check_time

    document, now = invocation.home.trust(trust_file), invocation.now()
    check_time(document, now)
    role = document.role(RoleName.STATION)
    entry = next((one for one in role.keys if origin_of(one.key) == origin), None) if role is not None else None
    if entry is None:
        raise Refused("key.unknown", f"the trust document lists no station key of the log {origin[:64]!r}")
    if document.is_revoked(entry.thumbprint):
        raise Refused("key.revoked", f"the key of station {entry.person} is revoked: its log proves nothing any more")
    if not entry.valid_at(now):
        raise Refused("key.expired", f"the key of station {entry.person} is outside its validity")
    return Station(entry.key, document, entry)


def documents(invocation: Invocation, trust_file: Path | None) -> tuple[TrustDocument, ...]:
    """The trust document given, or the home's, and those before it that are kept beside it and lead to it, newest
    first: what was signed long ago may be by a key that only they list. Nothing where a home has none.

    Raises as `Home.trust` for one that was given; one of the home's that does not hold is none.
    """
    from devguard.cli.home import TRUST_LIMIT
    from devguard.custody.files import read_limited
    from devguard.trust.chain import check_successor
    from devguard.trust.document import read_trust

    path = trust_file or invocation.home.trust_file
    try:
        found = [invocation.home.trust(trust_file)]
        data = read_limited(path, TRUST_LIMIT)
    except DevguardError:
        if trust_file is not None:
            raise
        return ()
    while found[-1].version > 1:
        try:
            before = read_limited(path.parent / f"{found[-1].version - 1}.trust", TRUST_LIMIT)
            document = read_trust(before)
            if check_successor(document, data).digest != found[-1].digest:
                break
        except DevguardError:
            break
        found.append(document)
        data = before
    return tuple(found)


def demand(invocation: Invocation, given: Sequence[str], trust_file: Path | None, *, witnessed: bool) -> Demand | None:
    """Which witnesses are asked for: each key given, or with `witnessed` as many as the trust document's role asks."""
    from devguard.evidence.cosign import TYPES
    from devguard.evidence.witness import Demand

    if given:
        infos = [invocation.home.key_info(one) for one in given]
        persons = {info.key.thumbprint: f"{info.person} ({info.key.fingerprint[:16]})" for info in infos}
        return Demand([info.key for info in infos], persons, len(persons))
    if not witnessed:
        return None
    from devguard.cose.roles import RoleName
    from devguard.trust.document import check_time

    document, now = invocation.home.trust(trust_file), invocation.now()
    check_time(document, now)
    role = document.role(RoleName.WITNESS)
    if role is None:
        raise Refused("log.unwitnessed", "the trust document lists no witnesses")
    able = [one for one in role.keys if one.key.algorithm in TYPES]
    held = [one for one in able if one.valid_at(now) and not document.is_revoked(one.thumbprint)]
    return Demand([one.key for one in held], {one.thumbprint: one.person for one in held}, role.threshold)


def read_text(path: Path) -> bytes:
    """A checkpoint, a proof, a bundle or a device's statement; `file.missing`, `log.tampered` for one too large."""
    from devguard.custody.files import read_limited
    from devguard.evidence.bundle import MAX_BUNDLE

    try:
        return read_limited(path, MAX_BUNDLE)
    except Malformed as error:
        if error.code == "file.missing":
            raise
        raise Malformed("log.tampered", f"{path}: {error.message}") from None


def note_in(data: bytes) -> bytes:
    """The newest checkpoint that a file holds: a checkpoint itself, or what a proof leads to."""
    from devguard.evidence.proof import ConsistencyProof, is_proof, read_proof

    if not is_proof(data):
        return data
    proof = read_proof(data)
    return proof.newer if isinstance(proof, ConsistencyProof) else proof.note


def origin_in(note: bytes) -> str:
    """Whose log a checkpoint says it is of; nothing is judged by it."""
    from devguard.evidence.checkpoint import parse_text, read_note

    return parse_text(read_note(note).text).origin


def written(path: Path, data: bytes) -> None:
    """Write a file for a person, whole or not at all."""
    from devguard.custody.files import write_atomic

    write_atomic(path, data)
