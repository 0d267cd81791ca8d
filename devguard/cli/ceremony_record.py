"""The record of a root ceremony: the text that is signed on paper in the room, and by the root keys it tells of.

`ceremony.txt` is what people read; `ceremony.sig` is a COSE_Sign (RFC 9052 section 4.1) over exactly those bytes by
every root key, with a `typ` of its own. Checking it shows that record, keys and trust document belong together; that
they are the ones of that room is what the paper is for.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cose.signer import Signer
    from devguard.custody.keyfile import KeyInfo
    from devguard.trust.document import TrustDocument

TYP_CEREMONY: Final = "application/devguard-ceremony"
RECORD, SIGNATURES, TRUST, CURRENT = "ceremony.txt", "ceremony.sig", "1.trust", "current.trust"
_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Officer:
    """One root officer: the key, and where it is (file name with its SHA-256, or token)."""

    info: KeyInfo
    place: str


@dataclass(frozen=True, slots=True)
class Ceremony:
    """What the record tells. Times are epoch seconds."""

    vendor: str
    witness: str
    drill: bool
    started: int
    finished: int
    interfaces: Sequence[str]
    officers: Sequence[Officer]


def machine() -> str:
    """Which machine this is, as far as it says."""
    facts = platform.uname()
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", facts.system)
    except OSError:
        system = facts.system
    known = [told for name in ("sys_vendor", "product_name", "product_serial") if (told := _hardware(name))]
    return ", ".join([facts.node, *known, facts.machine, system, f"kernel {facts.release}"])


def _hardware(name: str) -> str:
    """What the firmware calls this machine; a live system's host name is the same on every one."""
    try:
        told = Path("/sys/class/dmi/id", name).read_text(encoding="ascii", errors="replace")[:80].strip()
    except OSError:
        return ""
    return told if told.isprintable() else ""


def software() -> str:
    """Which devguard this is: version, and SHA-256 over the names and contents of its own source files."""
    from importlib.metadata import version

    import devguard

    package = Path(devguard.__file__).parent
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix().encode()
        total.update(len(name).to_bytes(4, "big") + name + hashlib.sha256(path.read_bytes()).digest())
    found = (
        f"devguard {version('devguard')}, python {platform.python_version()}, cryptography {version('cryptography')}"
    )
    return f"{found}, sha256 of its files {total.hexdigest()}"


def text(ceremony: Ceremony, document: TrustDocument, trust: bytes) -> bytes:
    """The record as UTF-8 lines."""
    from devguard.cli.times import iso
    from devguard.custody.words import rows

    lines = [
        "devguard root ceremony" + (", DRILL: everything here is for practice" if ceremony.drill else ""),
        f"vendor: {ceremony.vendor}",
        f"from: {iso(ceremony.started)}",
        f"to: {iso(ceremony.finished)}",
        f"machine: {machine()}",
        f"software: {software()}",
        f"network: {'not asked, a drill' if ceremony.drill else 'none up of ' + ', '.join(ceremony.interfaces)}",
        f"trust document: version {document.version}, expires {iso(document.expires)}",
        f"  thumbprint {document.digest.hex()}",
        *(f"    {row}" for row in rows(document.digest)),
        f"  sha256 of {TRUST}: {hashlib.sha256(trust).hexdigest()}",
        "",
    ]
    places = {one.info.key.thumbprint: one.place for one in ceremony.officers}
    for name, role in document.roles.items():
        lines.append(f"role {name}: {role.threshold} of {len(role.keys)}")
        for entry in role.keys:
            lines.append(f"  {entry.person}: {entry.key.algorithm.label} {entry.key.fingerprint}")
            lines += [f"    {row}" for row in rows(entry.thumbprint)]
            lines += [f"    {places[entry.thumbprint]}"] if entry.thumbprint in places else []
    lines += ["", "On paper, after every fingerprint has been compared:"]
    lines += [f"  officer {one.info.person}: ____________________" for one in ceremony.officers]
    lines += [f"  witness {ceremony.witness}: ____________________", ""]
    return "\n".join(lines).encode()


