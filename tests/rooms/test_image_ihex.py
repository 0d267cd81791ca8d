"""Intel HEX: exact bytes or a coded refusal; compared with bincopy as a peer."""

from __future__ import annotations

import io
import itertools
import time

import bincopy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard.errors import Malformed
from devguard.image.flat import FlashRange
from devguard.image.ihex import decode_ihex, describe_ihex
from devguard.image.runs import MAX_RUNS

FLASH = FlashRange(0x1000, 0x20000)
END = ":00000001FF\n"


def record(kind: int, address: int, data: bytes = b"") -> str:
    raw = bytes((len(data),)) + address.to_bytes(2, "big") + bytes((kind,)) + data
    return f":{(raw + bytes((-sum(raw) & 0xFF,))).hex().upper()}\n"


def decode(text: str, flash: FlashRange = FLASH, ignore: tuple[tuple[int, int], ...] = ()) -> tuple[bytes, list[str]]:
    image, notes = decode_ihex(io.BytesIO(text.encode()), flash, ignore)
    return image, list(notes)


def refused(text: str, ignore: tuple[tuple[int, int], ...] = ()) -> str:
    with pytest.raises(Malformed) as caught:
        decode(text, ignore=ignore)
    return caught.value.code


def test_gaps_are_erased_flash_and_the_image_ends_at_the_highest_byte() -> None:
    image, notes = decode(record(0, 0x1004, b"ab") + record(0, 0x1008, b"c") + END)
    assert image == b"\xff\xff\xff\xffab\xff\xffc"
    assert notes == ["6 bytes of gaps filled with 0xff"]


def test_line_ends_case_and_blank_lines() -> None:
    text = record(0, 0x1000, b"\xab\xcd") + END
    plain = decode(text)
    assert decode(text.replace("\n", "\r\n")) == plain
    assert decode(text.lower()) == plain
    assert decode("\n" + text + "\r\n\n") == plain
    assert decode(text.rstrip("\n")) == plain


def test_start_addresses_are_noted() -> None:
    data = record(0, 0x1000, b"a")
    assert decode(record(5, 0, bytes.fromhex("00001235")) + data + END)[1] == ["start address 0x00001235"]
    assert decode(record(3, 0, bytes.fromhex("10000010")) + data + END)[1] == ["start address 0x00010010"]
    assert refused(record(5, 0, bytes(4)) * 2 + data + END) == "image.format"


def test_linear_and_segmented_addresses() -> None:
    linear = record(4, 0, b"\x00\x01") + record(0, 0x0010, b"x") + END
    segmented = record(2, 0, b"\x10\x00") + record(0, 0x0010, b"x") + END
    assert decode(linear) == decode(segmented)
    assert len(decode(linear)[0]) == 0x10011 - 0x1000


def test_linear_mode_crosses_a_64_kib_border_and_segments_do_not() -> None:
    assert len(decode(record(0, 0xFFFF, b"ab") + END)[0]) == 0x10001 - 0x1000
    assert refused(record(2, 0, b"\x01\x00") + record(0, 0xFFFF, b"ab") + END) == "image.format"


def test_the_4_gib_border_does_not_wrap() -> None:
    top = record(4, 0, b"\xff\xff") + record(0, 0xFFFF, b"ab") + END
    assert refused(top, ((0, 1 << 32),)) == "image.format"


def test_records_outside_the_flash_refuse_unless_listed() -> None:
    text = record(0, 0x1000, b"a") + record(4, 0, b"\x10\x00") + record(0, 0x10C0, bytes(28)) + END
    assert refused(text) == "image.range"
    image, notes = decode(text, ignore=((0x10001000, 0x10002000),))
    assert image == b"a"
    assert notes == ["28 bytes ignored in 0x10001000 to 0x10002000: the description lists that range"]
    assert refused(text, ((0x100010C0, 0x100010DB),)) == "image.range"
    assert refused(record(0, 0x0FFF, b"a") + END) == "image.range"


def test_no_ignore_range_drops_bytes_of_the_flash() -> None:
    everything = ((0, 1 << 32),)
    assert refused(record(0, 0x0FFF, b"ab") + END, everything) == "image.range"
    assert decode(record(0, 0x1000, b"ab") + END, ignore=everything)[0] == b"ab"
    last = FLASH.base + FLASH.size - 1
    text = record(4, 0, (last >> 16).to_bytes(2, "big")) + record(0, last & 0xFFFF, b"ab") + END
    assert refused(text, everything) == "image.range"


