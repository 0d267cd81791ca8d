"""What every process of a simulated campaign has to know. It imports little: workers are started often.

`campaign_stage` has the keys, the trust, the release and the grants.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from devguard.campaign.plan import Chosen, Limit, Opening, Plan, Ring, StopRule
from devguard.custody.files import read_limited
from devguard.errors import Malformed

NAME: Final = "simulation"
MODEL: Final = "insulin-pump"
LIMIT: Final = 65_536


@dataclass(frozen=True, slots=True)
class Setup:
    """One simulated campaign. socket: where the devices answer; store: the URL of the database; install: seconds that
    an emulated push takes; lease: seconds, after which a worker is taken for dead too; twice: how often, of 100, an
    outcome is delivered twice."""

    store: str
    socket: str
    devices: int
    seed: int = 1
    install: float = 0.0
    lease: int = 5
    twice: int = 0

    def write(self, path: Path) -> None:
        """As the file that a process of the simulation is started with."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Setup:
        """From that file; `Malformed("description.malformed")`."""
        try:
            return cls(**json.loads(read_limited(path, LIMIT)))
        except (ValueError, TypeError) as error:
            raise Malformed("description.malformed", f"{path}: {error}") from None

    def serials(self) -> list[str]:
        """The serial numbers of all devices."""
        return [f"SIM-{self.seed}-{number:05d}" for number in range(self.devices)]


def site_of(number: int) -> str:
    """Where the device of that number stands: five hundred to a site."""
    return f"site-{number // 500}"


def plan_of(setup: Setup) -> Plan:
    """Three rings: one device of a hundred, ten of a hundred, all; the later ones open by themselves."""
    first, second = max(setup.devices // 200, 1), max(setup.devices // 20, 1)
    rings = (
        Ring("bench", share=1),
        Ring("ward", share=10, opening=Opening(first, 0)),
        Ring("all", opening=Opening(second, 0)),
    )
    stop = StopRule(failures=Limit(percent=50), refusals=Limit(percent=50))
    return Plan(NAME, Chosen(MODEL), rings, stop, lease=setup.lease, tries=10)
