"""`devguard push`, `approve`, `device` and `emulate` over a real pseudo-terminal to a device of its own process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders import make_image
from cli_support import (
    PROGRAMMER,
    PUMP,
    Emulator,
    World,
    descriptor,
    devguard,
    emulator,
    finish,
    in_evidence,
    ok,
    records,
    start,
    until,
)
from devguard.cli import line
from devguard.link.driver import PortInfo, SerialDriver

SCHEMA = {"accepted", "code", "device", "report", "link"}


@dataclass(slots=True)
class Bench:
    """A pump on a line, and what a technician brings."""

    device: Emulator
    grant: Path

    def options(self, *more: object) -> list[object]:
        return ["--port", self.device.port, "--key", "tech", "--grant", self.grant, *more]


@pytest.fixture(scope="module")
def bench(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One pump for the module. It erases its slot at most three times an hour, so only few tests may push to it."""
    folder = tmp_path_factory.mktemp("bench")
    with emulator(world, folder, "IP-1") as device:
        yield Bench(device, world.grant(folder / "tech.grant", "IP-1"))


def refused(result: object, status: int, code: str) -> None:
    assert (result.status, result.code) == (status, code), result.out + result.err  # type: ignore[attr-defined]
    data = result.json  # type: ignore[attr-defined]
    assert set(data) >= SCHEMA | {"error"}
    assert data["accepted"] is False


# what needs no device


def test_dry_run_opens_no_port(world: World, home: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SerialDriver, "open", lambda *_: pytest.fail("a port was opened"))
    args = ["push", world.suits["1.1.0"], *bench.options("--dry-run")]
    data = ok(*args, "--json").json
    assert set(data) >= SCHEMA
    assert (data["accepted"], data["dry_run"]) == (True, True)
    assert "no port was opened" in ok(*args).out
    assert records(home)[-1]["actor"] == "Tess Technician"


@pytest.mark.parametrize("port", ["nowhere", "/dev/null", "x" * 5000, "foo://x", "socket://", "socket://127.0.0.1:1"])
def test_no_such_port(world: World, home: Path, bench: Bench, port: str) -> None:
    args = ["push", world.suits["1.1.0"], "--key", "tech", "--grant", bench.grant, "--port", port]
    refused(devguard(*args, "--json"), 4, "link.port")
    last = records(home)[-1]
    assert (last["action"], last["code"], last["actor"]) == ("release.push", "link.port", "Tess Technician")


def test_a_regular_file_as_port(world: World, home: Path, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "port").write_bytes(b"precious")
    args = ["push", world.suits["1.1.0"], "--key", "tech", "--grant", bench.grant, "--port", tmp_path / "port"]
    refused(devguard(*args, "--json"), 4, "link.port")
    assert (tmp_path / "port").read_bytes() == b"precious"


def test_no_port_answers(world: World, home: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devguard.link.driver.list_ports", list)
    refused(devguard("push", world.suits["1.1.0"], "--key", "tech", "--grant", bench.grant, "--json"), 4, "link.port")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"--grant": "other"}, 1, "grant.scope"),
        ({"--grant": "holder"}, 1, "grant.holder"),
        ({"--grant": "garbage"}, 3, "grant.malformed"),
        ({"--key": "release"}, 1, "grant.holder"),
        ({"--key": "nobody"}, 3, "file.missing"),
        ({"file": "unsigned"}, 1, "signature.missing"),
        ({"file": "garbage"}, 3, "envelope.malformed"),
        ({"file": "flipped"}, 1, "image.digest"),
        ({"--trust": "garbage"}, 3, "trust.malformed"),
    ],
    ids=str,
)
def test_refused_before_a_port_is_opened(
    world: World, home: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str], status: int, code: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(SerialDriver, "open", lambda *_: pytest.fail("a port was opened"))
    (tmp_path / "garbage").write_bytes(b"garbage")
    world.grant(tmp_path / "other", "IP-9", model=PROGRAMMER)
    world.grant(tmp_path / "holder", "IP-1", name="second")
    world.suit(tmp_path / "unsigned", signers=())
    data = bytearray(world.suits["1.1.0"].read_bytes())
    data[-9] ^= 1
    (tmp_path / "flipped").write_bytes(data)
    given = {"--port": bench.device.port, "--key": "tech", "--grant": str(bench.grant), **change}
    file = given.pop("file", str(world.suits["1.1.0"]))
    refused(devguard("push", file, *(part for pair in given.items() for part in pair), "--json"), status, code)
    assert records(home)[-1]["code"] == code


