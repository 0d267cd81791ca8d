"""A trust folder: every version as `N.trust`, signed by however many have signed so far, and `current.trust`, the
newest one that all who must have signed. It is changed under one lock, and `current.trust` never goes back.

A process that died between the two writes left a complete `N.trust` that is not current yet; whoever changes the folder
next goes on from that one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devguard.cli.context import Invocation
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.cli.record import Note
    from devguard.trust.document import TrustDocument
    from devguard.trust.rotate import Progress

CURRENT = "current.trust"


def read_document(path: Path) -> bytes:
    """The bytes of a `.trust` file."""
    from devguard.cli.home import TRUST_LIMIT
    from devguard.custody.files import read_limited

    return read_limited(path, TRUST_LIMIT)


def new_folder(folder: Path) -> Path:
    """The folder, made where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("file.unreadable", f"cannot create {folder}: {error.strerror}") from error
    return folder


@dataclass(frozen=True, slots=True)
class TrustFolder:
    """One trust folder, held by this process. Looking writes nothing."""

    path: Path

    def newest(self) -> tuple[TrustDocument | None, bytes]:
        """The newest complete version with its bytes: the current one, or one after it whose writer was cut off.

        (None, b"") where there is none; what the current one raises when it cannot be read.
        """
        from devguard.trust.document import read_trust

        place = self.path / CURRENT
        data = read_document(place) if place.exists() else b""
        return self._followed(read_trust(data) if data else None, data)

    def check(self, document: TrustDocument) -> None:
        """Return when `document` may be written here; `Refused("trust.rollback")` for a fork of the newest one."""
        held, _ = self.newest()
        if held is not None and held.version == document.version and held.digest != document.digest:
            raise Refused("trust.rollback", f"{self.path} holds another version {held.version}")

    def advance(self, document: TrustDocument, data: bytes) -> bytes:
        """Make a complete `document` current unless a newer one is there, which then is; the bytes current now.

        A late signature on an older version puts nothing back.
        """
        from devguard.custody.files import write_atomic

        held, newest = self.newest()
        if held is None or held.version <= document.version:
            _, newest = self._followed(document, data)
        place = self.path / CURRENT
        if not place.exists() or read_document(place) != newest:
            write_atomic(place, newest)
        return newest

    def _followed(self, held: TrustDocument | None, data: bytes) -> tuple[TrustDocument | None, bytes]:
        """The newest complete version that follows from `held`, or itself."""
        from devguard.trust.rotate import progress

        while True:
            number = 1 if held is None else held.version + 1
            try:
                further = read_document(self.path / f"{number}.trust")
                signed = progress(held, further)
            except DevguardError:
                return held, data  # there is none, or none that follows
            if not signed or signed.document.version != number:
                return held, data
            held, data = signed.document, further


@contextlib.contextmanager
def changing(invocation: Invocation, folder: Path) -> Iterator[TrustFolder]:
    """The folder, locked; it must exist."""
    from devguard.custody.locks import locked

    def waiting() -> None:
        invocation.note(f"another devguard is changing {folder}; waiting for it ...")

    home = invocation.home
    with locked(folder / CURRENT, waiting=waiting):
        if home.trust_file.is_file() and home.trust_file.parent.samefile(folder):
            home.trust(None)  # one that was set back is not put right in passing
        yield TrustFolder(folder)


def folder_of(source: Path) -> Path:
    """The trust folder that DIR|FILE means."""
    return source if source.is_dir() else source.parent


def newest_in(source: Path, held: TrustFolder) -> TrustDocument:
    """The newest complete document of the trust folder that DIR|FILE means, or that of FILE."""
    from devguard.trust.document import read_trust

    found = held.newest()[0] if source.is_dir() else read_trust(read_document(source))
    return found if found is not None else read_trust(read_document(source / CURRENT))


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


def put_new(
    invocation: Invocation, note: Note, folder: TrustFolder, data: bytes, signed: Progress, hint: str | None = None
) -> Path:
    """Write a version that is not there yet, on record first, and let it take effect as far as it is signed; where it
    is now. Raises `Refused`: `key.exists`, `trust.rollback` for a fork of the newest one."""
    from devguard.custody.files import write_new

    path = folder.path / f"{signed.document.version}.trust"
    if path.exists():
        raise Refused("key.exists", f"{path} exists already", hint)
    folder.check(signed.document)
    note.commit()
    write_new(path, data, exists="key.exists")
    note.repeat(finish(invocation, folder, data, signed))
    return path


def finish(invocation: Invocation, folder: TrustFolder, data: bytes, progress: Progress) -> bool:
    """A document that all who must have signed becomes the folder's current one, and the home's where it follows.

    Whether the document in use in this home is another one now.
    """
    if not progress:
        return False
    newest = folder.advance(progress.document, data)
    home = invocation.home
    if home.keep_trust(newest):
        invocation.note(f"kept as this home's trust document: {home.trust_file}")
        return True
    if not home.trust_file.exists():
        invocation.note("not kept for this home: it remembers another one; see devguard trust recover --help")
        return False
    if progress.before is None:
        return False
    try:
        followed = home.follow_trust(chain_in([folder.path]), invocation.now())
    except DevguardError as error:
        invocation.note(f"this home keeps its own trust document: {error.code}: {error.message}")
        return False
    invocation.note(f"this home's trust document is version {followed.version} now")
    return True
