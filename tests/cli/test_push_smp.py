"""`push` and `emulate` with `--protocol smp`, and `smpclient`, unmodified, as the peer; over pseudo-terminals."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("smp", reason="the extra `smp` is not installed")
pytest.importorskip("smpclient", reason="the peer is not installed")

from smpclient import SMPClient
from smpclient.exceptions import SMPUploadError
from smpclient.generics import error, success
from smpclient.requests.image_management import ImageErase, ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead, ResetWrite
from smpclient.transport.serial import SMPSerialTransport

from cli_support import PUMP, Result, World, descriptor, devguard, emulator, ok, records, start
from devguard import wire
from devguard.cli import push_smp
from devguard.cose.sign import read_sign1
from devguard.device.emulator import PtyLine
from devguard.device.models import load_model, model_names
from devguard.device.smp_lies import Lie, LieKind
from devguard.device.smp_serve import serve_line, server_for
from devguard.device.smp_server import SmpServer
from devguard.device.smp_target import GuardedDevice, LegacyDevice
from devguard.errors import LinkError
from devguard.evidence.log import read_records
from devguard.evidence.record import Statement as Kept
from devguard.link.driver import SerialDriver
from devguard.link.smp_engine import SmpEngine
from devguard.manifest.description import ComponentDescription
from devguard.session import smp_update
from devguard.session.smp_frame import Request
from devguard.session.smp_proof import TYP, read_statement
from devguard.session.smp_standing import Standing
from rooms.smp_support import DUAL, LEGACY, image_hash, legacy, mcuboot
from sim.bench import Device, small

SERIAL = "ML-7"
NEW = mcuboot(5000, (1, 1, 0, 0), "new")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device in a thread is back at once, and one that lies is given up soon."""
    monkeypatch.setattr(smp_update, "BOOT_POLL", 0.05)
    monkeypatch.setattr(smp_update, "RESET_AGAIN", 0.2)
    monkeypatch.setattr(smp_update, "BOOT_SECONDS", 3.0)


class Served:
    """A device on a pseudo-terminal, served by a thread of its own."""

    def __init__(self, server: SmpServer | Lie, boot: Callable[[], None]) -> None:
        self.line = PtyLine()
        self.port = self.line.port
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=serve_line, args=(self.line, server, boot, self._stop.is_set), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self.line.close()


@contextmanager
def serving(device: LegacyDevice, model: str = LEGACY, lie: LieKind | None = None) -> Iterator[Served]:
    honest = server_for(load_model(model), device)
    served = Served(honest if lie is None else Lie(honest, lie), device.boot)
    try:
        yield served
    finally:
        served.close()


def suit(world: World, path: Path, image: bytes | dict[str, bytes] = NEW, **fields: Any) -> Path:
    given = {"model": LEGACY, "image": image, "version": "1.1.0", "sequence": 2, **fields}
    return world.suit(path, **given)


def push(world: World, folder: Path, served: Served, file: Path | None = None, *more: object, **scope: Any) -> Result:
    model = scope.pop("model", LEGACY)
    grant = world.grant(folder / "tech.grant", SERIAL, model=model, **scope)
    file = file or suit(world, folder / "x.suit")
    return devguard(
        "push", file, "--protocol", "smp", "--port", served.port, "--key", "tech", "--grant", grant, *more, "--json"
    )


def running(device: LegacyDevice) -> tuple[str, bool]:
    image = device.images[0].image(0)
    assert image is not None
    return image.version_text, device.images[0].confirmed


# smpclient


