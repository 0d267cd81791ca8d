"""`devguard campaign queue`: moves campaigns on while nobody sits at a bench, as a worker of the group's queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation
from devguard.cli.ledger_store import open_store
from devguard.cli.record import recorded

if TYPE_CHECKING:
    from devguard.campaign.advance import Advance
    from devguard.ledger.store import Store


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Move every campaign on once and end; needs no queue, so SQLite is enough.")
@click.pass_obj
def queue(invocation: Invocation, once: bool) -> None:
    """Move every running campaign on each minute: evidence, leases, stop rule, rings. Runs until it is interrupted.

    Benches do the same whenever they take a device; this is for rings that ought to open, and rules that ought to
    stop, while no bench is at work. Several may run at once.
    """
    with recorded(invocation, "campaign.queue") as note, open_store(invocation, create=True) as store:
        if once:
            from devguard.campaign.advance import advance_all

            rows = {name: _shown(done) for name, done in advance_all(store, invocation.now()).items()}
            note.details |= {name: row["state"] for name, row in rows.items()}
            note.commit()
        else:
            _work(invocation, store, note.commit)
            rows = {}
    text = "\n".join(f"{name}: {row['state']}" for name, row in rows.items())
    invocation.result({"campaigns": rows}, text or ("no campaign runs" if once else "stopped"))


def _shown(done: Advance) -> dict[str, Any]:
    return {
        "state": done.state.value,
        "confirmed": done.confirmed,
        "expired": done.expired,
        "opened": list(done.opened),
        "stopped": done.stopped,
    }


def _work(invocation: Invocation, store: Store, begun: Any) -> None:
    import logging

    from devguard.campaign.package import need_queue

    need_queue()
    from devguard.campaign.queue import Queue

    for name in ("procrastinate", "psycopg.pool"):  # what goes wrong is raised, and said once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    one = Queue(store)
    one.prepare()
    begun()
    invocation.note(f"campaigns of {store.name} move on each minute; an interrupt ends this")
    one.work()
