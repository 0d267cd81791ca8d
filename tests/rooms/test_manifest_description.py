"""Release descriptions, identifiers and model facts."""

from __future__ import annotations

import datetime
import re
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import LocalProtocolError, Malformed
from devguard.image.flat import FlashRange
from devguard.manifest.description import (
    ComponentDescription,
    Requires,
    Safety,
    parse_description,
    scaffold,
)
from devguard.manifest.fields import MAX_SIZE
from devguard.manifest.identity import class_id, device_id, vendor_id
from devguard.manifest.model import Clock, ModelFacts

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = """
[release]
vendor = "devices.example"
model = "insulin-pump"
revisions = ["revA"]
version = "1.2.3"
sequence = 7
security_version = 1
summary = "A release."
[[component]]
id = "application"
image = "images/app.bin"
"""


def refusal(text: str | bytes) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse_description(text.encode() if isinstance(text, str) else text)
    assert caught.value.code in ("description.malformed", "description.path")
    return caught.value


def change(field: str, value: str) -> str:
    changed = re.sub(rf"(?m)^{field} = .*$", lambda _: f"{field} = {value}", MINIMAL)
    assert changed != MINIMAL
    return changed


def test_a_minimal_description_takes_the_safe_defaults() -> None:
    parsed = parse_description(MINIMAL.encode())
    assert parsed.components == (ComponentDescription("application", "images/app.bin", "auto", (), ()),)
    assert parsed.safety == Safety(None, therapy_idle=True, two_technicians=False)
    assert parsed.requires == Requires(None, {})
    assert (parsed.use_before, parsed.sbom, parsed.test_report_digest, parsed.end_of_support) == (None,) * 4
    assert parsed.thresholds == {"release": 1, "quality": 1}


def test_the_documented_example_holds_every_field() -> None:
    page = (ROOT / "firmware_manifests" / "README.md").read_text()
    parsed = parse_description(page.split("```toml\n")[1].split("```")[0].encode())
    assert parsed.use_before == int(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC).timestamp())
    assert parsed.end_of_support == int(datetime.datetime(2031, 12, 31, tzinfo=datetime.UTC).timestamp())
    assert parsed.components[0].serials == ("SN-0001", "SN-0002")
    assert parsed.components[0].ignore_ranges == ((0x10001000, 0x10002000),)
    assert parsed.safety == Safety(30, therapy_idle=True, two_technicians=False)
    assert parsed.requires == Requires("1.0.0", {"radio": "2.1.0"})
    assert parsed.sbom == "sbom.cdx.json"
    assert parsed.test_report_digest is not None
    assert len(parsed.test_report_digest) == 32


def test_the_kept_descriptions_parse_and_grow() -> None:
    found: dict[str, list[tuple[int, int, str]]] = {}
    for path in sorted((ROOT / "firmware_manifests").glob("*/*.toml")):
        parsed = parse_description(path.read_bytes())
        assert (path.parent.name, path.stem) == (parsed.model, parsed.version)
        found.setdefault(parsed.model, []).append((parsed.sequence, parsed.security_version, parsed.version))
    assert set(found) == {"insulin-pump", "pacemaker-programmer"}
    for releases in found.values():
        assert len(releases) == 2
        assert releases[0][0] < releases[1][0]
        assert releases[0][1] <= releases[1][1]


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        (MINIMAL.replace("sequence", "sequnce"), "release.sequnce", "'sequence'"),
        (MINIMAL.replace("image =", "imgae ="), "component.imgae", "'image'"),
        (MINIMAL.replace("[[component]]", "[[componnt]]"), "componnt", "'component'"),
        (MINIMAL + "[safety]\ntherapy_idel = true\n", "safety.therapy_idel", "'therapy_idle'"),
        (MINIMAL + "[signing]\nqualty = 1\n", "signing.qualty", "'quality'"),
        (MINIMAL + "[zzzz]\n", "zzzz", "nearest known key"),
    ],
)
def test_unknown_keys_name_the_nearest_known_one(text: str, field: str, hint: str) -> None:
    error = refusal(text)
    assert error.message.startswith(field + ":")
    assert hint in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vendor", '"nodots"'),
        ("vendor", '"Devices.Example"'),
        ("vendor", '"a..example"'),
        ("vendor", '"-a.example"'),
        ("vendor", f'"{"a." * 130}example"'),
        ("vendor", "1"),
        ("model", '"Pump"'),
        ("model", '"a/b"'),
        ("model", '""'),
        ("model", '"pump\\n"'),
        ("revisions", "[]"),
        ("revisions", '"revA"'),
        ("revisions", '["revA", "revA"]'),
        ("revisions", '["a/b"]'),
        ("revisions", "[1]"),
        ("version", '"1.2"'),
        ("version", '"01.2.3"'),
        ("version", '"1.2.3-01"'),
        ("version", '"v1.2.3"'),
        ("version", '"1.2.3\\n"'),
        ("version", '"1.2.٣"'),
        ("version", "1.2"),
        ("sequence", "-1"),
        ("sequence", str(2**64)),
        ("sequence", "true"),
        ("sequence", "1.0"),
        ("sequence", '"1"'),
        ("sequence", "9" * 4000),
        ("sequence", "0x" + "f" * 4000),
        ("security_version", str(2**31)),
        ("summary", '""'),
        ("summary", '"a\\u001b[31m"'),
        ("summary", '"a\\u202eb"'),
        ("summary", f'"{"x" * 1001}"'),
        ("id", '"a b"'),
        ("image", "1"),
    ],
)
def test_types_and_ranges_are_strict(field: str, value: str) -> None:
    error = refusal(change(field, value))
    assert field in error.message.split(":")[0] or "not TOML" in error.message


