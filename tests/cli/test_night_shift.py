"""docs/night-shift.md, played anew: every command still ends as the page shows it, and says the same."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("night_shift", ROOT / "tools" / "night_shift.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "night_shift", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_is_what_the_commands_say(writer: ModuleType) -> None:
    assert writer.page() == writer.PAGE.read_text(encoding="utf-8"), "run tools/night_shift.py"


def test_the_page_shows_what_it_is_about(writer: ModuleType) -> None:
    text = writer.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^error: ([a-z.]+):", text, re.MULTILINE) == [
        "version.rollback", "version.rollback", "log.tampered", "grant.revoked"
    ]  # fmt: skip
    assert not re.search(r"/tmp/|/dev/pts|Traceback", text)
