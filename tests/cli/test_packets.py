"""`devguard packets`: decode and watch as people and programs use them; nothing is ever written to a port.

Invariant: exit 0 valid, 3 not; the contract's keys on every answer; patient data of a capture masked unless asked.
"""

from __future__ import annotations

import io
import json
import os
import pty
import threading
import tty
from pathlib import Path
from typing import Any

import pytest

from cli_support import Result, devguard
from devguard.cli import watching
from devguard.packets.families.lifescan import LAYOUT
from devguard.packets.registry import MODULES

ACK, VERSION = "02060803c262", "020903050d0203089f"
READING = LAYOUT.write(link_control=3, message=b"\x05\x06" + bytes(8)).hex()
SET_CLOCK = LAYOUT.write(link_control=3, message=b"\x05\x20\x01" + bytes(4)).hex()
KEYS = ["family", "name", "valid", "crc_ok", "therapy_affecting", "authenticated", "fields", "code"]


def run(*args: str) -> Result:
    return devguard("packets", *args)


def fed(monkeypatch: pytest.MonkeyPatch, data: bytes, *args: str) -> Result:
    """The same with `data` on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    return run(*args)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


def test_the_contract_of_decode() -> None:
    result = run("decode", "lifescan_binary", ACK, "--json")
    assert result.status == 0
    answer = result.json
    assert [key for key in KEYS if key not in answer] == []
    assert (answer["family"], answer["valid"], answer["crc_ok"], answer["code"]) == (
        "lifescan_binary",
        True,
        True,
        None,
    )
    bad = run("decode", "lifescan_binary", ACK[:-2] + "00", "--json")
    assert bad.status == 3
    assert bad.json["code"] == "packet.crc"


def test_hex_from_a_file_from_stdin_and_from_raw_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, raw = tmp_path / "one.hex", tmp_path / "one.bin"
    text.write_text(f"# ack\n{ACK}\n")
    raw.write_bytes(bytes.fromhex(ACK))
    for result in (
        run("decode", "lifescan_binary", str(text), "--json"),
        run("decode", "lifescan_binary", str(raw), "--json"),
        fed(monkeypatch, f"{ACK}\n".encode(), "decode", "lifescan_binary", "-", "--json"),
        fed(monkeypatch, bytes.fromhex(ACK), "decode", "lifescan_binary", "-", "--json"),
    ):
        assert (result.status, result.json["valid"]) == (0, True), result.out + result.err


def test_a_capture_of_several_packets(tmp_path: Path) -> None:
    file = tmp_path / "capture.bin"
    file.write_bytes(b"\xff\xff" + bytes.fromhex(ACK + VERSION))
    answer = run("decode", "lifescan_binary", str(file), "--json").json
    assert [one["name"] for one in answer["packets"]] == ["disconnect", "read version"]


def test_patient_data_of_a_capture_is_masked(tmp_path: Path) -> None:
    file = tmp_path / "capture.hex"
    file.write_text(READING + "\n")
    hidden = run("decode", "lifescan_binary", str(file), "--json").json
    assert hidden["fields"]["message"] == "(patient data)"
    shown = run("decode", "lifescan_binary", str(file), "--json", "--show-patient-data").json
    assert shown["fields"]["message"].startswith("0506")
    typed = run("decode", "lifescan_binary", READING, "--json").json
    assert typed["fields"]["message"].startswith("0506")
    for command in (("decode",), ("watch",)):
        assert "0506000000" not in run(*command, "lifescan_binary", str(file)).out


def test_watch_counts_and_closes_with_a_summary(tmp_path: Path) -> None:
    file = tmp_path / "capture.bin"
    file.write_bytes(b"\x00" + bytes.fromhex(ACK + SET_CLOCK + VERSION) + b"\x02")
    result = run("watch", "lifescan_binary", str(file), "--json")
    assert result.status == 0
    *found, last = lines(result)
    assert [one["offset"] for one in found] == [1, 7, 20]
    assert last["summary"] == {
        "packets": 3,
        "invalid": 0,
        "therapy_affecting": 1,
        "therapy_affecting_unauthenticated": 1,
        "effect_unknown": 0,
        "skipped_bytes": 2,
        "damaged": 0,
        "unauthenticated": {"write clock": 1},
    }
    text = run("watch", "lifescan_binary", str(file)).out
    assert "!! THERAPY, NOT AUTHENTICATED" in text
    assert "therapy-affecting, NOT AUTHENTICATED: write clock (1)" in text
    quiet = run("watch", "lifescan_binary", str(file), "-q").out.splitlines()
    assert ["write clock" in line for line in quiet] == [True, False, True], quiet


def test_watch_follows_a_port_and_writes_nothing() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    answer: list[Result] = []
    watching = threading.Thread(
        target=lambda: answer.append(run("watch", "lifescan_binary", os.ttyname(theirs), "--json"))
    )
    watching.start()
    data = bytes.fromhex(ACK + VERSION)
    for at in range(len(data)):
        os.write(ours, data[at : at + 1])
    os.set_blocking(ours, False)
    deadline = threading.Event()
    for _ in range(100):
        deadline.wait(0.05)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)  # the watcher never writes
        if not _waiting(theirs):
            break
    deadline.wait(0.3)
    os.close(ours)
    watching.join(10)
    os.close(theirs)
    assert not watching.is_alive()
    result = answer[0]
    assert [one.get("name") for one in lines(result)[:2]] == ["disconnect", "read version"]
    assert "summary" in (result.out + result.err) or "link.port" in (result.out + result.err)


def _waiting(descriptor: int) -> int:
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), "little")


@pytest.mark.parametrize("bad", ["zz", "0", "0x", "/nowhere/capture.bin"])
def test_what_is_no_hex_keeps_the_schema(bad: str) -> None:
    result = run("decode", "lifescan_binary", bad, "--json")
    assert result.status == 3
    assert [key for key in KEYS if key not in result.json] == []
    assert result.json["code"] in {"capture.malformed", "packet.length"}


def test_an_unknown_family_names_the_nearest() -> None:
    result = run("decode", "lifescan_binar", ACK)
    assert result.status == 3
    assert "lifescan_binary" in result.err


def test_every_family_is_listed_with_its_help() -> None:
    answer = run("families", "--json").json
    assert [one["family"] for one in answer["families"]] == list(MODULES)
    assert all(one["help"] and one["title"] for one in answer["families"])


def test_a_silent_port_ends_what_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that looks like a long packet must not keep a command behind it from being told."""
    from devguard.link.driver import SerialDriver

    class Port:
        def __init__(self) -> None:
            self.reads = [b"\x02\xff" + bytes.fromhex(SET_CLOCK), *[b""] * 7, bytes.fromhex(ACK)]

        def listen(self, seconds: float) -> bytes:
            if not self.reads:
                raise KeyboardInterrupt
            return self.reads.pop(0)

        def close(self) -> None:
            pass

    port, told, before = Port(), [], watching.report

    def report(found: list[Any], *args: Any, **options: Any) -> None:
        told.extend((packet.name, place, len(port.reads)) for place, packet in found)
        before(found, *args, **options)

    monkeypatch.setattr(SerialDriver, "open", lambda *_: port)
    monkeypatch.setattr(watching, "report", report)
    result = run("watch", "lifescan_binary", "loop://", "--json")
    assert told == [("write clock", 2, 3), ("disconnect", 15, 0)], "the first one while the port was still silent"
    assert lines(result)[-1]["summary"]["skipped_bytes"] == 2


