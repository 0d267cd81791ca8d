"""The house rules, read from the source: import order, purity by place, lazy start-up, sizes.

Invariant: a room imports only rooms before it; the deciding rooms import no I/O; no bare or broad except.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "devguard"
ROOMS = """
errors wire cose custody image manifest trust sbom shelf verdict grant evidence session link packets device
ledger campaign bench console cli
""".split()  # noqa: SIM905 (a line is easier to reorder than a list)
ORDER = {room: index for index, room in enumerate(ROOMS)} | {"_codes": -1}
PURE = {"wire", "cose", "manifest", "trust", "verdict", "grant", "session"}
IO_MODULES = {"os", "pathlib", "io", "socket", "time", "datetime", "random", "secrets", "subprocess", "shutil",
              "tempfile", "serial", "fcntl", "select", "threading", "asyncio"}  # fmt: skip
ALLOWED_IO = {
    # io and datetime as vocabulary, not as a clock or a file: reader protocols and date arithmetic
    ("wire", "io"),
    ("manifest", "io"),
    ("manifest", "datetime"),
    ("trust", "datetime"),
    ("verdict", "datetime"),
    ("grant", "datetime"),
}
BROAD = {"Exception", "BaseException"}


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        yield room, path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}"
            base = node.module or ""
            yield base, node.lineno
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names if base == "devguard")


def test_rooms_import_only_rooms_before_them() -> None:
    wrong = []
    for room, path, tree in modules():
        if room == "__init__":
            continue
        assert room in ORDER, f"{path} is in no room of the house"
        for name, line in imported(tree):
            parts = name.split(".")
            if parts[0] != "devguard" or len(parts) < 2:
                continue
            if parts[1] not in ORDER:
                wrong.append(f"{path}:{line} imports {name}, which is no room")
            elif ORDER[parts[1]] > ORDER[room]:
                wrong.append(f"{path}:{line} room {room} imports later room {parts[1]}")
    assert not wrong, "\n".join(wrong)


def test_deciding_rooms_touch_no_files_clocks_or_entropy() -> None:
    wrong = []
    for room, path, tree in modules():
        if room not in PURE:
            continue
        for name, line in imported(tree):
            top = name.split(".")[0]
            if top in IO_MODULES and (room, top) not in ALLOWED_IO:
                wrong.append(f"{path}:{line} imports {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "open" or called.endswith((".now", ".utcnow", ".today", ".urandom")):
                    wrong.append(f"{path}:{node.lineno} calls {called}")
    assert not wrong, "\n".join(wrong)


FORBIDDEN_ROOMS = {
    "verdict": {"custody", "shelf", "evidence", "link"},
    "grant": {"custody", "shelf", "link"},
    "session": {"custody", "shelf", "link"},
}


def test_deciding_rooms_know_no_storage_room() -> None:
    wrong = []
    for room, path, tree in modules():
        for name, line in imported(tree):
            parts = name.split(".")
            if parts[0] == "devguard" and len(parts) > 1 and parts[1] in FORBIDDEN_ROOMS.get(room, set()):
                wrong.append(f"{path}:{line} room {room} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_pyserial_only_in_link() -> None:
    users = {room for room, _, tree in modules() for name, _ in imported(tree) if name.split(".")[0] == "serial"}
    assert users <= {"link"}


def test_no_broad_except_and_no_assert_outside_main() -> None:
    wrong = []
    for _, path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"BaseException"}
                )
                if names & BROAD and path.relative_to(PACKAGE).as_posix() != "cli/main.py":
                    wrong.append(f"{path}:{node.lineno} broad except")
            if isinstance(node, ast.Assert):
                wrong.append(f"{path}:{node.lineno} assert (stripped by -O)")
    assert not wrong, "\n".join(wrong)


def test_files_stay_small_and_say_what_they_are() -> None:
    wrong = []
    for _, path, tree in modules():
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > 400:
            wrong.append(f"{path} has {lines} lines")
        if lines and not ast.get_docstring(tree):
            wrong.append(f"{path} has no docstring")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    wrong.append(f"{path}:{node.lineno} {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong)


HEAVY = """
rich tuf construct cryptography serial smpclient sqlalchemy fastapi starlette jinja2 uvicorn webauthn procrastinate
""".split()  # noqa: SIM905


@pytest.mark.parametrize("heavy", HEAVY)
def test_help_imports_nothing_heavy(heavy: str) -> None:
    program = (
        "import sys\nfrom devguard.cli import main\n"
        "try:\n    main.main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(str({heavy!r} in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stderr == "False"


def test_front_door_is_small() -> None:
    import devguard

    assert len(devguard.__all__) <= 25
    for name in devguard.__all__:
        assert getattr(devguard, name) is not None
