"""Campaigns: their plans, rings and devices, and what benches said became of each."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NUMBER, _BYTES, _FLAG = sa.BigInteger(), sa.LargeBinary(), sa.Boolean(create_constraint=False)
_TABLES = ("campaign_outcomes", "campaign_devices", "campaign_rings", "campaigns")


def _column(name: str, kind: Any, *, null: bool = True) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null)


def _must(name: str, kind: Any) -> sa.Column[Any]:
    return _column(name, kind, null=False)


def _of_campaign() -> sa.Column[Any]:
    return sa.Column("campaign", _WORD, sa.ForeignKey("campaigns.name"), nullable=False)


def upgrade() -> None:
    """The four tables."""
    op.create_table(
        "campaigns",
        _must("name", _WORD),
        _must("state", _WORD),
        _must("model", _WORD),
        _must("version", _WORD),
        _must("sequence", _NUMBER),
        _must("digest", _BYTES),
        _must("file", _WORD),
        _must("plan", _WORD),
        _must("devices", _NUMBER),
        _must("created", _NUMBER),
        _must("created_by", _WORD),
        _column("started", _NUMBER),
        _must("changed", _NUMBER),
        _must("changed_by", _WORD),
        _column("reason", _WORD),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "campaign_rings",
        _of_campaign(),
        _must("number", _NUMBER),
        _must("name", _WORD),
        _column("opened", _NUMBER),
        _column("opened_by", _WORD),
        sa.PrimaryKeyConstraint("campaign", "number"),
    )
    _devices()


def _devices() -> None:
    op.create_table(
        "campaign_devices",
        _of_campaign(),
        _must("serial", _WORD),
        _must("ring", _NUMBER),
        _column("site", _WORD),
        _must("phase", _WORD),
        _must("tries", _NUMBER),
        _column("lease", _WORD),
        _column("lease_by", _WORD),
        _column("lease_until", _NUMBER),
        _column("code", _WORD),
        _column("ended", _NUMBER),
        _column("evidence", _BYTES),
        sa.PrimaryKeyConstraint("campaign", "serial"),
    )
    op.create_index("campaign_devices_phase", "campaign_devices", ["campaign", "phase", "ring", "tries", "serial"])
    op.create_index("campaign_devices_serial", "campaign_devices", ["serial"])
    op.create_table(
        "campaign_outcomes",
        _of_campaign(),
        _must("lease", _WORD),
        _must("serial", _WORD),
        _must("outcome", _WORD),
        _column("code", _WORD),
        _must("by", _WORD),
        _must("time", _NUMBER),
        _must("counted", _FLAG),
        sa.PrimaryKeyConstraint("campaign", "lease"),
    )
    op.create_index("campaign_outcomes_serial", "campaign_outcomes", ["campaign", "serial"])


def downgrade() -> None:
    """None of them: plans and counts are gone, what was signed stays in the ledger."""
    for name in _TABLES:
        op.drop_table(name)
