"""An incident as one file that a third party verifies with the station's public key alone. Pure: text in, text out.

    devguard/incident-bundle@v1
    incident {...}      id, kind, subject, decision, who released it
    clock {...}         a duty, the day it is due, and how that stood when the bundle was made
    timeline TEXT       what happened, a line a record
    image {...}         a digest of a release that a record names
    report {...}        a device's signed report, as a record carries it
    record {...}        a record: place, leaf hash, and itself, whole or without what people typed
    path INDEX HASH...  what leads from that record to the checkpoint

    tlog-proof of the record of the export

The record of the export holds the digest of every section and is in the log itself: whoever changes a line has to
change the log. Paths prove themselves. A record in which people typed something is an excerpt, unless it was asked for
whole: its leaf hash stands in the tree, so that the record can be shown later, and no other in its place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard.cose.keys import CoseKey
from devguard.errors import DevguardError, Malformed, Refused
from devguard.evidence.checkpoint import Checkpoint, plain_number, unbase64
from devguard.evidence.export import excerpt, rfc3339
from devguard.evidence.incident import EXPORT, Incident, clocks
from devguard.evidence.proof import InclusionProof, read_proof
from devguard.evidence.record import DigestOf, Entry, Statement, decode_entry, encode_entry
from devguard.evidence.rules import MEANING
from devguard.evidence.tree import HASH_SIZE, leaf_hash, verify_inclusion

FIRST: Final = "devguard/incident-bundle@v1"
MAX_BUNDLE: Final = 32 * 1024 * 1024
MOST: Final = 256  # records
_SECTIONS: Final = ("incident", "clock", "timeline", "image", "report", "record")
_PATH: Final = "path"
_CODE: Final = "log.tampered"


def is_bundle(data: bytes) -> bool:
    """Whether a file with these first bytes means to be a bundle."""
    return data.partition(b"\n")[0] == FIRST.encode()


# making


def body_of(incident: Incident, entries: Sequence[Entry], now: int, *, whole: bool) -> tuple[str, ...]:
    """The lines of a bundle that the record of its export covers. entries: those it concerns, by index."""
    plain = incident.to_json(now)
    plain |= {"clocks": None, "meaning": MEANING.get(incident.kind, ""), "exported": rfc3339(now)}
    del plain["clocks"]
    lines = [_line("incident", plain)]
    lines += [_line("clock", one.to_json()) for one in clocks(incident, now)]
    lines += [f"timeline {told(entry)}" for entry in entries]
    lines += [_line("image", image) for image in images(entries)]
    lines += [_line("report", report) for report in _reports(entries)]
    lines += [_line("record", _record(entry, whole)) for entry in entries]
    return tuple(lines)


def told(entry: Entry) -> str:
    """A record as one line for people, without what people typed."""
    record = entry.record
    words = [rfc3339(record.time), f"#{entry.index}", record.action, record.code or "ok", f"by {record.actor}"]
    words += [f"device {record.device}"] if record.device is not None else []
    words += [f"release {record.release}"] if record.release is not None else []
    return ", ".join(words)


def images(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Digests of releases and images that the records name, each once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        record = entry.record
        for kind in (DigestOf.MANIFEST, DigestOf.PAYLOAD):
            if kind in record.digests and not record.action.startswith("incident."):
                name, digest = kind.name.lower(), record.digests[kind].hex()
                one = {"of": name, "digest": digest, "release": record.release, "record": entry.index}
                found.setdefault((name, digest), one)
    return list(found.values())


def _reports(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    found = {}
    for entry in entries:
        said = entry.record.statements
        if Statement.REPORT in said:
            found[said[Statement.REPORT]] = {
                "record": entry.index,
                "device": entry.record.device,
                "sha256": hashlib.sha256(said[Statement.REPORT]).hexdigest(),
                "signed": _base64(said[Statement.REPORT]),
                "credential": _base64(said.get(Statement.CREDENTIAL, b"")),
            }
    return list(found.values())


def _record(entry: Entry, whole: bool) -> dict[str, Any]:
    plain = excerpt(entry)
    leaf = _base64(encode_entry(entry)) if whole or not plain["withheld"] else None
    return {"index": entry.index, "leaf": plain["leaf"], "whole": leaf, "excerpt": plain}


def _line(section: str, value: Mapping[str, Any]) -> str:
    return f"{section} {json.dumps(value, separators=(',', ':'), sort_keys=True)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def digest_of(lines: Sequence[str]) -> bytes:
    """SHA-256 over the covered lines."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest()