def sign(record: bytes, signers: Sequence[Signer]) -> bytes:
    """The COSE_Sign over a record by all root keys."""
    from devguard.cose.sign import sign_many

    return sign_many(signers, record, typ=TYP_CEREMONY).encode()


def check(folder: Path) -> dict[str, Any]:
    """That record, signatures and trust document in `folder` belong together, every root key having signed; and that
    the current document follows from the first, and key files, where they still are, are those of the record.

    Raises `Refused("key.record")`, and what reading the trust document raises.
    """
    from devguard.cose.roles import RoleName
    from devguard.cose.sign import read_sign
    from devguard.custody.files import read_limited
    from devguard.trust.document import read_trust

    record = read_limited(folder / RECORD, _LIMIT)
    trust = read_limited(folder / TRUST, _LIMIT)
    document = read_trust(trust)
    message = read_sign(read_limited(folder / SIGNATURES, _LIMIT), code="key.record")
    if message.payload != record:
        raise Refused("key.record", f"{RECORD} is not the text that was signed")
    root = document.roles[RoleName.ROOT]
    signed = set()
    for index, signature in enumerate(message.signatures):
        entry = root.entry(signature.kid) if signature.kid is not None else None
        if entry is None:
            raise Refused("key.record", "a signature is by a key that is not in the root role")
        try:
            message.verify_one(index, entry.key, typ=TYP_CEREMONY)
        except DevguardError as error:
            raise Refused("key.record", f"the signature of {entry.person}: {error.message}") from None
        signed.add(entry.thumbprint)
    if missing := [entry.person for entry in root.keys if entry.thumbprint not in signed]:
        raise Refused("key.record", f"not signed by {', '.join(missing)}")
    lines = record.decode("utf-8", "replace").split("\n")
    if f"  thumbprint {document.digest.hex()}" not in lines:
        raise Refused("key.record", f"{RECORD} tells of another trust document")
    _check_current(folder, document, trust)
    _check_keys(folder, document, lines)
    return {
        "ok": True,
        "folder": os.fspath(folder),
        "development": document.development,
        "thumbprint": document.digest.hex(),
        "signed_by": [entry.person for entry in root.keys],
    }


def _check_current(folder: Path, document: TrustDocument, first: bytes) -> None:
    """That what people hand out is the first document or follows from it by the versions beside it."""
    from devguard.custody.files import read_limited
    from devguard.trust.chain import Walk

    if not (folder / CURRENT).exists():
        return
    current = read_limited(folder / CURRENT, _LIMIT)
    walk, newest, version = Walk.start(document), first, 2
    while current != newest:
        path = folder / f"{version}.trust"
        if not path.exists():
            raise Refused("key.record", f"{CURRENT} does not follow from {TRUST} by the versions beside it")
        newest, version = read_limited(path, _LIMIT), version + 1
        walk = walk.step(newest)


def _check_keys(folder: Path, document: TrustDocument, lines: Sequence[str]) -> None:
    """That key files and exports in `folder` are of the root, and files of private keys the ones of that day."""
    from devguard.cose.roles import RoleName
    from devguard.custody.files import read_limited
    from devguard.custody.keyfile import parse_info
    from devguard.trust.model import same_person

    root = document.roles[RoleName.ROOT]
    for path in sorted((folder / "keys").glob("root-*")):
        data = read_limited(path, _LIMIT)
        info = parse_info(data)
        entry = root.entry(info.key.thumbprint)
        if entry is None or same_person(entry.person) != same_person(info.person):
            raise Refused("key.record", f"keys/{path.name} is no root key of that ceremony")
        told = [line.strip() for line in lines if line.startswith(f"    keys/{path.name}, sha256 ")]
        if told and told != [f"keys/{path.name}, sha256 {hashlib.sha256(data).hexdigest()}"]:
            raise Refused("key.record", f"keys/{path.name} is not the file that was made that day")
