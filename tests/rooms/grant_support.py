"""Grants for tests: one vendor, one technician, a scope that covers one pump, and shortcuts to issue and to check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builders import NOW, make_signer, make_vendor
from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.grant.check import CheckedGrant, DeviceView, check_grant
from devguard.grant.claims import ANY, Action, Grant, Scope, issue_grant, read_grant
from devguard.manifest.model import Clock

VENDOR = make_vendor("grants", grant_epoch=3)
AUTHORITY = VENDOR.signer(RoleName.TECHNICIAN_AUTHORITY)
TESS = make_signer(Algorithm.ESP256, "tess")
TOM = make_signer(Algorithm.ED25519, "tom")
HOUR = 3600
CTI = b"0123456789abcdef"
NONCE = b"nonce-of-the-device"

SCOPE = Scope(
    models=frozenset({"insulin-pump"}),
    serials=frozenset({"IP-0001"}),
    sites=frozenset({ANY}),
    actions=frozenset({Action.UPDATE}),
    epoch=3,
    any_release=True,
)
DEVICE = DeviceView(
    model="insulin-pump", serial="IP-0001", site="ward-4", clock=Clock.RTC, epoch=3, nonces=frozenset({NONCE})
)


def make_grant(scope: Scope = SCOPE, **fields: Any) -> Grant:
    """A grant of Tess's, valid from NOW for eight hours; `signers` and the fields of `issue_grant` may differ."""
    given: dict[str, Any] = {
        "issuer": "authority.example",
        "subject": "Tess Technician",
        "holder": TESS.key,
        "now": NOW,
        "expires": NOW + 8 * HOUR,
        "cti": CTI,
        **fields,
    }
    signers = given.pop("signers", [AUTHORITY])
    return read_grant(issue_grant(signers, scope=scope, **given))


def scoped(**fields: Any) -> Scope:
    """The usual scope with other fields."""
    return replace(SCOPE, **fields)


def check(
    grant: Grant,
    *,
    now: int = NOW,
    device: DeviceView = DEVICE,
    action: Action = Action.UPDATE,
    holder: CoseKey | None = TESS.key,
    trust: Any = VENDOR.trust,
) -> CheckedGrant:
    """`check_grant` with the usual device, action and holder."""
    return check_grant(grant, trust=trust, now=now, device=device, action=action, holder=holder)
