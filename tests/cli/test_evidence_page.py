"""The HTML page: nothing a record holds becomes markup, nothing people typed is shown, every record has its proof."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cli_support import World, devguard, ok, records
from devguard.cli.home import Home
from devguard.evidence.record import DigestOf, Record
from devguard.evidence.rules import OPEN

MARKUP = "\"'><script>alert(1)</script><img src=x onerror=y>&lt;"
TYPED = "Mrs-Doe-4711"
TEXT = ["h1", "h2", "h3", "p", "ol", "li", "div", "section", "table", "tr", "th", "td", "a", "pre", "svg"]
ALLOWED = frozenset(["html", "head", "meta", "title", "style", "body", *TEXT])
DRAWN = frozenset(["circle", "line", "text"])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture
def home(world: World, tmp_path: Path) -> Path:
    """A station in whose records every text field is markup."""
    home = world.copy(tmp_path / "bench")
    ok("verify", world.suits["1.0.0"], "--home", home)
    log = Home(home).evidence()
    fields = {"actor": MARKUP, "request": MARKUP, "device": MARKUP, "release": MARKUP, "code": MARKUP}
    details = {"reason": TYPED, "version": MARKUP, "subject": MARKUP, f"image-{MARKUP[:20]}": MARKUP, "kind": MARKUP}
    for action in (MARKUP, "release.push", "release.push-begun", OPEN):
        digests = {DigestOf.MANIFEST: b"m" * 32}
        given = {**fields, "code": None if action == OPEN else MARKUP, "time": log.latest}
        log.append(Record.make(action=action, details=details, digests=digests, **given))  # type: ignore[arg-type]
    log.append(
        Record.make(
            time=log.latest, actor="Tess", action="release.push-begun", request="open", device="IP-7", release="p 2.0.0"
        )
    )
    return home


def shown(home: Path, tmp_path: Path, *options: object) -> tuple[str, Tags]:
    out = tmp_path / "page.html"
    ok("evidence", "export", "--format", "html", *options, "-o", out, "--home", home)
    text, tags = out.read_text(), Tags()
    tags.feed(text)
    return text, tags


def test_no_record_becomes_markup(home: Path, tmp_path: Path) -> None:
    text, tags = shown(home, tmp_path)
    assert {tag for tag, _ in tags.seen} <= ALLOWED | DRAWN
    for _, attributes in tags.seen:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text  # it is there to be seen
    assert "default-src 'none'" in text
    assert TYPED not in text
    assert TYPED in str(records(home))


def test_every_record_leads_to_its_proof_and_back(home: Path, tmp_path: Path) -> None:
    text, tags = shown(home, tmp_path)
    ids = {attributes["id"] for _, attributes in tags.seen if attributes.get("id")}
    links = {attributes["href"] for tag, attributes in tags.seen if tag == "a" and attributes.get("href")}
    assert {link[1:] for link in links if link} <= ids
    count = len(records(home, raised=True)) - 1  # all but the record of this export
    assert {f"record-{n}" for n in range(count)} | {f"proof-{n}" for n in range(count)} <= ids
    assert text.count("leaf: ") == count
    assert re.search(r"<pre>devguard/[0-9a-f]{16}\n\d+\n", text)
    assert text.count("<circle") == count


def test_an_update_without_an_end_is_a_doubt(home: Path, tmp_path: Path) -> None:
    assert "an update of IP-7 began" in shown(home, tmp_path, "--device", "IP-7")[0]
    assert "an update of" not in shown(home, tmp_path, "--device", "IP-8")[0]


def test_of_a_device_a_release_and_an_incident(home: Path, tmp_path: Path) -> None:
    assert shown(home, tmp_path, "--device", "IP-7")[0].count("<circle") == 1
    assert shown(home, tmp_path, "--release", "2.0.0")[0].count("<circle") == 1
    assert shown(home, tmp_path, "--release", "p 2.0.0")[0].count("<circle") == 1
    made = ok("evidence", "incident", "new", "--title", TYPED, "--record", 0, "--home", home, "--json").json
    text, _ = shown(home, tmp_path, "--incident", made["id"])
    assert text.count("<circle") == 2
    assert f"incident {made['id']} is open" in text
    assert "customers and users told" in text
    assert TYPED not in text
    page = ["evidence", "export", "--home", home]
    assert devguard(*page, "--format", "html", "--incident", "burst-999").code == "incident.unknown"
    assert devguard(*page, "--format", "cef", "--device", "IP-7").status == 2
    assert devguard(*page, "--format", "html", "--device", "IP-7", "--release", "x").status == 2
