"""Who may sign in at this console with a key of their own, and the one-time tickets that were given out.

    console/people.json     {"format": 1, "people": [{"person", "role", "added", "keys": [{"id", "public", "count",
                             "name", "added"}]}]}          id, public: base64url; name: the relying party
    console/tickets.json    {"format": 1, "tickets": [{"digest", "kind", "person", "role", "expires"}]}

Both are the console's own, mode 0600, replaced whole. Of a ticket only the digest is kept, and it goes when it is used.
"""

from __future__ import annotations

import enum
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from devguard.console.sessions import digest_of
from devguard.console.table import Role
from devguard.custody.files import read_limited, write_atomic
from devguard.custody.locks import locked
from devguard.errors import DevguardError, Malformed, Refused
from devguard.trust.model import same_person

FORMAT: Final = 1
_LIMIT: Final = 1 << 20
_MOST_KEYS: Final = 8  # of one person
_MOST_PEOPLE: Final = 500
_MOST_TICKETS: Final = 100
_WAIT: Final = 5.0
LONGEST_NAME: Final = 80
T = TypeVar("T")


class Kind(enum.StrEnum):
    """What a ticket is good for: one sign-in, or the registration of a key."""

    SIGN_IN = "sign-in"
    ENROL = "enrol"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Somebody is let in once, until `expires` (seconds since the epoch)."""

    digest: str
    kind: Kind
    person: str
    role: Role
    expires: int


@dataclass(frozen=True, slots=True)
class Passkey:
    """A registered WebAuthn credential: id and public key (COSE) as base64url, its signature counter, its party."""

    id: str
    public: str
    count: int
    name: str
    added: int


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in. `added`: seconds since the epoch."""

    person: str
    role: Role
    added: int
    keys: tuple[Passkey, ...] = ()


def check_name(person: str) -> str:
    """A person's name as it is kept; `Refused("console.person")` for what is none."""
    name = " ".join(person.split())
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise Refused("console.person", f"a name has 1 to {LONGEST_NAME} characters, and none that cannot be seen")
    return name


