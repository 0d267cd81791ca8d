"""The factory side: give a device its keys, credentials, site and trust document, once; and open it again.

`provision` does all of it in one process, for emulated devices; over a line a device makes its own keys (`blank`), and
both end in `enrol`, which judges and stores. The device authority signs a credential for each key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from devguard.cose.roles import RoleName
from devguard.cose.sign import TYP_CREDENTIAL, Signer
from devguard.custody.memory import MemorySigner
from devguard.device.counters import Counters
from devguard.device.flash import Fault
from devguard.device.keys import from_pem, make_keys, to_pem
from devguard.device.node import DeviceNode, Identity, Surroundings
from devguard.device.storage import DeviceDirectory, StoredIdentity, StoredKey
from devguard.device.therapy import TherapyView
from devguard.errors import Refused
from devguard.grant.credential import DeviceCredential, check_credential, issue_credential, read_credential
from devguard.grant.cwt import judge_signers
from devguard.session.credentials import OwnCredential, by_suite
from devguard.session.enrolment import Name
from devguard.session.erasure import sign_erasure
from devguard.session.suites import PRODUCTION
from devguard.session.verbs import NONCE_SIZE
from devguard.trust.document import read_trust
from devguard.trust.model import TrustDocument, same_person


def provision(
    directory: DeviceDirectory,
    *,
    serial: str,
    revision: str,
    site: str | None,
    trust: bytes,
    authority: Signer | Sequence[Signer],
    issuer: str,
    now: int,
    random: Callable[[int], bytes],
) -> None:
    """Enrol the device in `directory`, its keys made here. Times in seconds since the epoch; raises as `enrol`."""
    facts, keys = directory.model.facts, make_keys()
    if revision not in facts.revisions:
        raise Refused("image.class", f"{facts.name} has no revision {revision}; it has {', '.join(facts.revisions)}")
    read_trust(trust)
    credentials = [
        issue_credential(
            authority,
            issuer=issuer,
            vendor=facts.vendor,
            model=facts.name,
            revision=revision,
            serial=serial,
            key=key.key,
            now=now,
        )
        for key in keys
    ]
    name = Name(facts.name, revision, serial, site)
    enrol(directory, name, trust=trust, keys=keys, credentials=credentials, now=now, random=random)


def enrol(
    directory: DeviceDirectory,
    name: Name,
    *,
    trust: bytes,
    keys: Sequence[MemorySigner],
    credentials: Sequence[bytes],
    now: int,
    random: Callable[[int], bytes],
) -> None:
    """Make the device in `directory` that device, durably, whole or not at all. `now`: seconds since the epoch.

    Raises `Refused`: `device.provisioned` the second time, the trust room's codes for a document that does not hold,
    `key.unknown`, `key.purpose` and the like when it does not let whoever signed enrol devices (such a device could
    never prove its serial), `device.identity` for a credential of another key or name, `signature.threshold` when a
    device that was decommissioned is enrolled anew by one person alone.
    """
    if directory.identity is not None:
        raise Refused("device.provisioned", f"{directory.path} belongs to device {directory.identity.serial}")
    document = read_trust(trust)
    if len(credentials) != len(keys):
        raise Refused("device.identity", f"{len(credentials)} credentials for {len(keys)} keys")
    for key, data in zip(keys, credentials, strict=True):
        credential = read_credential(data)
        found = check_credential(credential, document, now)
        wanted = (directory.model.facts.vendor, name.model, name.revision, name.serial, key.key.thumbprint)
        if (found.vendor, found.model, found.revision, found.serial, found.key.thumbprint) != wanted:
            raise Refused("device.identity", f"a credential of {found.model} {found.serial}, or of another key")
        if directory.erasing.begun:
            _check_two(credential, document, now)
    stored = tuple(StoredKey(to_pem(key), data) for key, data in zip(keys, credentials, strict=True))
    identity = StoredIdentity(name.model, name.revision, name.serial, name.site, stored)
    first = factory_counters(directory.counters.load(), document, random(NONCE_SIZE))
    directory.provision(identity, trust, first.event(document.issued, "enrolled", None, document.digest))


def _check_two(credential: DeviceCredential, document: TrustDocument, now: int) -> None:
    """A device that was somebody's is nobody else's on one person's word."""
    signers = judge_signers(
        credential.token,
        typ=TYP_CREDENTIAL,
        role=RoleName.DEVICE_AUTHORITY,
        trust=document,
        now=now,
        invalid="signature.invalid",
        lacking="signature.threshold",
    )
    if len({same_person(one.person) for one in signers}) < 2:
        raise Refused("signature.threshold", "a decommissioned device is enrolled anew by two persons, and one signed")


def factory_counters(before: Counters, document: TrustDocument, nonce: bytes) -> Counters:
    """What a device counts from once it is enrolled. What guards against old firmware stays as it was, and so do spent
    grants and the audit ring; what came from another trust document begins with this one."""
    return replace(
        before,
        clock_floor=document.issued,
        grant_epoch=0,
        trust_version=document.version,
        epoch_reset=None,
        nonce=nonce,
        failed_handshakes=0,
        settings_before=None,
        history_before=None,
    )


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
    owns = [OwnCredential.kcwt(key.credential, from_pem(key.pem)) for key in stored.keys]
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
        lambda content: directory.decommission(content, lambda said: sign_erasure(said, owns[0].sign)),
    )
