"""The tables of campaigns. They are plans and counts, made here and nowhere else; nothing of them is signed.

What is signed stands in the ledger's tables, which `store` reads and never writes. A key of those is referred to by
none here: their rows may be made again at any moment. Times are epoch seconds.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, LargeBinary, MetaData, Table

from devguard.ledger.schema import Word

metadata = MetaData()

campaigns: Final = Table(
    "campaigns",
    metadata,
    Column("name", Word, primary_key=True),
    Column("state", Word, nullable=False),
    Column("model", Word, nullable=False),
    Column("version", Word, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of the release's manifest
    Column("file", Word, nullable=False),
    Column("plan", Word, nullable=False),  # JSON, in the shape of its file
    Column("devices", BigInteger, nullable=False),  # how many it began with
    Column("created", BigInteger, nullable=False),
    Column("created_by", Word, nullable=False),
    Column("started", BigInteger),
    Column("changed", BigInteger, nullable=False),
    Column("changed_by", Word, nullable=False),
    Column("reason", Word),
)
rings: Final = Table(
    "campaign_rings",
    metadata,
    Column("campaign", Word, ForeignKey("campaigns.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Word, nullable=False),
    Column("opened", BigInteger),
    Column("opened_by", Word),
)
members: Final = Table(
    "campaign_devices",
    metadata,
    Column("campaign", Word, ForeignKey("campaigns.name"), primary_key=True),
    Column("serial", Word, primary_key=True),
    Column("ring", BigInteger, nullable=False),
    Column("site", Word),  # as the inventory had it, a comma between several
    Column("phase", Word, nullable=False),
    Column("tries", BigInteger, nullable=False),  # leases that were not given back
    Column("lease", Word),  # the name of the lease that runs
    Column("lease_by", Word),
    Column("lease_until", BigInteger),
    Column("code", Word),
    Column("ended", BigInteger),
    Column("evidence", LargeBinary),  # digest of the signed report that confirms it
    Index("campaign_devices_phase", "campaign", "phase", "ring", "tries", "serial"),
    Index("campaign_devices_serial", "serial"),
)
outcomes: Final = Table(
    "campaign_outcomes",
    metadata,
    Column("campaign", Word, ForeignKey("campaigns.name"), primary_key=True),
    Column("lease", Word, primary_key=True),  # one outcome for each lease, however often it is delivered
    Column("serial", Word, nullable=False),
    Column("outcome", Word, nullable=False),
    Column("code", Word),
    Column("by", Word, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("counted", Boolean(create_constraint=False), nullable=False),  # false: the lease was lost before it came
    Index("campaign_outcomes_serial", "campaign", "serial"),
)
TABLES: Final = (campaigns, rings, members, outcomes)
