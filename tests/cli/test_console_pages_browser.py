"""The pages Devices, Evidence and People in a real browser: axe in both schemes, 320 pixels, keyboard, no script."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from browser import Start, Tabs, no_violations, reflows
from cli_support import PASSPHRASE, World, emulator, ok, records, until
from test_console_pages import PLAN, SERIAL, damage, happened

__all__ = ["happened"]


def test_every_page_for_people_who_use_it_differently(
    world: World, happened: Path, serving: Start, tab: Tabs, home: Path, tmp_path: Path
) -> None:
    shutil.rmtree(home)
    shutil.copytree(happened, home)
    ok("ledger", "update", "--home", home)
    (tmp_path / "plan.toml").write_text(PLAN)
    shutil.copy(world.suits["1.1.0"], tmp_path / "pump.suit")
    ok("campaign", "new", tmp_path / "plan.toml", "--home", home)
    served = serving()
    page = tab()
    page.goto(served.url)
    page.goto(f"{served.base}/campaigns/pump-1-1-0")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("devguard campaign start pump-1-1-0").wait_for()
    no_violations(page)
    reflows(page)
    for path in ("/campaigns", "/devices", f"/devices/{SERIAL}", "/evidence", "/evidence/0", "/incidents", "/people"):
        page.goto(served.base + path)
        assert page.locator("h1").count() == 1, path
        no_violations(page)
        reflows(page)
        tab.picture(page, path.strip("/").replace("/", "-"))
    page.goto(f"{served.base}/incidents")
    page.locator("tbody a").first.click()
    page.get_by_text("devguard evidence incident release").wait_for()
    no_violations(page)
    reflows(page)
    page.get_by_role("button", name="Deutsch").click()
    for path, title in (("/devices", "Geräte"), ("/evidence", "Nachweise"), ("/people", "Personen")):
        page.goto(served.base + path)
        assert page.get_by_role("heading", level=1).inner_text() == title
        no_violations(page)
        reflows(page)


def test_without_a_script_by_keyboard_and_on_a_damaged_log(
    happened: Path, serving: Start, tab: Tabs, home: Path
) -> None:
    shutil.rmtree(home)
    shutil.copytree(happened, home)
    served = serving()
    page = tab(java_script_enabled=False)
    page.goto(served.url)
    page.goto(f"{served.base}/devices")
    page.locator("#q").focus()
    page.keyboard.type("ip-8")
    page.keyboard.press("Enter")
    page.wait_for_url("**/devices?q=ip-8*")
    page.get_by_role("link", name=SERIAL).click()
    assert page.get_by_role("heading", level=1).inner_text() == SERIAL
    with page.expect_download() as proof:
        page.get_by_role("link", name="Download proof").first.click()
    told = ok("evidence", "verify", proof.value.path(), "--key", "station", "--home", home, "--json").json
    assert (told["kind"], told["record"]["device"]) == ("inclusion", SERIAL)
    page.goto(f"{served.base}/people")
    card = page.locator("li.card", has_text="Tess Technician")
    card.locator("summary").click()
    card.locator("input[name=reason]").fill("lost a key")
    card.get_by_role("button", name="Suspend Tess Technician now").click()
    page.get_by_text("Tess Technician is suspended here from now on").wait_for()
    assert [one["action"] for one in records(home)][-1] == "technician.suspend"
    page.locator("#technician").select_option("second")
    page.locator("#serials").fill(SERIAL)
    page.locator("#passphrase").fill(PASSPHRASE)
    page.get_by_role("button", name="Sign and issue").click()
    page.locator("code.code", has_text="grant.training").wait_for()  # the list says it lapsed
    damage(home, 2)

    def told_so() -> bool:  # it is verified in the background
        page.goto(f"{served.base}/evidence")
        return page.get_by_text("The log does not hold").count() == 1

    until(told_so, "the verification")
    assert page.locator("#standing").bounding_box()["y"] < page.locator("form.filters").bounding_box()["y"]  # type: ignore[index]


@pytest.mark.slow
def test_what_the_device_says_against_what_is_on_record(
    world: World, serving: Start, tab: Tabs, home: Path, tmp_path: Path
) -> None:
    (home / "grants").mkdir()
    grant = world.grant(home / "grants" / "tess.grant", SERIAL)
    with emulator(world, tmp_path, SERIAL) as device:
        ok("push", world.suits["1.0.0"], "--port", device.port, "--key", "tech", "--grant", grant, "--home", home)
        served = serving("--device-port", device.port)
        page = tab()
        page.goto(served.url)
        page.goto(f"{served.base}/devices/{SERIAL}")
        page.get_by_label("Your key").select_option("tech")
        page.get_by_label("Passphrase of the key").fill("wrong")
        page.get_by_role("button", name="Read and compare").click()
        page.locator("code.code", has_text="key.passphrase").wait_for()
        page.get_by_label("Your key").select_option("tech")
        page.get_by_label("Passphrase of the key").fill(PASSPHRASE)
        page.get_by_role("button", name="Read and compare").click()
        page.get_by_role("heading", name="The device is as it is on record").wait_for()
        assert page.get_by_text("1.0.0").first.is_visible()
        no_violations(page)
        reflows(page)
