"""What a station must not forget: the highest trust version, the newest release of each model, spent grants, the time.

The home's `memory.cbor` holds it, and every evidence record carries its digest: the newest record says which memory is
the right one. A memory put back from a backup is not that one, nor is a log put back without its memory. Written in
three steps, each durable before the next: `memory.next`, the record, then `memory.next` becomes `memory.cbor`; a
crash between leaves one of the two that the log names. It belongs to the station key: another station's is no memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from devguard import wire
from devguard.cli.files import read_if_there
from devguard.custody.files import file_error, read_limited, sync_folder, write_atomic
from devguard.custody.locks import locked
from devguard.errors import DevguardError, Malformed, Refused
from devguard.evidence.newest import newest_with
from devguard.evidence.record import TIME_TOLERANCE, DigestOf
from devguard.grant.uses import Spent, spend_use, use_of

if TYPE_CHECKING:
    from devguard.cli.home import Home
    from devguard.evidence.log import EvidenceLog
    from devguard.evidence.record import Record
    from devguard.grant.check import CheckedGrant
    from devguard.trust.document import TrustDocument
    from devguard.verdict.release import Release

FORMAT: Final = 2
_PLAIN: Final = 1  # the format of a memory without a list of technicians, which older versions read
LIMIT: Final = 1 << 20
CLOCK_STEP: Final = 60  # seconds: the latest time is not written again for less
_LOOKS: Final = 64
_CODE: Final = "trust.rollback"
_HINT: Final = "find out who put an old state back; then `devguard trust recover --help`"


@dataclass(frozen=True, slots=True)
class Memory:
    """One state of the memory. origin: whose it is, the log's origin line; sequences: newest release pushed, by model;
    spent: uses of grants by their id; latest: epoch seconds; records: the log had at least so many then; technicians:
    SHA-256 of the list of technicians."""

    origin: str
    trust_version: int = 0
    trust_digest: bytes | None = None
    sequences: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[bytes, Spent] = field(default_factory=dict)
    latest: int = 0
    records: int = 0
    technicians: bytes | None = None

    def encode(self) -> bytes:
        """The bytes whose SHA-256 the log carries."""
        spent = {cti: [one.manifest_digest, one.uses, one.expires] for cti, one in self.spent.items()}
        parts = [self.trust_version, self.trust_digest, dict(self.sequences), spent, self.latest, self.records]
        if self.technicians is None:
            return wire.encode([_PLAIN, self.origin, *parts])
        return wire.encode([FORMAT, self.origin, *parts, self.technicians])

    def with_trust(self, document: TrustDocument) -> Memory:
        """With `document` as the one in use."""
        return replace(self, trust_version=document.version, trust_digest=document.digest)

    def with_technicians(self, digest: bytes) -> Memory:
        """With the list of technicians of that digest as the one that counts."""
        return replace(self, technicians=digest)

    def with_push(self, release: Release, grant: CheckedGrant) -> Memory:
        """With a release that a device took, and the use of the grant it took it under."""
        highest = max(release.sequence, self.sequences.get(release.model, 0))
        try:
            use = use_of(grant.action, release.manifest_digest)
            spent: Mapping[bytes, Spent] = spend_use(grant.chain, self.spent, use, self.latest)
        except Refused:
            spent = self.spent  # it has happened: a full list here must not call a device's yes a no
        return replace(self, sequences={**self.sequences, release.model: highest}, spent=spent)

    def with_time(self, now: int) -> Memory:
        """With `now` seen; spent grants that have expired for good are forgotten."""
        if now < self.latest + CLOCK_STEP:
            return self
        return replace(self, latest=now, spent={c: one for c, one in self.spent.items() if one.expires > now})


def decode(data: bytes) -> Memory:
    """The memory in `data`; `Malformed("wire.malformed")` for anything else."""
    value: Any = wire.decode(data)
    shape: tuple[Any, ...] = (int, str, int, (bytes, type(None)), dict, dict, int, int)
    if isinstance(value, list) and value[:1] == [FORMAT]:
        shape = (*shape, bytes)
    if (
        not isinstance(value, list)
        or len(value) != len(shape)
        or value[0] not in (_PLAIN, FORMAT)
        or not all(
            isinstance(item, kind) and not isinstance(item, bool) for item, kind in zip(value, shape, strict=True)
        )
        or not all(isinstance(model, str) and type(seq) is int for model, seq in value[4].items())
        or not all(isinstance(cti, bytes) and _is_spent(one) for cti, one in value[5].items())
    ):
        raise Malformed("wire.malformed", f"not a station's memory of format {_PLAIN} or {FORMAT}")
    spent = {cti: Spent(*one) for cti, one in value[5].items()}
    return Memory(value[1], value[2], value[3], value[4], spent, *value[6:])


def _is_spent(value: object) -> bool:
    return isinstance(value, list) and [type(item) for item in value] == [bytes, int, int]


def _mine(data: bytes | None, origin: str) -> Memory | None:
    """The memory in `data` if it parses and belongs to this station."""
    if data is None:
        return None
    try:
        memory = decode(data)
    except Malformed:
        return None
    return memory if memory.origin == origin else None


def origin(home: Home) -> str | None:
    """The origin of this station's log; None before it has a key."""
    from devguard.custody.keyfile import read_info
    from devguard.evidence.checkpoint import origin_of

    path = home.station_public()
    return origin_of(read_info(path).key) if path.is_file() else None