def talk(port: str, conversation: Callable[[SMPClient], Any]) -> Any:
    async def run() -> Any:
        client = SMPClient(SMPSerialTransport(), port)
        await client.connect(5.0)
        try:
            return await conversation(client)
        finally:
            await client.disconnect()

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_smpclient_updates_a_legacy_device() -> None:
    device = legacy()
    digest = image_hash(NEW)

    async def update(client: SMPClient) -> list[int]:
        parameters = await client.request(MCUMgrParametersRead())
        assert success(parameters)
        assert (parameters.buf_size, parameters.buf_count) == (1024, 4)
        echo = await client.request(EchoWrite(d="hello"))
        assert success(echo)
        assert echo.r == "hello"
        offsets = [offset async for offset in client.upload(NEW)]
        states = await client.request(ImageStatesRead())
        assert success(states)
        assert [one.hash for one in states.images] == [states.images[0].hash, digest]
        tried = await client.request(ImageStatesWrite(hash=digest))
        assert success(tried)
        assert tried.images[1].pending
        assert success(await client.request(ResetWrite()))
        await asyncio.sleep(0.3)
        states = await client.request(ImageStatesRead())
        assert success(states)
        assert (states.images[0].hash, states.images[0].confirmed) == (digest, False)
        kept = await client.request(ImageStatesWrite(hash=digest, confirm=True))
        assert success(kept)
        assert kept.images[0].confirmed
        unknown = await client.request(ImageStatesWrite(hash=bytes(32)))
        assert error(unknown)
        return offsets

    with serving(device) as served:
        offsets = talk(served.port, update)
    assert offsets[-1] == len(NEW)
    assert max(b - a for a, b in zip([0, *offsets], offsets, strict=False)) > 900  # it fills the buffer
    assert running(device) == ("1.1.0", True)


async def attack(client: SMPClient) -> None:
    """All that smpclient can ask for that would change a device; each has to be denied."""
    states = await client.request(ImageStatesRead())
    assert success(states)
    with pytest.raises(SMPUploadError, match="rc=11"):
        async for _ in client.upload(NEW):
            pass
    for request in (ImageStatesWrite(hash=bytes(32)), ImageStatesWrite(confirm=True), ResetWrite(), ImageErase()):
        answer = await client.request(request)
        assert error(answer)
        assert answer.rc == 11


@pytest.mark.parametrize("model", model_names())
def test_smpclient_is_refused_by_a_device_that_demands_authorisation(model: str) -> None:
    node = Device(small(model)).node
    served = Served(SmpServer(GuardedDevice(node), 512, 4), lambda: None)
    before = bytes(node._flash.read(0, node.model.layout.flash.size))
    try:
        talk(served.port, attack)
    finally:
        served.close()
    assert bytes(node._flash.read(0, node.model.layout.flash.size)) == before


# push


def test_a_push_says_what_the_device_cannot_check(world: World, home: Path, tmp_path: Path) -> None:
    device = legacy()
    with serving(device) as served:
        result = push(world, tmp_path, served, None, "--reason", "recall 7")
    assert result.status == 0, result.out + result.err
    data = result.json
    assert (data["accepted"], data["protocol"], data["device_checks_technician"]) == (True, "smp", False)
    assert data["device"] == {
        "model": LEGACY,
        "serial": SERIAL,
        "serial_proven": False,
        "version_before": "1.0.0",
        "version_after": "1.1.0",
        "confirmed": True,
    }
    assert any("cannot check the technician" in one for one in data["warnings"])
    assert "warning: this device cannot check the technician" in result.err
    assert data["report"]["signed"] is False
    assert data["report"]["images"][0]["hash"] == image_hash(NEW).hex()
    assert data["link"]["payload_bytes"] == data["link"]["sent_bytes"] == len(NEW)
    assert running(device) == ("1.1.0", True)
    kept = [one for one in records(home) if one["action"].startswith("release.push")]
    assert [(one["action"], one["code"], one["device"]) for one in kept] == [
        ("release.push-begun", None, SERIAL),
        ("release.push", None, SERIAL),
    ]
    for one in kept:
        assert one["details"]["device-checks"] == "nothing: it cannot check technician, grant or release"
        assert one["details"]["image-0"] == f"application {image_hash(NEW).hex()}"
        assert one["details"]["serial"] == "named by the grant alone, confirmed by nobody, not proven"
        assert one["details"]["reason"] == "recall 7"
    ok("evidence", "verify")


