"""A bench without a conscience: it skips every check of its own, and sees what the device does about it."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from typing import Any

import pytest

from builders import NOW, make_signer
from devguard.cose.algorithms import Algorithm
from devguard.errors import DeviceRefused
from devguard.grant.chain import delegate_grant
from devguard.grant.claims import Grant, read_grant
from devguard.session.approval import LIFETIME, ApprovalRequest, sign_approval
from devguard.session.verbs import (
    Accept,
    Approve,
    Commit,
    Data,
    Done,
    Durable,
    EdhocFailure,
    Offer,
    Reboot,
    RefusedReply,
    Verb,
)
from sim.bench import (
    PROGRAMMER,
    TESS,
    TOM,
    Build,
    Device,
    Pipe,
    Technician,
    build,
    grant,
)
from sim.state import snapshot


def with_old(**fields: Any) -> tuple[Device, Build]:
    """A device that runs release 1, confirmed, an hour ago."""
    device = Device(**fields)
    old = build(device, "1.0.0", 1, 3000)
    one = grant(device)
    pipe = Pipe(device)
    session = pipe.connect(one)
    approve(pipe, session, device, old, one)
    send(pipe, old)
    device.fresh_hour()
    assert device.runs(old)
    return device, old


def approve(
    pipe: Pipe, session: Any, device: Device, what: Build, first: Grant, second: Grant | None = None, **change: Any
) -> None:
    """The second technician's yes, where the model asks for one."""
    if device.model.facts.technicians < 2 and second is None:
        return
    second = second or grant(device, TOM)
    signer = change.pop("signer", TOM.signer)
    request = ApprovalRequest(
        session.session_id,
        device.serial,
        what.manifest_digest,
        "update",
        hashlib.sha256(first.untagged).digest(),
        device.clock + LIFETIME,
    )
    signed = sign_approval(replace(request, **change), signer, hashlib.sha256(second.untagged).digest())
    assert pipe.ask(Approve(signed, second.untagged)) == Done(int(Verb.APPROVE))


def send(pipe: Pipe, what: Build, *, image: bytes | None = None, commit: bool = True) -> Any:
    """Offer, data, commit, reboot without asking anybody; the last answer."""
    image = what.image if image is None else image
    answer = pipe.ask(Offer(what.offer))
    if not isinstance(answer, Accept):
        return answer
    for at in range(answer.resume_offset, len(image), 4096):
        answer = pipe.ask(Data(at, image[at : at + 4096]))
        if not isinstance(answer, Durable):
            return answer
    if commit:
        answer = pipe.ask(Commit(what.manifest_digest))
        if isinstance(answer, Done):
            answer = pipe.ask(Reboot())
    return answer


def refusal(answer: Any) -> str:
    """The code of a refusal."""
    assert isinstance(answer, (RefusedReply, EdhocFailure)), answer
    return answer.code


def refused_offer(device: Device, what: Build | bytes, one: Grant | None = None, technician: Technician = TESS) -> str:
    """A hostile bench's offer in a good session; the refusal's code, after making sure that nothing was touched."""
    pipe = Pipe(device)
    pipe.connect(one or grant(device, technician), technician)
    before = snapshot(device)
    code = refusal(pipe.ask(Offer(what if isinstance(what, bytes) else what.offer)))
    after = snapshot(device)
    assert after.all_but_log == before.all_but_log
    assert after.log == before.log + 1
    return code


def refused_handshake(device: Device, one: Grant, technician: Technician = TESS) -> str:
    """A handshake with that grant and key; the device's code, after making sure that nothing was touched."""
    before = snapshot(device)
    pipe = Pipe(device)
    with pytest.raises(DeviceRefused) as error:
        pipe.connect(one, technician)
    after = snapshot(device)
    assert after.all_but_log == before.all_but_log
    assert (after.log, after.failed) == (before.log + 1, before.failed + 1)
    assert pipe.session is None
    assert pipe.ask(Offer(build(device).offer)) is None
    return error.value.code


def fresh() -> Device:
    return with_old()[0]


def delegated(parent: Grant, by: Technician, to: Technician, *, now: int = NOW, **fields: Any) -> Grant:
    """A narrower grant by the holder of `parent`."""
    given = {"subject": to.name, "holder": to.signer.key, "scope": parent.scope, "now": now, "expires": parent.expires}
    return read_grant(delegate_grant(parent, by.signer, cti=next(_ctis).to_bytes(16, "big"), **{**given, **fields}))


THIEF = Technician("Thief", make_signer(Algorithm.ESP256, "thief"))
_ctis = itertools.count(1 << 64)


def busy(device: Device) -> None:
    if device.model.name == PROGRAMMER:
        device.therapy.start_session(NOW)
    else:
        device.therapy.start_bolus(5000, NOW)
