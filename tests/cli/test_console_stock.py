"""What the console offers to choose from, in a real home; and a real verdict through the application."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from cli_support import PASSPHRASE, PROGRAMMER, World, records
from console_support import Desk, code_of
from devguard.cli.home import Home
from devguard.console import stock
from devguard.console.table import Role


def test_keys_grants_and_releases(world: World, home: Path, tmp_path: Path) -> None:
    place = Home(home)
    assert [(one.name, one.person) for one in stock.technician_keys(place)] == [
        ("tech", "Tess Technician"),
        ("second", "Tom Technician"),
    ]
    (home / "keys" / "broken.key").write_text("none")
    assert len(stock.technician_keys(place)) == 2
    assert stock.grants(place, time.time()) == []
    (home / "grants").mkdir()
    world.grant(home / "grants" / "a.grant", "IP-44")
    (home / "grants" / "b.grant").write_bytes(b"none")
    only = stock.grants(place, time.time())
    assert [(one.name, one.person, one.models, one.actions) for one in only] == [
        ("a", "Tess Technician", ("insulin-pump",), ("update",))
    ]
    assert "IP-44" not in repr(only)
    assert stock.grants(place, time.time() + 9 * 3600) == []
    assert stock.kept_releases(place) == []
    (home / "releases").mkdir()
    shutil.copy(world.suits["1.1.0"], home / "releases" / "abc.suit")
    (home / "releases" / "bad.suit").write_bytes(b"none")
    assert [(one.name, one.model, one.version) for one in stock.kept_releases(place)] == [
        ("abc", "insulin-pump", "1.1.0")
    ]
    stock.place_kept(place, "abc", tmp_path / "out.suit")
    assert (tmp_path / "out.suit").read_bytes() == world.suits["1.1.0"].read_bytes()


def test_who_needs_a_second_technician(world: World, tmp_path: Path) -> None:
    assert not stock.needs_two(world.suits["1.1.0"])
    assert stock.needs_two(world.suit(tmp_path / "p.suit", model=PROGRAMMER))
    (tmp_path / "bad").write_bytes(b"none")
    assert not stock.needs_two(tmp_path / "bad")
    assert not stock.needs_two(tmp_path / "missing")


def test_a_real_verdict_and_a_real_refusal(world: World, home: Path) -> None:
    desk = Desk.make(home.parent / "desk", real=True, home=Home(home)).as_role(Role.VIEWER)
    for change, title in ((b"", "This release is good"), (b"x", "Do not install this file")):
        data = world.suits["1.1.0"].read_bytes() + change
        answer = desk.client.post("/verify", data={"csrf": desk.csrf}, files={"file": ("pump.suit", data)})
        assert title in answer.text
    assert code_of(answer) == "image.trailing"
    assert [one["code"] for one in records(home)] == [None, "image.trailing"]


def test_a_real_push_is_refused_before_any_port_and_says_why(world: World, home: Path) -> None:
    desk = Desk.make(home.parent / "desk", real=True, home=Home(home), ports=("/dev/none",)).as_role(Role.TECHNICIAN)
    page = desk.get("/bench").text
    assert "Tess Technician (tech)" in page
    (home / "releases").mkdir()
    shutil.copy(world.suits["1.1.0"], home / "releases" / "abc.suit")
    form = {"csrf": desk.csrf, "port": "/dev/none", "serial": "IP-44", "key": "tech", "passphrase": PASSPHRASE}
    nothing = {"file": ("", b"")}
    answer = desk.client.post("/bench/push", data={**form, "release": "kept:abc"}, files=nothing)
    place = answer.headers["location"]
    end = time.monotonic() + 30
    while "data-ended" not in desk.get(place).text and time.monotonic() < end:
        time.sleep(0.05)
    assert code_of(desk.get(place)) == "grant.missing"
    assert 'data-ended="refused"' in desk.get(place).text
    assert "insulin-pump-1.1.0.suit" in desk.get(place).text
    assert (home / "releases" / "abc.suit").exists()
