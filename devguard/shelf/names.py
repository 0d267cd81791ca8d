"""Names on a shelf: roles, targets and files, made and checked here and nowhere else.

    role     MODEL          a product line, delegated by the top-level targets: paths MODEL/*
    role     MODEL~x        its hash bin x (0 to f): targets whose path's SHA-256 begins with that digit
    target   MODEL/VERSION.suit    an envelope
    target   trust/N.trust         version N of the trust document, in the top-level targets only

A reader takes no other name. `~` is in no model's name, so no bin can be mistaken for a product line.
Source: TUF 1.0.34 section 4.5 (delegations, path_hash_prefixes).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Final

from devguard.errors import Malformed, Refused
from devguard.manifest.fields import NAME, SEMVER
from devguard.shelf.freshness import TOP
from devguard.shelf.limits import LIMITS

RESERVED: Final = frozenset({*TOP, "trust"})
BINS: Final = "0123456789abcdef"
# A device wherever it stands on Windows, whatever follows the first dot; and a version before a name of metadata.
_UNUSABLE: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|[0-9]+\..*")
_TRUST: Final = re.compile(r"trust/([1-9][0-9]{0,9})\.trust")
_METADATA: Final = re.compile(r"(?:([1-9][0-9]{0,18})\.)?([^/]+)\.json")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TARGET: Final = re.compile(r"([^/]+)/[0-9a-f]{64}\.([^/]+)")


def check_line(model: str) -> str:
    """`model` as the name of a product line; `Refused("shelf.name")` when it can be none.

    A file system that knows no case, or has devices for names, may lie under a shelf or a stick.
    """
    if not NAME.fullmatch(model) or model in RESERVED or _UNUSABLE.fullmatch(model):
        raise Refused("shelf.name", f"{model[:80]!r} cannot be a product line on a shelf")
    return model


def bin_role(model: str, digit: str) -> str:
    """The role of a bin."""
    return f"{model}~{digit}"


def line_of(role: str) -> tuple[str, str | None]:
    """A delegated role as (model, bin digit or None). `Refused("shelf.name")` for any other role name."""
    model, mark, digit = role.partition("~")
    if mark and (len(digit) != 1 or digit not in BINS):
        raise Refused("shelf.name", f"{role[:80]!r} is no role of a shelf")
    return check_line(model), digit if mark else None


def bin_digit(target: str) -> str:
    """The first hexadecimal digit of the SHA-256 of a target's path."""
    return hashlib.sha256(target.encode()).hexdigest()[0]


def probe(model: str, digit: str) -> str:
    """A path of the product line that falls into a bin and is no release: asking for it loads the bin."""
    return next(path for n in itertools.count() if bin_digit(path := f"{model}/.{n}") == digit)


def release_target(model: str, version: str) -> str:
    """The target of an envelope. `Refused("shelf.name")`, or `Malformed("shelf.malformed")` for a bad version."""
    path = f"{check_line(model)}/{version}.suit"
    if not SEMVER.fullmatch(version) or len(path) > LIMITS.name_length:
        raise Malformed("shelf.malformed", f"{version[:80]!r} is not a semantic version such as 1.4.0")
    return path


def release_version(model: str, target: str) -> str:
    """The version a target of the product line names; `Refused("shelf.name")` when it is no release of the line."""
    version = target.removeprefix(f"{model}/").removesuffix(".suit")
    if len(target) > LIMITS.name_length or not SEMVER.fullmatch(version) or target != f"{model}/{version}.suit":
        raise Refused("shelf.name", f"{target[:80]!r} is no release of {model}")
    return version


def trust_target(version: int) -> str:
    """The target of a trust document."""
    return f"trust/{version}.trust"


def trust_version(target: str) -> int | None:
    """The version of the trust document a target names; None for another target."""
    found = _TRUST.fullmatch(target)
    return int(found[1]) if found else None


def prefixed(target: str, hashes: Mapping[str, str]) -> str:
    """Where a target's bytes lie under `targets/`: consistent snapshots put the SHA-256 before the file's name.

    What a repository calls a hash becomes part of a path too: `Malformed("shelf.malformed")` when it is none.
    """
    digest = hashes.get("sha256")
    if digest is None or not _SHA256.fullmatch(digest):
        raise Malformed("shelf.malformed", f"{target[:120]!r} has no SHA-256 on the shelf")
    folder, _, name = target.rpartition("/")
    return f"{folder}/{digest}.{name}"


def check_path(path: str) -> str:
    """A path below a shelf, as a reader may ask for it: `metadata/...` or `targets/...`, else `shelf.name`.

    Whatever a repository calls its roles and targets, nothing but these forms is ever asked for or written.
    """
    kind, _, rest = path.partition("/")
    if len(path) <= 2 * LIMITS.name_length:
        if kind == "metadata" and (found := _METADATA.fullmatch(rest)):
            if found[2] not in TOP:
                line_of(found[2])
            return path
        if kind == "targets" and (found := _TARGET.fullmatch(rest)):
            target = f"{found[1]}/{found[2]}"
            if trust_version(target) is None:
                release_version(check_line(found[1]), target)
            return path
    raise Refused("shelf.name", f"{path[:120]!r} is no file of a shelf")