@pytest.mark.parametrize("missing", ["vendor", "model", "revisions", "version", "sequence", "summary", "id", "image"])
def test_mandatory_fields(missing: str) -> None:
    error = refusal(re.sub(rf"(?m)^{missing} = .*$", "", MINIMAL))
    assert missing in error.message
    assert "missing" in error.message


@pytest.mark.parametrize(
    "extra",
    [
        'format = "elf"',
        "ignore_ranges = [[2, 1]]",
        "ignore_ranges = [[1, 1]]",
        "ignore_ranges = [[0, 4294967297]]",
        "ignore_ranges = [[-1, 2]]",
        "ignore_ranges = [1, 2]",
        "ignore_ranges = [[1, 2, 3]]",
        "ignore_ranges = [[true, 2]]",
        f"ignore_ranges = [{'[0, 1],' * 65}]",
        'serials = ["a", "a"]',
        "[safety]\nminimum_battery_percent = 101",
        "[safety]\nminimum_battery_percent = 1.5",
        "[safety]\ntherapy_idle = 1",
        "[signing]\nrelease = 0",
        "[signing]\nroot = 1",
        "[requires]\nversion = '1'",
        "[requires]\ncomponents = { 'A B' = '1.0.0' }",
        "[requires]\ncomponents = { radio = 1 }",
        "[evidence]\ntest_report_digest = 'ab'",
        "[sbom]\nfile = 1",
        "sbom = 'x'",
        "[safety]\n[safety]",
        "[[component]]\nid = 'application'\nimage = 'other.bin'",
        "".join(f"[[component]]\nid = 'c{number}'\nimage = 'x'\n" for number in range(16)),
    ],
)
def test_optional_fields_are_strict_too(extra: str) -> None:
    refusal(MINIMAL + extra + "\n")


@pytest.mark.parametrize("version", ["0.0.0", "1.2.3-rc.1+build.7", "1.0.0-0A.is.legal", "10.20.30"])
def test_semantic_versions(version: str) -> None:
    assert parse_description(change("version", f'"{version}"').encode()).version == version


def test_moments() -> None:
    def seconds(value: str) -> int | None:
        return parse_description(MINIMAL.replace("[[comp", f"use_before = {value}\n[[comp").encode()).use_before

    assert seconds("2030-01-01") == seconds("2030-01-01T00:00:00Z") == seconds("2030-01-01T02:00:00+02:00")
    for bad in (
        "2030-01-01T00:00:00",
        "00:00:00",
        "1",
        '"2030-01-01"',
        "1969-12-31",
        "2030-13-01",
        "0001-01-01T00:00:00+23:59",
    ):
        refusal(MINIMAL.replace("[[comp", f"use_before = {bad}\n[[comp"))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../other.bin",
        "images/../../other.bin",
        "images/..",
        "..",
        ".",
        "",
        "images//app.bin",
        "images/",
        "images\\\\app.bin",
        "C:/app.bin",
        "~/app.bin",
        "a\\u0000b",
        "a\\nb",
        "a\\u007fb",
        "a\\u202eb",
        "x" * 1025,
    ],
)
def test_paths_never_leave_the_folder(path: str) -> None:
    assert refusal(change("image", f'"{path}"')).code == "description.path"
    assert refusal(MINIMAL + f'[sbom]\nfile = "{path}"\n').code == "description.path"


