"""Two persons, either kind of key, one device: what a word is good for, how long, and towards whom."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from builders import NOW
from devguard.cose.sign import read_sign1
from devguard.errors import Refused
from devguard.grant.claims import Action
from devguard.session.approval import LIFETIME, approval_code, approval_of, sign_approval
from devguard.session.connect import connect, identify
from devguard.session.read_log import read_log
from devguard.session.update import fetch_report
from devguard.session.verbs import Accept, Commit, Data, Done, Durable, Encoding, Offer, Transfer, Verb
from sim.bench import PROGRAMMER, TESS, TOM, Device, Pipe, bench_for, build, checked, grant, push, small, update
from sim.hostile import approve, refusal, send, with_old


@pytest.fixture
def programmer() -> Device:
    return with_old(model=small(PROGRAMMER))[0]


# how long


def accepted(device: Device) -> tuple[Pipe, Any]:
    """A session whose offer was accepted, approved nine minutes and more ago."""
    new, first = build(device), grant(device)
    pipe = Pipe(device)
    session = pipe.connect(first)
    approve(pipe, session, device, new, first)
    assert isinstance(pipe.ask(Offer(new.offer)), Accept)
    return pipe, new


def test_a_patch_that_comes_to_nothing_after_ten_minutes_costs_no_second_approval(programmer: Device) -> None:
    """The word was given in time, for this very release in this very session: only the way it travels has changed."""
    pipe, new = accepted(programmer)
    programmer.clock = NOW + 2 * LIFETIME
    junk = bytes(64)
    assert isinstance(pipe.ask(Transfer(int(Encoding.COMPRESSED), len(junk), hashlib.sha256(junk).digest())), Durable)
    pipe.ask(Data(0, junk))
    assert refusal(pipe.ask(Commit(new.manifest_digest))) == "device.transfer"
    assert refusal(pipe.ask(Offer(build(programmer, "1.3.0", 3).offer))) == "grant.quorum"  # nobody approved that one
    assert send(pipe, new) == Done(int(Verb.REBOOT))
    assert programmer.runs(new)


def test_an_approval_is_used_within_ten_minutes(programmer: Device) -> None:
    new, first = build(programmer), grant(programmer)
    pipe = Pipe(programmer)
    session = pipe.connect(first)
    approve(pipe, session, programmer, new, first)
    programmer.clock = NOW + LIFETIME
    assert refusal(pipe.ask(Offer(new.offer))) == "grant.quorum"


def test_what_was_accepted_in_one_session_is_approved_anew_in_the_next(programmer: Device) -> None:
    pipe, new = accepted(programmer)
    pipe.lose()
    programmer.clock = NOW + 2 * LIFETIME
    pipe = Pipe(programmer)
    pipe.connect(grant(programmer))
    assert refusal(pipe.ask(Offer(new.offer))) == "grant.quorum"


def test_the_short_code_is_taken_by_the_device_as_the_approval(programmer: Device) -> None:
    """What is read out over a telephone: sixty-four bytes, the rest both sides know."""
    second = grant(programmer, TOM)
    digest = hashlib.sha256(second.untagged).digest()

    def telephone(request: Any) -> tuple[bytes, bytes]:
        assert request.asking.person == TESS.name
        code = approval_code(sign_approval(request, TOM.signer, digest))
        return approval_of(code, request, second.holder, digest), second.untagged

    new = build(programmer)
    pipe = Pipe(programmer)
    pipe.run(update(programmer, new, approver=telephone).push())
    assert programmer.runs(new)


# either kind of key


@pytest.mark.parametrize("who", [TESS, TOM], ids=["P-256", "Ed25519"])
def test_a_technician_with_either_kind_of_key_pushes_and_reads(who: Any) -> None:
    """The report and the log are signed by the key that the session has proved: the bench knows no other."""
    device = Device()
    what = build(device, "1.0.0", 1)
    pipe = push(device, what, technician=who)
    report, signed = pipe.run(fetch_report(bench_for(device, grant(device, who), who)))
    assert report.manifest_digest == what.manifest_digest
    session = Pipe(device).run(connect(bench_for(device, grant(device, who), who)))
    assert read_sign1(signed).kid == session.identity.key.thumbprint
    reading = grant(device, who, actions=frozenset({"read-log"}))
    proof = checked(device, reading, who, action=Action.READ_LOG)
    found = Pipe(device).run(read_log(bench_for(device, reading, who), proof, None))
    assert found.log.serial == device.serial


# towards whom


def test_another_device_under_the_same_serial_is_another_device() -> None:
    """Two credentials for one serial number: a mistake at the factory, or worse. The first key proved stays the key."""
    device, double = Device(), Device(seed="double")
    assert device.serial == double.serial
    one = grant(device)
    _, signed = Pipe(device).run(fetch_report(bench_for(device, one)))
    bench = bench_for(device, one, serial=device.serial, device_key=read_sign1(signed).kid)
    Pipe(device).run(connect(bench))
    for script in (identify, connect):
        with pytest.raises(Refused) as refused:
            Pipe(double).run(script(replace(bench, random=bench_for(device, one).random)))
        assert refused.value.code == "device.identity"
    assert double.counters.audit.count == Device(seed="double").counters.audit.count