def section_digests(lines: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each section in hexadecimal, by the name of the detail that carries it."""
    parts: dict[str, list[str]] = {name: [] for name in _SECTIONS}
    for line in lines:
        parts[line.partition(" ")[0]].append(line)
    return {f"section-{name}": digest_of(part).hex() for name, part in parts.items()}


def encode(lines: Sequence[str], proofs: Sequence[InclusionProof], seal: InclusionProof) -> bytes:
    """The bundle as a file. proofs: of its records; seal: of the record of the export, against the same checkpoint."""
    paths = [" ".join([_PATH, str(one.index), *map(_base64, one.path)]) for one in proofs]
    return "".join(f"{line}\n" for line in (FIRST, *lines, *paths)).encode() + b"\n" + seal.encode()


# reading


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read; it proves nothing until `verify` returns."""

    lines: tuple[str, ...]
    paths: Mapping[int, tuple[bytes, ...]]
    seal: InclusionProof

    @property
    def origin(self) -> str:
        """Whose log it says it is from."""
        return self.seal.origin

    def section(self, name: str) -> list[dict[str, Any]]:
        """The values of a section, in their order."""
        return [_value(line) for line in self.lines if line.startswith(f"{name} ")]

    def verify(self, key: CoseKey) -> tuple[Entry, Checkpoint]:
        """The record of the export and the checkpoint, after everything in the bundle held against them.

        Raises `log.tampered` (`Refused` or `Malformed`) that says which record or section does not hold.
        """
        entry, head = self.seal.verify(key)
        record = entry.record
        if record.action != EXPORT or record.code is not None:
            raise Refused(_CODE, f"record {entry.index}, which should be of the export, is of {record.action}")
        records = {one["index"]: one for one in map(_checked, self.section("record"))}
        if self.paths.keys() != records.keys():
            raise Refused(_CODE, "the bundle's paths are not those of its records")
        for index, one in records.items():
            _hold(index, one, self.paths[index], head)
        for name, digest in section_digests(self.lines).items():
            if record.details.get(name) != digest:
                section = name.removeprefix("section-")
                raise Refused(_CODE, f"the bundle's section {section!r} is not the one on record ({entry.index})")
        if record.digests.get(DigestOf.PAYLOAD) != digest_of(self.lines):
            raise Refused(_CODE, f"the order of the bundle's lines is not the one on record ({entry.index})")
        return entry, head


def read_bundle(data: bytes) -> Bundle:
    """The bundle in a file; `Malformed("log.tampered")` for anything else, naming the line."""
    if len(data) > MAX_BUNDLE:
        raise Malformed(_CODE, f"a bundle of {len(data)} bytes; at most {MAX_BUNDLE} are read")
    head, _, rest = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Malformed(_CODE, "a bundle is text") from None
    if first != FIRST:
        raise Malformed(_CODE, "the file is no bundle of an incident")
    covered: list[str] = []
    paths: dict[int, tuple[bytes, ...]] = {}
    for number, line in enumerate(lines, 2):
        section = line.partition(" ")[0]
        if section in _SECTIONS and not paths:
            _value(line, number)
            covered.append(line)
        elif section == _PATH:
            index, path = _path(line, number)
            if index in paths:
                raise Malformed(_CODE, f"line {number}: a second path of record {index}")
            paths[index] = path
        else:
            raise Malformed(_CODE, f"line {number} of the bundle is of no section, or out of its order")
    if len(paths) > MOST or len(covered) > 8 * MOST:
        raise Malformed(_CODE, f"a bundle has at most {MOST} records")
    seal = read_proof(rest)
    if not isinstance(seal, InclusionProof):
        raise Malformed(_CODE, "a bundle ends with the proof of the record of its export")
    return Bundle(tuple(covered), paths, seal)


def _value(line: str, number: int | None = None) -> dict[str, Any]:
    section, _, text = line.partition(" ")
    if section == "timeline":
        return {"text": text}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        where = "a line" if number is None else f"line {number}"
        raise Malformed(_CODE, f"{where} of the bundle ({section[:16]}) does not parse")
    return value


def _path(line: str, number: int) -> tuple[int, tuple[bytes, ...]]:
    _, *words = line.split(" ")
    try:
        index, *hashes = words
        path = tuple(map(unbase64, hashes))
        if len(path) > 64 or any(len(one) != HASH_SIZE for one in path):
            raise Malformed(_CODE, "no path")
        return plain_number(index), path
    except (ValueError, DevguardError):
        raise Malformed(_CODE, f"line {number} of the bundle is no path") from None


def _checked(one: dict[str, Any]) -> dict[str, Any]:
    """A record line whose fields have the types that are read from them."""
    index, leaf, whole = one.get("index"), one.get("leaf"), one.get("whole")
    if type(index) is not int or not isinstance(leaf, str) or not isinstance(one.get("excerpt"), dict):
        raise Malformed(_CODE, "a record line of the bundle lacks its index, its leaf or its excerpt")
    if whole is not None and not isinstance(whole, str):
        raise Malformed(_CODE, f"record {index} of the bundle does not parse")
    return one


def _hold(index: int, one: Mapping[str, Any], path: tuple[bytes, ...], head: Checkpoint) -> None:
    """Return when a record is in the tree under `head`, and what is shown of it is what it says."""
    try:
        digest = binascii.unhexlify(one["leaf"])
        verify_inclusion(digest, index, head.size, path, head.root)
        if one["whole"] is not None:
            leaf = unbase64(one["whole"])
            entry = decode_entry(leaf)
            if leaf_hash(leaf) != digest or entry.index != index or excerpt(entry) != one["excerpt"]:
                raise Refused(_CODE, "it is another record than the one it claims to be")
        elif one["excerpt"].get("leaf") != one["leaf"] or one["excerpt"].get("index") != index:
            raise Refused(_CODE, "its excerpt is of another record")
    except (DevguardError, ValueError) as error:
        why = error.message if isinstance(error, DevguardError) else "its leaf is no hash"
        raise Refused(_CODE, f"record {index} of the bundle does not hold: {why}") from None
