"""Bearer tokens for programs that ask the HTTP API: made and taken back on the command line, kept as digests alone.

    console/tokens.json     {"format": 1, "tokens": [{"digest", "name", "role", "added", "expires"}]}

The secret has 256 bits and is shown once, when it is made. Mode 0600, replaced whole. Source: RFC 6750.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from devguard.console.people import as_text, read_each, read_rows, write_rows
from devguard.console.sessions import digest_of
from devguard.console.table import Role
from devguard.custody.locks import locked
from devguard.errors import Refused

PREFIX: Final = "dgt_"
LONGEST: Final = 128
_MOST: Final = 100
_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Token:
    """What a program may do here until `expires`; `added`, `expires`: seconds since the epoch."""

    digest: str
    name: str
    role: Role
    added: int
    expires: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one console, in its folder, which exists."""

    folder: Path

    @property
    def file(self) -> Path:
        """Where they are kept."""
        return self.folder / "tokens.json"

    def all(self) -> tuple[Token, ...]:
        """Every token, by name, expired ones too. `Malformed("console.people")`."""
        found = read_each(self.file, read_rows(self.file, "tokens"), _token)
        return tuple(sorted(found, key=lambda one: one.name))

    def find(self, secret: str, now: float) -> Token | None:
        """The token of that secret while it holds."""
        if not secret.startswith(PREFIX) or len(secret) > LONGEST:
            return None
        digest = digest_of(secret)
        return next((one for one in self.all() if one.digest == digest and one.expires > now), None)

    def make(self, name: str, role: Role, now: int, expires: int) -> str:
        """A new token's secret. `Refused("console.token")` where the name is taken, or there are very many."""
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._changing() as tokens:
            tokens[:] = [one for one in tokens if one.expires > now]
            if any(one.name == name for one in tokens):
                raise Refused("console.token", f"there is a token {name} already")
            if len(tokens) >= _MOST:
                raise Refused("console.token", f"there are {_MOST} tokens already")
            tokens.append(Token(digest_of(secret), name, role, now, expires))
        return secret

    def remove(self, name: str) -> Token:
        """Take a token back; the next request with it is refused. `Refused("console.token")` for one not there."""
        with self._changing() as tokens:
            there = next((one for one in tokens if one.name == name), None)
            if there is None:
                raise Refused("console.token", f"there is no token {name}")
            tokens.remove(there)
        return there

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        with locked(self.file, wait=_WAIT):
            tokens = list(self.all())
            yield tokens
            write_rows(self.file, "tokens", [{**asdict(one), "role": one.role.label} for one in tokens])


def _token(row: dict[str, Any]) -> Token:
    role = Role[as_text(row["role"]).upper()]
    return Token(as_text(row["digest"]), as_text(row["name"]), role, int(row["added"]), int(row["expires"]))
