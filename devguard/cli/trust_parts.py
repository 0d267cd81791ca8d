"""What the commands of `devguard trust` share: roles from options, keys that are here, the files of a trust folder.

A trust folder holds every version as `N.trust`, signed by however many have signed so far, and `current.trust`: the
newest one that all who must have signed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Invocation
from devguard.cli.times import iso, left
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.cose.roles import RoleName
    from devguard.cose.sign import Signer
    from devguard.trust.document import Role, TrustDocument
    from devguard.trust.rotate import Progress

CURRENT = "current.trust"


def split_role(text: str) -> tuple[str, list[str], int]:
    """NAME=KEY,...:K as (name, keys, threshold); the threshold is 1 where it is left out."""
    name, separator, rest = text.partition("=")
    keys, colon, threshold = rest.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,3}", threshold):
        keys, threshold = rest, "1"
    names = [one for one in keys.split(",") if one]
    if not separator or not names:
        raise click.BadParameter(f"{text!r} is not NAME=KEY,...:K", param_hint="--role")
    return name, names, int(threshold)


def role_of(invocation: Invocation, references: Iterable[str], threshold: int) -> Role:
    """A role of the named keys."""
    from devguard.trust.document import KeyEntry, Role

    infos = [invocation.home.key_info(reference) for reference in references]
    return Role(threshold, tuple(KeyEntry(info.key, info.person, info.development) for info in infos))


def roles_of(invocation: Invocation, texts: Iterable[str], taken: Iterable[RoleName] = ()) -> dict[RoleName, Role]:
    """The roles that `--role` options name, each once and none of `taken`."""
    from devguard.cose.roles import RoleName

    members: dict[RoleName, Role] = {}
    for text in texts:
        name, keys, count = split_role(text)
        if name not in [*RoleName] or RoleName(name) in members or RoleName(name) in taken:
            raise click.BadParameter(f"{name!r} is not a role, or is given twice", param_hint="--role")
        members[RoleName(name)] = role_of(invocation, keys, count)
    return members


def comma_separated(texts: Iterable[str]) -> list[str]:
    """KEY,KEY and repeated options alike."""
    return [one for text in texts for one in text.split(",") if one]


def signers_here(invocation: Invocation, references: Iterable[str], fd: int | None) -> list[Signer]:
    """The keys whose private half is here, in a file or on a token."""
    from devguard.custody.keyfile import is_private

    found: list[Signer] = []
    for reference in references:
        if is_private(invocation.home.key_path(reference)):
            found.append(invocation.signer(reference, fd))
    return found


def signers_among(
    invocation: Invocation, wanted: Iterable[bytes], references: Iterable[str], fd: int | None
) -> list[Signer]:
    """The signers of the wanted thumbprints among the home's private keys and the references, each key once."""
    from devguard.custody.keyfile import read_info

    paths = [*(invocation.home.key_path(one) for one in references), *invocation.home.private_keys()]
    left_over, found = set(wanted), []
    for path in paths:
        thumbprint = read_info(path).key.thumbprint
        if thumbprint in left_over:
            here = signers_here(invocation, [str(path)], fd)
            found += here
            left_over -= {thumbprint} if here else set()
    return found


def read_document(path: Path) -> bytes:
    """The bytes of a `.trust` file."""
    from devguard.cli.home import TRUST_LIMIT
    from devguard.custody.files import read_limited

    return read_limited(path, TRUST_LIMIT)


def newest_in(source: Path) -> tuple[Path, bytes]:
    """(folder, newest complete document) of a trust folder, or of a `.trust` file in one."""
    folder = source if source.is_dir() else source.parent
    return folder, read_document(source / CURRENT if source.is_dir() else source)


def chain_in(sources: Iterable[Path]) -> list[bytes]:
    """The documents of folders and files, oldest first. Of a folder all versions up to its current one."""
    from devguard.trust.document import peek_trust

    found: dict[int, bytes] = {}
    for source in sources:
        if not source.is_dir():
            data = read_document(source)
            found[peek_trust(data)[0].version] = data
            continue
        current = read_document(source / CURRENT)
        newest = peek_trust(current)[0].version
        versions = [path for path in source.glob("*.trust") if re.fullmatch(r"[1-9][0-9]{0,18}", path.stem)]
        found |= {int(path.stem): read_document(path) for path in versions if int(path.stem) < newest}
        found[newest] = current
    return [found[number] for number in sorted(found)]


def predecessor_of(path: Path, version: int) -> TrustDocument | None:
    """The vouched-for document before version `version`, kept beside `path`; None for version 1."""
    from devguard.trust.document import read_trust

    if version == 1:
        return None
    before = path.parent / f"{version - 1}.trust"
    try:
        document = read_trust(read_document(before))
    except Malformed as error:
        if error.code != "file.missing":
            raise
        raise Refused("trust.gap", f"{before} is needed to judge version {version}") from None
    if document.version != version - 1:
        raise Refused("trust.gap", f"{before} is version {document.version}")
    return document


def new_folder(folder: Path) -> Path:
    """The folder, made where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("file.unreadable", f"cannot create {folder}: {error.strerror}") from error
    return folder


def finish(invocation: Invocation, folder: Path, data: bytes, progress: Progress) -> None:
    """A document that all who must have signed becomes the folder's current one, and the home's where it follows."""
    from devguard.custody.files import write_atomic
    from devguard.trust.document import peek_trust

    if not progress:
        return
    current = folder / CURRENT
    if current.is_file() and peek_trust(read_document(current))[0].version > progress.document.version:
        return  # a late signature on an older version
    write_atomic(current, data)
    home = invocation.home
    if home.keep_trust(data):
        invocation.note(f"kept as this home's trust document: {home.trust_file}")
        return
    if progress.before is None:
        return
    try:
        followed = home.follow_trust(chain_in([folder]), invocation.now())
    except DevguardError as error:
        invocation.note(f"this home keeps its own trust document: {error.code}: {error.message}")
    else:
        invocation.note(f"this home's trust document is version {followed.version} now")


def shown(document: TrustDocument) -> dict[str, Any]:
    """A document as plain data."""
    from devguard.trust.show import as_dict

    return as_dict(document)


def lines_of(document: TrustDocument, now: int) -> str:
    """A document for people."""
    lines = [
        f"version {document.version}{' DEVELOPMENT' if document.development else ''}, "
        f"thumbprint {document.digest.hex()}",
        f"issued {iso(document.issued)}, expires {iso(document.expires)} ({left(document.expires - now)} left)",
    ]
    for name, role in document.roles.items():
        people = ", ".join(
            f"{entry.person} ({entry.key.algorithm.label}{', REVOKED' * document.is_revoked(entry.thumbprint)})"
            for entry in role.keys
        )
        lines.append(f"  {name:21} {role.threshold} of {people}")
    return "\n".join(lines)
