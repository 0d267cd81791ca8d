"""UF2, S-records, DFU and DfuSe, ESP images and ELF: every field, every rule, and no file that makes a reader fail."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import Refused
from devguard.image.dfu import describe_dfu
from devguard.image.elf import describe_elf
from devguard.image.esp import describe_esp
from devguard.image.kind import Kind, recognise
from devguard.image.problem import ImageReport
from devguard.image.srec import describe_srec
from devguard.image.uf2 import describe_uf2
from image_support import described, dfuse, elf, esp, srec, suffixed, uf2

Describe = Callable[[BinaryIO], ImageReport]
pytest.importorskip("bincopy", reason="bincopy (extra [image]) is not installed")


GOOD: list[tuple[Kind, Describe, bytes]] = [
    (Kind.UF2, describe_uf2, uf2((0x1000, bytes(256)), (0x1100, bytes(256)))),
    (Kind.SREC, describe_srec, srec()),
    (Kind.DFU, describe_dfu, dfuse((0x0800_0000, bytes(300)), (0x0801_0000, bytes(20)))),
    (Kind.DFU, describe_dfu, suffixed((0x20004000).to_bytes(4, "little") + bytes(100))),
    (Kind.ESP, describe_esp, esp((0x3F40_0020, described()), (0x4008_0000, bytes(range(64))))),
    (Kind.ESP, describe_esp, esp((0x4010_0000, bytes(64)), chip=None)),
    (Kind.ELF, describe_elf, elf()),
]
each = pytest.mark.parametrize(("kind", "describe", "data"), GOOD, ids=lambda value: str(value)[:24])


def look(describe: Describe, data: bytes) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    report = describe(io.BytesIO(data))
    return report.fields, [(problem.code, problem.detail) for problem in report.problems]


@each
def test_a_sound_file_is_recognised_and_without_problem(kind: Kind, describe: Describe, data: bytes) -> None:
    assert recognise(data[:4096], data[-16:]) is kind
    assert look(describe, data)[1] == []


@each
def test_every_field_has_its_place_and_meaning(kind: Kind, describe: Describe, data: bytes) -> None:
    """In file order, none over another, and a number is the one that stands there."""
    rows: list[dict[str, Any]] = look(describe, data)[0]["places"]
    assert rows
    ends = [row["offset"] + row["size"] for row in rows]
    assert all(row["offset"] >= end for row, end in zip(rows[1:], ends, strict=False))
    assert ends[-1] <= len(data)
    for row in rows:
        assert set(row) == {"offset", "size", "name", "value", "meaning"}
        assert row["meaning"]
        if type(row["value"]) is int and kind is not Kind.SREC:
            assert int.from_bytes(data[row["offset"] : row["offset"] + row["size"]], "little") == row["value"], row
    assert json.loads(json.dumps(rows)) == rows


@each
def test_bytes_behind_the_end_are_reported(kind: Kind, describe: Describe, data: bytes) -> None:
    if kind is Kind.ELF:
        return  # an ELF file says where its parts are; what else it holds is nobody's
    more = data + (b"S1050000AAAAA6\n" if kind is Kind.SREC else bytes(8) if kind is Kind.DFU else bytes(24))
    assert look(describe, more)[1] != []


@each
def test_unreadable_files_are_refused(kind: Kind, describe: Describe, data: bytes) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

        readline = read

    with pytest.raises(Refused, match="cannot be read"):
        describe(Broken(data))


def test_uf2_fields_and_rules() -> None:
    fields, _ = look(describe_uf2, GOOD[0][2])
    assert fields["segments"] == [{"start": 0x1000, "end": 0x1200}]
    assert (fields["families"], fields["flags"], fields["blocks"]) == (["0xe48bff56"], ["family-id"], 2)
    assert "overlap" in look(describe_uf2, uf2((0x1000, bytes(256)), (0x1080, bytes(256))))[1][0][1]
    three = uf2((0x2000, bytes(256)), (0x1000, bytes(256)), (0x1080, bytes(64)))
    assert [one.offset for one in describe_uf2(io.BytesIO(three)).problems] == [1024], "the later of the two"
    swapped = GOOD[0][2][512:] + GOOD[0][2][:512]
    assert "says it is number 1" in look(describe_uf2, swapped)[1][0][1]
    assert "they say 2" in look(describe_uf2, GOOD[0][2][:512])[1][-1][1]
    huge = bytearray(GOOD[0][2])
    huge[16:20] = b"\xff\xff\xff\xff"
    assert "4294967295 bytes" in look(describe_uf2, bytes(huge))[1][0][1]
    tagged = uf2((0, bytes(8) + bytes((9, 0xBC, 0xC7, 0x9F)) + b"1.2.3" + bytes(3)), flags=0x8000)
    struct.pack_into("<I", (patched := bytearray(tagged)), 16, 8)
    assert look(describe_uf2, bytes(patched))[0]["tags"] == {"version": "1.2.3"}


def test_srec_fields_and_rules() -> None:
    fields, _ = look(describe_srec, srec())
    assert fields["segments"] == [{"start": 0x0800_0000, "end": 0x0800_0064}]
    assert (fields["header"], fields["start_address"]) == ("devguard", 0x0800_0000)
    lines = srec().splitlines(keepends=True)
    wrong = b"".join([lines[0], lines[1][:-3] + b"00\n", *lines[2:]])
    assert look(describe_srec, wrong)[1][0][0] == "image.format"
    assert "without an S7" in look(describe_srec, b"".join(lines[:-1]))[1][-1][1]
    assert "overlap" in look(describe_srec, b"".join([*lines[:2], lines[1], *lines[2:]]))[1][-1][1]
    assert any("counts" in detail for _, detail in look(describe_srec, b"".join([lines[0], *lines[2:]]))[1])


@given(st.binary(min_size=1, max_size=300), st.integers(0, (1 << 32) - 301))
def test_srec_as_the_peer_writes_it(data: bytes, address: int) -> None:
    fields, problems = look(describe_srec, srec(data, address))
    assert problems == []
    assert fields["segments"] == [{"start": address, "end": address + len(data)}]


def test_dfu_fields_and_rules() -> None:
    fields, _ = look(describe_dfu, GOOD[2][2])
    assert fields["suffix"]["vendor"] == "0x0483"
    assert [one["size"] for one in fields["targets"][0]["elements"]] == [300, 20]
    assert fields["targets"][0]["name"] == "Internal Flash"
    plain, _ = look(describe_dfu, GOOD[3][2])
    assert plain["payload_bytes"] == 104
    flipped = bytearray(GOOD[3][2])
    flipped[9] ^= 1
    assert look(describe_dfu, bytes(flipped))[1][0][0] == "image.digest"
    overlap = dfuse((0x0800_0000, bytes(300)), (0x0800_0010, bytes(20)))
    assert "overlap" in look(describe_dfu, overlap)[1][0][1]
    past = dfuse((0xFFFF_FFF0, bytes(300)))
    assert "address space" in look(describe_dfu, past)[1][0][1]


def test_esp_fields_and_rules() -> None:
    fields, _ = look(describe_esp, GOOD[4][2])
    assert (fields["chip"], fields["segment_count"], fields["hash_appended"]) == ("ESP32-C3", 2, True)
    assert (fields["application"]["version"], fields["application"]["secure_version"]) == ("1.4.0", 3)
    assert look(describe_esp, GOOD[5][2])[0]["chip"] == "ESP8266"
    flipped = bytearray(GOOD[4][2])
    flipped[200] ^= 1
    assert [code for code, _ in look(describe_esp, bytes(flipped))[1]] == ["image.digest", "image.digest"]
    overlap = esp((0x4008_0000, bytes(64)), (0x4008_0020, bytes(64)))
    assert "overlap" in look(describe_esp, overlap)[1][0][1]


def test_elf_fields_and_rules() -> None:
    fields, _ = look(describe_elf, elf())
    assert (fields["class"], fields["machine"], fields["type"], fields["entry"]) == (32, "ARM", "EXEC", 0x1001)
    assert fields["segments"] == [{"start": 0x1000, "end": 0x1040}]
    assert "end of the file" in look(describe_elf, elf(stored=9999, memory=9999))[1][0][1]
    assert "written and executed" in look(describe_elf, elf(flags=7))[1][0][1]
    assert "entry point" in look(describe_elf, elf(entry=0x9001))[1][0][1]
    assert "in memory" in look(describe_elf, elf(memory=8))[1][0][1]


def test_elf_as_a_compiler_makes_it(tmp_path: Path) -> None:
    compiler = which("cc")
    if compiler is None:
        pytest.skip("no C compiler here; the interpreter's own file is read below")
    source = tmp_path / "a.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run([compiler, "-Wl,--build-id=sha1", "-o", tmp_path / "a", source], check=True)
    with (tmp_path / "a").open("rb") as reader:
        report = describe_elf(reader)
    assert report.problems == ()
    assert len(str(report.fields["build_id"])) == 40


def test_elf_of_this_very_program() -> None:
    with Path(sys.executable).resolve().open("rb") as reader:
        if recognise(reader.read(64)) is not Kind.ELF:
            pytest.skip("Python is no ELF file on this system")
        report = describe_elf(reader)
    assert report.fields["class"] in (32, 64)
    assert report.fields["loaded"]
