"""Whether SQLAlchemy, Alembic and a driver are here. The rest of devguard works without them; the ledger does not."""

from __future__ import annotations

import importlib.util

from devguard.errors import Refused


def need_ledger() -> None:
    """Return when the packages of the extra `ledger` can be imported, else `Refused("ledger.package")`."""
    for name in ("sqlalchemy", "alembic"):
        if importlib.util.find_spec(name) is None:
            raise Refused("ledger.package", f"the ledger needs the {name} package, which is not installed here")


def need_postgresql() -> None:
    """Return when PostgreSQL can be spoken to, else `Refused("ledger.package")`: the extra `group` brings psycopg."""
    if importlib.util.find_spec("psycopg") is None:
        raise Refused(
            "ledger.package",
            "a store on PostgreSQL needs the psycopg package, which is not installed here",
            "pip install 'devguard[group]'",
        )
