"""Debian's headless Chromium, driven by Playwright, and a console as a process of its own for it to open.

Fixtures for tests in tests/cli (its conftest takes them from here): `chromium`, the browser, one for a file;
`tab`, which makes pages that fail the test on a script error or a blocked resource; `serving`, which starts consoles.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli_support import finish, ok, start
from needs import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

PROGRAM = shutil.which("chromium") or "/usr/bin/chromium"
PATIENCE = 40_000  # milliseconds


def need_browser() -> None:
    """Skip, saying so, where there is no browser to drive; in CI that is a failure."""
    if not Path(PROGRAM).exists():
        missing("chromium is not installed (Debian: apt-get install chromium)")
    if importlib.util.find_spec("playwright") is None:
        missing("playwright is not installed (extra test)")
    if importlib.util.find_spec("axe_playwright_python") is None:
        missing("axe-playwright-python is not installed (extra test)")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser. For one file of tests: as long as Playwright is there, its event loop runs in this thread, and no
    `asyncio.run` of other tests could."""
    need_browser()
    from playwright.sync_api import sync_playwright

    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=[*root, "--disable-gpu"])
        yield browser
        browser.close()


@dataclass(slots=True)
class Tabs:
    """Makes pages, each in a context of its own: another person at another machine."""

    browser: Browser
    folder: Path
    contexts: list[BrowserContext]
    troubles: list[str]

    def __call__(self, **options: Any) -> Page:
        """A new page. Script errors, and anything the content security policy stopped, fail the test at its end."""
        context = self.browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1100, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda said: self._said(said.text) if said.type == "error" else None)
        return page

    def _said(self, text: str) -> None:
        if "Failed to load resource" not in text:  # refusals are answers here
            self.troubles.append(text)

    def picture(self, page: Page, name: str) -> None:
        """A screenshot, as test output."""
        page.screenshot(path=self.folder / f"{name}.png", full_page=True)


@pytest.fixture
def tab(chromium: Browser, tmp_path: Path) -> Iterator[Tabs]:
    """Makes pages."""
    tabs = Tabs(chromium, tmp_path, [], [])
    yield tabs
    for context in tabs.contexts:
        context.close()
    assert tabs.troubles == []


@dataclass(slots=True)
class Serving:
    """A console that runs. `url`: its one-time link, where it gave one; `base`: its address."""

    process: subprocess.Popen[str]
    home: Path
    url: str
    base: str

    def link(self, person: str, role: str) -> str:
        """A one-time link for somebody else."""
        return str(ok("serve", "link", person, "--role", role, "--home", self.home, "--json").json["url"])

    def stop(self, sign: int = signal.SIGTERM) -> int:
        """As systemd would; its exit status."""
        self.process.send_signal(sign)
        return finish(self.process).status


Start = Callable[..., Serving]


@pytest.fixture
def serving(home: Path) -> Iterator[Start]:
    """Starts consoles on the test's home, and ends those that the test did not."""
    with contextlib.ExitStack() as stack:

        def begin(*options: object) -> Serving:
            process = start("serve", *options, "--json", "--home", home)
            stack.callback(_end, process)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            said = json.loads(line)
            base = re.match(r"https?://[^/]+", said["url"])
            assert base is not None
            return Serving(process, home, said["url"], base[0])

        yield begin


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    with contextlib.suppress(ValueError):  # its pipes are closed
        process.communicate()


def no_violations(page: Page) -> None:
    """axe finds nothing to complain of: WCAG 2.2 A and AA and best practice in the light; in the dark what can differ
    there, the contrast of colours."""
    from axe_playwright_python.sync_playwright import Axe

    contrast: dict[str, Any] = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
    for scheme, options in (("light", {"resultTypes": ["violations"]}), ("dark", contrast)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page, options=options)
        wrong = [
            f"{row['id']}: {[node['html'][:120] for node in row['nodes']]}" for row in found.response["violations"]
        ]
        assert wrong == [], (page.url, scheme, wrong)
    page.emulate_media(color_scheme="light")


def reflows(page: Page) -> None:
    """At 320 CSS pixels (1280 at 400 %) nothing has to be scrolled sideways (WCAG 2.2, 1.4.10)."""
    size = page.viewport_size
    page.set_viewport_size({"width": 320, "height": 700})
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 320, (page.url, wide)
    if size is not None:
        page.set_viewport_size(size)