@pytest.mark.parametrize("second", [b"abcd", b"zz"])
def test_overlaps_refuse_even_when_equal(second: bytes) -> None:
    assert refused(record(0, 0x1000, b"abcd") + record(0, 0x1000, second) + END) == "image.format"
    assert refused(record(0, 0x1002, b"cd") + record(0, 0x1000, b"abc") + END) == "image.format"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "image.format"),
        (record(0, 0x1000, b"a"), "image.format"),
        (END, "image.format"),
        (record(0, 0x1000, b"") + END, "image.format"),
        (record(0, 0x1000, b"a") + END + END, "image.trailing"),
        (record(0, 0x1000, b"a") + END + "\x1a", "image.trailing"),
        (":0110000061FF\n" + END, "image.format"),
        (record(6, 0, b"") + END, "image.format"),
        (record(0x0A, 0, bytes(4)) + END, "image.format"),
        (record(4, 0, b"\x00") + END, "image.format"),
        (record(4, 1, b"\x00\x00") + END, "image.format"),
        (record(1, 0, b"x") + END, "image.format"),
        (record(0, 0x1000, b"a").replace("\n", " \n") + END, "image.format"),
        (" " + record(0, 0x1000, b"a") + END, "image.format"),
        (record(0, 0x1000, b"a").replace(":01", ": 01") + END, "image.format"),
        (record(0, 0x1000, b"a").replace("\n", "\r\r\n") + END, "image.format"),
        (":\n" + END, "image.format"),
        (":" + "0" * 2_000_000, "image.format"),
        (":FF", "image.format"),
        ("S00600004844521B\n", "image.format"),
    ],
)
def test_broken_files_refuse_with_a_code(text: str, code: str) -> None:
    assert refused(text) == code


def test_a_flipped_digit_anywhere_never_changes_the_image_in_silence() -> None:
    text = record(0, 0x1000, bytes(range(16))) + record(5, 0, bytes(4)) + END
    good = decode(text)
    for at, char in itertools.product(range(len(text)), "0123456789ABCDEFabcdef:\n"):
        changed = text[:at] + char + text[at + 1 :]
        if changed.upper() == text:
            continue
        try:
            outcome: object = decode(changed)
        except Malformed as error:
            outcome = error.code
        assert outcome in (good, "image.format", "image.range", "image.trailing")


def test_truncation_at_every_byte_refuses() -> None:
    text = record(0, 0x1000, bytes(range(16))) + END
    whole = len(text) - 1  # the last line end may be missing
    for cut in range(whole):
        assert refused(text[:cut]) == "image.format"


@given(
    pieces=st.lists(st.tuples(st.integers(0, 0xFFF0), st.binary(min_size=1, max_size=200)), min_size=1, max_size=8),
    width=st.sampled_from([1, 7, 16, 32, 255]),
)
def test_agrees_with_bincopy(pieces: list[tuple[int, bytes]], width: int) -> None:
    peer = bincopy.BinFile()
    for address, data in pieces:
        peer.add_binary(data, address, overwrite=True)
    image, _ = decode(peer.as_ihex(number_of_data_bytes=width), FlashRange(0, 1 << 20))
    assert image == b"\xff" * peer.minimum_address + peer.as_binary(padding=b"\xff")


@given(st.binary(max_size=400) | st.text(":0123456789ABCDEF\r\n", max_size=200).map(str.encode))
def test_parses_or_raises_its_own_error(data: bytes) -> None:
    report = describe_ihex(io.BytesIO(data))
    try:
        decode_ihex(io.BytesIO(data), FlashRange(0, 1 << 16), ())
        code = None
    except Malformed as error:
        code = error.code
    assert code in (None, "image.format", "image.range", "image.trailing")
    assert code or not report.problems


def test_the_report_names_segments_start_and_problems() -> None:
    text = record(0, 0, b"ab") + record(0, 0x10, b"c") + record(5, 0, b"\0\0\0\x09") + END
    report = describe_ihex(io.BytesIO(text.encode()))
    rows = [(row["name"], row["offset"]) for row in report.fields.pop("places")]  # type: ignore[attr-defined]  # a list
    assert rows == [("data", 0), ("start-linear", 30), ("end-of-file", 50)]
    assert report.fields == {
        "segments": [{"start": 0, "end": 2}, {"start": 0x10, "end": 0x11}],
        "segment_count": 2,
        "data_bytes": 3,
        "start_address": 9,
        "data_records": 2,
    }
    assert not report.problems
    overlap = describe_ihex(io.BytesIO((record(0, 0, b"ab") + record(0, 9, b"x") + record(0, 1, b"z") + END).encode()))
    assert [(problem.code, "0x00000001" in problem.detail) for problem in overlap.problems] == [("image.format", True)]
    broken = describe_ihex(io.BytesIO((record(0, 0, b"ab") + ":zz\n").encode()))
    assert [(problem.code, problem.offset) for problem in broken.problems] == [("image.format", 16)]


def test_scattered_records_take_linear_time() -> None:
    text = "".join(record(0, address, b"a") for address in range(0xFFFE, 0x1000, -2)) + END
    began = time.perf_counter()
    image, _ = decode(text)
    assert time.perf_counter() - began < 5
    assert image.count(b"a") == text.count("\n") - 1
    assert MAX_RUNS >= 0xFFFF
    assert describe_ihex(io.BytesIO(text.encode())).fields["segment_count"] == text.count("\n") - 1
