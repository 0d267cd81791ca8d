"""The first tables: what stations said, and what is derived from it."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NUMBER, _BYTES, _FLAG = sa.BigInteger(), sa.LargeBinary(), sa.Boolean(create_constraint=False)


def _column(name: str, kind: Any, *, null: bool = True) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null, autoincrement=False)


def _must(name: str, kind: Any) -> sa.Column[Any]:
    return _column(name, kind, null=False)


def upgrade() -> None:
    """All of them, and the one row that names the store."""
    _ledger()
    _stations()
    _records()
    _documents()
    _devices()
    _components()
    _reports()
    _technicians()
    _grants()
    _revocations()
    _epochs()
    _grant_uses()
    _trust_versions()
    _releases()
    _pushes()
    _incidents()
    _doubts()
    statement = sa.text("INSERT INTO ledger (id, store, generation) VALUES (1, :store, 0)")
    op.execute(statement.bindparams(store=os.urandom(16).hex()))


def downgrade() -> None:
    """None of them."""
    for name in _TABLES:
        op.drop_table(name)


def _ledger() -> None:
    op.create_table(
        "ledger",
        _must("id", _NUMBER),
        _must("store", _WORD),
        _must("generation", _NUMBER),
        sa.PrimaryKeyConstraint("id"),
    )


def _stations() -> None:
    op.create_table(
        "stations",
        _must("origin", _WORD),
        _must("key", _BYTES),
        _must("thumbprint", _BYTES),
        _column("name", _WORD),
        _must("records", _NUMBER),
        _must("root", _BYTES),
        _must("frontier", _BYTES),
        _column("note", _BYTES),
        _column("latest", _NUMBER),
        _column("seen", _NUMBER),
        sa.PrimaryKeyConstraint("origin"),
    )


def _records() -> None:
    op.create_table(
        "records",
        _must("origin", _WORD),
        _must("index", _NUMBER),
        _must("entry", _BYTES),
        sa.ForeignKeyConstraint(["origin"], ["stations.origin"]),
        sa.PrimaryKeyConstraint("origin", "index"),
    )


def _documents() -> None:
    op.create_table(
        "documents",
        _must("digest", _BYTES),
        _must("version", _NUMBER),
        _must("document", _BYTES),
        sa.PrimaryKeyConstraint("digest"),
    )


def _devices() -> None:
    op.create_table(
        "devices",
        _must("serial", _WORD),
        _column("model", _WORD),
        _column("version", _WORD),
        _column("sequence", _NUMBER),
        _column("security_version", _NUMBER),
        _column("boot_state", _WORD),
        _column("confirmed", _FLAG),
        _column("flags", _WORD),
        _column("trust_version", _NUMBER),
        _column("image_digest", _BYTES),
        _column("manifest_digest", _BYTES),
        _column("report_digest", _BYTES),
        _column("reported", _NUMBER),
        _column("report_origin", _WORD),
        _column("report_index", _NUMBER),
        _must("seen", _NUMBER),
        _must("station", _WORD),
        _must("index", _NUMBER),
        _column("site", _WORD),
        _column("site_time", _NUMBER),
        _column("site_origin", _WORD),
        _column("site_index", _NUMBER),
        _column("changed", _WORD),
        _column("changed_time", _NUMBER),
        _column("changed_origin", _WORD),
        _column("changed_index", _NUMBER),
        _column("life", _WORD),
        _column("life_time", _NUMBER),
        _column("life_origin", _WORD),
        _column("life_index", _NUMBER),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("devices_model", "devices", ["model", "serial"])
    op.create_index("devices_reported", "devices", ["reported", "serial"])


def _components() -> None:
    op.create_table(
        "components",
        _must("report", _BYTES),
        _must("place", _NUMBER),
        _must("id", _WORD),
        _must("digest", _BYTES),
        _must("size", _NUMBER),
        sa.PrimaryKeyConstraint("report", "place"),
    )


def _reports() -> None:
    op.create_table(
        "reports",
        _must("digest", _BYTES),
        _must("serial", _WORD),
        _must("model", _WORD),
        _must("version", _WORD),
        _must("sequence", _NUMBER),
        _must("security_version", _NUMBER),
        _must("boot_state", _WORD),
        _must("confirmed", _FLAG),
        _column("manifest_digest", _BYTES),
        _must("time", _NUMBER),
        _must("origin", _WORD),
        _must("index", _NUMBER),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("reports_serial", "reports", ["serial", "time"])


def _technicians() -> None:
    op.create_table(
        "technicians",
        _must("person", _WORD),
        _must("shown", _WORD),
        _column("name", _WORD),
        _column("holder", _WORD),
        _column("sites", _WORD),
        _column("training", _WORD),
        _column("listed", _NUMBER),
        _column("listed_origin", _WORD),
        _column("listed_index", _NUMBER),
        _column("granted", _NUMBER),
        _column("granted_origin", _WORD),
        _column("granted_index", _NUMBER),
        _must("suspended", _FLAG),
        _column("reason", _WORD),
        _column("said", _NUMBER),
        _column("said_origin", _WORD),
        _column("said_index", _NUMBER),
        sa.PrimaryKeyConstraint("person"),
    )


def _grants() -> None:
    op.create_table(
        "grants",
        _must("digest", _BYTES),
        _column("cti", _BYTES),
        _column("technician", _WORD),
        _column("holder", _WORD),
        _column("issuer", _WORD),
        _column("models", _WORD),
        _column("serials", _WORD),
        _column("sites", _WORD),
        _column("epoch", _NUMBER),
        _column("expires", _NUMBER),
        _column("max_uses", _NUMBER),
        _column("parent", _BYTES),
        _must("proved", _FLAG),
        _must("time", _NUMBER),
        _must("origin", _WORD),
        _must("index", _NUMBER),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("grants_cti", "grants", ["cti"])
    op.create_index("grants_expires", "grants", ["expires"])


def _revocations() -> None:
    op.create_table(
        "revocations",
        _must("cti", _BYTES),
        _column("reason", _WORD),
        _must("time", _NUMBER),
        _must("origin", _WORD),
        _must("index", _NUMBER),
        sa.PrimaryKeyConstraint("cti"),
    )


def _epochs() -> None:
    op.create_table(
        "epochs",
        _must("epoch", _NUMBER),
        _column("reason", _WORD),
        _must("time", _NUMBER),
        _must("origin", _WORD),
        _must("index", _NUMBER),
        sa.PrimaryKeyConstraint("epoch"),
    )


def _grant_uses() -> None:
    op.create_table(
        "grant_uses",
        _must("grant", _BYTES),
        _must("serial", _WORD),
        _must("release", _BYTES),
        _must("request", _WORD),
        _must("time", _NUMBER),
        _must("origin", _WORD),
        _must("index", _NUMBER),
        sa.PrimaryKeyConstraint("grant", "serial", "release"),
    )
    op.create_index("grant_uses_serial", "grant_uses", ["serial"])


def _trust_versions() -> None:
    op.create_table(
        "trust_versions",
        _must("origin", _WORD),
        _must("digest", _BYTES),
        _must("version", _NUMBER),
        _must("time", _NUMBER),
        _must("index", _NUMBER),
        sa.PrimaryKeyConstraint("origin", "digest"),
    )
    op.create_index("trust_versions_version", "trust_versions", ["version"])


def _releases() -> None:
    op.create_table(
        "releases",
        _must("model", _WORD),
        _must("version", _WORD),
        _must("since", _NUMBER),
        _column("sequence", _NUMBER),
        _column("digest", _BYTES),
        _column("supported_until", _NUMBER),
        _column("parts_until", _NUMBER),
        _column("first_part", _WORD),
        _must("revoked", _FLAG),
        _column("time", _NUMBER),
        _column("origin", _WORD),
        _column("index", _NUMBER),
        _column("support_time", _NUMBER),
        _column("support_origin", _WORD),
        _column("support_index", _NUMBER),
        _column("parts_time", _NUMBER),
        _column("parts_origin", _WORD),
        _column("parts_index", _NUMBER),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_index("releases_digest", "releases", ["digest"])


def _pushes() -> None:
    op.create_table(
        "pushes",
        _must("origin", _WORD),
        _must("request", _WORD),
        _must("action", _WORD),
        _must("actor", _WORD),
        _column("serial", _WORD),
        _column("release", _WORD),
        _column("manifest_digest", _BYTES),
        _column("grant", _BYTES),
        _must("state", _WORD),
        _column("code", _WORD),
        _column("begun", _NUMBER),
        _column("begun_index", _NUMBER),
        _column("ended", _NUMBER),
        _column("ended_index", _NUMBER),
        sa.PrimaryKeyConstraint("origin", "request"),
    )
    op.create_index("pushes_begun", "pushes", ["begun"])
    op.create_index("pushes_grant", "pushes", ["grant"])
    op.create_index("pushes_serial", "pushes", ["serial"])


def _incidents() -> None:
    op.create_table(
        "incidents",
        _must("origin", _WORD),
        _must("id", _WORD),
        _must("kind", _WORD),
        _must("subject", _WORD),
        _column("device", _WORD),
        _must("records", _WORD),
        _must("own", _WORD),
        _must("decision", _WORD),
        _must("open", _FLAG),
        _must("time", _NUMBER),
        _must("index", _NUMBER),
        _column("released", _NUMBER),
        _column("released_by", _WORD),
        _column("released_index", _NUMBER),
        sa.PrimaryKeyConstraint("origin", "id"),
    )
    op.create_index("incidents_open", "incidents", ["open", "time"])


def _doubts() -> None:
    op.create_table(
        "doubts",
        _must("origin", _WORD),
        _must("index", _NUMBER),
        _must("what", _WORD),
        _must("code", _WORD),
        _must("message", _WORD),
        _must("time", _NUMBER),
        sa.PrimaryKeyConstraint("origin", "index", "what"),
    )


_TABLES = (
    "doubts",
    "incidents",
    "pushes",
    "releases",
    "trust_versions",
    "grant_uses",
    "epochs",
    "revocations",
    "grants",
    "technicians",
    "reports",
    "components",
    "devices",
    "documents",
    "records",
    "stations",
    "ledger",
)