def peek(home: Home) -> Memory | None:
    """The memory as it lies on disk, not compared with the log; None where this station has none."""
    data, mine = read_if_there(home.memory_file, LIMIT), origin(home)
    return _mine(data, mine) if mine is not None else None


def recall(home: Home, mine: str) -> Memory:
    """The memory that the evidence log vouches for; a fresh one where nothing was ever remembered. Writes nothing.

    Raises `Refused`: `trust.rollback` when another state was put back or the memory was removed, `log.truncated` when
    it is the log that was put back, and the errors of reading the log.
    """
    found = _stored(home)
    for _ in range(_LOOKS):
        try:
            return _vouched(home, mine, *found)
        except Refused:
            # Files and log are not read at one moment: what another process moved meanwhile is no old state.
            again = _stored(home)
            if again == found:
                raise
            found = again
    return _vouched(home, mine, *found)


def _stored(home: Home) -> tuple[bytes | None, bytes | None]:
    return read_if_there(home.memory_file, LIMIT), read_if_there(home.memory_file.with_suffix(".next"), LIMIT)


def _vouched(home: Home, mine: str, stored: bytes | None, pending: bytes | None) -> Memory:
    memory = _mine(stored, mine)
    entry, size = newest_with(home.evidence_folder, DigestOf.MEMORY) if home.evidence_folder.is_dir() else (None, 0)
    if memory is not None and (entry is None or memory.records > size):
        raise Refused("log.truncated", f"the memory knows {memory.records} records or more, the log has {size}", _HINT)
    if entry is None:
        return Memory(mine)
    anchored = entry.record.digests[DigestOf.MEMORY]
    for data in (stored, pending):
        found = _mine(data, mine)
        if found is not None and data is not None and hashlib.sha256(data).digest() == anchored:
            return found
    what = "is missing" if stored is None else "is not the one the log names; an older state was put back"
    raise Refused(_CODE, f"{home.memory_file.name} {what} (record {entry.index})", _HINT)


def check_clock(memory: Memory, now: int) -> None:
    """`Refused("clock.rollback")` when `now` lies more than ten minutes before the latest time seen."""
    if now + TIME_TOLERANCE < memory.latest:
        raise Refused("clock.rollback", f"the clock stands {memory.latest - now} s before a time seen here")


def check_trust(home: Home, document: TrustDocument, memory: Memory | None = None) -> None:
    """Return when the home's current document is the one remembered, or follows from it by the documents kept.

    memory: what is remembered, by default what lies on disk. Raises `Refused`: `trust.rollback` for an older or forked
    one, and the codes of the chain.
    """
    memory = peek(home) if memory is None else memory
    if memory is None or memory.trust_digest is None or memory.trust_digest == document.digest:
        return
    _check_newer(memory, document)
    if _walked(memory, document, lambda number: read_if_there(home.trust_version(number), LIMIT)) != document.digest:
        raise Refused(_CODE, f"the current document is another version {document.version} than the one kept")


