"""Plans, inventories and facts for tests of campaigns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, update

from devguard.campaign.plan import Candidate, Chosen, Goal, Opening, Plan, Ring
from devguard.ledger.schema import devices, incidents

PUMP = "insulin-pump"
DIGEST, OLD = b"\x22" * 32, b"\x11" * 32
GOAL = Goal(PUMP, "1.1.0", 2, DIGEST, "pump.suit")
T0 = 1_800_000_000
TEXT = """\
[campaign]
name = "pump-1-1-0"
model = "insulin-pump"
release = "pump.suit"

[[ring]]
name = "bench"
serials = ["IP-0"]

[[ring]]
name = "ward"
sites = ["ward-1"]
opens = "confirmed"
confirmed = 1
wait_minutes = 60

[[ring]]
name = "all"

[stop]
failures = "2"
refusals = "50%"
incidents = "1"
kinds = ["burst"]
"""


def candidate(number: int, **fields: Any) -> Candidate:
    """Device IP-N, which runs 1.0.0; the even ones are on ward-0, the others on ward-1."""
    given = {
        "model": PUMP,
        "sites": frozenset({f"ward-{number % 2}"}),
        "version": "1.0.0",
        "sequence": 1,
        "digest": OLD,
    }
    return Candidate(f"IP-{number}", **{**given, **fields})


def fleet(count: int) -> list[Candidate]:
    """Devices IP-0, IP-1, ..."""
    return [candidate(number) for number in range(count)]


def plan(*rings: Ring, **fields: Any) -> Plan:
    """A plan of those rings, one for all where none is given."""
    return Plan(**{"name": "c", "chosen": Chosen(PUMP), "rings": rings or (Ring("all"),), **fields})


def by_itself(name: str, confirmed: int = 1, wait: int = 0, **fields: Any) -> Ring:
    """A ring that opens when so many of the one before are confirmed."""
    return Ring(name, opening=Opening(confirmed, wait), **fields)


def settle(conn: Connection, count: int, **fields: Any) -> None:
    """The ledger's rows of devices IP-0, IP-1, ..."""
    row = {"model": PUMP, "version": "1.0.0", "sequence": 1, "confirmed": True, "manifest_digest": OLD}
    row |= {"report_digest": b"\x01" * 32, "reported": T0, "seen": T0, "station": "s", "index": 0, **fields}
    conn.execute(insert(devices), [{"serial": f"IP-{at}", "site": f"ward-{at % 2}", **row} for at in range(count)])


def sign(conn: Connection, serial: str, **fields: Any) -> None:
    """What the ledger holds once a device's signed report says that it runs the release, confirmed."""
    row = {"version": "1.1.0", "sequence": 2, "manifest_digest": DIGEST, "confirmed": True, **fields}
    report = serial.encode().ljust(32, b"\x33")
    conn.execute(update(devices).where(devices.c.serial == serial).values(report_digest=report, **row))


def raise_incident(conn: Connection, serial: str | None, *, kind: str = "burst", is_open: bool = True) -> None:
    """An incident in the ledger."""
    row = {"origin": "s", "id": f"{kind}-{serial}", "kind": kind, "subject": "x", "device": serial, "records": ""}
    row |= {"own": "", "decision": "undecided", "open": is_open, "time": T0 + 10, "index": 0}
    conn.execute(insert(incidents).values(**row))
