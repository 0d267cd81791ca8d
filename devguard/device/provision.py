"""The factory side: give a device its keys, credentials, site and trust document, once; and open it again.

Keys are random and made for this device alone, one P-256 and one Ed25519, so that technicians with either kind can
open a session (method 0 signs with one algorithm on both sides). The device authority signs both credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives import serialization

from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import Signer
from devguard.custody.memory import MemorySigner
from devguard.device.flash import Fault
from devguard.device.node import DeviceNode, Identity, Surroundings
from devguard.device.storage import DeviceDirectory, StoredIdentity, StoredKey
from devguard.device.therapy import TherapyView
from devguard.errors import Malformed, Refused
from devguard.grant.credential import check_credential, issue_credential, read_credential
from devguard.session.credentials import OwnCredential, by_suite
from devguard.session.suites import PRODUCTION
from devguard.session.verbs import NONCE_SIZE
from devguard.trust.document import read_trust

KEY_ALGORITHMS: Final = (Algorithm.ESP256, Algorithm.ED25519)


def provision(
    directory: DeviceDirectory,
    *,
    serial: str,
    revision: str,
    site: str | None,
    trust: bytes,
    authority: Signer,
    issuer: str,
    now: int,
    random: Callable[[int], bytes],
) -> None:
    """Enrol the device in `directory`. Times in seconds since the epoch.

    Raises `Refused`: `device.provisioned` the second time, `image.class` for a revision the model does not have, the
    trust room's codes for a document that does not hold, and `key.unknown` or `key.purpose` when it does not let
    `authority` enrol devices: such a device could never prove its serial.
    """
    document = read_trust(trust)
    facts = directory.model.facts
    if revision not in facts.revisions:
        raise Refused("image.class", f"{facts.name} has no revision {revision}; it has {', '.join(facts.revisions)}")
    keys = []
    for algorithm in KEY_ALGORITHMS:
        signer = MemorySigner.generate(algorithm)
        credential = issue_credential(
            authority,
            issuer=issuer,
            vendor=facts.vendor,
            model=facts.name,
            revision=revision,
            serial=serial,
            key=signer.key,
            now=now,
        )
        check_credential(read_credential(credential), document, now)
        keys.append(StoredKey(_pem(signer), credential))
    counters = directory.counters.load()
    if directory.identity is None:
        # The factory sets the floor itself: the step rule is for devices in the field.
        first = replace(counters, clock_floor=document.issued, trust_version=document.version, nonce=random(NONCE_SIZE))
        directory.counters.save(first)
    directory.provision(StoredIdentity(facts.name, revision, serial, site, tuple(keys)), trust)


def open_node(
    directory: DeviceDirectory, surroundings: Surroundings, therapy: TherapyView, fault: Fault | None = None
) -> DeviceNode:
    """The provisioned device of a state directory, not booted yet.

    `Refused("device.unprovisioned")` for any other, `trust.rollback` where the trust document was set back.
    """
    stored = directory.identity
    if stored is None:
        raise Refused("device.unprovisioned", f"{directory.path} holds no provisioned device")
    trust = read_trust(directory.trust())
    if trust.version < directory.counters.load().trust_version:
        raise Refused("trust.rollback", f"the stored trust document, version {trust.version}, was put back")
    owns = [OwnCredential.kcwt(key.credential, _signer(key.pem)) for key in stored.keys]
    credentials = by_suite(PRODUCTION, *owns)
    identity = Identity(stored.serial, stored.revision, stored.site, credentials, owns[0].sign)
    return DeviceNode(
        directory.model,
        identity,
        trust,
        directory.flash(fault),
        directory.counters,
        therapy,
        surroundings,
        directory.save_trust,
    )


def _pem(signer: MemorySigner) -> bytes:
    pem: bytes = signer.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def _signer(pem: bytes) -> MemorySigner:
    try:
        return MemorySigner(serialization.load_pem_private_key(pem, None))
    except (ValueError, TypeError) as error:
        raise Malformed("device.state", "a stored device key does not parse") from error
