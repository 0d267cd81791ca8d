"""The pages people read, held to the code: generated tables, links, commands, labels, examples.

Invariant: what a page names exists. A page may say less than the code, never something else.
"""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import click
import pytest

from devguard.cli.main import TABLE
from devguard.cose.roles import TRUST_ROLES
from devguard.device.layout import Mark
from devguard.errors import CODES
from devguard.evidence.actions import ACTIONS
from devguard.evidence.checkpoint import parse_text, read_note
from devguard.evidence.record import DigestOf, Statement
from devguard.grant import credential, request, scope, suspensions
from devguard.link.frames import Kind, decode_announcement, decode_frame
from devguard.manifest.suit import Parameter
from devguard.session.records import ExporterLabel
from devguard.session.verbs import Verb
from devguard.trust import codec
from devguard.trust.model import ROLE_LABELS
from devguard.verdict.steps import STEPS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(page for place in ("", "docs/**/", "keys/", "firmware_manifests/") for page in ROOT.glob(f"{place}*.md"))
DOCS = sorted(ROOT.glob("docs/**/*.md"))
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|[\s`(])devguard ((?:--?[a-z-]+(?: [A-Z]+)? )*)([a-z][a-z0-9-]*)(?: ([a-z][a-z-]*))?")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# generated


def test_the_page_of_refusal_codes_is_current() -> None:
    writer = tool("write_codes")
    assert text_of(writer.PAGE) == writer.page(), "run tools/write_codes.py"


def test_the_tables_of_the_threat_model_are_current() -> None:
    writer = tool("write_threats")
    assert text_of(writer.PAGE) == writer.page(text_of(writer.PAGE)), "run tools/write_threats.py"
    listed = re.findall(r"^\| ([A-J]\d\d) \|", text_of(writer.PAGE), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {row.id for row in writer.ROWS}


# links


def anchors(page: Path) -> set[str]:
    """The anchors that headings make, as the usual renderers spell them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(page: Path) -> Iterator[str]:
    prose = CODE.sub("", FENCE.sub("", text_of(page)))
    yield from re.findall(r"\]\(([^)\s]+)\)", prose)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_map_names_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert [name_of(page) for page in DOCS if page not in linked and page != index] == []


# commands


Named = tuple[str, str | None, tuple[str, ...]]


def commands(text: str) -> Iterator[Named]:
    """(command, word after it, options in the same line) of every `devguard ...` in code spans and code blocks."""
    text = text.replace("\\\n", " ")
    lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
    lines += re.findall(r"^ {4}.*$", FENCE.sub("", text), re.MULTILINE)
    for line in [*lines, *CODE.findall(FENCE.sub("", text))]:
        for found in COMMAND.finditer(line):
            options = tuple(re.findall(r"(?<=[\s\[(|])--[a-z][a-z0-9-]*", line[found.end() :]))
            yield found[2], found[3], options


def unknown(named: Named) -> bool:
    """Whether the command line lacks the command, the group its subcommand, or the command an option."""
    first, second, options = named
    if first not in TABLE:
        return True
    module, attribute, _ = TABLE[first]
    command = getattr(importlib.import_module(module), attribute)
    if isinstance(command, click.Group) and second is not None:
        command = command.get_command(click.Context(command), second)
    if command is None:
        return True
    within = command.commands.values() if isinstance(command, click.Group) else ()  # a third word
    params = [option for one in (command, *within) for option in one.params]
    known = {spelling for option in params for spelling in (*option.opts, *option.secondary_opts)}
    return not set(options) <= known | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_named_in_pages_exist(page: Path) -> None:
    wrong = {named for named in commands(text_of(page)) if unknown(named)}
    assert not wrong


def test_commands_named_in_remedies_exist() -> None:
    wrong = {named for info in CODES.values() for named in commands(info.remedy) if unknown(named)}
    assert not wrong


def test_what_does_not_exist_is_noticed() -> None:
    block = "```\ndevguard --home DIR trust melt\n$ devguard dance\n```\n"
    text = (
        f"`devguard key new X --person P --rule R` and\n{block}`devguard verify F`\n\n    devguard push A \\\n --fast\n"
    )
    found = {named[:2]: unknown(named) for named in commands(text)}
    assert found == {
        ("key", "new"): True,
        ("trust", "melt"): True,
        ("dance", None): True,
        ("verify", None): False,
        ("push", None): True,
    }


# codes, labels, steps


# Dotted words of pages that are no refusal codes: functions, files, actions of evidence records, flags of a report.
OTHER = {"wire.decode", "checkpoint.next", "release.push", "version.older", "device.log", "ceremony.txt",
         "ceremony.sig"}  # fmt: skip


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "firmware_manifests"], ids=name_of)
def test_refusal_codes_named_in_pages_exist(page: Path) -> None:
    rooms = {code.partition(".")[0] for code in CODES}
    named = set(re.findall(r"`([a-z]+\.[a-z]+(?:-[a-z]+)*)`", text_of(page)))
    assert {code for code in named - OTHER if code.partition(".")[0] in rooms} <= set(CODES)


def rows(page: str) -> list[list[str]]:
    """Every table row of a page of docs/, its cells in one spelling."""
    lines = [line for line in text_of(ROOT / "docs" / page).splitlines() if line.startswith("|")]
    return [[spelled(cell) for cell in line.strip("|").split("|")] for line in lines]


def spelled(name: str) -> str:
    bare = name.strip().strip("`").lower()
    return bare if re.fullmatch(r"-?\d+", bare) else bare.replace("-", " ").replace("_", " ")


Roles = enum.IntEnum("Roles", {role.name: label for role, label in ROLE_LABELS.items()})
PRIVATE = [member for member in Parameter if member < -256]
IDENTITY = [Parameter.VENDOR_IDENTIFIER, Parameter.CLASS_IDENTIFIER, Parameter.DEVICE_IDENTIFIER]
PLAIN = [Parameter.IMAGE_DIGEST, Parameter.IMAGE_SIZE, Parameter.URI, Parameter.USE_BEFORE, Parameter.MINIMUM_BATTERY,
         Parameter.UPDATE_PRIORITY, Parameter.VERSION]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "members"),
    [
        ("trust.md", codec.Label),
        ("trust.md", codec.EntryLabel),
        ("trust.md", Roles),
        ("grant.md", scope.Claim),
        ("grant.md", request.Claim),
        ("technicians.md", suspensions.Claim),
        ("credential.md", credential.Claim),
        ("envelope.md", [*IDENTITY, *PLAIN, *PRIVATE]),
        ("edhoc-profile.md", ExporterLabel),
        ("link.md", Kind),
        ("evidence.md", DigestOf),
        ("evidence.md", Statement),
        ("flash-and-boot.md", Mark),
        ("conversation.md", Verb),
    ],
    ids=["trust", "trust-entry", "trust-roles", "grant", "request", "suspensions", "credential", "envelope",
         "exporter", "link", "evidence", "statements", "marks", "verbs"],
)  # fmt: skip
def test_label_tables_say_what_the_code_says(page: str, members: list[enum.IntEnum]) -> None:
    table = rows(page)
    missing = [m.name for m in members if not any({str(m.value), spelled(m.name)} <= set(row) for row in table)]
    assert not missing


