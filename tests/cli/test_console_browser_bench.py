"""The pages Verify and Bench in a real browser, against emulated devices on paced lines.

A cable is a link in the file system to the near end of a line, so that another line can take its place under one name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import Start, Tabs, no_violations, reflows
from cli_support import PASSPHRASE, PROGRAMMER, PUMP, World, emulator, ok, records
from devguard.bench.pty_line import LineProcess
from devguard.bench.way import Shape

SLOW, FAST = 38_400, 460_800
SIZE = 120_000


@contextmanager
def plugged(cable: Path, far: str, baud: int, pull_after: int | None = None) -> Iterator[LineProcess]:
    """The cable leads to the device at `far`."""
    with LineProcess(Shape(baud), 1, far=far, pull_after=pull_after) as line:
        cable.unlink(missing_ok=True)
        cable.symlink_to(line.near)
        yield line


def release(world: World, folder: Path, model: str = PUMP, size: int = SIZE, sequence: int = 2) -> Path:
    """Bytes that nothing can compress."""
    image = random.Random(model).randbytes(size)
    return world.suit(folder / "big.suit", model=model, image=image, sequence=sequence, version=f"1.{sequence}.0")


def grant(world: World, home: Path, serial: str, **more: Any) -> None:
    (home / "grants").mkdir(exist_ok=True)
    world.grant(home / "grants" / f"{more.get('name', 'tech')}-{serial}.grant", serial, **more)


def fill(page: Any, served: Any, port: object, suit: Path, serial: str, key: str = "tech") -> None:
    """The form of a push, as a person fills it."""
    page.goto(f"{served.base}/bench")
    page.locator(f"input[name=port][value='{port}']").check()
    page.get_by_label("Release file").set_input_files(suit)
    page.get_by_label("Technician's key").select_option(key)
    page.get_by_label("Passphrase or PIN of the key").fill(PASSPHRASE)
    page.get_by_label("Serial number on the device").fill(serial)
    page.get_by_label("Serial number on the device").press("Enter")  # as a scanner does
    assert page.evaluate("document.activeElement.id") == "file"
    page.get_by_role("button", name="Push", exact=True).click()
    page.wait_for_url("**/bench/runs/*")


def until_it_moves(page: Any, percent: int = 4) -> int:
    """Where the bar stands once it shows so much. (Waiting in the page would take eval, which the policy forbids.)"""
    for _ in range(400):
        at = int(page.locator("#bar").get_attribute("value") or 0)
        if at >= percent:
            return at
        page.wait_for_timeout(50)
    raise AssertionError(page.locator("main").inner_text())


def ended(page: Any, how: str) -> None:
    """The page shows by itself that the run has ended, and how."""
    for _ in range(400):
        found = page.locator("[data-ended]")
        if found.count():
            assert found.get_attribute("data-ended") == how, page.locator("main").inner_text()
            return
        page.wait_for_timeout(100)
    raise AssertionError(page.locator("main").inner_text())


def go_on(page: Any) -> None:
    page.get_by_label("Passphrase or PIN of").fill(PASSPHRASE)
    page.get_by_role("button", name="Go on").click()


def test_a_tampered_file_is_refused(serving: Start, tab: Tabs, world: World, home: Path, tmp_path: Path) -> None:
    served = serving()
    page = tab()
    page.goto(served.url)
    page.get_by_role("link", name="Verify", exact=True).click()
    no_violations(page)
    reflows(page)
    tampered = bytearray(world.suits["1.1.0"].read_bytes())
    tampered[-100] ^= 1
    drop(page, bytes(tampered), "../pump 1.1.0.suit")
    page.get_by_role("heading", name="Do not install this file").wait_for()
    assert page.locator("code.code").first.inner_text() == "image.digest"
    assert page.get_by_text("get the file again from the vendor").is_visible()
    assert "devguard verify 'pump 1.1.0.suit'" in page.locator("pre").last.inner_text()
    no_violations(page)
    reflows(page)
    tab.picture(page, "refused")
    assert records(home)[-1]["code"] == "image.digest"
    plain = tab(java_script_enabled=False)
    plain.goto(served.link("Vera Viewer", "viewer"))
    plain.goto(f"{served.base}/verify")
    plain.get_by_label("Release file").set_input_files(world.suits["1.1.0"])
    plain.get_by_role("button", name="Verify", exact=True).click()
    assert plain.get_by_role("heading", level=1).inner_text() == "This release is good"
    plain.goto(f"{served.base}/bench")
    assert plain.locator("code.code").inner_text() == "console.role"
    assert not list((home / "console" / "uploads").glob("*"))


def drop(page: Any, data: bytes, name: str) -> None:
    """A file, let go of over the page."""
    transfer = page.evaluate_handle(
        "([data, name]) => { const t = new DataTransfer();"
        " t.items.add(new File([new Uint8Array(data)], name)); return t; }",
        [list(data), name],
    )
    for event in ("dragover", "drop"):
        page.dispatch_event("[data-drop]", event, {"dataTransfer": transfer})


def test_a_push_stopped_pulled_and_finished(
    serving: Start, tab: Tabs, world: World, home: Path, tmp_path: Path
) -> None:
    cable = tmp_path / "cable"
    suit = release(world, tmp_path)
    with emulator(world, tmp_path, "IP-41") as device:
        grant(world, home, "IP-41")
        served = serving("--device-port", cable)
        page, other = tab(), tab()
        with plugged(cable, device.port, SLOW):  # it does not end by itself before the stop
            page.goto(served.url)
            fill(page, served, cable, suit, "IP-41")
            at = until_it_moves(page)
            other.goto(served.link("Otto Other", "technician"))
            other.goto(page.url)
            until_it_moves(page, at + 1)
            assert until_it_moves(other) >= at
            no_violations(other)
            reflows(other)
            tab.picture(page, "pushing")
            other.goto(f"{served.base}/bench")
            assert other.locator(f"input[value='{cable}']").is_disabled()
            no_violations(other)
            reflows(other)
            page.get_by_role("button", name="Stop the push").click()
            ended(page, "stopped")
        assert page.get_by_text("Stopped by").is_visible()
        no_violations(page)
        with plugged(cable, device.port, FAST, pull_after=40_000):
            go_on(page)
            ended(page, "lost")
        assert page.locator("code.code").inner_text() == "link.port"
        with plugged(cable, device.port, FAST):
            go_on(page)
            page.get_by_role("heading", name="Stop", exact=True).wait_for()
            page.close()  # a browser that goes away stops nothing, and a console that ends does not either
            assert served.stop() == 0
            again = serving("--device-port", cable)
            later = tab()
            later.goto(again.url)
            later.goto(f"{again.base}/bench")
            later.get_by_role("link", name="big.suit, IP-41").first.click()
            ended(later, "done")
        assert later.get_by_text("1.2.0").is_visible()
        tab.picture(later, "done")
        no_violations(later)
    codes = [one["code"] for one in records(home) if one["action"] == "release.push"]
    assert codes == ["internal.interrupted", "link.port", None]
    assert not list((home / "console" / "runs").glob("*/release.suit"))
    ok("evidence", "verify", "--home", home)


def test_a_second_person_approves(serving: Start, tab: Tabs, world: World, home: Path, tmp_path: Path) -> None:
    suit = release(world, tmp_path, PROGRAMMER, 3000)
    with emulator(world, tmp_path, "PP-42", model=PROGRAMMER) as device:
        grant(world, home, "PP-42", model=PROGRAMMER)
        grant(world, home, "PP-42", model=PROGRAMMER, name="second")
        served = serving("--device-port", device.port)
        tess, tom = tab(), tab()
        tess.goto(served.link("Tess Technician", "technician"))
        fill(tess, served, device.port, suit, "PP-42")
        tess.get_by_text("nobody approves their own push").wait_for()
        assert tess.get_by_role("button", name="Approve").count() == 0
        no_violations(tess)
        tom.goto(served.link("Tom Technician", "technician"))
        tom.goto(f"{served.base}/bench")
        tom.get_by_role("link", name="big.suit, PP-42").click()
        tom.get_by_text("Compare the serial number").wait_for()
        no_violations(tom)
        tab.picture(tom, "approve")
        tom.get_by_label("Technician's key").select_option("second")
        tom.get_by_label("Grant").select_option("second-PP-42")
        tom.get_by_label("Passphrase or PIN of the key").fill(PASSPHRASE)
        tom.get_by_role("button", name="Approve with my key").click()
        ended(tess, "done")
        ended(tom, "done")
        assert tom.get_by_text("approved by Tom Technician").is_visible()
    assert [one["code"] for one in records(home) if one["action"] == "release.approve"] == [None]
