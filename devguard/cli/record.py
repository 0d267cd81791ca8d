"""Evidence of what the command line does: a record is durable before the action it describes takes effect.

`recorded` opens the log first, so that a log that cannot be written stops the command, and compares it with what the
station remembers. `commit` writes the record of an action about to take effect, and with it what is to be remembered;
a refusal on the way is recorded instead, once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from devguard.cli.context import Invocation
from devguard.errors import DevguardError, DeviceRefused, LinkError

if TYPE_CHECKING:
    from pathlib import Path

    from devguard.cli.home import Home
    from devguard.cli.memory import Memory
    from devguard.evidence.log import EvidenceLog
    from devguard.evidence.record import DigestOf, Record, Statement
    from devguard.trust.document import TrustDocument


BROKEN_LOG: Final = ("log.tampered", "log.truncated", "log.missing")
UNBELIEVED: Final = ("clock.rollback", "clock.ahead")
RECOVERY: Final = "memory.recover"
SESSIONS: Final = "sessions"  # the detail that `evidence.contradict` reads
SESSIONS_KEPT: Final = 7  # so many ids fit into one detail


@dataclass(slots=True)
class Note:
    """The record of one command, filled in as it learns. `remember`: what the command adds to the station's memory;
    `memory`: what it found there, None while that is not proven; `log`: None where nothing is kept; `statements`: what
    others signed; `sessions`: ids of the sessions held since the last record; `notices`: of incidents, not sent yet."""

    home: Home
    log: EvidenceLog | None
    clock: Callable[[], int]
    action: str
    actor: str
    request: str
    device: str | None = None
    release: str | None = None
    digests: dict[DigestOf, bytes] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    written: bool = False
    memory: Memory | None = None
    remember: list[Callable[[Memory], Memory]] = field(default_factory=list)
    statements: dict[Statement, bytes] = field(default_factory=dict)
    sessions: list[bytes] = field(default_factory=list)
    notices: list[Path] = field(default_factory=list)

    @property
    def now(self) -> int:
        """Seconds since the epoch, as the clock says at this moment."""
        return self.clock()

    @property
    def moment(self) -> int:
        """The time that a record written now is dated: never long before the newest in the log."""
        from devguard.evidence.record import TIME_TOLERANCE

        latest = 0 if self.log is None else self.log.latest
        now = self.now
        return latest if now + TIME_TOLERANCE < latest else now

    def recall(self) -> None:
        """Compare the station's memory with the log and the clock with the memory; raises as `cli.memory.recall`."""
        from devguard.cli.memory import check_clock, recall

        if self.log is None:
            return
        memory = recall(self.home, self.log.checkpoint.origin)
        check_clock(memory, self.now)
        self.memory = memory

    def manifest(self, digest: bytes) -> None:
        """Name the release by its manifest digest."""
        from devguard.evidence.record import DigestOf

        self.digests[DigestOf.MANIFEST] = digest

    def document(self, document: TrustDocument, signed: Sequence[str] = ()) -> None:
        """Name a trust document, and who signs it now."""
        self.digest("TRUST", document.digest)
        self.details["version"] = str(document.version)
        if signed:
            self.details["signed"] = ", ".join(signed)

    def digest(self, kind: str, digest: bytes) -> None:
        """Add a digest by its name in `DigestOf`."""
        from devguard.evidence.record import DigestOf

        self.digests[DigestOf[kind]] = digest

    def commit(self, code: str | None = None, *, action: str | None = None) -> None:
        """Write the record now, durable on return. `code`: the refusal, None for done."""

        said: list[Record] = []

        def record(memory: bytes | None) -> Record:
            said.append(self.record(code, action, memory))
            return said[-1]

        if self.log is None:
            pass
        elif self.memory is None:
            self.log.append(record(None))
        else:
            from devguard.cli.memory import append

            # A time that was refused is not one that was seen: remembered, it would vouch for itself the next time.
            seen = self.memory.latest if code in UNBELIEVED else self.now
            self.memory = append(self.home, self.log, record, seen, self._learnt)
        self.remember.clear()
        self.forget_words()
        self.written = True
        if self.log is not None:
            from devguard.cli.incidents import watch

            raised = watch(self.home, self.log, said[-1])
            if raised:
                from devguard.cli.notices import keep

                self.notices += keep(self.home, self.log, raised)

    def tell(self) -> None:
        """Send what incidents there were to whom the settings name. Nothing fails here; it takes seconds at most."""
        if self.notices:
            from devguard.cli.notices import tell

            tell(self.home, self.notices, self.now)

    def forget_words(self) -> None:
        """What was heard is in one record: it is not said again in the next."""
        from devguard.evidence.record import DigestOf

        for kind in (DigestOf.REPORT, DigestOf.DEVICE_HEAD, DigestOf.SESSION):
            self.digests.pop(kind, None)
        self.statements.clear()
        self.sessions.clear()
        self.details.pop(SESSIONS, None)

    def repeat(self, effect: bool) -> None:
        """Once more, when what was recorded has changed what this station goes by: the memory follows at once."""
        if effect:
            self.details["effect"] = "in use here"
            self.commit()

    def _learnt(self, memory: Memory) -> Memory:
        for change in self.remember:
            memory = change(memory)
        return memory

    def record(self, code: str | None, action: str | None, memory: bytes | None) -> Record:
        from devguard.evidence.record import DigestOf, Record

        if self.sessions:
            self.digests[DigestOf.SESSION] = self.sessions[-1]
        if len(self.sessions) > 1:
            self.details[SESSIONS] = " ".join(one.hex() for one in self.sessions[:-1][-SESSIONS_KEPT:])
        return Record.make(
            time=self._time(code),
            actor=self.actor,
            action=action or self.action,
            request=self.request,
            device=self.device,
            release=self.release,
            code=code,
            digests={**self.digests, **({DigestOf.MEMORY: memory} if memory is not None else {})},
            details=self.details,
            statements=self.statements,
        )

    def _time(self, code: str | None) -> int:
        """When it is, for the record. A clock that nobody believes dates nothing: the record stands at the newest time
        of the log, and says what the clock said. Only a person who vouches for the clock sets the log's time back."""
        from devguard.cli.times import iso
        from devguard.evidence.record import SET_BACK, TIME_TOLERANCE

        now, latest = self.now, 0 if self.log is None else self.log.latest
        back = now + TIME_TOLERANCE < latest
        if back and self.action == RECOVERY:
            self.details[SET_BACK] = iso(latest)
        elif back or code in UNBELIEVED:
            self.details["clock"] = iso(now)
            return latest
        return now