def test_the_tables_of_roles_name_every_role_of_a_trust_document() -> None:
    named = {row[0] for line in (text_of(ROOT / "keys" / "README.md")).splitlines() if (row := cells(line))}
    assert {str(role) for role in TRUST_ROLES} <= named


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def test_the_steps_of_a_verdict_are_all_listed_in_order() -> None:
    text = text_of(ROOT / "docs" / "envelope.md").partition("## Judging")[2].partition("## MUSTs")[0]
    listed = [name.strip() for line in text.splitlines() if (row := cells(line)) for name in row[0].split(",")]
    assert [name for name in listed if name in STEPS] == list(STEPS)


# examples


def test_the_examples_of_the_link_page_are_frames() -> None:
    text = text_of(ROOT / "docs" / "link.md").partition("## Fields")[0]
    found = []
    for line in re.findall(r"^[0-9a-f ]+ 00$", text, re.MULTILINE):
        found.append(decode_frame(bytes.fromhex(line)[:-1]))
    assert [frame.kind for frame in found] == [Kind.OPEN, Kind.DATA, Kind.ACK]
    assert [frame.nonce is None for frame in found] == [False, False, True]
    assert decode_announcement(found[0].body) != 0
    assert found[1].body == b"hello"


def test_the_example_of_the_evidence_page_is_a_checkpoint() -> None:
    text = text_of(ROOT / "docs" / "evidence.md")
    note = next(block for block in FENCE.findall(text) if "\u2014 devguard/" in block)
    taken = read_note(note.removeprefix("```\n").removesuffix("```").encode())
    assert parse_text(taken.text).size == 2
    assert taken.signatures[0].name == parse_text(taken.text).origin


def test_decision_records_are_short_and_whole() -> None:
    wrong = []
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        text = text_of(page)
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        if headings != ["What", "Why", "What else was thought of", "Consequences"] or text.count("\n") > 40:
            wrong.append(page.name)
        if not text.startswith(f"# {page.name[:4]} "):
            wrong.append(page.name)
    assert not wrong


# actions

WRITERS = {"recorded": 1, "run_push": 3, "_make": 1, "_own": 0, "Note": 3, "commit": None, "make": None, "Record": None}
"""What writes records, and which of its arguments is the action; None where it is always named."""


def actions_written() -> set[str]:
    """Every action that a call in the source gives to what writes records."""
    found: set[str] = set()
    for path in sorted([*(ROOT / "devguard/cli").glob("*.py"), *(ROOT / "devguard/evidence").glob("*.py")]):
        tree = ast.parse(text_of(path))
        for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            if name not in WRITERS:
                continue
            place = WRITERS[name]
            given = [one.value for one in call.keywords if one.arg == "action"]
            given += [] if place is None else call.args[place : place + 1]
            words = {word for one in given for word in literals(one, tree, path) if "." in word}
            found |= words
            if name == "run_push":
                found |= {f"{word}-begun" for word in words}
    return found


def literals(given: ast.expr, tree: ast.Module, path: Path, *, names: bool = True) -> set[str]:
    """The texts that an argument can be: written there, assigned to its name in that file, or a constant it imports."""
    if isinstance(given, ast.Name) and names:
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        constant = getattr(module, given.id, None)
        assigned = [
            one.value
            for one in ast.walk(tree)
            if isinstance(one, ast.Assign) and any(isinstance(to, ast.Name) and to.id == given.id for to in one.targets)
        ]
        inner = {word for one in assigned for word in literals(one, tree, path, names=False)}
        return inner | ({constant} if isinstance(constant, str) else set())
    if isinstance(given, ast.IfExp):
        return literals(given.body, tree, path, names=names) | literals(given.orelse, tree, path, names=names)
    return {given.value} if isinstance(given, ast.Constant) and isinstance(given.value, str) else set()


def test_the_registry_of_actions_is_what_the_source_writes() -> None:
    written = actions_written()
    assert set(ACTIONS) == written, f"correct devguard/evidence/actions.py: {sorted(set(ACTIONS) ^ written)}"
