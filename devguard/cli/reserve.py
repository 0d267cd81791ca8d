"""A use of a counted grant, held in the group's store from before a port is opened until the push has ended.

A second station that tries the same grant meanwhile is refused at once (`grant.replay`). Where no store is named there
is nothing to hold; where it does not answer the push goes on with what this station knows, and says how old that is:
the device is the last judge. Nothing here allows anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from devguard.cli.group import SILENT, group_url, heard, lost, open_group
from devguard.errors import DevguardError, DeviceRefused

if TYPE_CHECKING:
    from devguard.cli.visit import Visit
    from devguard.grant.check import CheckedGrant
    from devguard.ledger.spent import Holder, Use, Wanted
    from devguard.ledger.store import Store

HERE: Final = ("grant.replay", "config.malformed", "ledger.url", "ledger.package")
"""What stops a push: a use that is gone, and a store that this machine is set up wrong for."""
DETAIL: Final = "group-store"


@dataclass(slots=True)
class Reservation:
    """Uses that are held; none where no store holds any. taken: whether the device has spent them, asked when the
    device refused."""

    visit: Visit | None = None
    store: Store | None = None
    holder: Holder | None = None
    uses: tuple[Use, ...] = ()
    taken: Callable[[], bool] = field(default=lambda: False)
    asked: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self) -> None:
        """The device is asked next; `Refused("grant.replay")` where the lease had ended and the use went elsewhere."""
        with self._lock:
            store, holder = self.store, self.holder
            if store is None or holder is None or self.visit is None:
                return
            from devguard.ledger.spent import offered

            self.asked = True
            try:
                self.uses = store.run(lambda conn: tuple(offered(conn, use, holder) for use in self.uses))
            except DevguardError as error:
                _without(self.visit, error)

    def renew(self) -> None:
        """Another lease, while the push lives; a store that is silent meanwhile costs the lease alone."""
        with self._lock, contextlib.suppress(DevguardError):
            store, holder = self.store, self.holder
            if store is not None and holder is not None:
                from devguard.ledger.spent import renew

                store.run(lambda conn: renew(conn, self.uses, holder))

    def end(self, error: DevguardError | None) -> None:
        """Give back what the device has not spent; what it may have spent stays bound to it. Nothing is renewed after
        this."""
        with self._lock, contextlib.suppress(DevguardError):
            store, holder = self.store, self.holder
            self.store = None
            if store is not None and holder is not None:
                from devguard.ledger.spent import give_back

                unspent = not self.asked or (isinstance(error, DeviceRefused) and not self.taken())
                store.run(lambda conn: give_back(conn, self.uses, holder, unspent=unspent))


@contextlib.contextmanager
def reserving(visit: Visit, checked: CheckedGrant, what: bytes) -> Iterator[Reservation]:
    """Hold a use of each counted grant of the chain for what follows. Raises `Refused("grant.replay")`, and what is
    wrong with this machine's own settings."""
    wanted = _wanted(visit, checked, what)
    with contextlib.ExitStack() as stack:
        found = (
            _held(visit, wanted, stack) if wanted and group_url(visit.invocation.home) is not None else Reservation()
        )
        if found.store is not None:
            stack.enter_context(_renewed(found))
        error: DevguardError | None = None
        try:
            yield found
        except DevguardError as caught:
            error = caught
            raise
        finally:
            found.end(error)


def _wanted(visit: Visit, checked: CheckedGrant, what: bytes) -> tuple[Wanted, ...]:
    if all(one.scope.max_uses is None for one in checked.chain):
        return ()
    from devguard.grant.uses import use_id
    from devguard.ledger.package import need_ledger

    if group_url(visit.invocation.home) is None:
        return ()
    need_ledger()
    from devguard.ledger.spent import Wanted

    (serial,) = next(one.scope.serials for one in checked.chain if one.scope.max_uses is not None)
    return tuple(
        Wanted(
            under=use_id(checked.chain[at:]),
            grant=hashlib.sha256(one.untagged).digest(),
            limit=one.scope.max_uses,
            action=checked.action.value,
            release=what,
            serial=serial,
        )
        for at, one in enumerate(checked.chain)
        if one.scope.max_uses is not None
    )


def _held(visit: Visit, wanted: tuple[Wanted, ...], stack: contextlib.ExitStack) -> Reservation:
    from devguard.cli.memory import origin
    from devguard.ledger.spent import Holder, reserve

    holder = Holder(origin(visit.invocation.home) or "", visit.note.request)
    try:
        store = stack.enter_context(open_group(visit.invocation))
        uses = store.run(lambda conn: reserve(conn, wanted, holder))
    except DevguardError as error:
        _without(visit, error)
        return Reservation()
    heard(visit.invocation, store)
    visit.note.details[DETAIL] = "holds the grant's use"
    return Reservation(visit, store, holder, uses)


def _without(visit: Visit, error: DevguardError) -> None:
    """Go on without the store, and say so; raise what is no silence."""
    from devguard.cli.status_store import ages, held_text

    if error.code in HERE:
        raise error
    if error.code in SILENT:
        lost(visit.invocation, error)
    known = held_text(ages(visit.invocation))
    visit.note.details[DETAIL] = f"{error.code}: {known}"
    visit.invocation.note(f"note: the group's store does not help ({error.code}); {known}; the device decides alone")


@contextlib.contextmanager
def _renewed(found: Reservation) -> Iterator[None]:
    """Renew the lease from a thread of its own until the block ends."""
    from devguard.ledger.spent import LEASE

    done = threading.Event()

    def work() -> None:
        while not done.wait(LEASE / 5):
            found.renew()

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
