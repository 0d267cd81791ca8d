"""The tables. Primary: what stations said, verbatim. Derived: made from that, and again from it at any time.

Portable types alone, so that one code path serves SQLite and PostgreSQL. Texts compare by code point in both; whole
numbers have 64 bits; times are epoch seconds. `time`, `origin` and `index` name the record that a row, or the part of
it that they stand with, comes from. A key of a derived table is referred to by no table of another room: the row may
be taken away and made again at any moment.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

NUMBER_LIMIT: Final = (1 << 63) - 1
"""The largest whole number that a column takes."""
metadata = MetaData()
Word = Text().with_variant(Text(collation="C"), "postgresql")


def _word(name: str, *more: Any, **options: Any) -> Column[str]:
    return Column(name, Word, *more, **options)


def _number(name: str, **options: Any) -> Column[int]:
    return Column(name, BigInteger, **options)


def _flag(name: str, **options: Any) -> Column[bool]:
    return Column(name, Boolean(create_constraint=False), **options)


def _bytes(name: str, **options: Any) -> Column[bytes]:
    return Column(name, LargeBinary, **options)


# primary

ledger: Final = Table(
    "ledger",
    metadata,
    _number("id", primary_key=True, autoincrement=False),  # always 1
    _word("store", nullable=False),  # names this store for good, in backups too
    _number("generation", nullable=False),  # grows with whatever is taken
)
stations: Final = Table(
    "stations",
    metadata,
    _word("origin", primary_key=True),
    _bytes("key", nullable=False),  # its public key, Ed25519
    _bytes("thumbprint", nullable=False),
    _word("name"),
    _number("records", nullable=False),
    _bytes("root", nullable=False),
    _bytes("frontier", nullable=False),  # roots of the perfect subtrees, largest first
    _bytes("note"),  # the newest signed checkpoint
    _number("latest"),  # time of its newest record
    _number("seen"),  # when something was last taken from it, by the store's own clock
)
records: Final = Table(
    "records",
    metadata,
    _word("origin", ForeignKey("stations.origin"), primary_key=True),
    _number("index", primary_key=True, autoincrement=False),
    _bytes("entry", nullable=False),  # the leaf of the station's tree: version, index, seal, record
)
documents: Final = Table(
    "documents",
    metadata,
    _bytes("digest", primary_key=True),
    _number("version", nullable=False),
    _bytes("document", nullable=False),  # a trust document, as a file
)

# derived

devices: Final = Table(
    "devices",
    metadata,
    _word("serial", primary_key=True),
    # the last signed report that holds; nothing of it where there is none
    _word("model"),
    _word("version"),
    _number("sequence"),
    _number("security_version"),
    _word("boot_state"),
    _flag("confirmed"),
    _word("flags"),
    _number("trust_version"),
    _bytes("image_digest"),
    _bytes("manifest_digest"),
    _bytes("report_digest"),
    _number("reported"),
    _word("report_origin"),
    _number("report_index"),
    # the last record that names it
    _number("seen", nullable=False),
    _word("station", nullable=False),
    _number("index", nullable=False),
    # the sites of the grant of the last push to it, comma between
    _word("site"),
    _number("site_time"),
    _word("site_origin"),
    _number("site_index"),
    # what no record explains, until an authority has acknowledged it
    _word("changed"),
    _number("changed_time"),
    _word("changed_origin"),
    _number("changed_index"),
    # enrolled or decommissioned
    _word("life"),
    _number("life_time"),
    _word("life_origin"),
    _number("life_index"),
    Index("devices_model", "model", "serial"),
    Index("devices_reported", "reported", "serial"),
)
components: Final = Table(
    "components",
    metadata,
    _bytes("report", primary_key=True),  # digest of the signed report that names them
    _number("place", primary_key=True, autoincrement=False),
    _word("id", nullable=False),
    _bytes("digest", nullable=False),
    _number("size", nullable=False),
)
reports: Final = Table(
    "reports",
    metadata,
    _bytes("digest", primary_key=True),
    _word("serial", nullable=False),
    _word("model", nullable=False),
    _word("version", nullable=False),
    _number("sequence", nullable=False),
    _number("security_version", nullable=False),
    _word("boot_state", nullable=False),
    _flag("confirmed", nullable=False),
    _bytes("manifest_digest"),
    _number("time", nullable=False),
    _word("origin", nullable=False),
    _number("index", nullable=False),
    Index("reports_serial", "serial", "time"),
)
technicians: Final = Table(
    "technicians",
    metadata,
    _word("person", primary_key=True),  # folded, so that one person is one row
    _word("shown", nullable=False),  # as it was written last
    # the last word of a list of technicians
    _word("name"),
    _word("holder"),
    _word("sites"),
    _word("training"),
    _number("listed"),
    _word("listed_origin"),
    _number("listed_index"),
    # the last grant issued to them
    _number("granted"),
    _word("granted_origin"),
    _number("granted_index"),
    # the last word on a suspension
    _flag("suspended", nullable=False),
    _word("reason"),
    _number("said"),
    _word("said_origin"),
    _number("said_index"),
)
grants: Final = Table(
    "grants",
    metadata,
    _bytes("digest", primary_key=True),  # SHA-256 of its untagged form
    _bytes("cti"),
    _word("technician"),
    _word("holder"),
    _word("issuer"),
    _word("models"),
    _word("serials"),
    _word("sites"),
    _number("epoch"),
    _number("expires"),
    _number("max_uses"),
    _bytes("parent"),
    _flag("proved", nullable=False),  # the grant itself was seen and holds, not only a record of its issue
    _number("time", nullable=False),
    _word("origin", nullable=False),
    _number("index", nullable=False),
    Index("grants_cti", "cti"),
    Index("grants_expires", "expires"),
)
revocations: Final = Table(
    "revocations",
    metadata,
    _bytes("cti", primary_key=True),
    _word("reason"),
    _number("time", nullable=False),
    _word("origin", nullable=False),
    _number("index", nullable=False),
)
epochs: Final = Table(
    "epochs",  # every grant of an epoch before this one was taken back
    metadata,
    _number("epoch", primary_key=True, autoincrement=False),
    _word("reason"),
    _number("time", nullable=False),
    _word("origin", nullable=False),
    _number("index", nullable=False),
)
grant_uses: Final = Table(
    "grant_uses",
    metadata,
    _bytes("grant", primary_key=True),
    _word("serial", primary_key=True),
    _bytes("release", primary_key=True),  # manifest digest
    _word("request", nullable=False),
    _number("time", nullable=False),  # when it was first begun
    _word("origin", nullable=False),
    _number("index", nullable=False),
    Index("grant_uses_serial", "serial"),
)
trust_versions: Final = Table(
    "trust_versions",  # which station has had which trust document in hand
    metadata,
    _word("origin", primary_key=True),
    _bytes("digest", primary_key=True),
    _number("version", nullable=False),
    _number("time", nullable=False),
    _number("index", nullable=False),
    Index("trust_versions_version", "version"),
)
releases: Final = Table(
    "releases",
    metadata,
    _word("model", primary_key=True),
    _word("version", primary_key=True),
    _number("since", nullable=False),  # known here from then on
    _number("sequence"),
    _bytes("digest"),  # of its manifest
    _number("supported_until"),
    _number("parts_until"),
    _word("first_part"),
    _flag("revoked", nullable=False),
    _number("time"),  # with `origin` and `index`: of the first record that names the digest
    _word("origin"),
    _number("index"),
    _number("support_time"),
    _word("support_origin"),
    _number("support_index"),
    _number("parts_time"),
    _word("parts_origin"),
    _number("parts_index"),
    Index("releases_digest", "digest"),
)
pushes: Final = Table(
    "pushes",
    metadata,
    _word("origin", primary_key=True),
    _word("request", primary_key=True),
    _word("action", nullable=False),
    _word("actor", nullable=False),
    _word("serial"),
    _word("release"),
    _bytes("manifest_digest"),
    _bytes("grant"),
    _word("state", nullable=False),  # begun, done or refused
    _word("code"),
    _number("begun"),
    _number("begun_index"),
    _number("ended"),
    _number("ended_index"),
    Index("pushes_serial", "serial"),
    Index("pushes_begun", "begun"),
    Index("pushes_grant", "grant"),
)
incidents: Final = Table(
    "incidents",
    metadata,
    _word("origin", primary_key=True),
    _word("id", primary_key=True),
    _word("kind", nullable=False),
    _word("subject", nullable=False),
    _word("device"),
    _word("records", nullable=False),  # indexes of what it concerns, a space between
    _word("own", nullable=False),  # indexes of its own records
    _word("decision", nullable=False),
    _flag("open", nullable=False),
    _number("time", nullable=False),
    _number("index", nullable=False),
    _number("released"),
    _word("released_by"),
    _number("released_index"),
    Index("incidents_open", "open", "time"),
)
doubts: Final = Table(
    "doubts",  # what others signed inside a record, and nobody here can vouch for
    metadata,
    _word("origin", primary_key=True),
    _number("index", primary_key=True, autoincrement=False),
    _word("what", primary_key=True),
    _word("code", nullable=False),
    _word("message", nullable=False),
    _number("time", nullable=False),
)
PRIMARY: Final = (ledger, stations, records, documents)
DERIVED: Final = (
    devices,
    components,
    reports,
    technicians,
    grants,
    revocations,
    epochs,
    grant_uses,
    trust_versions,
    releases,
    pushes,
    incidents,
    doubts,
)
