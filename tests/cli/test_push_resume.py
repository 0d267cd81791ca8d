"""`devguard push --resume` over real pseudo-terminals: after a killed bench, a pulled cable, a killed device, a Ctrl-C.

Each push goes over a paced line, a process of its own, that counts the bytes. What the bench has seen arrive is in its
progress lines; of that, never more than one flash sector is sent again.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cli_support import PROGRAMMER, PUMP, Emulator, Result, World, devguard, emulator, finish, ok, records, start, until
from devguard.bench.pty_line import LineProcess
from devguard.bench.way import Shape
from devguard.device.models import load_model

BAUD = 460_800
CONVERSATION = 12_000  # wire bytes from the bench, at most, of a push that are no image
OVERHEAD = 1.03  # wire bytes for each byte of image, at most
Cut = Callable[["Scene", list[object]], list[dict[str, Any]]]


def image_of(size: int, seed: str = "image") -> bytes:
    """Bytes that nothing can compress."""
    return random.Random(seed).randbytes(size)


@dataclass(slots=True)
class Scene:
    """A device, a release for it and a grant of one use. `size`: bytes of the form in which the image travels."""

    world: World
    folder: Path
    serial: str
    suit: Path
    grant: Path
    device: Emulator
    model: str = PUMP
    size: int = 120_000
    options: tuple[object, ...] = ()
    wire: int = field(default=0)
    begun: int = field(default=0)  # where the last push that was lost began
    arrived: int = field(default=0)  # and how many wire bytes of it came out of the cable at the device's end

    @property
    def sector(self) -> int:
        return load_model(self.model).layout.sector_size

    @contextlib.contextmanager
    def line(self, pull_after: int | None = None) -> Iterator[LineProcess]:
        """A cable from the bench to the device; what crossed it is added up."""
        with LineProcess(Shape(BAUD), 1, far=self.device.port, pull_after=pull_after) as line:
            yield line
            counts = line.counts()
            self.wire, self.arrived = self.wire + counts["forward"], counts["forward_arrived"]

    def command(self, port: str, *more: object) -> list[object]:
        given = ["push", self.suit, "--port", port, "--baud", BAUD, "--key", "tech", "--grant", self.grant]
        return [*given, *self.options, "--json", *more]


def make_scene(
    world: World, folder: Path, device: Emulator, image: bytes, *, model: str = PUMP, sequence: int = 2, **more: Any
) -> Scene:
    suit = world.suit(folder / "big.suit", model=model, image=image, sequence=sequence, version=f"1.{sequence}.0")
    grant = world.grant(folder / "one-use", device.serial, model=model, max_uses=1)
    return Scene(world, folder, device.serial, suit, grant, device, model, **{"size": len(image), **more})


def progress(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def until_it_moves(scene: Scene, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The progress lines up to one that shows more than two sectors sent, before the end."""
    assert process.stderr is not None
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["bytes"] <= seen[0]["bytes"] + 2 * scene.sector:
        line = process.stderr.readline()
        assert line, process.communicate()
        seen += progress(line)
    assert seen[-1]["bytes"] < scene.size == seen[-1]["total"]
    return seen


# four ways to lose a push; each gives the progress lines of the push that was lost


def killed(scene: Scene, more: list[object]) -> list[dict[str, Any]]:
    with scene.line() as line:
        process = start(*scene.command(line.near, *more))
        seen = until_it_moves(scene, process)
        process.kill()
        process.communicate()
    return seen


def interrupted(scene: Scene, more: list[object]) -> list[dict[str, Any]]:
    with scene.line() as line:
        process = start(*scene.command(line.near, *more))
        seen = until_it_moves(scene, process)
        process.send_signal(signal.SIGINT)
        result = finish(process)
    assert (result.status, result.out) == (130, "")
    assert not list(scene.folder.rglob("*.part"))
    return seen + progress(result.err)


