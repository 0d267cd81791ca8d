"""Who is signed in at this console, and the one-time tickets that let somebody in. Nothing of it is on disk.

A session ends when idle and absolutely; a restart ends all. Of a cookie or a ticket only the digest is kept.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from devguard.console.settings import Limits
from devguard.console.table import Role

_MOST = 1000  # sessions at once; the oldest goes


def digest_of(secret: str) -> str:
    """What is kept of a secret of 256 bits."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


@dataclass(slots=True)
class Session:
    """One signed-in browser. `csrf`: the token that every changing request carries. `registered`: signed in with a key
    of their own, not with a ticket from the bench. `bearer`: no browser but a program with a token, for one request:
    no page of others can make it send that. Times on the steady clock."""

    person: str
    role: Role
    csrf: str
    began: float
    seen: float
    registered: bool = False
    bearer: bool = False


@dataclass(slots=True)
class Sessions:
    """All sessions, by the digest of their cookie."""

    limits: Limits
    ticks: Callable[[], float]
    _open: dict[str, Session] = field(default_factory=dict)

    def open(self, person: str, role: Role, *, registered: bool = False) -> str:
        """Sign somebody in; the cookie's value."""
        for key, one in list(self._open.items()):
            if self.over(one):
                del self._open[key]
        while len(self._open) >= _MOST:
            del self._open[min(self._open, key=lambda key: self._open[key].seen)]
        cookie, now = secrets.token_urlsafe(32), self.ticks()
        self._open[digest_of(cookie)] = Session(person, role, secrets.token_urlsafe(32), now, now, registered)
        return cookie

    def find(self, cookie: str | None, *, passive: bool = False) -> Session | None:
        """The session of a cookie while it lasts. `passive`: asked by a page, not by a person."""
        session = self._open.get(digest_of(cookie)) if cookie else None
        if session is None or cookie is None:
            return None
        if self.over(session):
            del self._open[digest_of(cookie)]
            return None
        if not passive:
            session.seen = self.ticks()
        return session

    def over(self, session: Session) -> bool:
        """Whether a session has ended by itself."""
        now = self.ticks()
        return now - session.seen >= self.limits.idle or now - session.began >= self.limits.absolute

    def close(self, cookie: str | None) -> None:
        """Sign out."""
        if cookie:
            self._open.pop(digest_of(cookie), None)


@dataclass(slots=True)
class Failures:
    """How often a sign-in failed lately, by address; no guess gets unlimited tries."""

    limits: Limits
    ticks: Callable[[], float]
    _times: dict[str, list[float]] = field(default_factory=dict)

    def allowed(self, address: str) -> bool:
        """Whether another try is taken from there."""
        since = self.ticks() - self.limits.sign_window
        self._times = {
            key: kept for key, times in self._times.items() if (kept := [one for one in times if one > since])
        }
        total = sum(map(len, self._times.values()))
        return len(self._times.get(address, ())) < self.limits.signs and total < 10 * self.limits.signs

    def count(self, address: str) -> None:
        """One more that failed."""
        self._times.setdefault(address, []).append(self.ticks())