def test_the_technicians_statement_stands_in_the_evidence(world: World, home: Path, tmp_path: Path) -> None:
    with serving(legacy()) as served:
        assert push(world, tmp_path, served).status == 0
    begun, done = (one for one in records(home) if one["action"].startswith("release.push"))
    kept = next(one for one in read_records(home / "evidence") if one.action == "release.push-begun").statements
    signed = kept[Kept.PUSH]
    assert begun["digests"]["session"] == hashlib.sha256(signed).hexdigest()
    assert hashlib.sha256(kept[Kept.GRANT]).hexdigest() == begun["digests"]["grant"]
    assert done["statements"] == {}
    assert read_statement(signed, world.signer("tech").key).serial == SERIAL
    assert ok("evidence", "verify", "--json").json["devices"]["pushes"] == 1
    payload = wire.decode(read_sign1(signed, code="grant.malformed").verify(world.signer("tech").key, typ=TYP))
    assert payload[2] == SERIAL
    assert payload[4] == [[0, image_hash(NEW)]]


def test_people_are_told_too(world: World, home: Path, tmp_path: Path) -> None:
    with serving(legacy()) as served:
        grant = world.grant(tmp_path / "g", SERIAL, model=LEGACY)
        file = suit(world, tmp_path / "x.suit")
        result = ok("push", file, "--protocol", "smp", "--port", served.port, "--key", "tech", "--grant", grant, "-q")
    assert "1.0.0 -> 1.1.0" in result.out
    assert "serial not proven" in result.out
    assert "warning: this device cannot check the technician" in result.out


def test_what_runs_already_or_is_older_is_not_sent(world: World, home: Path, tmp_path: Path) -> None:
    device = legacy(factory=(NEW,))
    with serving(device) as served:
        assert push(world, tmp_path, served).code == "version.current"
        older = suit(world, tmp_path / "old.suit", mcuboot(900, (1, 0, 5, 0)), version="1.0.5", sequence=1)
        assert push(world, tmp_path, served, older).code == "version.rollback"
    assert running(device) == ("1.1.0", True)
    assert device.images[0].image(1) is None
    assert not [one for one in records(home) if one["action"] == "release.push-begun"]


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        ({"serials": frozenset(["ML-8"]), "more": ("--serial", SERIAL)}, "grant.scope"),
        ({"actions": frozenset(["read-log"])}, "grant.action"),
        ({"name": "second"}, "grant.holder"),
        ({"serials": frozenset([SERIAL, "ML-8"])}, "device.identity"),
    ],
)
def test_no_port_is_opened_without_a_good_grant(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: dict[str, Any], code: str
) -> None:
    monkeypatch.setattr(SerialDriver, "open", lambda *_: pytest.fail("a port was opened"))
    more = scope.get("more", ())
    given = {name: value for name, value in scope.items() if name != "more"}

    class Nowhere:
        port = "/dev/null"

    result = push(world, tmp_path, Nowhere(), None, *more, **given)  # type: ignore[arg-type]
    assert (result.status, result.code) == (1, code), result.out
    assert records(home)[-1]["code"] == code


def test_no_port_is_opened_for_a_bad_release(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SerialDriver, "open", lambda *_: pytest.fail("a port was opened"))

    class Nowhere:
        port = "/dev/null"

    unsigned = suit(world, tmp_path / "u.suit", signers=("release",))
    assert push(world, tmp_path, Nowhere(), unsigned).code == "signature.hybrid"  # type: ignore[arg-type]
    raw = suit(world, tmp_path / "r.suit", b"no MCUboot image, and long enough to have been one")
    assert push(world, tmp_path, Nowhere(), raw).code == "image.format"  # type: ignore[arg-type]
    assert devguard("push", raw, "--protocol", "smp", "--delta-from", raw).status == 2
    assert devguard("push", raw, "--image", 1).status == 2
    assert push(world, tmp_path, Nowhere(), raw, "--dry-run").code == "image.format"  # type: ignore[arg-type]
    dry = push(world, tmp_path, Nowhere(), suit(world, tmp_path / "x.suit"), "--dry-run")  # type: ignore[arg-type]
    assert dry.json["dry_run"]
    monkeypatch.setattr(push_smp.importlib.util, "find_spec", lambda _: None)
    for more in ((), ("--dry-run",)):
        lacking = push(world, tmp_path, Nowhere(), tmp_path / "x.suit", *more)  # type: ignore[arg-type]
        assert lacking.code == "smp.package"
    details = [one["details"] for one in records(home) if one["action"] == "release.push"]
    assert {one.get("device-checks") for one in details[1:]} == {details[-1]["device-checks"]}