@contextmanager
def recorded(
    invocation: Invocation, action: str, *, actor: str | None = None, only_where_kept: bool = False
) -> Iterator[Note]:
    """A command's record: its own `commit`, or the refusal that ended it, or at the latest its end.

    only_where_kept: no log is begun by it. For what people do to keys, often on a machine that is no station.
    """
    home = invocation.home
    log = None if only_where_kept and not home.keeps_evidence() else home.evidence()
    note = Note(home, log, invocation.now, action, actor or operator(), os.urandom(8).hex())
    try:
        with _on_record(note):
            yield note
        if not note.written:
            note.commit()
    finally:
        note.tell()


@contextmanager
def _on_record(note: Note) -> Iterator[None]:
    """What is done under a note; a refusal that ends it is in the record, and so is an interruption."""
    try:
        note.recall()
        yield
    except DevguardError as error:
        if isinstance(error, DeviceRefused) or error.code not in BROKEN_LOG:
            note.details["why"] = error.message
            if isinstance(error, DeviceRefused) and note.device is None:
                note.device = error.serial
            note.remember.clear()  # what did not happen is not remembered
            # A disk too full for what was asked may have room for the record of that.
            with contextlib.suppress(*((LinkError,) if error.code == "log.full" else ())):
                note.commit(error.code)
        raise
    except (KeyboardInterrupt, click.exceptions.Abort):
        note.details["why"] = "interrupted"
        note.remember.clear()
        note.commit("internal.interrupted")
        raise


def operator() -> str:
    """The account that runs this process: who was at the keyboard, as far as the system knows."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
