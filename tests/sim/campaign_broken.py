"""Workers of a simulated campaign that break one rule each, so that a check is seen to find it. Run as processes."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

from sqlalchemy import select, update

from devguard.bench import campaign_worker
from devguard.bench.campaign_setup import Setup
from devguard.bench.campaign_worker import Worker
from devguard.campaign import leases, queue
from devguard.campaign.leases import Delivery, Lease, deliver
from devguard.campaign.state import Outcome
from devguard.campaign.tables import members
from devguard.ledger.store import Store


class NoLease(Worker):
    """Takes a device whatever its row says; every job comes twice, which a lease makes harmless."""

    def act(self, campaign: str, serial: str) -> None:
        for _ in range(2):
            super().act(campaign, serial)

    def claim(self, conn: Any, campaign: str, serial: str, token: str) -> Lease | None:
        where = (members.c.campaign == campaign, members.c.serial == serial)
        if conn.execute(select(members.c.serial).where(*where)).first() is None:
            return None
        values = {"phase": "claimed", "lease": token, "lease_by": self.name, "tries": members.c.tries + 1}
        conn.execute(update(members).where(*where).values(lease_until=int(time.time()) + 60, **values))
        return Lease(campaign, serial, token, self.name, int(time.time()) + 60)


class CountsTwice(Worker):
    """Says everything twice, and counts it twice."""

    said = ""

    def __init__(self, setup: Setup, store: Store) -> None:
        super().__init__(replace(setup, twice=100), store)

    def deliver(self, conn: Any, lease: Lease, outcome: Outcome, code: str | None) -> Delivery:
        if self.said == lease.token:  # the second time: as if it were another lease's word
            leases.insert = lambda table: _Counted(table)
            lease = Lease(lease.campaign, lease.serial, f"{lease.token} again", lease.by, lease.until)
        self.said = lease.token
        return deliver(conn, lease, outcome, code, int(time.time()))


class _Counted:
    def __init__(self, table: Any) -> None:
        self.table = table

    def values(self, **row: Any) -> Any:
        return self.table.insert().values(**{**row, "counted": True})


class Forgets(Worker):
    """Says that an outcome is committed, and takes it back."""

    def _deliver(self, lease: Lease, outcome: Outcome, code: str | None) -> None:
        class TakenBack(Exception):
            pass

        try:
            with self.store.begin() as conn:
                self.deliver(conn, lease, outcome, code)
                raise TakenBack
        except TakenBack:
            return


KINDS = {"no-lease": NoLease, "counts-twice": CountsTwice, "forgets": Forgets}

if __name__ == "__main__":
    if sys.argv[1] == "no-lease":  # and no lock of the queue's, nor a look at what is due
        queue.lock_of = lambda serial: f"{serial}/{time.monotonic_ns()}"
    sys.exit(campaign_worker.main(sys.argv[2], KINDS[sys.argv[1]]))