def pulled(scene: Scene, more: list[object]) -> list[dict[str, Any]]:
    with scene.line(pull_after=CONVERSATION + 5 * scene.sector) as line:
        result = devguard(*scene.command(line.near, *more))
        until(lambda: not line.alive, "the line to end")
    assert (result.status, result.code) == (4, "link.port")
    return progress(result.err)


def device_killed(scene: Scene, more: list[object]) -> list[dict[str, Any]]:
    with scene.line() as line:
        process = start(*scene.command(line.near, *more))
        seen = until_it_moves(scene, process)
        scene.device.process.kill()
        result = finish(process)
    assert (result.status, result.code) == (4, "link.port")
    scene.device = Emulator.start(scene.world, scene.folder, scene.serial, model=scene.model)
    return seen + progress(result.err)


def lose(scene: Scene, cut: Cut, seen: int) -> int:
    """Lose a push that goes on where another was lost, `seen` bytes having arrived; the bytes that have now."""
    lines = cut(scene, ["--resume"] if seen else [])
    assert lines[0]["durable"] == lines[0]["bytes"] >= seen - scene.sector
    assert all(one["durable"] <= one["bytes"] <= one["total"] == scene.size for one in lines)
    scene.begun = int(lines[0]["bytes"])
    return int(lines[-1]["bytes"])


def goes_on(scene: Scene, seen: int) -> Result:
    """Push to the end with --resume: the rest alone is sent, and of what had come out of the cable at the device's end
    never more than a sector with it."""
    arrived = scene.arrived
    with scene.line() as line:
        result = ok(*scene.command(line.near, "--resume"))
        counts = line.counts()
    data, first = result.json, progress(result.err)[0]["bytes"]
    assert first >= seen - scene.sector
    talk = counts["forward"] - (scene.size - first)  # what is no image of this push, and of the one before no less
    assert first >= scene.begun + (arrived - talk) / OVERHEAD - scene.sector
    assert data["link"]["sent_bytes"] == scene.size - first < scene.size
    again = data["link"]["retransmits"] * 4200  # on a busy machine an answer may come after its time-out
    assert counts["forward"] < (scene.size - first) * OVERHEAD + CONVERSATION + again
    assert data["link"]["wire_bytes"] <= counts["forward"] + counts["reverse"]
    assert data["device"]["confirmed"] is True
    assert data["report"]["image_digest"] == ok("verify", scene.suit, "--json").json["release"]["digest"]
    ok("evidence", "verify")
    return result


@contextlib.contextmanager
def closing(scene: Scene) -> Iterator[Scene]:
    """The device may have been started again: stop the one that runs now."""
    try:
        yield scene
    finally:
        scene.device.process.kill()
        scene.device.process.communicate()


