"""The database's clock, the one clock that all stations of a group share, and how far a station's is off it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from devguard.errors import Refused
from devguard.evidence.record import TIME_TOLERANCE

NAMED: Final = 60
"""Seconds: a clock that is further off is told."""
_ASK: Final = {
    "postgresql": "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT)",
    "sqlite": "SELECT CAST(strftime('%s', 'now') AS INTEGER)",
}


def database_time(conn: Connection) -> int:
    """Epoch seconds, as the database has them now."""
    return int(conn.execute(text(_ASK[conn.dialect.name])).scalar_one())


def check_skew(skew: int) -> None:
    """`Refused("clock.skew")` where a station's clock is further off the database's than records of one log may be;
    `skew`: seconds by which it is ahead."""
    if abs(skew) > TIME_TOLERANCE:
        way = "ahead of" if skew > 0 else "behind"
        raise Refused("clock.skew", f"this station's clock is {abs(skew)} s {way} the group store's")
