"""Manifests outside the release profile, under a good digest: each takes what build wrote and changes one thing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from builders import PUMP, describe
from devguard import wire
from devguard.errors import Malformed
from devguard.manifest.codec import CommandSequence, Common, Manifest, decode_manifest, encode_manifest, encode_sequence
from devguard.manifest.envelope import Envelope, parse_offer, sever
from devguard.manifest.identity import class_id, device_id, vendor_id
from devguard.manifest.release import release_facts, signed_manifest
from devguard.manifest.suit import Command, Comparison, Digest, Section
from devguard.manifest.text import encode_text
from devguard.manifest.version import VersionMatch
from manifest_support import INDEX, OVERRIDE, RUN, TRY, C, P, build, component, sets

BASE = build(describe(components=(component("main"),)))
BASE_DEVICES = build(describe(components=(component("main", ("SN1", "SN2")),)))
VENDOR = vendor_id(PUMP.vendor)
CLASSES = [class_id(VENDOR, PUMP.name, one) for one in PUMP.revisions]
OTHER = Digest(-16, bytes(32)).encode()


def checks(*conditions: Command) -> CommandSequence:
    return tuple((one.value, 15) for one in conditions)


def sealed(manifest: Manifest, env: Envelope = BASE) -> Envelope:
    """The manifest in an envelope whose wrapper covers it."""
    encoded = encode_manifest(manifest)
    return replace(env, manifest=encoded, digest=Digest.of_member(encoded).value)


def changed(
    shared: Callable[[CommandSequence], CommandSequence] = lambda one: one,
    install: Callable[[CommandSequence], CommandSequence] = lambda one: one,
    validate: Callable[[CommandSequence], CommandSequence] = lambda one: one,
    env: Envelope = BASE,
    **fields: Any,
) -> Envelope:
    manifest = decode_manifest(env.manifest)
    common = Common(manifest.common.components, shared(manifest.common.shared or ()), {})
    sections: dict[Section, Any] = dict(manifest.sections or {})
    sections[Section.INSTALL] = install(sections[Section.INSTALL])
    sections[Section.VALIDATE] = validate(sections[Section.VALIDATE])
    return sealed(replace(manifest, **{"common": common, "sections": sections, **fields}), env)


def without(*commands: int) -> Callable[[CommandSequence], CommandSequence]:
    return lambda sequence: tuple(one for one in sequence if one[0] not in commands)


def after(*commands: tuple[int, object]) -> Callable[[CommandSequence], CommandSequence]:
    return lambda sequence: (*sequence, *commands)


def before(*commands: tuple[int, object]) -> Callable[[CommandSequence], CommandSequence]:
    return lambda sequence: (*commands, *sequence)


def tried(*branches: CommandSequence | None) -> Callable[[CommandSequence], CommandSequence]:
    return lambda sequence: tuple((TRY, branches) if code == TRY else (code, argument) for code, argument in sequence)


def of_class(one: bytes, *more: tuple[int, object]) -> CommandSequence:
    return (sets(class_identifier=one), *checks(C.CONDITION_CLASS_IDENTIFIER), *more)


def of_device(one: bytes, device: bytes, *more: tuple[int, object]) -> CommandSequence:
    return of_class(one, sets(device_identifier=device), *checks(C.CONDITION_DEVICE_IDENTIFIER), *more)


def prioritized(sequence: CommandSequence) -> CommandSequence:
    return tuple(
        (code, {**argument, P.UPDATE_PRIORITY.value: -1})
        if isinstance(argument, dict) and P.UPDATE_PRIORITY in argument
        else (code, argument)
        for code, argument in sequence
    )


A, B = CLASSES
EXPIRED = (sets(use_before=5), *checks(C.CONDITION_USE_BEFORE))
MANIFEST = decode_manifest(BASE.manifest)
LOWER = VersionMatch(Comparison.LESSER, (9, 0, 0)).encode()


def test_the_changing_helper_itself_stays_in_the_profile() -> None:
    assert release_facts(changed()) == release_facts(BASE)
    assert release_facts(changed(tried(of_class(A), of_class(B)))) == release_facts(BASE)
    devices = tuple(device_id(one, serial) for one in CLASSES for serial in ("SN1", "SN2"))
    assert release_facts(BASE_DEVICES).device_ids == devices


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("no vendor check", changed(without(C.CONDITION_VENDOR_IDENTIFIER))),
        ("no class check", changed(without(TRY))),
        ("any class", changed(tried(of_class(A), of_class(B), None))),
        ("any class by an empty branch", changed(tried(of_class(A), (sets(image_size=1000),)))),
        ("class check turned soft", changed(lambda s: tuple((RUN, (sets(soft_failure=True), c)) for c in s))),
        ("another image for one revision", changed(tried(of_class(A), of_class(B, sets(image_digest=OTHER))))),
        ("another size for one revision", changed(tried(of_class(A), of_class(B, sets(image_size=7))))),
        (
            "another image for one device",
            changed(tried(of_device(A, b"1" * 16), of_device(A, b"2" * 16, sets(image_digest=OTHER)), of_class(B))),
        ),
        ("devices for one class only", changed(tried(of_device(A, b"1" * 16), of_class(B)))),
        ("a device optional", changed(tried(of_device(A, b"1" * 16), of_class(A), of_class(B)))),
        ("one device under two classes", changed(tried(of_device(A, b"1" * 16), of_device(B, b"1" * 16)))),
        ("a device set and not asked", changed(before(sets(device_identifier=b"1" * 16)))),
        ("an expiry that a branch can avoid", changed(tried((*EXPIRED, *of_class(A)), of_class(A), of_class(B)))),
        ("an expiry in the shared sequence", changed(after(*EXPIRED))),
        ("a second vendor", changed(after(sets(vendor_identifier=b"w" * 16), *checks(C.CONDITION_VENDOR_IDENTIFIER)))),
        ("identity in install", changed(install=before(*of_class(A)))),
        ("an optional condition", changed(install=before((TRY, (EXPIRED, (sets(image_size=1000),)))))),
        ("a soft condition", changed(install=before((RUN, (sets(soft_failure=True), *EXPIRED))))),
        ("a requirement set and not checked", changed(install=before(sets(minimum_battery=5)))),
        ("a requirement changed after its check", changed(install=after(sets(security_version=0)))),
        ("two expiries", changed(install=before(*EXPIRED, sets(use_before=6), *checks(C.CONDITION_USE_BEFORE)))),
        ("a requirement after the fetch", changed(install=after(*EXPIRED))),
        ("no security version", changed(install=without(C.CONDITION_SECURITY_VERSION))),
        ("no fetch", changed(install=without(C.DIRECTIVE_FETCH))),
        ("a second fetch", changed(install=after((C.DIRECTIVE_FETCH.value, 2)))),
        ("no comparison after the fetch", changed(install=without(C.CONDITION_IMAGE_MATCH))),
        ("a comparison with another image", changed(install=lambda s: (*s[:-1], sets(image_digest=OTHER), s[-1]))),
        ("comparison before the fetch", changed(install=before(*checks(C.CONDITION_IMAGE_MATCH)))),
        ("validate of another image", changed(validate=before(sets(image_digest=OTHER)))),
        ("validate of nothing", changed(validate=lambda _: (sets(image_size=1000),))),
        ("validate with a requirement", changed(validate=before(sets(use_before=5)))),
        ("invoke", changed(install=after((C.DIRECTIVE_INVOKE.value, 2)))),
        ("unlink", changed(install=before((C.DIRECTIVE_UNLINK.value, 2)))),
        ("write", changed(install=before(sets(content=b"x"), (C.DIRECTIVE_WRITE.value, 2)))),
        ("a slot", changed(install=before(sets(component_slot=1), *checks(C.CONDITION_COMPONENT_SLOT)))),
        ("content", changed(install=before(sets(content=b"x"), *checks(C.CONDITION_CHECK_CONTENT)))),
        ("another URI", changed(install=lambda s: tuple(sets(uri="#x") if c == sets(uri="#main") else c for c in s))),
        ("an unknown command", changed(install=before((-300, 15)))),
        ("an unknown parameter", changed(install=before((OVERRIDE, {-300: 1})))),
        ("a version below", changed(install=before(sets(version=LOWER), *checks(C.CONDITION_VERSION)))),
        ("a priority", changed(install=prioritized)),
        ("a reference URI", changed(reference_uri="https://vendor.example")),
        ("an unknown member", changed(extensions={99: 1})),
        ("a wrong set-version", changed(extensions={6: wire.encode([1, 1, 1])})),
        ("a set-version that is no version", changed(extensions={6: wire.encode([1])})),
        ("no text", replace(changed(text=None), severable={})),
        ("an invoke section", changed(sections={**(MANIFEST.sections or {}), Section.INVOKE: ((23, 2),)})),
        ("no validate section", changed(sections={Section.INSTALL: (MANIFEST.sections or {})[Section.INSTALL]})),
        ("an id of two segments", changed(common=Common(((b"main", b"x"),), MANIFEST.common.shared))),
        ("an id that is no text", changed(common=Common(((b"\xff",),), MANIFEST.common.shared))),
        ("a component that nothing is done to", changed(common=Common(((b"main",), (b"x",)), MANIFEST.common.shared))),
        ("dependencies", changed(common=Common(((b"main",),), MANIFEST.common.shared, {1: {}}))),
        ("a payload nobody signed", replace(BASE, payloads={**BASE.payloads, "#more": BASE.payloads["#main"]})),
        ("a member nobody signed", replace(BASE, severable={**BASE.severable, 16: b""})),
        ("another text", replace(BASE, severable={23: b"\xa0"})),
        ("a wrapper of another manifest", replace(BASE, digest=bytes(32))),
        ("no tag", replace(BASE, tagged=False)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_outside_the_profile_is_refused(name: str, env: Envelope) -> None:
    with pytest.raises(Malformed) as caught:
        release_facts(env)
    assert caught.value.code == "envelope.malformed", name


@pytest.mark.parametrize(
    "field",
    [{"vendor": "other.example"}, {"model": "other"}, {"revisions": ("revA",)}, {"version": "1.1.1"}],
)
def test_a_signed_text_that_lies_is_refused(field: dict[str, Any]) -> None:
    facts = release_facts(BASE)
    assert facts.text is not None
    text = encode_text(replace(facts.text, **field), [(b"main",)])
    env = replace(changed(text=Digest.of_member(text)), severable={23: text})
    with pytest.raises(Malformed):
        release_facts(env)


def test_a_severed_install_is_executed_once_it_is_back() -> None:
    install = MANIFEST.section(Section.INSTALL)
    assert isinstance(install, tuple)
    member = encode_sequence(install)
    manifest = replace(MANIFEST, sections={**(MANIFEST.sections or {}), Section.INSTALL: Digest.of_member(member)})
    env = sealed(manifest)
    with pytest.raises(Malformed, match="severed"):
        release_facts(env)
    whole = replace(env, severable={**env.severable, 20: member})
    assert release_facts(whole) == release_facts(BASE)
    assert release_facts(parse_offer(sever(whole))) == replace(release_facts(BASE), text=None)


def test_a_manifest_with_too_many_identities_is_refused_in_bounded_work() -> None:
    many = changed(tried(*[of_class(number.to_bytes(16, "big")) for number in range(129)]))
    with pytest.raises(Malformed, match="identities"):
        release_facts(many)
    devices = [of_device(A, number.to_bytes(16, "big")) for number in range(129)]
    with pytest.raises(Malformed, match="identities"):
        release_facts(changed(tried(*devices)))


def test_work_over_all_identities_is_bounded() -> None:
    padding = tuple(sets(class_identifier=bytes(16)) for _ in range(300))
    branches = [of_class(number.to_bytes(16, "big")) for number in range(128)]
    with pytest.raises(Malformed, match="too many commands"):
        release_facts(changed(lambda s: (*padding, *tried(*branches)(s))))


def test_the_most_identities_a_release_may_have_fit_an_offer() -> None:
    serials = tuple(f"SN-{number:04}" for number in range(64))
    env = build(describe(components=(component("main", serials),)))
    assert len(release_facts(parse_offer(sever(env))).device_ids) == 128


def test_signed_manifest_puts_the_text_back() -> None:
    assert isinstance(signed_manifest(BASE).text, bytes)
    assert isinstance(signed_manifest(parse_offer(sever(BASE))).text, Digest)


def resealed(manifest: bytes) -> None:
    """A manifest damaged and signed again is refused, or the damage shows in the facts."""
    env = replace(BASE, manifest=manifest, digest=Digest.of_member(manifest).value)
    try:
        facts = release_facts(env)
    except Malformed:
        return
    assert facts != release_facts(BASE) or only_policies_differ(manifest)


def only_policies_differ(manifest: bytes) -> bool:
    """Reporting policies change nothing that is decided; everything else must show in the facts."""

    def plain(sequence: object) -> object:
        if not isinstance(sequence, tuple):
            return sequence
        return tuple(
            (code, tuple(map(plain, argument)) if code == TRY and isinstance(argument, tuple) else argument)
            if code in (OVERRIDE, TRY, INDEX)
            else code
            for code, argument in sequence
        )

    mine, base = decode_manifest(manifest), MANIFEST
    pairs = [(mine.common.shared, base.common.shared)]
    pairs += [(mine.section(one), base.section(one)) for one in (Section.INSTALL, Section.VALIDATE)]  # type: ignore[list-item]  # never severed here
    return all(plain(left) == plain(right) for left, right in pairs)


def test_sampled_damage_under_a_good_signature() -> None:
    source = random.Random(11)
    for _ in range(400):
        damaged = bytearray(BASE.manifest)
        for _ in range(source.randint(1, 2)):
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        resealed(bytes(damaged))


@pytest.mark.slow
def test_every_flipped_bit_under_a_good_signature() -> None:
    for position in range(8 * len(BASE.manifest)):
        damaged = bytearray(BASE.manifest)
        damaged[position // 8] ^= 1 << position % 8
        resealed(bytes(damaged))


@pytest.mark.parametrize("unchecked", [C.CONDITION_VENDOR_IDENTIFIER, TRY])
def test_every_component_is_checked_for_vendor_and_class(unchecked: int) -> None:
    model = replace(PUMP, components=("main", "radio"))
    two = build(describe(model, components=(component("main"), component("radio"))), model)

    def first_only(sequence: CommandSequence) -> CommandSequence:
        return tuple(
            one
            for code, argument in sequence
            for one in (((INDEX, 0), (code, argument), (INDEX, True)) if code == unchecked else ((code, argument),))
        )

    assert release_facts(changed(env=two)) == release_facts(two)
    with pytest.raises(Malformed, match="not checked"):
        release_facts(changed(first_only, env=two))
