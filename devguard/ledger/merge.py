"""How what records say becomes rows. Pure: rows and facts in, rows out.

Several stations' records reach the store in any order and any portions, so every rule but those of tables that belong
to one station alone gives the same row whatever the order: the newest word counts, or the oldest, or the smallest.
What was said at one moment is ordered by the station's origin and the record's index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class At:
    """Where something was said: the record's time, whose log it is in, its index there."""

    time: int
    origin: str
    index: int


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing a record says for one row. key: the row's primary key, in the table's order; values: by column."""

    table: str
    key: tuple[Any, ...]
    at: At
    values: Mapping[str, Any] = field(default_factory=dict)


class Rule(Protocol):
    """How one fact changes some columns of a row; the row is new where they are all absent."""

    def apply(self, row: Row, fact: Fact) -> None:
        """Change `row`."""


@dataclass(frozen=True, slots=True)
class Word:
    """Columns that are said together, with the columns that tell where. The newest word counts, or the oldest; before
    that, one whose column `rank` is true counts more than one where it is not.

    A fact says it when it has `mark`, or without a mark any of the columns; with neither every fact does.
    """

    columns: tuple[str, ...]
    where: tuple[str, str, str]
    newest: bool = True
    mark: str | None = None
    rank: str | None = None

    def apply(self, row: Row, fact: Fact) -> None:
        """See `Rule`."""
        marks = self.columns if self.mark is None else (self.mark,)
        if marks and not any(name in fact.values for name in marks):
            return
        held = tuple(row.get(name) for name in self.where)
        if held[0] is not None and not self._better(row, fact, held):
            return
        row.update({name: fact.values.get(name) for name in self.columns})
        row.update(zip(self.where, (fact.at.time, fact.at.origin, fact.at.index), strict=True))

    def _better(self, row: Row, fact: Fact, held: tuple[Any, ...]) -> bool:
        mine = (fact.at.time, fact.at.origin, fact.at.index)
        if self.rank is not None and bool(row.get(self.rank)) != bool(fact.values.get(self.rank)):
            return bool(fact.values.get(self.rank))
        return mine >= held if self.newest else mine < held


@dataclass(frozen=True, slots=True)
class Bound:
    """A column that keeps the smallest value that was said, or the greatest."""

    column: str
    greatest: bool = False

    def apply(self, row: Row, fact: Fact) -> None:
        """See `Rule`."""
        said = fact.values.get(self.column)
        held = row.get(self.column)
        if said is not None:
            row[self.column] = said if held is None else max(said, held) if self.greatest else min(said, held)


@dataclass(frozen=True, slots=True)
class Fill:
    """Columns of a table that belongs to one station: the first word stays, or with `last` the last one counts. Such a
    station's records come in their order."""

    columns: tuple[str, ...]
    last: bool = False

    def apply(self, row: Row, fact: Fact) -> None:
        """See `Rule`."""
        for name in self.columns:
            said = fact.values.get(name)
            if said is not None and (self.last or row.get(name) is None):
                row[name] = said


_REPORT: Final = (
    "model", "version", "sequence", "security_version", "boot_state", "confirmed", "flags", "trust_version",
    "image_digest", "manifest_digest", "report_digest",
)  # fmt: skip
_SAID: Final = ("time", "origin", "index")
RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "devices": (
        Word(_REPORT, ("reported", "report_origin", "report_index")),
        Word((), ("seen", "station", "index")),
        Word(("site",), ("site_time", "site_origin", "site_index")),
        Word(("changed",), ("changed_time", "changed_origin", "changed_index")),
        Word(("life",), ("life_time", "life_origin", "life_index")),
    ),
    "components": (Fill(("id", "digest", "size")),),
    "reports": (
        Word(
            ("serial", "model", "version", "sequence", "security_version", "boot_state", "confirmed",
             "manifest_digest"), _SAID, newest=False,
        ),
    ),
    "technicians": (
        Bound("shown"),
        Word(("name", "holder", "sites", "training"), ("listed", "listed_origin", "listed_index")),
        Word((), ("granted", "granted_origin", "granted_index"), mark="granted"),
        Word(("suspended", "reason"), ("said", "said_origin", "said_index")),
    ),
    "grants": (
        Word(
            ("cti", "technician", "holder", "issuer", "models", "serials", "sites", "epoch", "expires", "max_uses",
             "parent", "proved"), _SAID, newest=False, rank="proved",
        ),
    ),
    "revocations": (Word(("reason",), _SAID, newest=False),),
    "epochs": (Word(("reason",), _SAID, newest=False),),
    "grant_uses": (Word(("request",), _SAID, newest=False),),
    "trust_versions": (Fill(("version",)), Fill(("time", "index"), last=True)),
    "releases": (
        Bound("since"),
        Bound("sequence", greatest=True),
        Word(("digest",), _SAID, newest=False),
        Word(("supported_until",), ("support_time", "support_origin", "support_index")),
        Word(("parts_until", "first_part"), ("parts_time", "parts_origin", "parts_index")),
    ),
    "pushes": (
        Fill(("action", "actor", "serial", "release", "manifest_digest", "grant", "begun", "begun_index")),
        Fill(("state", "code", "ended", "ended_index"), last=True),
    ),
    "doubts": (Fill(("code", "message", "time")),),
}  # fmt: skip
DEFAULTS: Final[dict[str, Row]] = {
    "technicians": {"suspended": False},
    "releases": {"revoked": False},
    "grants": {"proved": False},
}


def merged(row: Row | None, fact: Fact) -> Row:
    """The row that `fact` makes of `row`, which is not changed; None: there is none yet. Key columns are not in it."""
    made = dict(DEFAULTS.get(fact.table, {})) if row is None else dict(row)
    for rule in RULES[fact.table]:
        rule.apply(made, fact)
    return made
