"""devguard: only firmware the manufacturer released, pushed by a technician who may, reaches the device.

The whole story, each step from its own room:

    trust = devguard.read_trust(Path("current.trust").read_bytes())
    with open("pump-1.1.0.suit", "rb") as file:
        envelope = devguard.read_envelope(file)
    verdict = devguard.judge(envelope, trust=trust, now=now, target=devguard.Target(), payload=measured)
    release = verdict.require()                       # or raises Refused with its code
    grant = devguard.check_grant(one, trust=trust, now=now, device=view, action=action, holder=key)
    session = devguard.UpdateSession(release, grant, bench, devguard.sever(envelope), payload)
    runner.run(session.push())                        # the device judges all of it again by itself

Names are loaded when they are used, so importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "DevguardError": "devguard.errors",
    "Malformed": "devguard.errors",
    "Refused": "devguard.errors",
    "DeviceRefused": "devguard.errors",
    "LinkError": "devguard.errors",
    "CoseKey": "devguard.cose.keys",
    "Signer": "devguard.cose.sign",
    "Measured": "devguard.image.measure",
    "measure": "devguard.image.measure",
    "Envelope": "devguard.manifest.envelope",
    "read_envelope": "devguard.manifest.envelope",
    "sever": "devguard.manifest.envelope",
    "TrustDocument": "devguard.trust.document",
    "read_trust": "devguard.trust.document",
    "Release": "devguard.verdict.judge",
    "Target": "devguard.verdict.judge",
    "Verdict": "devguard.verdict.judge",
    "judge": "devguard.verdict.judge",
    "CheckedGrant": "devguard.grant.check",
    "check_grant": "devguard.grant.check",
    "read_grant": "devguard.grant.claims",
    "EvidenceLog": "devguard.evidence.log",
    "UpdateSession": "devguard.session.update",
    "ScriptRunner": "devguard.link.runner",
    "SerialDriver": "devguard.link.driver",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'devguard' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
