"""`devguard campaign`: one release to many devices, in rings and hours, with a rule that stops it. Never a push by
itself: `campaign work` is a technician at a bench, with a key and a grant."""

from __future__ import annotations

from typing import Final

import click

from devguard.cli.context import LazyGroup

_CLI: Final = "devguard.cli"
TABLE: dict[str, tuple[str, str, str]] = {
    "new": (f"{_CLI}.campaign_new", "new", "A campaign from a plan, as a draft."),
    "start": (f"{_CLI}.campaign_order", "start", "Start a draft, or go on with one that was paused."),
    "open": (f"{_CLI}.campaign_order", "open_ring", "Open the next ring by a person's word."),
    "pause": (f"{_CLI}.campaign_order", "pause", "Hand out nothing until it is started again."),
    "stop": (f"{_CLI}.campaign_order", "stop", "End it for good; who waits is left out."),
    "skip": (f"{_CLI}.campaign_order", "skip", "Leave one device out for good."),
    "status": (f"{_CLI}.campaign_show", "status", "All campaigns, or how one stands."),
    "work": (f"{_CLI}.campaign_work", "work", "A technician at a bench takes due devices, one after the other."),
    "queue": (f"{_CLI}.campaign_queue", "queue", "Move campaigns on while no bench is at work."),
    "report": (f"{_CLI}.campaign_show", "report", "What became of every device, added up and checked."),
}


@click.group(cls=LazyGroup, table=TABLE)
def campaign() -> None:
    """Bring one release to many devices, in rings; behind every push stand a technician and a grant."""