def test_wrong_passphrase(world: World, home: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVGUARD_PASSPHRASE", "wrong")
    refused(devguard("push", world.suits["1.1.0"], *bench.options("--json")), 1, "key.passphrase")


def test_second_key_and_grant_go_together(world: World, home: Path, bench: Bench) -> None:
    assert devguard("push", world.suits["1.1.0"], *bench.options("--second-key", "second")).status == 2


# what asks the device and leaves it as it is


def test_who_is_there(world: World, home: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    there = PortInfo(bench.device.port, "a bench pump", None, None, None)
    monkeypatch.setattr(
        "devguard.link.driver.list_ports", lambda: [PortInfo("/dev/nowhere", "", None, None, None), there]
    )
    rows = ok("device", "list", "--json").json["ports"]
    assert [(row["port"], row["answers"]) for row in rows] == [("/dev/nowhere", False), (bench.device.port, True)]
    assert "a bench pump" in ok("device", "list").out
    info = ok("device", "info", "--json").json
    assert (info["model"], info["serial"], info["report"]) == (PUMP, "IP-1", None)
    full = ok("device", "info", *bench.options("--json")).json
    assert full["report"]["serial"] == "IP-1"
    assert ok("status", "--json").json["ports"][0]["boot_state"] is None


def test_a_device_shows_its_keys_so_that_a_stolen_one_can_be_revoked(world: World, home: Path, tmp_path: Path) -> None:
    with emulator(world, tmp_path, "IP-9") as device:
        port = ("--port", device.port)
        info = ok("device", "info", *port, "--json").json
        assert [one["alg"] for one in info["keys"]] == ["ESP256", "Ed25519"]
        text = ok("device", "info", *port).out
        assert all(one["fingerprint"] in text for one in info["keys"])
        folder = Path(shutil.copytree(world.folder / "trust", tmp_path / "trust"))
        wanted = [one["fingerprint"] for one in info["keys"]]
        enrolled = next(row for row in records(tmp_path / "factory") if row["action"] == "device.enrol")
        assert enrolled["details"]["keys"] == ", ".join(wanted)  # for a device that is out of reach
        assert wanted == sorted(set(wanted), key=wanted.index)
        made = ok("trust", "revoke", folder, *wanted, "--expires", "2098-01-01", "--json").json
        assert made["revoked_keys"] == sorted(wanted)
        assert devguard("device", "info", *port, "--json").code == "key.revoked"
        for name in ("tech", "second"):  # by either kind of key
            grant = world.grant(tmp_path / f"{name}.grant", "IP-9", name=name)
            way = (*port, "--key", name, "--grant", grant, "--json")
            assert devguard("push", world.suits["1.1.0"], *way).code == "key.revoked"


def test_a_session_for_a_report_is_on_record(world: World, home: Path, bench: Bench) -> None:
    before = records(home)
    ok("device", "info", "--port", bench.device.port)
    assert records(home) == before  # nobody's key was used
    ok("device", "info", *bench.options())
    row = records(home)[-1]
    assert (row["action"], row["actor"], row["device"]) == ("device.report", "Tess Technician", "IP-1")
    assert {"grant", "report"} <= set(row["digests"])
    assert records(home)[-2]["action"] == "device.info"  # before the session was opened
    ok("technician", "suspend", "second")
    gone = world.grant(bench.device.state.parent / "gone.grant", "IP-1", name="second")
    for command in (("device", "info"), ("device", "log", "-o", "x"), ("trust", "push")):
        way = ("--port", bench.device.port, "--key", "second", "--grant", gone, "--json")
        assert devguard(*command, *way).code == "grant.revoked", command
    grant = world.grant(bench.device.state.parent / "wrong.grant", "IP-2")
    result = devguard("device", "info", "--port", bench.device.port, "--key", "tech", "--grant", grant, "--json")
    assert (result.status, result.code) == (5, "grant.scope")
    row = records(home)[-1]
    assert (row["action"], row["code"], row["device"]) == ("device.info", "grant.scope", "IP-1")


def test_another_serial_than_asked_for(world: World, home: Path, bench: Bench, tmp_path: Path) -> None:
    grant = world.grant(tmp_path / "both.grant", "IP-2", serials=frozenset(["IP-1", "IP-2"]))
    args = ["--port", bench.device.port, "--key", "tech", "--grant", grant, "--serial", "IP-2", "--json"]
    refused(devguard("push", world.suits["1.1.0"], *args), 1, "device.identity")
    result = devguard("device", "info", "--port", bench.device.port, "--serial", "IP-2")
    assert (result.status, result.code) == (1, "device.identity")


def test_the_device_refuses_a_grant_for_another(world: World, home: Path, bench: Bench, tmp_path: Path) -> None:
    grant = world.grant(tmp_path / "other.grant", "IP-2")
    args = ["--port", bench.device.port, "--key", "tech", "--grant", grant, "--json"]
    refused(devguard("push", world.suits["1.1.0"], *args), 5, "grant.scope")
    last = records(home)[-1]
    assert (last["action"], last["code"]) == ("release.push", "grant.scope")


def test_a_busy_port(world: World, home: Path, bench: Bench) -> None:
    with SerialDriver.open(bench.device.port, line.BAUD):
        refused(devguard("push", world.suits["1.1.0"], *bench.options("--json")), 4, "link.port")
        result = devguard("device", "info", "--port", bench.device.port)
    assert (result.status, result.code) == (4, "link.port")
    assert "in use" in result.err


def test_one_that_needs_two_technicians(world: World, home: Path, bench: Bench, tmp_path: Path) -> None:
    from devguard.manifest.description import Safety

    suit = world.suit(tmp_path / "two.suit", safety=Safety(None, True, True), sequence=3, version="1.2.0")
    refused(devguard("push", suit, *bench.options("--json")), 5, "grant.quorum")


# the pushes


def test_pushed_and_confirmed(world: World, home: Path, bench: Bench) -> None:
    more = ("--serial", "IP-1", "--reason", "field action 7", "--work-order", "WO-12", "--json")
    result = ok("push", world.suits["1.0.0"], *bench.options(*more))
    data = result.json
    assert set(data) == SCHEMA
    assert (data["accepted"], data["code"]) == (True, None)
    assert data["device"] == {
        "model": PUMP,
        "serial": "IP-1",
        "version_before": "factory",
        "version_after": "1.0.0",
        "confirmed": True,
    }
    assert set(data["link"]) == {
        "payload_bytes", "wire_bytes", "retransmits", "seconds", "encoding", "sent_bytes", "fell_back"
    }  # fmt: skip
    assert data["link"]["payload_bytes"] == 6001 < data["link"]["wire_bytes"]
    assert data["report"]["settings_before"] == data["report"]["settings_digest"]
    found = records(home)
    assert [one["action"] for one in found] == ["release.verify", "release.push-begun", "release.push"]
    assert found[-1]["device"] == "IP-1"
    assert found[-1]["details"]["work-order"] == "WO-12"
    ok("evidence", "verify")


def test_the_same_again_and_an_upgrade_with_the_home_s_own(
    world: World, home: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = devguard("push", world.suits["1.0.0"], *bench.options("--json"))
    assert result.code == "version.current"
    assert result.status in (1, 5)
    (home / "keys" / "second.key").unlink()
    (home / "grants").mkdir()
    shutil.copy(bench.grant, home / "grants" / "mine.grant")
    (home / "grants" / "broken.grant").write_bytes(b"x")
    there = PortInfo(bench.device.port, "", None, None, None)
    monkeypatch.setattr("devguard.link.driver.list_ports", lambda: [there])
    result = ok("push", world.suits["1.1.0"])
    assert "1.0.0 -> 1.1.0, confirmed by the device" in result.out
    older = devguard("push", world.suits["1.0.0"], *bench.options("--json"))
    assert older.code == "version.rollback"


def test_the_file_is_replaced_after_it_was_verified(
    world: World, home: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(20_000, "honest")
    path = world.suit(tmp_path / "x.suit", image=image, sequence=4, version="1.4.0")
    from devguard.cli import push as room

    honest = room.Pusher._verdict

    def swapped(self: object, trust: object) -> object:
        found = honest(self, trust)  # type: ignore[arg-type]
        path.write_bytes(b"evil" * 6000)
        return found

    monkeypatch.setattr(room.Pusher, "_verdict", swapped)
    data = ok("push", path, *bench.options("--json")).json
    assert data["report"]["image_digest"] == hashlib.sha256(image).hexdigest()


# lines that break, people who interrupt


def big(world: World, path: Path, size: int = 450_000) -> Path:
    return world.suit(path, image=make_image(size, "big"), sequence=2, version="1.1.0")


def test_the_device_vanishes(world: World, home: Path, tmp_path: Path) -> None:
    suit = big(world, tmp_path / "big.suit")
    with emulator(world, tmp_path, "IP-5") as device:
        grant = world.grant(tmp_path / "g", "IP-5")
        process = start("push", suit, "--port", device.port, "--key", "tech", "--grant", grant, "--json")
        until(lambda: in_evidence(home, "release.push-begun"), "the push to begin")
        device.process.kill()
        result = finish(process)
    assert (result.status, result.code) == (4, "link.port")
    assert set(result.json) >= SCHEMA
    assert records(home)[-1]["code"] == "link.port"
    ok("evidence", "verify")
    with emulator(world, tmp_path, "IP-5") as device:  # what a kill -9 left behind
        data = ok("push", suit, "--port", device.port, "--key", "tech", "--grant", grant, "--json", "--resume").json
        assert data["device"]["version_after"] == "1.1.0"


@pytest.mark.parametrize(
    "moment", ["sending", pytest.param("early", marks=pytest.mark.slow), pytest.param("trial", marks=pytest.mark.slow)]
)
def test_interrupted(world: World, home: Path, tmp_path: Path, moment: str) -> None:
    suit = big(world, tmp_path / "big.suit", 450_000 if moment == "sending" else 20_000)
    with emulator(world, tmp_path, "IP-6") as device:
        grant = world.grant(tmp_path / "g", "IP-6")
        args = ["push", suit, "--port", device.port, "--key", "tech", "--grant", grant]
        process = start(*args)
        if moment == "early":
            until(lambda: in_evidence(home, "release.verify"), "the verdict")
        elif moment == "sending":
            until(lambda: in_evidence(home, "release.push-begun"), "the push to begin")
        else:
            assert process.stderr is not None
            while "on trial" not in process.stderr.readline():
                assert process.poll() is None
        process.send_signal(signal.SIGINT)
        result = finish(process)
        assert result.status == 130
        assert "interrupted" in result.err
        assert result.out == ""
        ok("evidence", "verify")
        assert not list(tmp_path.rglob("*.part"))
        assert ok("device", "info", "--port", device.port, "--json").json["serial"] == "IP-6"
        again = devguard(*args, "--json", "--resume")
        if again.status:
            assert (moment, again.code) == ("trial", "version.current")
        else:
            assert again.json["device"]["version_after"] == "1.1.0"
    ok("evidence", "verify")


# the emulator


def test_a_second_start_is_the_same_device(world: World, home: Path, tmp_path: Path) -> None:
    with emulator(world, tmp_path, "IP-7") as device:
        assert device.stop() == 0
    process = start("emulate", PUMP, "--state", device.state)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["serial"] == "IP-7"
    busy = devguard("emulate", PUMP, "--state", device.state)
    assert (busy.status, busy.code) == (1, "device.busy")
    process.send_signal(signal.SIGINT)
    assert finish(process).status == 130
    other = devguard("emulate", PUMP, "--state", device.state, "--serial", "IP-8")
    assert (other.status, other.code) == (1, "device.provisioned")
    assert devguard("emulate", PROGRAMMER, "--state", device.state).code == "device.state"
    (device.state / "counters.cbor").write_bytes(b"x")
    damaged = devguard("emulate", PUMP, "--state", device.state, "--json")
    assert (damaged.status, damaged.code) == (4, "device.state")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--fault", "banana"], 2),
        (["--fault", "battery=101"], 2),
        (["--fault", "battery=²"], 2),
        (["--link", "banana"], 2),
        (["--link", "socket://192.0.2.1:1"], 2),
        (["--link", "socket://127.0.0.1:99999"], 2),
        (["--serial", "../../evil"], 2),
        (["--serial", ".."], 2),
        (["--serial", ""], 2),
        (["--device-authority", "release"], 1),
        (["--device-authority", "nobody"], 3),
        (["--trust", "nowhere"], 3),
        (["--state", "/dev/null/x"], 3),
    ],
)
def test_emulators_that_do_not_start(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], status: int
) -> None:
    monkeypatch.setattr("devguard.device.emulator.serve_line", lambda *_: pytest.fail("it started"))
    given = options if "--serial" in options else ["--serial", "X-1", *options]
    result = devguard("emulate", PUMP, *given)
    assert result.status == status, result.err
    assert result.out == ""
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(
    ("fault", "code"), [("therapy-active", "device.therapy-active"), ("battery=5", "device.battery")]
)
def test_a_device_that_is_in_no_state_to_update(
    world: World, home: Path, tmp_path: Path, fault: str, code: str
) -> None:
    with emulator(world, tmp_path, "IP-8", "--fault", fault) as device:
        grant = world.grant(tmp_path / "g", "IP-8")
        args = ["push", world.suits["1.1.0"], "--port", device.port, "--key", "tech", "--grant", grant]
        plain = devguard(*args)
        assert (plain.status, plain.code) == (5, code)
    assert records(home)[-1]["code"] == code


@pytest.mark.slow
def test_a_release_that_fails_its_self_test_goes_back(world: World, home: Path, tmp_path: Path) -> None:
    with emulator(world, tmp_path, "IP-9", "--fault", "self-test") as device:
        grant = world.grant(tmp_path / "g", "IP-9")
        args = ["push", world.suits["1.1.0"], "--port", device.port, "--key", "tech", "--grant", grant, "--json"]
        result = devguard(*args)
    assert result.code == "device.self-test"
    assert result.status == 5


def test_over_a_socket(world: World, home: Path, tmp_path: Path) -> None:
    with emulator(world, tmp_path, "IP-10", "--link", "socket://127.0.0.1:0") as device:
        assert device.port.startswith("socket://127.0.0.1:")
        info = ok("device", "info", "--port", device.port, "--json").json
        assert info["serial"] == "IP-10"


# two technicians


@pytest.fixture(scope="module")
def programmer(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A programmer, which two technicians must agree about."""
    folder = tmp_path_factory.mktemp("programmer")
    with emulator(world, folder, "PP-1", model=PROGRAMMER) as device:
        world.grant(folder / "second.grant", "PP-1", model=PROGRAMMER, name="second")
        yield Bench(device, world.grant(folder / "tech.grant", "PP-1", model=PROGRAMMER))


def release_of(world: World, path: Path, sequence: int) -> Path:
    return world.suit(
        path, model=PROGRAMMER, image=make_image(30_000, "pp"), sequence=sequence, version=f"1.{sequence}.0"
    )


def test_one_technician_is_not_two(world: World, home: Path, programmer: Bench, tmp_path: Path) -> None:
    suit = release_of(world, tmp_path / "x.suit", 1)
    refused(devguard("push", suit, *programmer.options("--json")), 5, "grant.quorum")
    same = programmer.options("--second-key", "tech", "--second-grant", programmer.grant, "--json")
    result = devguard("push", suit, *same)
    assert (result.status in (1, 5), result.code) == (True, "grant.quorum")


def test_the_second_technician_in_this_room(
    world: World, home: Path, programmer: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suit = release_of(world, tmp_path / "x.suit", 1)
    second = programmer.grant.with_name("second.grant")
    fd = descriptor(os.environ["DEVGUARD_PASSPHRASE"] + "\n")
    more = ("--second-key", "second", "--second-grant", second, "--second-passphrase-fd", fd, "--json")
    data = ok("push", suit, *programmer.options(*more)).json
    assert data["device"]["version_after"] == "1.1.0"


def test_the_second_technician_in_another_room(world: World, home: Path, programmer: Bench, tmp_path: Path) -> None:
    suit = release_of(world, tmp_path / "x.suit", 2)
    second, answer = programmer.grant.with_name("second.grant"), tmp_path / "answer"
    request = tmp_path / "answer.request"
    process = start("push", suit, *programmer.options("--approval", answer, "--json"))
    until(request.exists, "the request")
    assert devguard("approve", request, "--key", "tech", "--grant", second, "-o", answer).code == "grant.holder"
    assert not answer.exists()
    approved = ok("approve", request, "--key", "second", "--grant", second, "-o", answer, "--json").json
    assert (approved["serial"], approved["person"]) == ("PP-1", "Tom Technician")
    result = finish(process)
    assert result.status == 0, result.out + result.err
    assert result.json["device"]["version_after"] == "1.2.0"
    assert ("release.approve", "Tom Technician") in [(one["action"], one["actor"]) for one in records(home)]
    ok("evidence", "verify")


@pytest.mark.parametrize("kind", ["folder", pytest.param("garbage", marks=pytest.mark.slow)])
def test_an_answer_that_is_none(world: World, home: Path, programmer: Bench, tmp_path: Path, kind: str) -> None:
    suit = release_of(world, tmp_path / "x.suit", 3)
    answer = tmp_path / "answer"
    if kind == "folder":
        answer.mkdir()
    process = start("push", suit, *programmer.options("--approval", answer, "--json"))
    if kind == "garbage":
        until((tmp_path / "answer.request").exists, "the request")
        answer.write_bytes(b"garbage")
    result = finish(process)
    assert result.code in ("grant.malformed", "file.unreadable")
    assert result.status in (3, 4)


def test_a_request_that_is_none(world: World, home: Path, programmer: Bench, tmp_path: Path) -> None:
    second = programmer.grant.with_name("second.grant")
    for data in (b"", b"garbage", b"\x9f" * 3000, bytes(17_000)):
        (tmp_path / "r").write_bytes(data)
        result = devguard("approve", tmp_path / "r", "--key", "second", "--grant", second, "-o", tmp_path / "a")
        assert result.status == 3
        assert not (tmp_path / "a").exists()


def test_two_pushes_write_one_log(world: World, home: Path, bench: Bench) -> None:
    """Commands at the same time share a home's log."""
    processes: list[subprocess.Popen[str]] = [start("verify", world.suits["1.1.0"]) for _ in range(4)]
    threads = [threading.Thread(target=process.wait) for process in processes]
    for thread in threads:
        thread.start()
    for process in processes:
        assert finish(process).status == 0
    for thread in threads:
        thread.join()
    assert len(records(home)) == 4
    ok("evidence", "verify")