def test_a_use_is_spent_here_for_no_device_counts_it(world: World, home: Path, tmp_path: Path) -> None:
    device = legacy()
    with serving(device, lie=LieKind.WRONG_HASH) as served:
        assert push(world, tmp_path, served, max_uses=1).code == "image.digest"
    with serving(device) as served:
        other = suit(world, tmp_path / "o.suit", mcuboot(900, (1, 2, 0, 0)), version="1.2.0", sequence=3)
        assert push(world, tmp_path, served, other, max_uses=1).code == "grant.replay"
        assert push(world, tmp_path, served, max_uses=1).status == 0  # the release it was spent on


def test_two_technicians(world: World, home: Path, tmp_path: Path) -> None:
    from devguard.manifest.description import Safety

    device = legacy()
    file = suit(world, tmp_path / "x.suit", safety=Safety(None, True, True))
    second = world.grant(tmp_path / "second.grant", SERIAL, model=LEGACY, name="second")
    with serving(device) as served:
        assert push(world, tmp_path, served, file).code == "grant.quorum"
        same = ("--second-key", "tech", "--second-grant", tmp_path / "tech.grant")
        assert push(world, tmp_path, served, file, *same).code == "grant.quorum"
        other = world.grant(tmp_path / "other.grant", "ML-8", model=LEGACY, name="second")
        assert (
            push(world, tmp_path, served, file, "--second-key", "second", "--second-grant", other).code == "grant.scope"
        )
        assert running(device) == ("1.0.0", True)
        fd = descriptor("correct horse battery staple\n")
        both = ("--second-key", "second", "--second-grant", second, "--second-passphrase-fd", fd)
        assert push(world, tmp_path, served, file, *both).status == 0
    last = records(home)[-1]
    assert last["details"]["second-technician"] == "Tom Technician"
    assert "second_grant" in last["digests"] or "second-grant" in last["digests"]


def test_several_images_and_a_number(world: World, home: Path, tmp_path: Path) -> None:
    both = {"application": NEW, "radio": mcuboot(3000, (2, 0, 0, 0), "radio")}
    device = legacy(DUAL)
    with serving(device, DUAL) as served:
        file = suit(world, tmp_path / "x.suit", both, model=DUAL)
        data = push(world, tmp_path, served, file, model=DUAL).json
    assert data["accepted"]
    assert [(one["image"], one["version"]) for one in data["report"]["images"] if one["active"]] == [
        (0, "1.1.0"),
        (1, "2.0.0"),
    ]
    single = legacy(DUAL)
    with serving(single, DUAL) as served:
        result = push(world, tmp_path, served, suit(world, tmp_path / "y.suit"), "--image", 1)
    assert result.status == 0
    image = single.images[1].image(0)
    assert image is not None
    assert (image.hash, running(single)) == (image_hash(NEW), ("1.0.0", True))


def test_an_encrypted_image_in_its_own_format(world: World, home: Path, tmp_path: Path, vectors: Path) -> None:
    """imgtool's, whose plain bytes this bench never sees: judged inside, and known by the hash that it states."""
    image = (vectors / "mcuboot" / "images" / "p256_enc_ec256.bin").read_bytes()
    parts = (ComponentDescription("application", "application.bin", "mcuboot", (), ()),)
    device = legacy()
    with serving(device) as served:
        wrong = suit(world, tmp_path / "w.suit", image, version="1.2.4", components=parts)
        assert push(world, tmp_path, served, wrong).code == "image.format"
        file = suit(world, tmp_path / "x.suit", image, version="1.2.3", components=parts)
        result = push(world, tmp_path, served, file)
    assert result.status == 0, result.out + result.err
    assert running(device) == ("1.2.3.4", True)


@pytest.mark.parametrize(
    ("lie", "status", "code"),
    [
        (LieKind.NOTHING_WRITTEN, 1, "image.digest"),
        (LieKind.SILENT_REVERT, 1, "image.digest"),
        (LieKind.NO_TRIAL, 1, "smp.state"),
        (LieKind.CBOR, 4, "smp.malformed"),
    ],
)
def test_a_device_that_lies(world: World, home: Path, tmp_path: Path, lie: LieKind, status: int, code: str) -> None:
    with serving(legacy(), lie=lie) as served:
        result = push(world, tmp_path, served)
    assert (result.status, result.code) == (status, code)
    last = records(home)[-1]
    assert (last["action"], last["code"], last["details"]["protocol"]) == ("release.push", code, "smp")
    assert "device-checks" in last["details"]


