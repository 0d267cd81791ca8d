"""What is built is what is read back, by executing it; everything outside the profile is refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import PUMP, describe
from devguard.errors import LocalProtocolError, Malformed, Refused
from devguard.image.measure import Measured
from devguard.manifest.build import build_envelope
from devguard.manifest.codec import decode_manifest, encode_manifest
from devguard.manifest.description import ReleaseDescription, Requires, Safety
from devguard.manifest.envelope import parse_offer, read_envelope, sever, write_envelope
from devguard.manifest.identity import class_id, device_id, vendor_id
from devguard.manifest.model import ModelFacts
from devguard.manifest.release import ComponentFacts, ReleaseFacts, TextFacts, release_facts
from devguard.manifest.version import to_array
from manifest_support import build, component, measured

PROGRAMMER = replace(
    PUMP, name="pacemaker-programmer", components=("application", "radio"), fixed=("display",), technicians=2
)
SBOM = Measured(-16, hashlib.sha256(b"sbom").digest(), 4)


def expected(description: ReleaseDescription, model: ModelFacts, payload: Mapping[str, Measured]) -> ReleaseFacts:
    """The facts a description stands for, computed without any SUIT."""
    vendor = vendor_id(description.vendor)
    classes = tuple(class_id(vendor, description.model, one) for one in description.revisions)
    serials = description.components[0].serials
    percent = description.safety.minimum_battery_percent
    return ReleaseFacts(
        vendor_id=vendor,
        class_ids=classes,
        device_ids=tuple(device_id(one, serial) for one in classes for serial in serials),
        sequence=description.sequence,
        version=description.version,
        security_version=description.security_version,
        components=tuple(
            ComponentFacts(
                one.id, payload[one.id].algorithm, payload[one.id].digest, payload[one.id].size, f"#{one.id}"
            )
            for one in description.components
        ),
        use_before=description.use_before,
        minimum_battery_mwh=None if percent is None else -(-percent * model.battery_capacity_mwh // 100),
        authorised=True,
        therapy_idle=description.safety.therapy_idle,
        two_technicians=description.safety.two_technicians,
        sbom_digest=None if description.sbom is None else SBOM.digest,
        test_report_digest=description.test_report_digest,
        requires_version=description.requires.version,
        text=TextFacts(
            description.vendor, description.model, description.version, description.summary, description.revisions
        ),
        requires_components=tuple(description.requires.components.items()),
    )


numbers = st.integers(0, 10**18 - 1)
plain = st.builds("{}.{}.{}".format, numbers, numbers, numbers)
comparable = st.one_of(plain, st.builds("{}-{}.{}".format, plain, st.sampled_from(("alpha", "beta", "rc")), numbers))
versions = st.one_of(comparable, st.builds("{}-nightly+{}".format, plain, numbers))
labels = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32)
uints = st.integers(0, 2**64 - 1)


@st.composite
def releases(draw: st.DrawFn) -> tuple[ReleaseDescription, ModelFacts, dict[str, Measured]]:
    names = draw(st.lists(st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True), min_size=1, max_size=4, unique=True))
    brought = draw(st.integers(1, len(names)))
    revisions = tuple(draw(st.lists(labels, min_size=1, max_size=3, unique=True)))
    serials = tuple(draw(st.lists(labels, max_size=4, unique=True)))
    model = replace(
        PUMP,
        revisions=revisions,
        components=tuple(names[:brought]),
        fixed=tuple(names[brought:]),
        image_capacity=2**42,
        battery_capacity_mwh=draw(st.integers(1, 10**6)),
    )
    description = describe(
        model,
        version=draw(versions),
        sequence=draw(uints),
        security_version=draw(st.integers(0, 2**31 - 1)),
        summary=draw(st.text(min_size=1, max_size=60)),
        use_before=draw(st.none() | uints),
        components=tuple(component(name, serials) for name in names[:brought]),
        safety=Safety(draw(st.none() | st.integers(1, 100)), draw(st.booleans()), draw(st.booleans())),
        requires=Requires(draw(st.none() | comparable), {name: draw(comparable) for name in names[brought:]}),
        sbom=draw(st.none() | st.just("sbom.json")),
        test_report_digest=draw(st.none() | digests),
    )
    payload = {
        name: measured(name, draw(st.integers(1, 2**40)), draw(st.sampled_from((-16, -43, -44))))
        for name in names[:brought]
    }
    return description, model, payload


@given(releases())
def test_facts_are_those_of_the_description(
    release: tuple[ReleaseDescription, ModelFacts, dict[str, Measured]],
) -> None:
    description, model, payload = release
    env = build_envelope(description, model, payload, sbom=SBOM)
    facts = expected(description, model, payload)
    assert release_facts(env) == facts
    assert encode_manifest(decode_manifest(env.manifest)) == env.manifest
    offer = release_facts(parse_offer(sever(env)))
    known = to_array(description.version) is not None
    assert offer == replace(facts, text=None, version=description.version if known else None)


def test_a_written_envelope_reads_back_to_the_same_facts() -> None:
    images = {"#application": b"a" * 1000, "#radio": b"r" * 70_000}
    payload = {name[1:]: Measured(-16, hashlib.sha256(data).digest(), len(data)) for name, data in images.items()}
    description = describe(PROGRAMMER, components=(component("application"), component("radio")))
    env = build_envelope(description, PROGRAMMER, payload)
    out = io.BytesIO()
    write_envelope(env, {name: io.BytesIO(data) for name, data in images.items()}, out)
    again = read_envelope(io.BytesIO(out.getvalue()))
    assert release_facts(again) == release_facts(env)
    for name, data in images.items():
        found = again.payloads[name]
        assert out.getvalue()[found.offset :][: found.size] == data


def test_detached_changes_nothing_that_is_signed() -> None:
    here, apart = build(describe()), build(describe(), detached=True)
    assert (apart.payloads, apart.manifest, apart.digest) == ({}, here.manifest, here.digest)
    assert release_facts(apart) == release_facts(here)


def test_battery_is_rounded_up() -> None:
    model = replace(PUMP, battery_capacity_mwh=333)
    env = build(describe(model, safety=Safety(10, True, False)), model)
    assert release_facts(env).minimum_battery_mwh == 34


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"vendor": "other.example"}, "description.malformed"),
        ({"model": "other"}, "description.malformed"),
        ({"revisions": ("revZ",)}, "description.malformed"),
        ({"revisions": ()}, "description.malformed"),
        ({"revisions": ("revA", "revA")}, "description.malformed"),
        ({"components": (component("unknown"),)}, "description.malformed"),
        ({"components": ()}, "description.malformed"),
        ({"components": (component("main"), component("main"))}, "description.malformed"),
        ({"components": (component("main", ("A", "A")),)}, "description.malformed"),
        ({"components": (component("main", tuple(map(str, range(65)))),)}, "description.malformed"),
        ({"requires": Requires("1.0.0+build", {})}, "description.malformed"),
        ({"requires": Requires(None, {"main": "1.0.0"})}, "description.malformed"),
        ({"requires": Requires(None, {"unknown": "1.0.0"})}, "description.malformed"),
        ({"sbom": "sbom.json"}, "sbom.missing"),
    ],
)
def test_descriptions_that_do_not_fit_their_model_are_refused(fields: dict[str, Any], code: str) -> None:
    with pytest.raises((Malformed, Refused, LocalProtocolError)) as caught:
        build(replace(describe(), **fields))
    assert caught.value.code == code


def test_images_must_fit_the_slot_and_be_the_described_ones() -> None:
    for size in (0, PUMP.image_capacity + 1):
        with pytest.raises(Refused) as caught:
            build_envelope(describe(), PUMP, {"main": measured("main", size)})
        assert caught.value.code == "device.slot"
    for payload in ({}, {"main": measured("main"), "more": measured("more")}):
        with pytest.raises(LocalProtocolError):
            build_envelope(describe(), PUMP, payload)
    two = (component("application", ("A",)), component("radio", ("B",)))
    with pytest.raises(Malformed, match="same devices"):
        build(describe(PROGRAMMER, components=two), PROGRAMMER)
