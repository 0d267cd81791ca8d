"""What every process of a simulated campaign has to know, and the pieces that all make alike from it.

Keys, trust, release and grants are those of the bench's stage: throw-away, from seeds, for development. No port is
opened and no real device is in it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from devguard.bench import stage
from devguard.campaign.plan import Chosen, Goal, Limit, Opening, Plan, Ring, StopRule
from devguard.cose.roles import RoleName
from devguard.cose.sign import Signer
from devguard.custody.files import read_limited
from devguard.device.models import load_model
from devguard.errors import Malformed
from devguard.grant.claims import ANY, Action, Scope, issue_grant

NAME: Final = "simulation"
MODEL: Final = "insulin-pump"
IMAGE_BYTES: Final = 4096
OLD: Final = hashlib.sha256(b"devguard bench/the release before").digest()
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


def build() -> stage.Build:
    """The release that the campaign brings."""
    return stage.build(load_model(MODEL).facts, IMAGE_BYTES, "1.1.0", 2, 1)


def goal() -> Goal:
    """The same, as a campaign knows it."""
    return Goal(MODEL, "1.1.0", 2, build().envelope.manifest_digest, "simulation.suit")


def device_signer(serial: str) -> Signer:
    """The device's own key."""
    return stage.signer(f"device/{serial}")


def grant_for(serial: str) -> bytes:
    """The one grant for the device: for one use, by the stage's authority, always the same bytes."""
    scope = Scope(
        models=frozenset({MODEL}),
        serials=frozenset({serial}),
        sites=frozenset({ANY}),
        actions=frozenset({Action.UPDATE}),
        epoch=0,
        any_release=True,
        max_uses=1,
    )
    return issue_grant(
        [stage.signer_of(RoleName.TECHNICIAN_AUTHORITY)],
        issuer="Bench Authority",
        subject=stage.TECHNICIANS[0],
        holder=stage.signer(stage.TECHNICIANS[0]).key,
        scope=scope,
        now=stage.NOW,
        expires=stage.NOW + stage.DAY // 3,
        cti=hashlib.sha256(f"simulation/{serial}".encode()).digest()[:16],
    )
