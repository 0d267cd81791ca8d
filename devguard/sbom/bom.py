"""A CycloneDX bill of materials: which parts a release is made of.

The document is checked against CycloneDX's own JSON schema by `cyclonedx-python-lib` (extra `sbom`), then read into
plain values. What is signed in a manifest is SHA-256 over the file's bytes as they are. End-of-support dates have no
member of their own in CycloneDX: they are read from the property `devguard:end-of-support` (a day, RFC 3339).
Source: ECMA-424 (CycloneDX 1.6); versions 1.4 to 1.7 are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from devguard.errors import Malformed, Refused
from devguard.sbom.dates import epoch
from devguard.sbom.documents import list_of, object_of, read_json, text_of

CODE: Final = "sbom.malformed"
MAX_BILL: Final = 8 << 20
MAX_PARTS: Final = 20_000
VERSIONS: Final = ("1.4", "1.5", "1.6", "1.7")
END_OF_SUPPORT: Final = "devguard:end-of-support"
_WHAT: Final = "the bill of materials"
_VULNERABILITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,63}")


@dataclass(frozen=True, slots=True)
class Part:
    """One component. `ref`: its bom-ref, or name@version where it has none; `purl` and `cpe` as written, or None;
    `end_of_support`: epoch seconds, or None where the bill does not say."""

    ref: str
    name: str
    version: str
    supplier: str
    purl: str | None
    cpe: str | None
    end_of_support: int | None

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill that was read. `digest`: SHA-256 of its bytes; `stated`: holes the bill itself names, with the refs they
    touch; `subject`: what the bill is of."""

    digest: bytes
    version: str
    serial_number: str | None
    subject: str
    parts: tuple[Part, ...]
    stated: tuple[tuple[str, tuple[str, ...]], ...]


def read_bill(data: bytes) -> Bill:
    """The bill in `data`. Raises `Malformed("sbom.malformed")` for anything that is no CycloneDX JSON of a version that
    is read here, `Refused("sbom.package")` where the extra is not installed."""
    document = read_json(data, limit=MAX_BILL, code=CODE, what=_WHAT)
    version = document.get("specVersion")
    if document.get("bomFormat") != "CycloneDX" or version not in VERSIONS:
        raise Malformed(CODE, f"{_WHAT} is not CycloneDX {', '.join(VERSIONS)} in JSON")
    _check_schema(data.decode(), str(version))
    parts = tuple(_parts(document))
    refs = [part.ref for part in parts]
    if len(set(refs)) != len(refs):
        twice = next(ref for ref in refs if refs.count(ref) > 1)
        raise Malformed(CODE, f"{_WHAT} has {twice[:60]!r} twice: a statement about one part would count for the other")
    metadata = object_of(document.get("metadata"), "metadata", code=CODE, what=_WHAT)
    subject = object_of(metadata.get("component"), "metadata.component", code=CODE, what=_WHAT)
    serial = document.get("serialNumber")
    return Bill(
        digest=hashlib.sha256(data).digest(),
        version=str(version),
        serial_number=serial if isinstance(serial, str) else None,
        subject=" ".join(str(subject[name]) for name in ("name", "version") if name in subject),
        parts=parts,
        stated=tuple(_stated(document)),
    )


def _check_schema(text: str, version: str) -> None:
    """Against the schema that CycloneDX publishes for the version; `Malformed` with the first fault and its place."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            from cyclonedx.schema import SchemaVersion
            from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        raise Refused("sbom.package", "bills of materials are read by cyclonedx-python-lib") from None
    fault = JsonStrictValidator(SchemaVersion.from_version(version)).validate_str(text)
    if fault is not None:
        said = getattr(fault.data, "message", None) or str(fault.data)
        where = getattr(fault.data, "json_path", "")
        raise Malformed(CODE, f"{_WHAT} breaks the schema of CycloneDX {version}: {where} {str(said)[:120]}".rstrip())


def _parts(document: dict[str, Any]) -> Iterator[Part]:
    """Every component, those inside others too, without recursion."""
    waiting = list_of(document.get("components"), "components", code=CODE, what=_WHAT, most=MAX_PARTS)[::-1]
    count = 0
    while waiting:
        one = object_of(waiting.pop(), "a component", code=CODE, what=_WHAT)
        count += 1
        if count > MAX_PARTS:
            raise Malformed(CODE, f"{_WHAT} has more than {MAX_PARTS} parts")
        waiting += list_of(one.get("components"), "components", code=CODE, what=_WHAT, most=MAX_PARTS)[::-1]
        yield _part(one)


def _part(one: dict[str, Any]) -> Part:
    name = text_of(one.get("name"), "a component's name", code=CODE, what=_WHAT)
    version = one.get("version") or ""
    supplier = object_of(one.get("supplier"), "supplier", code=CODE, what=_WHAT).get("name")
    return Part(
        ref=text_of(one.get("bom-ref") or f"{name}@{version}", "a bom-ref", code=CODE, what=_WHAT),
        name=name,
        version=str(version),
        supplier=str(supplier or one.get("publisher") or one.get("group") or ""),
        purl=one.get("purl"),
        cpe=one.get("cpe"),
        end_of_support=_end_of_support(one),
    )


def _end_of_support(one: dict[str, Any]) -> int | None:
    values = {
        str(entry.get("value"))
        for entry in list_of(one.get("properties"), "properties", code=CODE, what=_WHAT, most=MAX_PARTS)
        if entry.get("name") == END_OF_SUPPORT
    }
    if len(values) > 1:
        raise Malformed(CODE, f"{_WHAT} gives {str(one.get('name'))[:60]!r} two ends of support")
    return epoch(values.pop(), code=CODE, what=_WHAT) if values else None


def _stated(document: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in list_of(document.get("vulnerabilities"), "vulnerabilities", code=CODE, what=_WHAT, most=MAX_PARTS):
        name = entry.get("id")
        if not isinstance(name, str) or not _VULNERABILITY.fullmatch(name):
            raise Malformed(CODE, f"{_WHAT} names a hole without an id that one can look up")
        touched = list_of(entry.get("affects"), "affects", code=CODE, what=_WHAT, most=MAX_PARTS)
        yield name, tuple(str(one.get("ref")) for one in touched)
