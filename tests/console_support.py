"""A console without a network: the application behind its guard, a clock that tests turn, commands that are canned."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from starlette.testclient import TestClient

from devguard.cli.home import Home
from devguard.console.app import Console, make_app, make_console
from devguard.console.guard import TOKEN_HEADER
from devguard.console.settings import Limits, Settings
from devguard.console.table import Role

HOST = "127.0.0.1:8123"
ORIGIN = f"http://{HOST}"
# A stand-in for the command line: prints what lies in answer.json beside it, and notes how it was called.
_STUB = """\
import json, os, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
given = "" if sys.stdin is None else sys.stdin.read()
args = sys.argv[1:]
secret = None
if "--passphrase-fd" in args:
    secret = os.fdopen(int(args[args.index("--passphrase-fd") + 1])).readline()
with open(os.path.join(here, "calls.jsonl"), "a") as file:
    print(json.dumps({"args": args, "stdin": given, "secret": secret}), file=file)
with open(os.path.join(here, "answer.json")) as file:
    answer = json.load(file)
sys.stderr.write(answer.get("err", ""))
sys.stderr.flush()
def interrupted(*_):
    sys.stderr.write("error: interrupted; state is safe, nothing is half-written\\n")
    sys.exit(130)
signal.signal(signal.SIGINT, interrupted)
for option, content in answer.get("write", {}).items():
    for place in [one[len(option):] for one in args if one.startswith(option)]:
        with open(place, "w") as file:
            file.write(content)
while answer.get("until") and not os.path.exists(answer["until"]):
    time.sleep(0.01)
if answer["data"] is not None:
    print(json.dumps(answer["data"]))
sys.exit(answer["status"])
"""


class Clock:
    """A steady clock and one since the epoch, both turned by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Desk:
    """One console on a home of its own. `console` has its parts."""

    folder: Path
    console: Console
    clock: Clock
    client: TestClient
    csrf: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, *, limits: Limits | None = None, real: bool = False, **more: Any) -> Desk:
        """`real`: commands are the real command line's; otherwise `answers` says what they answer."""
        folder.mkdir(parents=True, exist_ok=True)
        stub = folder / "stub.py"
        stub.write_text(_STUB)
        clock = Clock()
        given: dict[str, Any] = {
            "home": Home(folder / "home"),
            "command": (sys.executable, "-m", "devguard.cli.main") if real else (sys.executable, "-S", str(stub)),
            "origin": ORIGIN,
            "hosts": frozenset({HOST, "localhost:8123"}),
            "name": "localhost",
            "operator": "Bea Bench",
            "limits": limits or Limits(),
            "clock": clock,
            "ticks": clock,
            **more,
        }
        console = make_console(Settings(**given))
        client = TestClient(make_app(console), base_url=given["origin"], follow_redirects=False)
        client.headers["origin"] = given["origin"]
        desk = cls(folder, console, clock, client)
        desk.answers({}, 0)
        return desk

    def as_role(self, role: Role, person: str = "Tess Technician", *, registered: bool = False) -> Desk:
        """The same console, and a browser in which that person is signed in."""
        cookie = self.console.sessions.open(person, role, registered=registered)
        settings = self.console.settings
        client = TestClient(self.client.app, base_url=settings.origin, follow_redirects=False)
        client.headers["origin"] = settings.origin
        client.cookies.set(settings.cookie, cookie)
        session = self.console.sessions.find(cookie)
        assert session is not None
        return replace(self, client=client, csrf=session.csrf)

    def answers(self, data: dict[str, Any] | None, status: int = 0, **more: Any) -> None:
        """What the next commands print, and how they end. `err`: on standard error; `until`: not before that file is
        there, or an interrupt comes; `write`: option -> text that is written where it says."""
        (self.folder / "answer.json").write_text(json.dumps({"data": data, "status": status, **more}))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every command that was started: its arguments, standard input and passphrase."""
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def post(self, path: str, form: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """A form with the session's token in it."""
        return self.client.post(path, data={"csrf": self.csrf, **(form or {})}, **more)

    def post_json(self, path: str, data: object, **more: Any) -> httpx.Response:
        """JSON with the session's token in the header."""
        headers = {TOKEN_HEADER: self.csrf, "accept": "application/json", **more.pop("headers", {})}
        return self.client.post(path, json=data, headers=headers, **more)


class Raw(NamedTuple):
    """An answer as the application gave it to the server."""

    status_code: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


async def _silence() -> AsyncIterator[bytes]:
    yield b""


def ask_raw(
    desk: Desk,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    chunks: AsyncIterator[bytes] | None = None,
    seconds: float = 20,
) -> Raw:
    """One request chunk by chunk, as a server hands it on. A ConnectionError in `chunks` is a browser that is gone."""
    settings = desk.console.settings
    given = {"host": HOST, "origin": ORIGIN, "cookie": f"{settings.cookie}={desk.client.cookies[settings.cookie]}"}
    said: list[Any] = []
    body = chunks or _silence()

    async def receive() -> dict[str, Any]:
        try:
            return {"type": "http.request", "body": await anext(body), "more_body": True}
        except StopAsyncIteration:
            if chunks is None:
                await asyncio.sleep(3600)  # the browser listens
            return {"type": "http.request", "body": b"", "more_body": False}
        except ConnectionError:
            return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in {**given, **(headers or {})}.items()],
        "client": ("127.0.0.1", 9),
        "server": ("127.0.0.1", 8123),
    }
    app: Any = desk.client.app
    asyncio.run(asyncio.wait_for(app(scope, receive, send), seconds))
    text = b"".join(one.get("body", b"") for one in said[1:]).decode()
    return Raw(said[0]["status"], {name.decode(): value.decode() for name, value in said[0]["headers"]}, text)


def code_of(answer: httpx.Response | Raw | None) -> str:
    """The code of a refusal, from its page or its JSON."""
    assert answer is not None
    if "application/json" in answer.headers.get("content-type", ""):
        return str(answer.json()["error"]["code"])
    found = re.search(r'<code class="code">([a-z.-]+)</code>', answer.text)
    assert found is not None, answer.text
    return found[1]
