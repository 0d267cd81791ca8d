"""Every string of the console is in both catalogues, and no template or script says anything by itself."""

from __future__ import annotations

import json
import re
import string
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes

import devguard.console
from devguard.console.i18n import LANGUAGES, Translator, catalogue, chosen
from devguard.console.render import environment
from devguard.console.table import NAVIGATION, ROLES

ROOM = Path(devguard.console.__file__).parent
TEMPLATES = sorted((ROOM / "templates").rglob("*.html"))
SPOKEN = {"alt", "aria-label", "aria-description", "placeholder", "title", "label", "content"}
LETTERS = re.compile(r"[^\W\d_]{2,}")
MARK = "\ue000"  # stands for an expression of the template


def texts() -> dict[str, dict[str, str]]:
    return {one: json.loads((ROOM / "locale" / f"{one}.json").read_text(encoding="utf-8")) for one in LANGUAGES}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_language_has_every_key_and_the_same_placeholders() -> None:
    found = texts()
    assert sorted(path.stem for path in (ROOM / "locale").glob("*.json")) == sorted(LANGUAGES)
    for language, catalogue_ in found.items():
        assert set(catalogue_) == set(found["en"]), language
        for key, text in catalogue_.items():
            assert placeholders(text) == placeholders(found["en"][key]), (language, key)
            assert text.strip() == text != "", (language, key)
            assert not re.search(r"[<>]", text), (language, key)
    same = {key for key, text in found["en"].items() if text == found["de"][key] and LETTERS.search(text)}
    assert len(same) < len(found["en"]) / 5, same


def test_no_key_twice_and_sorted_by_page() -> None:
    for language in LANGUAGES:
        pairs = json.loads((ROOM / "locale" / f"{language}.json").read_text(), object_pairs_hook=list)
        assert len(pairs) == len({key for key, _ in pairs}), language


class Bare(HTMLParser):
    """Collects text and spoken attributes that are written in a template."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name, value in attrs:
            technical = tag == "meta" and given.get("name") in {"viewport", "color-scheme", "csrf"}
            if name in SPOKEN and value and LETTERS.search(value) and not technical:
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        if LETTERS.search(data):
            self.found.append(data.strip())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_hold_no_bare_text(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    pieces = [
        value if kind == "data" else MARK if kind == "variable_begin" else ""
        for _, kind, value in environment().lex(source)
    ]
    parser = Bare()
    parser.feed("".join(pieces))
    assert parser.found == []
    assert "style=" not in source
    assert not re.search(r"\son[a-z]+=", source)
    assert "<script" not in source or path.name == "base.html"
    assert "|safe" not in source.replace(" ", "")


def keys_used(path: Path) -> tuple[set[str], set[str]]:
    """(keys, beginnings of keys) that a template asks `t` for."""
    tree = environment().parse(path.read_text(encoding="utf-8"))
    keys, beginnings = set(), set()
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "t":
            first = call.args[0]
            if isinstance(first, nodes.Const):
                keys.add(first.value)
            elif isinstance(first, (nodes.Add, nodes.Concat)):
                start = first.left if isinstance(first, nodes.Add) else first.nodes[0]
                while isinstance(start, nodes.Add):
                    start = start.left
                assert isinstance(start, nodes.Const), (path, first)
                beginnings.add(start.value)
            else:
                raise AssertionError((path.name, call.lineno, first))
    return keys, beginnings


def test_every_key_asked_for_is_there_and_every_text_is_asked_for() -> None:
    keys, beginnings = set(), set()
    for path in TEMPLATES:
        used, begun = keys_used(path)
        keys, beginnings = keys | used, beginnings | begun
    for path in ROOM.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        keys |= set(re.findall(r'\bt\("([a-z0-9_.-]+)"', source))
        beginnings |= set(re.findall(r'\bt\(f"([a-z0-9_.-]+)\{', source))
    have = set(catalogue("en"))
    assert keys - have == set()
    assert {one for one in beginnings if not any(key.startswith(one) for key in have)} == set()
    assert {key for key in have - keys if not any(key.startswith(one) for one in beginnings)} == set()
    assert {f"nav.{entry.name}" for entry in NAVIGATION} <= have
    assert {f"start.{entry.name}" for entry in NAVIGATION if entry.name != "start"} <= have
    assert {f"role.{role}" for role in ROLES} <= have


def test_undefined_names_and_markup_of_others_go_nowhere() -> None:
    made = environment().from_string("{{ text }}")
    assert made.render(text="<script>") == "&lt;script&gt;"
    with pytest.raises(jinja2.UndefinedError):
        made.render()


def test_numbers_and_sizes_are_written_as_the_language_does() -> None:
    english, german = Translator("en"), Translator("de")
    assert (english.size(1_234_567), german.size(1_234_567)) == ("1.2 MB", "1,2 MB")
    assert (english.size(999), german.size(12_345)) == ("999 B", "12,3 kB")
    assert german.number(1_234_567.5, 1) == "1.234.567,5"
    with pytest.raises(KeyError):
        english("no.such.key")


def test_the_language_is_chosen_by_the_person_then_by_the_browser() -> None:
    assert chosen("de", "en") == "de"
    assert chosen("xx", "de-AT,de;q=0.9,en;q=0.8") == "de"
    assert chosen(None, "en;q=0.5, de;q=0.7") == "de"
    assert chosen(None, "") == chosen(None, "fr") == chosen(None, "," * 100_000 + "de") == "en"
