"""Captures: hex text, raw, pcap, pcapng; damage is one coded error, whatever dpkt makes of it."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc

import pytest

from devguard.errors import Malformed, Refused
from devguard.packets.capture import MAX_BLOCK, MAX_LINE, Form, Record, hex_bytes, recognise, records
from packets_support import mutations, truncations

pytest.importorskip("dpkt", reason="dpkt (extra [capture]) is not installed")

USER0, RTAC, ETHERNET = 147, 250, 1


def pcap(link: int, parts: list[bytes], order: str = "<") -> bytes:
    head = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack(f"{order}IIII", 1, 2, len(part), len(part)) + part for part in parts)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += b"\x00" * (-len(body) % 4)
    size = len(body) + 12
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def section(*links: int, order: str = "<") -> bytes:
    head = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    return head + b"".join(block(1, struct.pack(f"{order}HHI", link, 0, 65535), order) for link in links)


def enhanced(number: int, data: bytes, order: str = "<", options: bytes = b"") -> bytes:
    head = struct.pack(f"{order}IIIII", number, 0, 0, len(data), len(data))
    return block(6, head + data + bytes(-len(data) % 4) + options, order)


def pcapng(link: int, parts: list[bytes], order: str = "<") -> bytes:
    return section(link, order=order) + b"".join(enhanced(0, one, order) for one in parts)


def rtac(event: int, data: bytes) -> bytes:
    return struct.pack(">IIBBH", 1, 2, event, 0, 0) + data


def read(data: bytes) -> list[Record]:
    return list(records(io.BytesIO(data), recognise(data[:4096])))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", [pcap, pcapng])
def test_serial_captures(make: object, order: str) -> None:
    assert callable(make)
    assert [one.data for one in read(make(USER0, [b"one", b"three"], order))] == [b"one", b"three"]
    both = make(RTAC, [rtac(1, b"ask"), rtac(2, b"answer"), rtac(0, b"line state"), rtac(4, b"end")], order)
    assert read(both) == [Record(b"ask", 1), Record(b"answer", 2), Record(b"end", 2)]


def test_each_interface_is_read_by_its_own_link_type() -> None:
    """Two taps, one of them with a header, and a network beside them: dpkt would read all by the first one's type."""
    sent = struct.pack("<HHI", 2, 4, 2)
    capture = section(USER0, RTAC, ETHERNET)
    capture += enhanced(1, rtac(2, b"answer")) + enhanced(2, b"a frame of the network")
    capture += enhanced(0, b"ask", options=sent) + block(0xBAD, b"a block nobody knows ") + block(3, b"\3\0\0\0end\0")
    assert read(capture) == [Record(b"answer", 2, 1), Record(b"ask", 1, 0), Record(b"end", 0, 0)]
    other = section(RTAC, order=">") + enhanced(0, rtac(1, b"next"), ">")
    assert read(capture + other)[-1] == Record(b"next", 1, 0), "a section counts its own interfaces"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (section(USER0) + enhanced(1, b"x"), "1 are described"),
        (section() + enhanced(0, b"x"), "0 are described"),
        (section(*[USER0] * 300), "more than 256"),
        (section(USER0) + block(6, bytes(4)), "at least 20"),
        (section(USER0) + enhanced(0, b"abcd")[:-4] + bytes(4), "differ"),
        (section(USER0)[:4] + b"\x1a" + section(USER0)[5:], "claims 26"),
        (section(USER0) + struct.pack("<II", 6, 8), "claims 8"),
        (section(USER0) + struct.pack("<II", 6, 0xFFFFFFFC), "at most"),
        (section(USER0) + block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99) + b"short"), "99 bytes in a block"),
    ],
)
def test_pcapng_that_contradicts_itself(bad: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why) as caught:
        read(bad)
    assert caught.value.code == "capture.malformed"


def test_dpkt_reads_what_we_read_where_there_is_one_interface() -> None:
    import dpkt

    data = pcapng(USER0, [b"one", b"three", b""], ">")
    assert [part for _, part in dpkt.pcapng.Reader(io.BytesIO(data))] == [one.data for one in read(data)]


def test_another_link_type_is_refused_by_number() -> None:
    for make in (pcap, pcapng):
        with pytest.raises(Refused, match="link type is 1,") as caught:
            read(make(ETHERNET, [b"frame"]))
        assert caught.value.code == "packet.unknown"


def test_hex_text_in_the_forms_people_paste() -> None:
    assert hex_bytes(b"02 06:08-03,c262") == bytes.fromhex("02060803c262")
    assert hex_bytes(b"0x02 0x06") == b"\x02\x06"
    text = b"# a capture\n02 06 08 03 c2 62   # ack\n\n0209\n"
    assert recognise(text) is Form.HEX
    assert [one.data.hex() for one in read(text)] == ["02060803c262", "0209"]
    for bad in (b"0", b"zz", b"02 0", "\u0662".encode()):
        with pytest.raises(Malformed) as caught:
            hex_bytes(bad)
        assert caught.value.code == "capture.malformed"


def test_raw_bytes_come_as_they_are() -> None:
    data = random.Random(1).randbytes(200_000)
    assert recognise(data[:4096]) is Form.RAW
    assert b"".join(one.data for one in read(data)) == data


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(Malformed, match="line 1"):
        list(records(io.BytesIO(b"00" * MAX_LINE), Form.HEX))


def test_lengths_nobody_has_cost_no_memory() -> None:
    huge = pcap(USER0, [b"x"])[:24] + struct.pack("<IIII", 1, 2, 0xFFFFFFF0, 1) + b"x" * 100
    tracemalloc.start()
    with pytest.raises(Malformed, match="claims"):
        read(huge)
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BLOCK
    tracemalloc.stop()


def test_damage_is_one_coded_error() -> None:
    good = [pcap(RTAC, [rtac(1, b"ask"), rtac(2, b"answer")]), pcapng(RTAC, [rtac(1, b"ask"), rtac(2, b"answer")])]
    for index, data in enumerate(good):
        form = recognise(data)
        for bad in (*truncations(data), *mutations(data, index, 400)):
            try:
                list(records(io.BytesIO(bad), form))
            except (Malformed, Refused) as error:
                assert error.code in {"capture.malformed", "packet.unknown"}  # noqa: PT017 (either answer is right)


def test_a_capture_cut_in_a_record_says_so() -> None:
    with pytest.raises(Malformed, match="ends inside"):
        read(pcap(USER0, [b"whole", b"cut here"])[:-3])
