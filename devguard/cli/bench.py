"""`devguard bench`: what the protocol, the line and the flash can take, measured on emulated devices. Never a push."""

from __future__ import annotations

from typing import Final

import click

from devguard.cli.context import LazyGroup

_CLI: Final = "devguard.cli"
TABLE: dict[str, tuple[str, str, str]] = {
    "attacks": (f"{_CLI}.bench_attacks", "attacks", "Every attack of the catalogue; which are held?"),
    "campaign": (f"{_CLI}.bench_campaign", "campaign", "A campaign on many light devices; is anything done twice?"),
    "link": (f"{_CLI}.bench_link", "link", "How much of a line a push uses, on a clean line and on a bad one."),
    "power-cuts": (
        f"{_CLI}.bench_power",
        "power_cuts",
        "The power goes at every step; what does the device become?",
    ),
}


@click.group(cls=LazyGroup, table=TABLE)
def bench() -> None:
    """Measure and attack devguard itself on emulated devices; no real port is opened, nothing at home is touched."""