def test_a_bench_that_was_killed_goes_on(world: World, home: Path, tmp_path: Path) -> None:
    loses_and_goes_on(world, home, tmp_path, image_of(100_000), (killed,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [(killed, killed), (pulled, device_killed), (device_killed, interrupted), (interrupted, pulled)],
)
def test_lost_in_any_way_and_in_any_way_again(
    world: World, home: Path, tmp_path: Path, first: Cut, second: Cut
) -> None:
    loses_and_goes_on(world, home, tmp_path, image_of(160_000), (first, second))


@pytest.mark.slow
@pytest.mark.parametrize("cut", [killed, device_killed])
def test_sectors_of_64_kib(world: World, home: Path, tmp_path: Path, cut: Cut) -> None:
    second = world.grant(tmp_path / "second.grant", "IP-31", name="second", model=PROGRAMMER)
    options = ("--second-key", "second", "--second-grant", second, "--delta", "never")
    image, more = image_of(300_000), {"model": PROGRAMMER, "options": options}  # of each of its two components
    loses_and_goes_on(world, home, tmp_path, image, (cut,), size=600_000, **more)


def loses_and_goes_on(
    world: World, home: Path, folder: Path, image: bytes, cuts: Sequence[Cut], *, model: str = PUMP, **more: Any
) -> None:
    """A push that is lost in these ways, one after the other, and then is not."""
    with (
        emulator(world, folder, "IP-31", model=model) as device,
        closing(make_scene(world, folder, device, image, model=model, **more)) as scene,
    ):
        seen = 0
        for cut in cuts:
            seen = lose(scene, cut, seen)
        goes_on(scene, seen)
        lost = len(cuts) * (scene.sector + 16_384)  # a sector, and a window that went nowhere
        assert scene.wire < scene.size * 1.05 + (len(cuts) + 1) * CONVERSATION + lost
    begun = [one for one in records(home) if one["action"] == "release.push-begun"]
    assert len({one["digests"]["manifest"] for one in begun}) == 1
    assert len(begun) == len(cuts) + 1


def test_nothing_but_what_was_begun_is_resumed(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulator(world, tmp_path, "IP-32") as device:
        scene = make_scene(world, tmp_path, device, image_of(60_000))
        seen = lose(scene, pulled, 0)
        then = time.time() - 7200
        with monkeypatch.context() as patch:
            patch.setattr("cli_support.time.time", lambda: then)
            late = world.grant(tmp_path / "late", "IP-32", hours=1)
        for wrong, code, status in (
            ({"suit": world.suits["1.0.0"]}, "session.resume", 1),
            ({"grant": late}, "grant.expired", 1),
            ({"grant": world.grant(tmp_path / "other", "IP-33")}, "grant.scope", 5),
        ):
            result = devguard(*replace(scene, **wrong).command(device.port, "--resume"))
            assert (result.status, result.code) == (status, code)
            assert records(home)[-1]["code"] == code
        # its one use is spent on the release that was begun: another release asks for another grant
        result = devguard(*replace(scene, suit=world.suits["1.0.0"]).command(device.port))
        assert (result.status, result.code) == (5, "grant.replay")
        goes_on(scene, seen)


@pytest.mark.slow
def test_a_grant_that_is_spent_on_another_release_resumes_nothing(world: World, home: Path, tmp_path: Path) -> None:
    with emulator(world, tmp_path, "IP-35") as device:
        spent = world.grant(tmp_path / "spent", "IP-35", max_uses=1)
        scene = make_scene(world, tmp_path, device, image_of(120_000))
        ok(*replace(scene, suit=world.suits["1.0.0"], grant=spent).command(device.port))
        seen = lose(scene, killed, 0)
        result = devguard(*replace(scene, grant=spent).command(device.port, "--resume"))
        assert (result.status, result.code) == (1, "grant.replay")
        goes_on(scene, seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "cut"),
    [("compressed", killed), ("compressed", device_killed), ("delta", pulled), ("delta", interrupted)],
)
def test_a_smaller_form_goes_on_too(world: World, home: Path, tmp_path: Path, form: str, cut: Cut) -> None:
    with emulator(world, tmp_path, "IP-34") as device:
        before, new = image_of(60_000), image_of(90_000, "new")
        options: tuple[object, ...] = ()
        if form == "delta":
            old = world.suit(tmp_path / "old.suit", image=before, sequence=1, version="1.0.0")
            grant = world.grant(tmp_path / "old-grant", "IP-34")
            ok("push", old, "--port", device.port, "--key", "tech", "--grant", grant, "--json")
            options = ("--delta-from", old)
        image = before + new if form == "delta" else new + bytes(90_000)
        with closing(make_scene(world, tmp_path, device, image, options=options)) as scene:
            with scene.line() as line:
                process = start(*scene.command(line.near))
                first = process.stderr.readline() if process.stderr is not None else ""
                process.kill()
                process.communicate()
            scene.size = progress(first)[0]["total"]
            assert 90_000 < scene.size < 100_000
            seen = lose(scene, cut, 0)
            assert goes_on(scene, seen).json["link"]["encoding"] == form
