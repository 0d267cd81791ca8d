"""The release description: the TOML file that a person reviews and from which a manifest is built.

Format: `firmware_manifests/README.md`. Pure: it turns text into checked values and touches no file; that no
symbolic link leads out of the folder is the caller's to check when it opens the files. Where a field may be
absent, its default is the safer value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from devguard.image.flat import FORMATS
from devguard.manifest import fields
from devguard.manifest.fields import Table, fail, load

MAX_LINE: Final = 4096
FORMAT_VERSION: Final = 1
MAX_SEQUENCE: Final = 2**64 - 1
MAX_SECURITY_VERSION: Final = 2**31 - 1
MAX_COMPONENTS: Final = 16
SIGNING_ROLES: Final = ("release", "quality")
_TOP_KEYS: Final = ("format", "release", "component", "safety", "requires", "sbom", "evidence", "signing")
_RELEASE_KEYS: Final = (
    "vendor",
    "model",
    "revisions",
    "version",
    "sequence",
    "security_version",
    "summary",
    "use_before",
    "end_of_support",
)
_COMPONENT_KEYS: Final = ("id", "image", "format", "serials", "ignore_ranges")
_SEMVER_HELP: Final = "a semantic version such as 1.4.0"


@dataclass(frozen=True, slots=True)
class ComponentDescription:
    """One image of a release. `path` is relative to the description's folder, `format` one of
    `image.flat.FORMATS`, `ignore_ranges` half-open address ranges [start, end) for Intel HEX."""

    id: str
    path: str
    format: str
    serials: tuple[str, ...]
    ignore_ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Safety:
    """What must hold at the device before it accepts the release; percent 1 to 100, None for no demand."""

    minimum_battery_percent: int | None
    therapy_idle: bool
    two_technicians: bool


@dataclass(frozen=True, slots=True)
class Requires:
    """What must be installed already: a minimum release version, and minimum versions of other components."""

    version: str | None
    components: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReleaseDescription:
    """A checked description. `use_before` and `end_of_support` in seconds since the epoch, UTC; digests raw bytes
    (SHA-256); `thresholds` by role name, always with every role of `SIGNING_ROLES`."""

    vendor: str
    model: str
    revisions: tuple[str, ...]
    version: str
    sequence: int
    security_version: int
    summary: str
    use_before: int | None
    components: tuple[ComponentDescription, ...]
    safety: Safety
    requires: Requires
    sbom: str | None
    test_report_digest: bytes | None
    thresholds: Mapping[str, int]
    end_of_support: int | None = None


def parse_description(text: bytes) -> ReleaseDescription:
    """The description in UTF-8 TOML `text`.

    Raises `Malformed("description.malformed")`, which names the field, or `Malformed("description.path")`.
    """
    top = Table("", load(text, "a description", MAX_LINE), _TOP_KEYS)
    version = top.integer("format", 1, MAX_SECURITY_VERSION, default=FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise fail("format", f"{version} is newer than {FORMAT_VERSION}", hint="update devguard")
    release = top.table("release", _RELEASE_KEYS)
    return ReleaseDescription(
        vendor=release.matching("vendor", fields.DOMAIN, "a DNS name in lower case such as devices.example"),
        model=release.matching("model", fields.NAME, fields.NAME_HELP),
        revisions=release.names("revisions", fields.LABEL, fields.LABEL_HELP, required=True),
        version=release.matching("version", fields.SEMVER, _SEMVER_HELP),
        sequence=release.integer("sequence", 0, MAX_SEQUENCE),
        security_version=release.integer("security_version", 0, MAX_SECURITY_VERSION),
        summary=release.text("summary", 1000),
        use_before=release.moment("use_before"),
        components=_components(top),
        safety=_safety(top.table("safety", ("minimum_battery_percent", "therapy_idle", "two_technicians"))),
        requires=_requires(top.table("requires", ("version", "components"))),
        sbom=_sbom(top.table("sbom", ("file",))),
        test_report_digest=_evidence(top.table("evidence", ("test_report_digest",))),
        thresholds=_thresholds(top.table("signing", SIGNING_ROLES)),
        end_of_support=release.moment("end_of_support"),
    )


def _components(top: Table) -> tuple[ComponentDescription, ...]:
    found = tuple(
        ComponentDescription(
            id=entry.matching("id", fields.NAME, fields.NAME_HELP),
            path=entry.path("image"),
            format=entry.choice("format", FORMATS, default="auto"),
            serials=entry.names("serials", fields.LABEL, fields.LABEL_HELP),
            ignore_ranges=entry.ranges("ignore_ranges"),
        )
        for entry in top.tables("component", _COMPONENT_KEYS, MAX_COMPONENTS)
    )
    ids = [component.id for component in found]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise fail("component.id", f"{twice!r} appears twice")
    return found


def _safety(table: Table) -> Safety:
    percent = table.integer("minimum_battery_percent", 0, 100, default=0)
    return Safety(percent or None, table.boolean("therapy_idle", True), table.boolean("two_technicians", False))


def _requires(table: Table) -> Requires:
    version = table.matching("version", fields.SEMVER, _SEMVER_HELP, default="")
    inner = table.table("components", None)
    names = sorted(inner.keys())
    if len(names) > MAX_COMPONENTS:
        raise fail("requires.components", f"at most {MAX_COMPONENTS} entries, found {len(names)}")
    for name in names:
        if not fields.NAME.fullmatch(name):
            raise fail("requires.components", f"expected {fields.NAME_HELP}, found {name[:80]!r}")
    return Requires(version or None, {name: inner.matching(name, fields.SEMVER, _SEMVER_HELP) for name in names})


def _sbom(table: Table) -> str | None:
    return table.path("file") if table.keys() else None


def _evidence(table: Table) -> bytes | None:
    digest = table.matching("test_report_digest", fields.SHA256, "a SHA-256 in 64 hexadecimal digits", default="")
    return bytes.fromhex(digest) if digest else None


def _thresholds(table: Table) -> Mapping[str, int]:
    return {role: table.integer(role, 1, 16, default=1) for role in SIGNING_ROLES}


def scaffold(model: str, version: str, vendor: str, revision: str, components: Sequence[str] = ("application",)) -> str:
    """TOML text of a first description, commented, which `parse_description` accepts.

    Raises `Malformed("description.malformed")` when an argument breaks the format.
    """
    text = _SCAFFOLD.format(
        vendor=json.dumps(vendor),
        model=json.dumps(model),
        revision=json.dumps(revision),
        version=json.dumps(version),
        summary=json.dumps(f"Release {version} for {model}"),
        components="".join(
            _COMPONENT.format(
                id=json.dumps(name),
                image=json.dumps(f"images/{model}{'' if len(components) == 1 else f'-{name}'}-{version}.bin"),
            )
            for name in components
        ),
    )
    parse_description(text.encode("utf-8", "replace"))
    return text


_COMPONENT: Final = """\
[[component]]
id = {id}
image = {image}
format = "auto"         # or raw, ihex, mcuboot
# serials = ["SN-0001"]                         # only these devices
# ignore_ranges = [[0x10001000, 0x10002000]]    # Intel HEX records to leave out, end not included

"""
_SCAFFOLD: Final = """\
# Release description. The format is in firmware_manifests/README.md; paths are relative to this file's folder.
format = 1

[release]
vendor = {vendor}
model = {model}
revisions = [{revision}]
version = {version}
sequence = 1            # grows with every release of this model, never goes back
security_version = 1    # raise it when older releases must never run again
summary = {summary}
# use_before = 2030-01-01T00:00:00Z
# end_of_support = 2031-12-31     # from then on a push needs somebody who answers for it by name

{components}[safety]
minimum_battery_percent = 30
therapy_idle = true
two_technicians = false

# [requires]
# version = "1.0.0"     # the least release that must be installed

# [sbom]
# file = "sbom.cdx.json"

# [evidence]
# test_report_digest = "SHA-256 of the signed test report, 64 hexadecimal digits"

[signing]
release = 1
quality = 1
"""
