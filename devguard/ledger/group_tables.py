"""Tables that stations of a group share and no record can give back: uses that are held, and signed lists.

Nothing here is believed for itself. A use that is held only makes a refusal come early, the device is the last judge;
a list is judged by the signatures in it, at every station that reads it. Times are epoch seconds by the database's
clock.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, Table

from devguard.ledger.schema import Word

metadata = MetaData()

uses: Final = Table(
    "uses",
    metadata,
    Column("under", LargeBinary, primary_key=True),  # what the device remembers the grant's uses under
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1 to the grant's limit
    Column("grant", LargeBinary, nullable=False),  # SHA-256 of its untagged form, as records name it
    Column("action", Word, nullable=False),
    Column("release", LargeBinary, nullable=False),  # manifest digest, or what else the use is bound to
    Column("serial", Word, nullable=False),
    Column("spent", Boolean(create_constraint=False), nullable=False),  # offered to the device: it may have spent it
    Column("origin", Word, nullable=False),
    Column("request", Word, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),  # held so long by that request
)
lists: Final = Table(
    "lists",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("issued", BigInteger, nullable=False),
    Column("list", LargeBinary, nullable=False),  # as a file
    Column("origin", Word, nullable=False),  # who brought it
    Column("time", BigInteger, nullable=False),
    Index("lists_issued", "issued"),
)