@pytest.mark.parametrize("path", ["app.bin", "./app.bin", "images/..app", "images/pompe-é.hex", "a b/c.bin"])
def test_plain_paths_are_kept(path: str) -> None:
    assert parse_description(change("image", f'"{path}"').encode()).components[0].path == path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + MINIMAL.encode(),
        b"a = " + b"[" * 4000 + b"]" * 4000,
        b"a = " + b"[\n" * 20000 + b"]\n" * 20000,
        b"a = " + b"{a=" * 1300,
        b"a." * 2000 + b"a = 1",
        b"x" * (MAX_SIZE + 1),
        b"#" * 4097,
        b"\x00",
        MINIMAL.encode() + b"\nvendor = 1\nvendor = 2",
    ],
)
def test_hostile_texts_are_refused_in_bounded_time(data: bytes) -> None:
    assert refusal(data).code == "description.malformed"


def test_many_dotted_lines_stay_fast() -> None:
    line = b".".join([b"k"] * 2000)
    data = b"".join(line + b".v%d = 1\n" % number for number in range(10))
    assert len(data) < MAX_SIZE
    refusal(data)


def test_a_newer_format_says_so() -> None:
    error = refusal("format = 2\n" + MINIMAL)
    assert error.hint == "update devguard"
    assert parse_description(("format = 1\n" + MINIMAL).encode())


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: (MINIMAL + text).encode("utf-8", "replace")))
def test_parses_or_raises_its_own_error(data: bytes) -> None:
    try:
        parse_description(data)
        code = None
    except Malformed as error:
        code = error.code
    assert code in (None, "description.malformed", "description.path")


@pytest.mark.parametrize("model", ["insulin-pump", "pacemaker-programmer", "x"])
def test_a_scaffold_parses(model: str) -> None:
    parsed = parse_description(scaffold(model, "2.0.0-rc.1", "devices.example", "revB").encode())
    assert (parsed.model, parsed.version, parsed.revisions) == (model, "2.0.0-rc.1", ("revB",))


@given(st.lists(st.text(max_size=20), min_size=4, max_size=4))
def test_a_scaffold_cannot_be_injected_into(words: list[str]) -> None:
    for place in range(4):
        arguments = ["pump", "1.0.0", "devices.example", "revA"]
        arguments[place] = words[place]
        try:
            text = scaffold(*arguments)
        except Malformed:
            continue
        parsed = parse_description(text.encode())
        assert [parsed.model, parsed.version, parsed.vendor, parsed.revisions[0]] == arguments


def test_identifiers_are_version_5_uuids_under_each_other() -> None:
    vendor = vendor_id("arm.com")
    assert vendor == uuid.uuid5(uuid.NAMESPACE_DNS, "arm.com").bytes
    # draft-ietf-suit-manifest uses this vendor identifier in its examples' sense: UUID5(DNS, domain).
    assert uuid.UUID(bytes=vendor).version == 5
    assert vendor_id("ARM.com") == vendor
    kind = class_id(vendor, "insulin-pump", "revA")
    assert kind == uuid.uuid5(uuid.UUID(bytes=vendor), "insulin-pump/revA").bytes
    assert device_id(kind, "SN-1") == uuid.uuid5(uuid.UUID(bytes=kind), "SN-1").bytes
    assert len({vendor, kind, class_id(vendor, "insulin-pump", "revB"), device_id(kind, "SN-1")}) == 4
    with pytest.raises(LocalProtocolError):
        class_id(b"short", "a", "b")


def test_model_facts() -> None:
    facts = ModelFacts("pump", "devices.example", ("revA",), 0, 4096, 1501, Clock.NONE, 1, ("application",))
    assert facts.flash == FlashRange(0, 4096)
    assert [facts.battery_mwh(percent) for percent in (0, 1, 30, 100)] == [0, 16, 451, 1501]
