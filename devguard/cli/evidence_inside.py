"""What devices and technicians signed inside the records of a log, held against the records and the log's heads.

A device's report answers a challenge made of the log's head, and a technician's statement names it: each is a
countersignature of all records before it, by a key that no station has. `ledger.vouch` says whose key it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devguard.errors import DevguardError
from devguard.evidence.frame import Broken
from devguard.evidence.log import read_entries
from devguard.evidence.record import Entry, Record, encode_entry, may_have_statements
from devguard.evidence.tree import Frontier, leaf_hash
from devguard.ledger.vouch import Judge

if TYPE_CHECKING:
    from devguard.evidence.checkpoint import Checkpoint
    from devguard.grant.claims import Grant
    from devguard.session.report import Report
    from devguard.trust.document import TrustDocument

_CODE: Final = "log.tampered"
_SIGNED_ACTIONS: Final = (b"-begun", b"device.acknowledge")
_RECENT: Final = 64  # so many trees back, a countersigned head is compared at once


@dataclass(slots=True)
class Inside:
    """What is held against one log. trust: the document in use, then those before it; head: of the log, once proven.
    seen, pushed: told of every report, and of every push with its grant, whose signatures hold."""

    folder: Path
    trust: Sequence[TrustDocument]
    origin: str
    seen: Callable[[int, Record, Report], None] | None = None
    pushed: Callable[[Record, Grant], None] | None = None
    head: Checkpoint = field(init=False)
    reports: int = 0
    pushes: int = 0
    serials: set[str] = field(default_factory=set)
    _wrong: DevguardError | None = None
    _recent: deque[tuple[int, tuple[bytes, ...]]] = field(default_factory=lambda: deque([(0, ())], _RECENT))
    _claims: list[tuple[int, str, Checkpoint]] = field(default_factory=list)
    judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        self.judge = Judge(self.trust)

    def visit(self, entry: Entry, tree: Frontier) -> None:
        """Look at one entry of a log that is being verified; what is wrong with it waits until the log is proven."""
        if self._wrong is None and (
            may_have_statements(entry.body) or any(word in entry.body for word in _SIGNED_ACTIONS)
        ):
            try:
                self._check_record(entry.index, entry.record)
            except DevguardError as error:
                self._wrong = error
        self._recent.append((tree.size, tree.hashes))

    def finish(self, head: Checkpoint) -> None:
        """The log is proven. Raises `Broken("log.tampered")` for the first statement in it that is false,
        `Refused` `key.unknown`, `key.revoked` or `key.expired` for one by a key that nobody here can place."""
        self.head = head
        if self._wrong is not None:
            raise self._wrong
        self._check_claims()

    def _check_record(self, index: int, record: Record) -> None:
        reported = self.judge.report(index, record)
        if reported is not None:
            report = reported.report
            self._claim(index, f"device {report.serial}", reported.head)
            self.reports += 1
            self.serials.add(report.serial)
            if self.seen is not None:
                self.seen(index, record, report)
        pushed = self.judge.push(index, record)
        if pushed is not None:
            self._claim(index, pushed.grant.subject, pushed.head)
            self.pushes += 1
            if self.pushed is not None:
                self.pushed(record, pushed.grant)
        self._claim(index, record.actor, self.judge.acknowledged(index, record))

    def _claim(self, index: int, who: str, head: Checkpoint | None) -> None:
        """A head that somebody countersigned; as a rule it lies a few records back, else it waits for a second walk."""
        if head is None:
            return
        for size, hashes in reversed(self._recent):
            if size == head.size and head.origin == self.origin:
                if Frontier(size, hashes).root() == head.root:
                    return
                break
        self._claims.append((index, who, head))

    def _check_claims(self) -> None:
        """Every countersigned head that is not settled yet against the records that lie there."""
        wanted = {head.size for _, _, head in self._claims}
        roots = self.roots(wanted)
        for index, who, head in self._claims:
            if head.origin != self.origin:
                raise Broken(_CODE, index, f"{who} countersigned another log, {head.origin}")
            if head.size > index or head.root != roots[head.size]:
                size = min(head.size, index)
                raise Broken(
                    _CODE, max(size - 1, 0), f"{who} countersigned other records than the {head.size} up to it"
                )

    def roots(self, wanted: set[int]) -> dict[int, bytes]:
        frontier, roots = Frontier(), {}
        if 0 in wanted:
            roots[0] = frontier.root()
        last = max(wanted, default=0)
        for entry in read_entries(self.folder, min(last, self.head.size)):
            frontier.append(leaf_hash(encode_entry(entry)))
            if frontier.size in wanted:
                roots[frontier.size] = frontier.root()
        return {size: roots.get(size, b"") for size in wanted}