@dataclass(frozen=True, slots=True)
class Register:
    """The two files in the console's folder, which exists."""

    folder: Path

    @property
    def file(self) -> Path:
        """The people."""
        return self.folder / "people.json"

    @property
    def tickets_file(self) -> Path:
        """The tickets."""
        return self.folder / "tickets.json"

    def people(self) -> tuple[Person, ...]:
        """Everybody, by name; none where nobody was registered. `Malformed("console.people")`."""
        rows = read_rows(self.file, "people")
        return tuple(sorted(read_each(self.file, rows, _person), key=lambda one: one.person))

    def find(self, key_id: str, name: str) -> tuple[Person, Passkey] | None:
        """Whose credential that is, at the relying party `name`."""
        for person in self.people():
            for key in person.keys:
                if key.id == key_id and key.name == name:
                    return person, key
        return None

    def role_of(self, person: str) -> Role | None:
        """The role of a registered person."""
        return next((one.role for one in self.people() if one.person == person), None)

    def add(self, person: str, role: Role, key: Passkey) -> None:
        """Register a credential; a person who is there gets another one, and the role they were invited with."""
        with self._changing() as people:
            if any(key.id == other.id for one in people for other in one.keys):
                raise Refused("console.person", "that key is registered already")
            there = next((one for one in people if same_person(one.person) == same_person(person)), None)
            if there is None:
                there = Person(person, role, key.added)
            else:
                people.remove(there)
            if len(there.keys) >= _MOST_KEYS or len(people) >= _MOST_PEOPLE:
                raise Refused("console.person", f"{person} has {_MOST_KEYS} keys already, or too many are registered")
            people.append(replace(there, role=role, keys=(*there.keys, key)))

    def remove(self, person: str) -> Person:
        """Take a person off, with every key; `Refused("console.person")` for one who is not there."""
        with self._changing() as people:
            there = next((one for one in people if same_person(one.person) == same_person(person)), None)
            if there is None:
                raise Refused("console.person", f"{person} is not registered at this console")
            people.remove(there)
        with self._tickets() as tickets:
            tickets[:] = [one for one in tickets if same_person(one.person) != same_person(person)]
        return there

    def count(self, key_id: str, count: int) -> None:
        """The signature counter of a credential as it was last seen."""
        with self._changing() as people:
            for place, one in enumerate(people):
                keys = tuple(replace(key, count=count) if key.id == key_id else key for key in one.keys)
                people[place] = replace(one, keys=keys)

    def give(self, kind: Kind, person: str, role: Role, expires: int, now: int) -> str:
        """A new ticket; the secret that goes into a URL."""
        secret = secrets.token_urlsafe(32)
        with self._tickets() as tickets:
            tickets[:] = [one for one in tickets if one.expires > now][-_MOST_TICKETS + 1 :]
            tickets.append(Ticket(digest_of(secret), kind, person, role, expires))
        return secret

    def look(self, kind: Kind, secret: str, now: int) -> Ticket | None:
        """The ticket while it is good; it stays good."""
        rows = read_each(self.tickets_file, read_rows(self.tickets_file, "tickets"), _ticket)
        digest = digest_of(secret)
        return next((one for one in rows if one.digest == digest and one.kind is kind and one.expires > now), None)

    def invited(self, now: int) -> bool:
        """Whether an invitation is open."""
        rows = read_each(self.tickets_file, read_rows(self.tickets_file, "tickets"), _ticket)
        return any(one.kind is Kind.ENROL and one.expires > now for one in rows)

    def take(self, kind: Kind, secret: str, now: int) -> Ticket:
        """The ticket, used up. `Refused("console.login")` for one that is not good, or not any more."""
        digest = digest_of(secret)
        with self._tickets() as tickets:
            found = next((one for one in tickets if one.digest == digest and one.kind is kind), None)
            if found is not None:
                tickets.remove(found)
        if found is None or found.expires <= now:
            raise Refused("console.login", "this link was used already, or its time is over")
        return found

    @contextmanager
    def _changing(self) -> Iterator[list[Person]]:
        with locked(self.file, wait=_WAIT):
            people = list(self.people())
            yield people
            write_rows(self.file, "people", [{**asdict(one), "role": one.role.label} for one in people])

    @contextmanager
    def _tickets(self) -> Iterator[list[Ticket]]:
        with locked(self.tickets_file, wait=_WAIT):
            tickets = list(read_each(self.tickets_file, read_rows(self.tickets_file, "tickets"), _ticket))
            yield tickets
            write_rows(self.tickets_file, "tickets", [{**asdict(one), "role": one.role.label} for one in tickets])


def read_rows(path: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a file of the console; none without the file. `Malformed("console.people")`."""
    try:
        data = json.loads(read_limited(path, _LIMIT))
    except DevguardError as error:
        if error.code == "file.missing":
            return []
        raise
    except (ValueError, RecursionError):
        raise Malformed("console.people", f"{path} is not JSON") from None
    rows = data.get(name) if isinstance(data, dict) and data.get("format") == FORMAT else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Malformed("console.people", f"{path} has another form")
    return rows


def read_each(path: Path, rows: list[dict[str, Any]], make: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """Each row as what it is; `Malformed("console.people")` for one that is none."""
    try:
        yield from map(make, rows)
    except (KeyError, TypeError, ValueError):
        raise Malformed("console.people", f"an entry of {path} has another form") from None


def _person(row: dict[str, Any]) -> Person:
    keys = tuple(
        Passkey(as_text(key["id"]), as_text(key["public"]), int(key["count"]), as_text(key["name"]), int(key["added"]))
        for key in row["keys"]
    )
    return Person(as_text(row["person"]), Role[as_text(row["role"]).upper()], int(row["added"]), keys)


def _ticket(row: dict[str, Any]) -> Ticket:
    role = Role[as_text(row["role"]).upper()]
    return Ticket(as_text(row["digest"]), Kind(row["kind"]), as_text(row["person"]), role, int(row["expires"]))


def as_text(value: object) -> str:
    """A value that has to be a text; TypeError for another."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def write_rows(path: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Replace a file of the console whole, mode 0600."""
    write_atomic(path, json.dumps({"format": FORMAT, name: rows}, ensure_ascii=False, indent=1).encode(), 0o600)