def test_a_trial_that_fails(world: World, home: Path, tmp_path: Path) -> None:
    device = legacy(self_test=False)
    with serving(device) as served:
        result = push(world, tmp_path, served)
    assert (result.status, result.code) == (1, "device.self-test")
    assert running(device) == ("1.0.0", True)


def test_the_only_port_that_answers(world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from devguard.link import driver
    from devguard.link.driver import PortInfo

    monkeypatch.setattr(push_smp, "_PROBE_SECONDS", 0.2)
    silent = PtyLine()
    with serving(legacy()) as served:
        found = [PortInfo(one, "", None, None, None) for one in (silent.port, served.port)]
        monkeypatch.setattr(driver, "list_ports", lambda: found)
        grant = world.grant(tmp_path / "g", SERIAL, model=LEGACY)
        args = (
            "push",
            suit(world, tmp_path / "x.suit"),
            "--protocol",
            "smp",
            "--key",
            "tech",
            "--grant",
            grant,
            "--json",
        )
        assert ok(*args).json["accepted"]
        monkeypatch.setattr(driver, "list_ports", lambda: found[:1])
        assert devguard(*args).code == "link.port"
    silent.close()


# who says which device it is


def at_a_terminal(command: tuple[object, ...], typed: bytes) -> tuple[int, str]:
    """A command whose questions somebody answers; its status and what it showed."""
    ours, theirs = pty.openpty()
    process = start(*command, stdin=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, typed)
    said = b""
    with contextlib.suppress(OSError):  # the terminal hangs up
        while select.select([ours], [], [], 60)[0] and (data := os.read(ours, 4096)):
            said += data
    os.close(ours)
    process.communicate(timeout=60)
    return process.returncode, said.decode()


def test_the_person_at_the_terminal_reads_the_label(world: World, home: Path, tmp_path: Path) -> None:
    grant = world.grant(tmp_path / "g", SERIAL, model=LEGACY)
    args = ("push", suit(world, tmp_path / "x.suit"), "--protocol", "smp", "--key", "tech", "--grant", grant)
    with serving(legacy()) as served:
        status, said = at_a_terminal((*args, "--port", served.port), f"ML-70\n {SERIAL} \n".encode())
    assert status == 0, said
    question = said.index("serial number on the device, typed or scanned")
    assert said.index("the grant is for another serial number; look at the label again") > question
    assert "warning: this device cannot check the technician" in said
    assert "nobody confirmed" not in said
    assert records(home)[-1]["details"]["serial"] == "read off the label by the technician, not proven"
    with serving(legacy()) as served:
        ok(*args, "--port", served.port, "--serial", SERIAL)
    assert records(home)[-1]["details"]["serial"] == "given with --serial, not proven"


def test_a_label_that_says_another_serial_stops_the_push(world: World, home: Path, tmp_path: Path) -> None:
    """Before a port is opened."""
    grant = world.grant(tmp_path / "g", SERIAL, model=LEGACY)
    args = ("push", suit(world, tmp_path / "x.suit"), "--protocol", "smp", "--key", "tech", "--grant", grant)
    status, said = at_a_terminal((*args, "--port", "/nowhere"), b"ML-70\n" * 3)
    assert status == 1
    assert "error: device.identity: the label says ML-70, the grant is for ML-7" in said
    assert records(home)[-1]["code"] == "device.identity"


# what is left when it ends early


@pytest.mark.parametrize(
    ("asked", "left", "version", "how"),
    [
        ((1, 0, "read"), "UNTOUCHED", "1.0.0", KeyboardInterrupt),
        ((1, 1, "write"), "UPLOADING", "1.0.0", KeyboardInterrupt),
        ((1, 0, "write"), "WAITING", "1.0.0", KeyboardInterrupt),
        ((0, 5, "write"), "WAITING", "1.0.0", LinkError),
        ((1, 0, "confirm"), "ON_TRIAL", "1.1.0", KeyboardInterrupt),
        ((1, 0, "confirm"), "ON_TRIAL", "1.1.0", LinkError),
    ],
)
def test_an_end_at_any_step_says_how_it_leaves_the_device(
    world: World,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[int, int, str],
    left: str,
    version: str,
    how: type[BaseException],
) -> None:
    def send(engine: SmpEngine, request: Request, now: float) -> int:
        kind = "read" if request.operation == 0 else "write"
        if (request.group, request.command) == asked[:2] and (
            asked[2] == kind or (asked[2] == "confirm" and b"gconfirm\xf5" in request.body)
        ):
            raise LinkError("link.port", "the cable was pulled") if how is LinkError else KeyboardInterrupt
        return honest(engine, request, now)

    honest = SmpEngine.send
    device = legacy()
    with serving(device) as served:
        with monkeypatch.context() as patch:
            patch.setattr(SmpEngine, "send", send)
            result = push(world, tmp_path, served)
        standing = Standing[left]
        if how is LinkError:
            assert (result.status, result.code) == (4, "link.port" if asked[1:] != (5, "write") else "link.timeout")
            assert result.json["error"]["hint"].startswith(f"{standing.left}; {standing.onward}; ")
        else:
            assert (result.status, result.out) == (130, "")
            assert f"interrupted: {standing.left}; {standing.onward}\n" in result.err
        last = records(home)[-1]
        assert last["details"]["device-left"] == standing.left
        assert last["code"] == ("internal.interrupted" if how is KeyboardInterrupt else result.code)
        assert running(device)[0] == version
        assert push(world, tmp_path, served).status == 0
    assert running(device) == ("1.1.0", True)


# emulate


def test_emulated_devices_serve_smp(world: World, home: Path, tmp_path: Path) -> None:
    """The commands themselves: a legacy device on a socket, a pump on a pseudo-terminal, a lie by name."""
    firmware = tmp_path / "factory.bin"
    firmware.write_bytes(mcuboot(800, (1, 0, 0, 0)))
    args = ("emulate", LEGACY, "--protocol", "smp", "--state", tmp_path / "legacy", "--link", "socket://127.0.0.1:0")
    process = start(*args, "--serial", SERIAL, "--firmware", firmware)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert (said["model"], said["serial"]) == (LEGACY, SERIAL)

        class There:
            port = said["port"]

        assert There.port.startswith("socket://127.0.0.1:")
        result = push(world, tmp_path, There())  # type: ignore[arg-type]
        assert result.status == 0, result.out + result.err
        assert result.json["device"]["version_before"] == "1.0.0"
    finally:
        process.terminate()
        process.communicate(timeout=20)
    with emulator(world, tmp_path, SERIAL, "--protocol", "smp") as pump:
        file = suit(world, tmp_path / "p.suit", model=PUMP)
        talk(pump.port, attack)
        result = push(world, tmp_path, pump, file, model=PUMP)  # type: ignore[arg-type]
        assert (result.status, result.code) == (5, "smp.refused")
        assert "eaccessdenied" in result.json["error"]["message"]
        assert result.json["error"]["hint"].endswith(Standing.UNTOUCHED.left)


def test_what_emulate_does_not_do(world: World, home: Path, tmp_path: Path) -> None:
    state = ("--state", tmp_path / "s")
    assert devguard("emulate", LEGACY, *state).status == 2
    assert devguard("emulate", LEGACY, "--protocol", "smp", "--fault", "battery=5", *state).status == 2
    assert devguard("emulate", LEGACY, "--protocol", "smp", "--fault", "smp-lies=sometimes", *state).status == 2
    assert devguard("emulate", PUMP, "--firmware", tmp_path / "x", *state).status == 2
    two = ("--firmware", tmp_path / "a", "--firmware", tmp_path / "b")
    assert devguard("emulate", LEGACY, "--protocol", "smp", *two, *state).status == 2
    (tmp_path / "a").write_bytes(bytes(600_000))
    assert devguard("emulate", LEGACY, "--protocol", "smp", *two[:2], *state).code == "device.slot"
    (tmp_path / "a").write_bytes(b"no firmware")
    other = ("--state", tmp_path / "t")
    assert devguard("emulate", LEGACY, "--protocol", "smp", *two[:2], *other).code == "image.format"
