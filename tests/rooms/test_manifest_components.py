"""Releases of two components: how they are built, what a manifest processor does with them, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from builders import PUMP, describe, make_image, measure_images
from devguard import wire
from devguard.cli.files import JoinedReader
from devguard.errors import DevguardError, Malformed, Refused
from devguard.image.measure import SHA_256, measure, measure_stream
from devguard.manifest.build import build_envelope
from devguard.manifest.codec import Manifest, decode_manifest, encode_manifest
from devguard.manifest.description import parse_description, scaffold
from devguard.manifest.envelope import Envelope, parse_offer, sever
from devguard.manifest.identity import class_id, vendor_id
from devguard.manifest.interpreter import run
from devguard.manifest.model import ModelFacts
from devguard.manifest.release import release_facts
from devguard.manifest.suit import Command, Digest, ManifestKey, Parameter, Section
from manifest_support import Bench, build, component, measured

TWO = replace(PUMP, name="pacemaker-programmer", components=("application", "telemetry"), revisions=("revA",))
BOTH = (component("application"), component("telemetry"))
IDS = ((b"application",), (b"telemetry",))
VENDOR = vendor_id(TWO.vendor)


def envelope(model: ModelFacts = TWO, **fields: object) -> Envelope:
    return build(describe(model, components=BOTH, **fields), model)


def manifest() -> Manifest:
    return decode_manifest(envelope().manifest)


def bench() -> Bench:
    return Bench(vendor=VENDOR, class_id=class_id(VENDOR, TWO.name, "revA"))


def test_a_processor_asks_first_and_then_fetches_and_compares_each() -> None:
    platform = bench()
    trace = run(manifest(), Section.INSTALL, platform)
    images = [step for step in platform.done if step[0] in ("fetch", "image")]
    expected = []
    for identifier, name in zip(IDS, ("application", "telemetry"), strict=True):
        digest = Digest(-16, measured(name).digest)
        expected += [("fetch", identifier, f"#{name}", digest, 1000), ("image", identifier, digest, 1000)]
    assert images == expected
    first = platform.done.index(images[0])
    assert all(step[0] not in ("fetch", "image") for step in platform.done[:first])
    for condition in (Command.CONDITION_VENDOR_IDENTIFIER, Command.CONDITION_CLASS_IDENTIFIER):
        assert {step.component for step in trace.steps if step.shared and step.command == condition} == {0, 1}


def test_validation_compares_each_image_with_its_own_digest() -> None:
    platform = bench()
    run(manifest(), Section.VALIDATE, platform)
    assert platform.done == [
        ("image", identifier, Digest(-16, measured(identifier[0].decode()).digest), 1000) for identifier in IDS
    ]


def test_every_sequence_says_first_which_component_it_means() -> None:
    """SUIT draft-37 section 6.2: with several components there is no component before set-component-index."""
    made = manifest()
    index = Command.DIRECTIVE_SET_COMPONENT_INDEX
    shared, install, validate = made.common.shared, made.section(Section.INSTALL), made.section(Section.VALIDATE)
    assert isinstance(shared, tuple)
    assert isinstance(install, tuple)
    assert isinstance(validate, tuple)
    assert [argument for code, argument in shared if code == index] == [0, 1, True]
    assert [argument for code, argument in install if code == index] == [0, 0, 1]
    assert [argument for code, argument in validate if code == index] == [0, 1]
    assert {sequence[0][0] for sequence in (shared, install, validate)} == {index}


def test_the_text_is_severable_and_speaks_of_each_component() -> None:
    made = envelope()
    text = wire.decode(made.severable[ManifestKey.TEXT.value], max_depth=8)
    assert {identifier for identifier in text["en"] if isinstance(identifier, tuple)} == set(IDS)
    offer = parse_offer(sever(made))
    assert ManifestKey.TEXT.value not in offer.severable
    assert [one.id for one in release_facts(offer).components] == ["application", "telemetry"]


def test_components_stand_in_the_model_s_order_whatever_the_description_s() -> None:
    other = build(describe(TWO, components=BOTH[::-1]), TWO)
    assert other.manifest == envelope().manifest


@pytest.mark.parametrize("left", ["application", "telemetry"])
def test_a_release_without_one_of_them_is_not_built(left: str) -> None:
    with pytest.raises(Refused) as caught:
        build(describe(TWO, components=(component(left),)), TWO)
    assert caught.value.code == "release.components"
    other = {"application": "telemetry", "telemetry": "application"}[left]
    assert f'id = "{other}"' in caught.value.hint


def test_images_fit_the_slot_together() -> None:
    room = TWO.image_capacity
    for sizes in ((room - 1, 1), (room, 1), (1, room), (room // 2 + 1, room // 2)):
        payload = {name: measured(name, size) for name, size in zip(TWO.components, sizes, strict=True)}
        if sum(sizes) <= room:
            assert build_envelope(describe(TWO, components=BOTH), TWO, payload)
            continue
        with pytest.raises(Refused) as caught:
            build_envelope(describe(TWO, components=BOTH), TWO, payload)
        assert caught.value.code == "device.slot"


def changed(made: Manifest) -> DevguardError:
    """What the profile says to another manifest."""
    encoded = encode_manifest(made)
    other = replace(envelope(), manifest=encoded, digest=Digest.of_member(encoded).value, payloads={})
    with pytest.raises((Malformed, Refused)) as caught:
        release_facts(other)
    return caught.value


def without(made: Manifest, section: Section, code: Command, which: int) -> Manifest:
    """The manifest without the command `code` number `which` of a section."""
    commands = made.section(section)
    assert isinstance(commands, tuple)
    places = [place for place, command in enumerate(commands) if command[0] == code]
    kept = tuple(command for place, command in enumerate(commands) if place != places[which])
    return replace(made, sections={**(made.sections or {}), section: kept})


@pytest.mark.parametrize("which", [0, 1])
def test_an_image_that_is_not_compared_is_outside_the_profile(which: int) -> None:
    for section in (Section.INSTALL, Section.VALIDATE):
        assert changed(without(manifest(), section, Command.CONDITION_IMAGE_MATCH, which)).code == "envelope.malformed"


@pytest.mark.parametrize("which", [0, 1])
def test_a_component_that_is_not_fetched_is_outside_the_profile(which: int) -> None:
    assert changed(without(manifest(), Section.INSTALL, Command.DIRECTIVE_FETCH, which)).code == "envelope.malformed"


def test_a_component_listed_twice_is_outside_the_profile() -> None:
    made = manifest()
    doubled = replace(made, common=replace(made.common, components=(IDS[0], IDS[0])))
    assert changed(doubled).code == "envelope.malformed"


def test_a_component_under_the_other_s_payload_is_outside_the_profile() -> None:
    made = manifest()
    assert changed(replace(made, common=replace(made.common, components=IDS[::-1]))).code == "envelope.malformed"
    install = made.section(Section.INSTALL)
    assert isinstance(install, tuple)
    same = tuple(
        (code, {**argument, Parameter.URI.value: "#application"})
        if isinstance(argument, dict) and Parameter.URI.value in argument
        else (code, argument)
        for code, argument in install
    )
    assert (
        changed(replace(made, sections={**(made.sections or {}), Section.INSTALL: same})).code == "envelope.malformed"
    )


# measuring and sending


def test_a_stream_is_measured_in_one_pass_by_component_and_as_a_whole() -> None:
    first, second = make_image(3 << 20, "first"), make_image(70_001, "second")
    found = measure_stream([("a", io.BytesIO(first), -44), ("b", io.BytesIO(second), SHA_256)])
    assert found.parts == {"a": measure(io.BytesIO(first), algorithm=-44), "b": measure(io.BytesIO(second))}
    assert found.whole == measure(io.BytesIO(first + second))
    only = measure_images({"a": first})
    assert only.whole == only.parts["a"] == measure(io.BytesIO(first))
    assert measure_images({}).whole == measure(io.BytesIO(b""))


def test_joined_readers_read_like_one_file_from_anywhere() -> None:
    data = [make_image(size, str(size)) for size in (1000, 1, 333)]
    whole = b"".join(data)
    joined = JoinedReader([(io.BytesIO(one), len(one)) for one in data])
    assert joined.read() == whole
    for start in (0, 1, 999, 1000, 1001, 1333, 1334, 2000):
        joined.seek(start)
        assert joined.read() == whole[start:]
    joined.seek(-335, io.SEEK_END)
    assert joined.tell() == 999
    assert joined.read(10) == whole[999:1000]  # never further than the part it began in
    assert joined.read(10) == whole[1000:1001]
    shorter = JoinedReader([(io.BytesIO(data[0][:500]), 1000), (io.BytesIO(data[2]), 333)])
    assert shorter.read() == data[0][:500]


def test_a_draft_of_a_description_has_every_component_of_its_model() -> None:
    text = scaffold(TWO.name, "1.0.0", TWO.vendor, "revA", TWO.components)
    parsed = parse_description(text.encode())
    assert [(one.id, one.path) for one in parsed.components] == [
        ("application", "images/pacemaker-programmer-application-1.0.0.bin"),
        ("telemetry", "images/pacemaker-programmer-telemetry-1.0.0.bin"),
    ]
    assert scaffold("x", "1.0.0", TWO.vendor, "revA").count("[[component]]") == 1
