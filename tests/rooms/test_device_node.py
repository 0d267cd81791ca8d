"""A hostile bench's releases and its moment: what it leaves out the device checks, and a refusal changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW, sign_envelope
from devguard import wire
from devguard.cose.roles import RoleName
from devguard.errors import DeviceRefused
from devguard.manifest.description import Requires, Safety
from devguard.manifest.envelope import MAX_OFFER, sever
from devguard.session.table import State
from devguard.session.update import after_reboot, fetch_report
from devguard.session.verbs import (
    Accept,
    Commit,
    Done,
    Durable,
    Offer,
    Reboot,
    Verb,
)
from sim.bench import (
    PROGRAMMER,
    Build,
    Device,
    Pipe,
    build,
    grant,
    push,
    small,
    update,
    vendor_of,
)
from sim.hostile import (
    approve,
    busy,
    fresh,
    refusal,
    refused_offer,
    send,
    with_old,
)
from sim.state import snapshot


@pytest.mark.parametrize("model", ["insulin-pump", PROGRAMMER])
def test_the_hostile_bench_can_push_a_good_release_so_that_its_refusals_mean_something(model: str) -> None:
    device, _ = with_old(model=small(model))
    new = build(device)
    one = grant(device)
    pipe = Pipe(device)
    approve(pipe, pipe.connect(one), device, new, one)
    assert send(pipe, new) == Done(int(Verb.REBOOT))
    assert device.runs(new)


@pytest.mark.parametrize("where", [0, 4500, 8999])
def test_a_flipped_bit_in_the_image_is_found_at_commit(where: int) -> None:
    device, old = with_old()
    before = snapshot(device)
    new = build(device)
    image = bytearray(new.image)
    image[where] ^= 0x10
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert refusal(send(pipe, new, image=bytes(image))) == "image.digest"
    assert pipe.state is State.CLOSED
    assert snapshot(device).essence == before.essence
    assert device.counters.pending is None
    assert device.runs(old)
    assert refusal(commit_again(device, new)) == "session.order"


def commit_again(device: Device, new: Build) -> Any:
    """Commit in a new session without offering again: the damaged slot is not brought back."""
    pipe = Pipe(device)
    pipe.connect(grant(device))
    return pipe.ask(Commit(new.manifest_digest))


def test_a_release_by_an_unknown_vendor_is_refused() -> None:
    device = fresh()
    assert refused_offer(device, build(device, vendor_keys=vendor_of("mallory"))) == "key.unknown"


def test_a_release_stripped_of_its_post_quantum_signature_is_refused() -> None:
    device = fresh()
    what = build(device)
    classical = (device.vendor.signer(RoleName.RELEASE), device.vendor.signer(RoleName.RELEASE, "Rita Release"))
    stripped = replace(what.envelope, auth_blocks=())
    offer = sever(sign_envelope(stripped, classical))
    assert refused_offer(device, offer) == "signature.hybrid"
    assert (
        refused_offer(device, sever(replace(what.envelope, auth_blocks=what.envelope.auth_blocks[:1])))
        == "signature.hybrid"
    )
    assert refused_offer(device, sever(stripped)) == "signature.missing"


def test_an_older_release_is_refused_and_the_same_one_too() -> None:
    device, old = with_old()
    push(device, build(device, "1.2.0", 3))
    device.fresh_hour()
    assert refused_offer(device, old) == "version.rollback"
    assert refused_offer(device, build(device, "1.1.0", 2)) == "version.rollback"
    assert refused_offer(device, build(device, "1.2.0", 3)) == "version.current"
    assert refused_offer(device, build(device, "1.2.1", 3, image_seed="other")) == "version.rollback"


def test_a_lower_security_version_is_refused() -> None:
    device = fresh()
    push(device, build(device, "2.0.0", 2, security_version=5))
    device.fresh_hour()
    assert refused_offer(device, build(device, "2.0.1", 3, security_version=4)) == "version.rollback"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sequence": 500}, "version.exhausted"),
        ({"use_before": NOW - 2 * 86_400}, "release.expired"),
        ({"serials": ("SN-9999",)}, "image.device"),
        ({"revisions": ("revB",)}, "image.class"),
        ({"requires": Requires("1.0.5", {})}, "version.requires"),
        ({"safety": Safety(95, True, False)}, "device.battery"),
    ],
)
def test_what_the_manifest_asks_is_asked_by_the_device(fields: dict[str, Any], code: str) -> None:
    device = fresh()
    assert refused_offer(device, build(device, **fields)) == code


def test_a_release_for_another_model_is_refused() -> None:
    device = fresh()
    other = Device(model=small(PROGRAMMER), vendor=device.vendor)
    assert refused_offer(device, build(other)) == "image.class"


def test_an_image_larger_than_the_slot_is_refused_before_anything_is_erased() -> None:
    device = fresh()
    big = replace(device.model, facts=replace(device.model.facts, image_capacity=1 << 20))
    assert refused_offer(device, build(Device(model=big), size=device.model.layout.image_capacity + 1)) == "device.slot"


def test_an_offer_of_garbage_is_refused_and_a_good_one_may_follow() -> None:
    device = fresh()
    what = build(device)
    pipe = Pipe(device)
    pipe.connect(grant(device))
    before = snapshot(device)
    for garbage in (b"\x00", what.offer[:-1], what.offer + b"\x00", bytes(MAX_OFFER)):
        assert refusal(pipe.ask(Offer(garbage))).partition(".")[0] in ("envelope", "image", "wire")
        if pipe.state is State.CLOSED:
            break
    assert snapshot(device).all_but_log == before.all_but_log
    assert send(pipe, what) == Done(int(Verb.REBOOT))


def test_an_offer_of_one_byte_too_many_ends_the_session() -> None:
    device = fresh()
    pipe = Pipe(device)
    pipe.connect(grant(device))
    before = snapshot(device)
    assert refusal(pipe.ask(wire.encode([int(Verb.OFFER), bytes(MAX_OFFER + 1)]))) == "wire.malformed"
    assert pipe.state is State.CLOSED
    assert snapshot(device).all_but_log == before.all_but_log


def test_the_fifth_refusal_ends_the_session() -> None:
    device = fresh()
    bad = build(device, vendor_keys=vendor_of("mallory"))
    pipe = Pipe(device)
    pipe.connect(grant(device))
    for _ in range(4):
        assert refusal(pipe.ask(Offer(bad.offer))) == "key.unknown"
        assert pipe.state is State.AUTHORISED
    assert refusal(pipe.ask(Offer(bad.offer))) == "key.unknown"
    assert pipe.state is State.CLOSED
    assert pipe.ask(Offer(build(device).offer)) is None


def test_no_offer_is_taken_while_therapy_is_delivered() -> None:
    device = fresh()
    busy(device)
    assert refused_offer(device, build(device)) == "device.therapy-active"
    assert (
        refused_offer(device, build(device, "1.4.0", 4, safety=Safety(None, False, False))) == "device.therapy-active"
    )


@pytest.mark.parametrize("model", ["insulin-pump", PROGRAMMER])
def test_therapy_that_begins_during_the_download_stops_the_commit(model: str) -> None:
    device, old = with_old(model=small(model))
    new, one = build(device), grant(device)
    pipe = Pipe(device)
    approve(pipe, pipe.connect(one), device, new, one)
    assert isinstance(send(pipe, new, commit=False), Durable)
    busy(device)
    before = snapshot(device)
    assert refusal(pipe.ask(Commit(new.manifest_digest))) == "device.therapy-active"
    assert snapshot(device).all_but_log == before.all_but_log
    assert device.runs(old)


def test_battery_is_asked_at_the_offer_and_at_commit() -> None:
    device, old = with_old()
    device.battery = device.model.minimum_battery_percent - 1
    assert refused_offer(device, build(device)) == "device.battery"
    device.battery += 1
    pipe = Pipe(device)
    pipe.connect(grant(device))
    assert isinstance(send(pipe, build(device), commit=False), Durable)
    device.battery -= 1
    assert refusal(pipe.ask(Commit(build(device).manifest_digest))) == "device.battery"
    assert device.runs(old)


@pytest.mark.parametrize("model", ["insulin-pump", PROGRAMMER])
def test_therapy_that_begins_between_commit_and_reboot_is_not_cut_off(model: str) -> None:
    device, old = with_old(model=small(model))
    new, one = build(device), grant(device)
    pipe = Pipe(device)
    approve(pipe, pipe.connect(one), device, new, one)
    send(pipe, new, commit=False)
    assert pipe.ask(Commit(new.manifest_digest)) == Done(int(Verb.COMMIT))
    busy(device)
    before = snapshot(device)
    assert refusal(pipe.ask(Reboot())) == "device.therapy-active"
    assert snapshot(device).all_but_log == before.all_but_log
    assert device.node.state(bytes(16)).manifest_digest == old.manifest_digest


def test_the_fourth_slot_erasure_in_an_hour_is_refused_and_a_reset_buys_nothing() -> None:
    device = fresh()
    for number in range(3):
        pipe = Pipe(device)
        pipe.connect(grant(device))
        assert isinstance(pipe.ask(Offer(build(device, f"1.{number}.9", number + 2).offer)), Accept)
        pipe.lose()
    device.power_cycle()
    one = grant(device, max_uses=1)
    assert refused_offer(device, build(device, "1.9.0", 9), one) == "device.busy"
    assert one.cti not in device.counters.spent


def test_no_offer_is_taken_while_a_trial_is_open() -> None:
    device, _ = with_old()
    answers: list[Any] = []
    newer = build(device, "1.5.0", 5)

    def during_the_trial() -> bool:
        pipe = Pipe(device)
        pipe.connect(grant(device))
        before = snapshot(device)
        answers.append(refusal(pipe.ask(Offer(newer.offer))))
        assert snapshot(device).all_but_log == before.all_but_log
        assert before.boot == "trial"
        return True

    device.self_test = during_the_trial
    push(device, build(device))
    assert answers == ["device.unconfirmed"]
    assert device.runs(build(device))


@pytest.mark.parametrize("first", [True, False], ids=["first image", "update"])
def test_a_failed_self_test_reverts_and_the_bench_learns_it(first: bool) -> None:
    device, old = (Device(), None) if first else with_old()
    device.self_test = lambda: False
    session = update(device, build(device))
    pipe = Pipe(device)
    pipe.run(session.push())
    report, _ = pipe.run(fetch_report(session.bench))
    assert report.boot_state == "reverted"
    with pytest.raises(DeviceRefused, match=r"device\.self-test"):
        after_reboot(session.release, report)
    assert device.counters.security_version == (0 if first else 1)
    device.self_test = lambda: True
    assert device.runs(old)
