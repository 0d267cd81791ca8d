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
