"""Evidence of what the command line does: a record is durable before the action it describes takes effect.

`recorded` opens the log first, so that a log that cannot be written stops the command. `commit` writes the record of
an action about to take effect; a refusal on the way is recorded instead, once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devguard.cli.context import Invocation
from devguard.errors import DevguardError

if TYPE_CHECKING:
    from devguard.evidence.log import EvidenceLog
    from devguard.evidence.record import DigestOf


@dataclass(slots=True)
class Note:
    """The record of one command, filled in as it learns."""

    log: EvidenceLog
    now: int
    action: str
    actor: str
    request: str
    device: str | None = None
    release: str | None = None
    digests: dict[DigestOf, bytes] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    written: bool = False

    def manifest(self, digest: bytes) -> None:
        """Name the release by its manifest digest."""
        from devguard.evidence.record import DigestOf

        self.digests[DigestOf.MANIFEST] = digest

    def digest(self, kind: str, digest: bytes) -> None:
        """Add a digest by its name in `DigestOf`."""
        from devguard.evidence.record import DigestOf

        self.digests[DigestOf[kind]] = digest

    def commit(self, code: str | None = None, *, action: str | None = None) -> None:
        """Write the record now, durable on return. `code`: the refusal, None for done."""
        from devguard.evidence.record import Record

        self.log.append(
            Record.make(
                time=self.now,
                actor=self.actor,
                action=action or self.action,
                request=self.request,
                device=self.device,
                release=self.release,
                code=code,
                digests=self.digests,
                details=self.details,
            )
        )
        self.written = True


@contextmanager
def recorded(invocation: Invocation, action: str, *, actor: str | None = None) -> Iterator[Note]:
    """A command's record: its own `commit`, or the refusal that ended it, or at the latest its end."""
    log = invocation.home.evidence()
    note = Note(log, invocation.now(), action, actor or operator(), os.urandom(8).hex())
    try:
        yield note
    except DevguardError as error:
        if not error.code.startswith("log."):
            note.details["why"] = error.message
            note.commit(error.code)
        raise
    except KeyboardInterrupt:
        note.details["why"] = "interrupted"
        note.commit("internal.interrupted")
        raise
    if not note.written:
        note.commit()


def operator() -> str:
    """The account that runs this process: who was at the keyboard, as far as the system knows."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