def check_given(home: Home, document: TrustDocument, data: bytes, beside: Path) -> None:
    """Return when nothing this station remembers stands against a document that was given by hand, from folder
    `beside`: one of another root, the one remembered, or one that follows from it by what is kept here or lies there.

    Raises as `check_trust`.
    """
    memory = peek(home)
    if memory is None or memory.trust_digest in (None, document.digest) or not _known_root(home, document):
        return
    _check_newer(memory, document)

    def document_of(number: int) -> bytes | None:
        if number == document.version:
            return data
        kept = read_if_there(home.trust_version(number), LIMIT)
        return kept if kept is not None else read_if_there(beside / f"{number}.trust", LIMIT)

    _walked(memory, document, document_of)


def _check_newer(memory: Memory, document: TrustDocument) -> None:
    if document.version <= memory.trust_version:
        kind = "older than" if document.version < memory.trust_version else "another than the"
        raise Refused(_CODE, f"version {document.version} is {kind} version {memory.trust_version}, seen here", _HINT)


def _walked(memory: Memory, document: TrustDocument, document_of: Callable[[int], bytes | None]) -> bytes:
    """The digest of version `document.version`, walked to from the version remembered."""
    from devguard.trust.chain import Walk
    from devguard.trust.document import read_trust

    base = document_of(memory.trust_version)
    if base is None or (held := read_trust(base)).digest != memory.trust_digest:
        raise Refused("trust.gap", f"version {document.version} was not followed from version {memory.trust_version}")
    walk = Walk.start(held)
    for number in range(held.version + 1, document.version + 1):
        data = document_of(number)
        if data is None:
            raise Refused("trust.gap", f"version {number} is not here", "devguard trust follow takes the whole chain")
        walk = walk.step(data)
    return walk.newest.digest


def _known_root(home: Home, document: TrustDocument) -> bool:
    """Whether a root key of the document was ever a root key here: then it is a word in this home's own chain.

    One for benches is never that of a production chain, nor the other way round.
    """
    from devguard.trust.document import peek_trust
    from devguard.trust.rotate import root_keys

    known: set[bytes] = set()
    for path in sorted(home.trust_file.parent.glob("*.trust")):
        try:
            kept, _ = peek_trust(read_limited(path, LIMIT))
        except DevguardError:
            continue  # what is no trust document knows no root
        if kept.development is document.development:
            known |= root_keys(kept).keys()
    return not known.isdisjoint(root_keys(document))


def _observed(home: Home, memory: Memory) -> Memory:
    """With the home's current trust document, when that is new and rightly so."""
    data = read_if_there(home.trust_file, LIMIT)
    if data is None:
        return memory
    from devguard.cose.sign import read_sign
    from devguard.trust.document import read_trust

    try:
        payload = read_sign(data, code="trust.malformed").payload or b""
        if hashlib.sha256(payload).digest() == memory.trust_digest:
            return memory
        document = read_trust(data)
        check_trust(home, document, memory)
    except DevguardError:
        return memory  # whoever asks for the document is refused; a document nobody may use is not remembered
    home.keep_version(document.version, data)
    return memory.with_trust(document)


def append(
    home: Home,
    log: EvidenceLog,
    record: Callable[[bytes], Record],
    now: int,
    change: Callable[[Memory], Memory] | None = None,
    *,
    accept: Memory | None = None,
) -> Memory:
    """Append the record that `record` makes around the memory's digest, and change the memory with it.

    accept: take this state for the one that stands, whatever the log says (a person vouches for it). Raises as
    `recall` and `EvidenceLog.append`; then nothing was changed.
    """
    mine = log.checkpoint.origin
    with locked(home.memory_file):
        before = accept if accept is not None else recall(home, mine)
        after = _observed(home, before).with_time(now)
        after = change(after) if change is not None else after
        path = home.memory_file
        data = read_if_there(path, LIMIT)
        changed = after != before or accept is not None or data is None or _mine(data, mine) != before
        if changed:
            data = replace(after, records=log.size).encode()
            write_atomic(path.with_suffix(".next"), data, 0o600)
        log.append(record(hashlib.sha256(data or b"").digest()))
        if changed:
            _settle(path)
    return after


def _settle(path: Path) -> None:
    try:
        os.replace(path.with_suffix(".next"), path)
        sync_folder(path.parent)
    except OSError as error:
        raise file_error(path, error) from None
