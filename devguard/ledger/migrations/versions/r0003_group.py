"""What stations of a group share: uses of grants that are held, and signed lists of suspensions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NUMBER, _BYTES, _FLAG = sa.BigInteger(), sa.LargeBinary(), sa.Boolean(create_constraint=False)


def _must(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    """The two tables."""
    op.create_table(
        "uses",
        _must("under", _BYTES),
        _must("number", _NUMBER),
        _must("grant", _BYTES),
        _must("action", _WORD),
        _must("release", _BYTES),
        _must("serial", _WORD),
        _must("spent", _FLAG),
        _must("origin", _WORD),
        _must("request", _WORD),
        _must("time", _NUMBER),
        _must("until", _NUMBER),
        sa.PrimaryKeyConstraint("under", "number"),
    )
    op.create_table(
        "lists",
        _must("digest", _BYTES),
        _must("issued", _NUMBER),
        _must("list", _BYTES),
        _must("origin", _WORD),
        _must("time", _NUMBER),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("lists_issued", "lists", ["issued"])


def downgrade() -> None:
    """None of them."""
    op.drop_table("lists")
    op.drop_table("uses")
