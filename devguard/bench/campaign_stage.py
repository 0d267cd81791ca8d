"""Keys, trust, release and grants of a simulated campaign: the bench's stage. Throw-away, from seeds, for development.

No port is opened and no real device is in it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from devguard.bench import stage
from devguard.bench.campaign_setup import MODEL
from devguard.campaign.plan import Goal
from devguard.cose.roles import RoleName
from devguard.cose.sign import Signer
from devguard.device.models import load_model
from devguard.grant.claims import ANY, Action, Scope, issue_grant

IMAGE_BYTES: Final = 4096
OLD: Final = hashlib.sha256(b"devguard bench/the release before").digest()


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
