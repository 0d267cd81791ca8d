"""The interpreter: published examples, each condition's refusal, branches, soft failure, indices, bounds."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from devguard import wire
from devguard.errors import Malformed, Refused
from devguard.manifest.codec import CommandSequence, Common, ComponentId, Manifest, decode_manifest, resolve
from devguard.manifest.envelope import read_envelope
from devguard.manifest.interpreter import Limits, run
from devguard.manifest.suit import Command, Comparison, Digest, Section
from devguard.manifest.version import VersionMatch
from manifest_support import CLASS, DIGEST, INDEX, OVERRIDE, RUN, TRY, VENDOR, Bench, C, P, code_of, install, sets


def published(vectors: Path, name: str) -> Manifest:
    env = read_envelope(io.BytesIO((vectors / "suit" / name).read_bytes()))
    return resolve(decode_manifest(env.manifest), env.severable)


ARM = Bench(bytes.fromhex("fa6b4a53d5ad5fdfbe9de663e4d41ffe"), bytes.fromhex("1492af1425695e48bf429b2d51f2ab45"))
SAMPLE = Digest(-16, bytes.fromhex("00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"))
TEEP = Bench(bytes.fromhex("c0ddd5f15243566087db4f5b0aa26c2f"), bytes.fromhex("db42f7093d8c55baa8c5265fc5820f4e"))
ZERO = (b"\x00",)
TA = (b"TEEP-Device", b"SecureFS", bytes.fromhex("8d82573a926d4754935332dc29997f74"), b"ta")
HELLO = Digest(-16, hashlib.sha256(b"Hello, Secure World!").digest())


@pytest.mark.parametrize(
    ("name", "section", "bench", "done"),
    [
        ("example0_envelope.cbor", Section.VALIDATE, ARM, [("image", ZERO, SAMPLE, 34768)]),
        ("example0_envelope.cbor", Section.INVOKE, ARM, [("invoke", ZERO, None)]),
        (
            "example1_with_cose.cbor",
            Section.INSTALL,
            ARM,
            [("fetch", ZERO, "http://example.com/file.bin", SAMPLE, 34768), ("image", ZERO, SAMPLE, 34768)],
        ),
        (
            "example2_full_with_cose.cbor",
            Section.INSTALL,
            ARM,
            [
                ("fetch", ZERO, "http://example.com/very/long/path/to/file/file.bin", SAMPLE, 34768),
                ("image", ZERO, SAMPLE, 34768),
            ],
        ),
        ("example2_severed_with_cose.cbor", Section.INVOKE, ARM, [("invoke", ZERO, None)]),
        ("libcsuit/suit_manifest_exp0.suit", Section.INVOKE, ARM, [("invoke", ZERO, None)]),
        ("libcsuit/suit_manifest_exp1.suit", Section.VALIDATE, ARM, [("image", ZERO, SAMPLE, 34768)]),
        ("libcsuit/suit_manifest_exp2A.suit", Section.VALIDATE, ARM, [("image", ZERO, SAMPLE, 34768)]),
        ("libcsuit/suit_manifest_expS0.suit", Section.INSTALL, ARM, [("write", (b"00",), b"hello world")]),
        ("libcsuit/suit_manifest_expS0.suit", Section.INVOKE, ARM, [("invoke", (b"00",), b"cat 00")]),
        (
            "libcsuit/suit_manifest_expI.suit",
            Section.INSTALL,
            TEEP,
            [("fetch", TA, "#tc", HELLO, 20), ("image", TA, HELLO, 20)],
        ),
        ("libcsuit/suit_manifest_expI.suit", Section.UNINSTALL, TEEP, [("unlink", TA)]),
        ("libcsuit/suit_manifest_expU.suit", Section.UNINSTALL, TEEP, [("unlink", TA)]),
    ],
)
def test_published_examples_do_what_they_describe(
    vectors: Path, name: str, section: Section, bench: Bench, done: list[tuple[object, ...]]
) -> None:
    bench.done.clear()
    run(published(vectors, name), section, bench)
    assert bench.done == done


def test_published_examples_refuse_other_devices(vectors: Path) -> None:
    manifest = published(vectors, "example1_with_cose.cbor")
    for bench, code in ((Bench(class_id=ARM.class_id), "image.vendor"), (Bench(vendor=ARM.vendor), "image.class")):
        with pytest.raises(Refused) as caught:
            run(manifest, Section.INSTALL, bench)
        assert caught.value.code == code
        assert bench.done == []


def test_a_severed_section_that_is_not_at_hand_does_not_run(vectors: Path) -> None:
    with pytest.raises(Malformed, match="severed"):
        run(published(vectors, "example2_severed_with_cose.cbor"), Section.INSTALL, ARM)


MATCH = VersionMatch(Comparison.GREATER_EQUAL, (1, 2, 3))
CONDITIONS = [
    (C.CONDITION_VENDOR_IDENTIFIER, sets(vendor_identifier=bytes(16)), "image.vendor"),
    (C.CONDITION_CLASS_IDENTIFIER, sets(class_identifier=bytes(16)), "image.class"),
    (C.CONDITION_DEVICE_IDENTIFIER, sets(device_identifier=bytes(16)), "image.device"),
    (C.CONDITION_IMAGE_MATCH, sets(image_digest=DIGEST.encode()), "image.digest"),
    (C.CONDITION_USE_BEFORE, sets(use_before=2**40), "release.expired"),
    (C.CONDITION_COMPONENT_SLOT, sets(component_slot=2), "device.slot"),
    (C.CONDITION_CHECK_CONTENT, sets(content=b"x"), "image.digest"),
    (C.CONDITION_MINIMUM_BATTERY, sets(minimum_battery=5), "device.battery"),
    (C.CONDITION_UPDATE_AUTHORIZED, sets(update_priority=-1), "grant.missing"),
    (C.CONDITION_VERSION, sets(version=MATCH.encode()), "version.requires"),
    (C.CONDITION_SECURITY_VERSION, sets(security_version=3), "version.rollback"),
    (C.CONDITION_SBOM_DIGEST, sets(sbom_digest=bytes(32)), "sbom.digest"),
    (C.CONDITION_TEST_REPORT_DIGEST, sets(test_report_digest=bytes(32)), "release.test-report"),
    (C.CONDITION_THERAPY_IDLE, sets(therapy_idle=True), "device.therapy-active"),
    (C.CONDITION_TWO_TECHNICIANS, sets(two_technicians=True), "grant.quorum"),
]


@pytest.mark.parametrize(("condition", "setter", "code"), CONDITIONS)
def test_each_condition_refuses_with_its_code(condition: Command, setter: tuple[int, object], code: str) -> None:
    assert code_of(setter, (condition, 15), bench=Bench(good=False)) == code
    assert code_of((condition, 15)) == code, "a parameter that was never set fails the condition"
    with pytest.raises(Refused, match="not set"):
        install((condition, 15))


@pytest.mark.parametrize(("condition", "setter", "code"), CONDITIONS[3:])
def test_each_condition_passes_where_the_platform_says_so(
    condition: Command, setter: tuple[int, object], code: str
) -> None:
    if condition is C.CONDITION_COMPONENT_SLOT:
        setter = sets(component_slot=1)
    trace = install(setter, (condition, 15))
    assert [step.command for step in trace.steps] == [OVERRIDE, condition]


def test_image_not_match_is_the_opposite() -> None:
    setter = sets(image_digest=DIGEST.encode())
    assert install(setter, (C.CONDITION_IMAGE_NOT_MATCH, 15), bench=Bench(good=False))
    assert code_of(setter, (C.CONDITION_IMAGE_NOT_MATCH, 15)) == "image.digest"


def test_abort_refuses() -> None:
    assert code_of((C.CONDITION_ABORT, 15)) == "envelope.malformed"


@pytest.mark.parametrize(
    "command",
    [
        (C.CONDITION_DEPENDENCY_INTEGRITY, 15),
        (C.CONDITION_IS_DEPENDENCY, 15),
        (C.DIRECTIVE_PROCESS_DEPENDENCY, 15),
        (C.DIRECTIVE_SET_PARAMETERS, {14: 1}),
        (C.DIRECTIVE_WAIT, 15),
        (C.DIRECTIVE_OVERRIDE_MULTIPLE, {0: {14: 1}}),
        (C.DIRECTIVE_COPY_PARAMS, {0: [14]}),
        (99, 15),
        (-256, 15),
        (-262, 15),
        (C.CONDITION_ABORT, 16),
        (C.CONDITION_ABORT, -1),
        (C.CONDITION_ABORT, True),
        (C.CONDITION_ABORT, None),
        (OVERRIDE, 5),
        (TRY, 5),
        (TRY, (((1, 15),),)),
        (TRY, (((1, 15),), None)),
        (RUN, 5),
        (INDEX, 1),
        (INDEX, -1),
        (INDEX, False),
        (INDEX, None),
        (INDEX, []),
        (INDEX, [0, 0]),
        (INDEX, [True]),
        (C.DIRECTIVE_FETCH, 15),
        (C.DIRECTIVE_WRITE, 15),
        (C.DIRECTIVE_COPY, 15),
        (C.DIRECTIVE_SWAP, 15),
    ],
)
def test_what_is_unknown_or_incomplete_is_malformed(command: tuple[int, object]) -> None:
    assert code_of(command) == "envelope.malformed"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (99, 1),
        (-256, 1),
        (-262, 1),
        (P.STRICT_ORDER, False),
        (P.SOFT_FAILURE, True),
        (P.FETCH_ARGUMENTS, b""),
        (P.WAIT_INFO, b"\xa0"),
        (P.COMPONENT_METADATA, b"\xa0"),
        (P.VENDOR_IDENTIFIER, bytes(15)),
        (P.CLASS_IDENTIFIER, "x" * 16),
        (P.IMAGE_DIGEST, bytes(32)),
        (P.IMAGE_DIGEST, wire.encode([-16, bytes(31)])),
        (P.IMAGE_SIZE, -1),
        (P.IMAGE_SIZE, True),
        (P.USE_BEFORE, "tomorrow"),
        (P.MINIMUM_BATTERY, None),
        (P.UPDATE_PRIORITY, 2**63),
        (P.URI, b"#main"),
        (P.URI, ""),
        (P.URI, "#a\nb"),
        (P.URI, "x" * 2049),
        (P.CONTENT, "text"),
        (P.SOURCE_COMPONENT, 1),
        (P.VERSION, b"\x80"),
        (P.SBOM_DIGEST, bytes(31)),
        (P.THERAPY_IDLE, False),
        (P.TWO_TECHNICIANS, 1),
    ],
)
def test_parameters_that_are_unknown_or_of_the_wrong_type_are_malformed(key: int, value: object) -> None:
    assert code_of((OVERRIDE, {int(key): value})) == "envelope.malformed"


def test_copy_swap_and_their_sources() -> None:
    bench = Bench()
    source = sets(source_component=1)
    install((INDEX, 0), source, (C.DIRECTIVE_COPY, 2), (C.DIRECTIVE_SWAP, 2), components=2, bench=bench)
    assert bench.done == [("copy", (b"\x00",), (b"\x01",)), ("swap", (b"\x00",), (b"\x01",))]
    assert code_of((INDEX, 1), source, (C.DIRECTIVE_COPY, 2), components=2) == "envelope.malformed"


def test_an_index_names_one_some_or_all_components() -> None:
    unlink = (C.DIRECTIVE_UNLINK.value, 2)
    for index, hit in ((1, [1]), ([2, 0], [2, 0]), (True, [0, 1, 2])):
        bench = Bench()
        install((INDEX, index), unlink, components=3, bench=bench)
        assert bench.done == [("unlink", (bytes([one]),)) for one in hit]


def test_parameters_belong_to_one_component() -> None:
    trace = install((INDEX, 1), sets(image_size=5), (INDEX, True), sets(use_before=9), components=2)
    assert trace.parameters == ({P.USE_BEFORE: 9}, {P.IMAGE_SIZE: 5, P.USE_BEFORE: 9})


def test_several_components_demand_an_index_first() -> None:
    assert code_of((C.DIRECTIVE_UNLINK, 2), components=2) == "envelope.malformed"
    assert code_of((INDEX, 0), shared=(sets(image_size=1),), components=2) == "envelope.malformed"
    assert code_of((INDEX, 0), components=0) == "envelope.malformed"


def test_nested_sequences_run_once_for_each_component_and_leave_the_index_alone() -> None:
    bench = Bench()
    inner = ((C.DIRECTIVE_UNLINK.value, 2), (INDEX, 2))
    install((INDEX, [0, 1]), (RUN, inner), (C.DIRECTIVE_INVOKE, 2), components=3, bench=bench)
    assert [(one[0], one[1]) for one in bench.done] == [
        ("unlink", (b"\x00",)),
        ("unlink", (b"\x01",)),
        (
            "invoke",
            (b"\x00",),
        ),
        (
            "invoke",
            (b"\x01",),
        ),
    ]


def branch(class_id: bytes, *more: tuple[int, object]) -> CommandSequence:
    return (sets(class_identifier=class_id), (C.CONDITION_CLASS_IDENTIFIER.value, 15), *more)


def test_try_each_takes_the_first_branch_that_passes() -> None:
    size = [sets(image_size=number) for number in range(3)]
    trace = install((TRY, (branch(bytes(16), size[0]), branch(CLASS, size[1]), branch(CLASS, size[2]))))
    assert trace.parameters[0][P.IMAGE_SIZE] == 1
    assert [step.ok for step in trace.steps if step.command == C.CONDITION_CLASS_IDENTIFIER] == [False, True]


def test_try_each_without_a_passing_branch_names_the_nearest_failure() -> None:
    wrong_device = (sets(device_identifier=bytes(16)), (C.CONDITION_DEVICE_IDENTIFIER.value, 15))
    assert code_of((TRY, (branch(CLASS, *wrong_device), branch(bytes(16))))) == "image.device"
    assert code_of((TRY, (branch(bytes(16)), branch(CLASS, *wrong_device)))) == "image.device"
    assert install((TRY, (branch(bytes(16)), branch(bytes(16)), None)))


def test_a_hard_failure_in_a_branch_aborts() -> None:
    hard = (sets(soft_failure=False), *branch(bytes(16)))
    assert code_of((TRY, (hard, branch(CLASS)))) == "image.class"


def test_a_failed_nested_directive_aborts_the_branch_around_it() -> None:
    failing = (TRY, (branch(bytes(16)), branch(bytes(16))))
    assert code_of((TRY, ((failing,), branch(CLASS)))) == "image.class"
    assert code_of((TRY, (((RUN, branch(bytes(16))),), branch(CLASS)))) == "image.class"


def test_a_directive_that_fails_aborts_even_where_failure_is_soft() -> None:
    class Full(Bench):
        def write(self, component: ComponentId, content: bytes) -> None:
            raise Refused("device.slot", "full")

    writes = (sets(content=b"x"), (C.DIRECTIVE_WRITE.value, 2))
    assert code_of((TRY, (writes, branch(CLASS))), bench=Full()) == "device.slot"


def test_run_sequence_fails_hard_unless_told_otherwise() -> None:
    assert code_of((RUN, branch(bytes(16)))) == "image.class"
    soft = (sets(soft_failure=True), *branch(bytes(16)), sets(image_size=1))
    trace = install((RUN, soft), sets(use_before=4))
    assert P.IMAGE_SIZE not in trace.parameters[0]
    assert trace.parameters[0][P.USE_BEFORE] == 4


def test_soft_failure_does_not_leak_into_nested_sequences() -> None:
    inner = (RUN, branch(bytes(16)))
    assert code_of((RUN, (sets(soft_failure=True), inner))) == "image.class"


@pytest.mark.parametrize(
    "command",
    [
        (C.DIRECTIVE_FETCH, 2),
        (C.DIRECTIVE_INVOKE, 2),
        (C.DIRECTIVE_UNLINK, 2),
        (C.CONDITION_THERAPY_IDLE, 15),
        sets(therapy_idle=True),
    ],
)
def test_the_shared_sequence_neither_acts_nor_holds_custom_commands(command: tuple[int, object]) -> None:
    assert code_of((C.DIRECTIVE_INVOKE, 2), shared=(sets(uri="#a"), command)) == "envelope.malformed"


def test_the_shared_sequence_runs_first_even_without_the_section() -> None:
    shared = (sets(vendor_identifier=VENDOR), (C.CONDITION_VENDOR_IDENTIFIER.value, 15))
    manifest = Manifest(1, Common((ZERO,), shared))
    assert [step.shared for step in run(manifest, Section.LOAD, Bench()).steps] == [True, True]
    with pytest.raises(Refused):
        run(manifest, Section.LOAD, Bench(vendor=bytes(16)))


def test_dependencies_and_unknown_members_refuse() -> None:
    for manifest in (
        Manifest(1, Common((ZERO,), None, {1: {}})),
        Manifest(1, Common((ZERO,)), extensions={99: 1}),
    ):
        with pytest.raises(Malformed, match="not understood"):
            run(manifest, Section.INSTALL, Bench())


def deep(levels: int) -> tuple[int, object]:
    command: tuple[int, object] = (C.DIRECTIVE_UNLINK.value, 2)
    for _ in range(levels):
        command = (RUN, (command,))
    return command


def test_depth_steps_and_components_are_bounded() -> None:
    assert install(deep(8))
    assert code_of(deep(9)) == "envelope.malformed"
    unlink: Sequence[tuple[int, object]] = [(C.DIRECTIVE_UNLINK.value, 2)] * 9
    assert install(*unlink, limits=Limits(steps=9))
    assert code_of(*unlink, limits=Limits(steps=8)) == "envelope.malformed"
    assert code_of((INDEX, True), *unlink, components=64, limits=Limits(steps=500)) == "envelope.malformed"
    assert code_of(components=65) == "envelope.malformed"


def test_work_that_multiplies_itself_ends() -> None:
    bomb: tuple[int, object] = (C.DIRECTIVE_UNLINK.value, 2)
    for _ in range(7):
        bomb = (RUN, ((INDEX, True), bomb))
    with pytest.raises(Malformed, match="executes more than"):
        install((INDEX, True), bomb, components=64)