def test_a_file_that_grows_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end the file is waited for; what is appended comes out, whole however it was written."""
    file = tmp_path / "capture.bin"
    file.write_bytes(bytes.fromhex(ACK))
    data = bytes.fromhex(SET_CLOCK + VERSION)
    more = iter([data[:5], b"", data[5:], None])

    def wait(seconds: float) -> None:
        part = next(more)
        if part is None:
            raise KeyboardInterrupt
        with file.open("ab") as out:
            out.write(part)

    monkeypatch.setattr("devguard.cli.watching.time.sleep", wait)
    result = run("watch", "lifescan_binary", str(file), "--follow", "--json")
    assert result.status == 130
    *found, last = lines(result)
    assert [one["name"] for one in found] == ["disconnect", "write clock", "read version"]
    assert last["summary"]["unauthenticated"] == {"write clock": 1}


def test_packets_without_marks_are_not_looked_for_in_a_stream(tmp_path: Path) -> None:
    raw, text = tmp_path / "capture.bin", tmp_path / "capture.hex"
    raw.write_bytes(bytes.fromhex("31" + "00" * 14 + "0000"))
    result = run("watch", "dexcom_g5g6_ble", str(raw), "--json")
    assert result.status == 3
    last = lines(result)[-1]
    assert (last["error"]["code"], last["summary"]["packets"]) == ("packet.unknown", 0)
    assert "one record a line" in last["error"]["hint"]
    text.write_text("# two records, the second of another length\n3100000000\n510000\n")
    assert lines(run("watch", "dexcom_g5g6_ble", str(text), "--json"))[-1]["summary"]["packets"] == 2


def test_every_decode_says_three_things() -> None:
    """Valid or why not; what it does, or that nobody can tell; whether its origin was proved."""
    clock = run("decode", "lifescan_binary", SET_CLOCK).out
    assert "valid\ntherapy-affecting, NOT AUTHENTICATED\n" in clock
    assert "valid\nnot therapy-affecting, not authenticated\n" in run("decode", "lifescan_binary", ACK).out
    bad = run("decode", "lifescan_binary", ACK[:-2] + "00")
    assert bad.out.startswith("lifescan_binary  disconnect\nnot valid: packet.crc: checksum 0xc2 found")
    hidden = run("decode", "dana_rs_ble", "a5a5030102030405065a5a")
    assert (hidden.status, "NOT KNOWN whether it is therapy-affecting" in hidden.out) == (3, True)
    known = run("decode", "tandem_ble", "0003a00304000000001234", "--json")
    assert known.json["effect"] in {"acts", "unknown"}


def test_a_raw_key_is_taken_as_it_is(tmp_path: Path) -> None:
    """Bytes at its ends that look like spaces belong to it; the line end of a text does not."""
    from devguard.packets.families.omnipod_ble import sealed

    ck = b"\n" + bytes(range(14)) + b" "
    (tmp_path / "ck").write_bytes(ck)
    (tmp_path / "prefix").write_bytes(b"0011223344556677\n")
    message = sealed(ck, bytes.fromhex("0011223344556677"), 3, b"S0.0=\x00\x00").hex()
    keys = ("--key", f"ck={tmp_path}/ck", "--key", f"nonce_prefix={tmp_path}/prefix")
    assert run("decode", "omnipod_dash_ble", message, *keys, "--json").json["authenticated"] is True


def test_a_radio_capture_with_a_long_command(tmp_path: Path) -> None:
    """A bolus that goes on in a second packet: each packet is told, the last one says what all of it does."""
    from test_packets_gather import BOLUS, parts

    file = tmp_path / "radio.hex"
    file.write_text("".join(f"{one.hex()}\n" for one in parts(BOLUS)))
    *found, last = lines(run("watch", "omnipod_eros", str(file), "--json"))
    assert [one["effect"] for one in found] == ["acts", "none", "acts"]
    assert found[2]["fields"]["message"]["blocks"] == [26, 23]
    assert last["summary"]["unauthenticated"] == {
        "PDM set_insulin_schedule": 1,
        "CON set_insulin_schedule+bolus_extra": 1,
    }


def test_an_empty_record_of_a_capture_ends_nothing(tmp_path: Path) -> None:
    """A packet goes on behind a record in which the line brought nothing."""
    from test_packets_capture import USER0, pcapng

    file, data = tmp_path / "capture.pcapng", bytes.fromhex(SET_CLOCK)
    file.write_bytes(pcapng(USER0, [data[:5], b"", data[5:]]))
    assert [one.get("name") for one in lines(run("watch", "lifescan_binary", str(file), "--json"))][:1] == [
        "write clock"
    ]
