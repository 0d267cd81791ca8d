"""Bearer tokens: good on ways of the API alone, for their role, until they end or are taken back.

Invariant: a request with a token never gets what the token's role does not allow, and a bad token never falls back.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from console_support import HOST, Desk, code_of
from devguard.console.table import WAYS, Role
from devguard.console.tokens import PREFIX, Tokens
from devguard.errors import DevguardError


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.make(tmp_path)
    desk.answers({"technicians": [], "suspended": [], "revoked": {}, "epoch": 0, "grants": [], "issued": []})
    return desk


def token_of(desk: Desk, role: Role = Role.VIEWER, name: str = "tests", seconds: int = 60) -> str:
    now = int(desk.clock())
    return Tokens(desk.console.settings.folder).make(name, role, now, now + seconds)


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_only_a_digest_is_kept_and_nobody_else_reads_it(desk: Desk) -> None:
    token = token_of(desk)
    file = desk.console.settings.folder / "tokens.json"
    assert token.startswith(PREFIX)
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_asks_until_it_ends_or_is_taken_back(desk: Desk) -> None:
    token = token_of(desk)
    ask = lambda: desk.get("/api/v1/technicians", headers=bearing(token))  # noqa: E731
    assert ask().json() == {"technicians": [], "suspended": [], "revoked": {}, "epoch": 0}
    desk.clock.now += 60
    assert (ask().status_code, code_of(ask()), ask().headers["www-authenticate"]) == (401, "console.login", "Bearer")
    token = token_of(desk)
    assert ask().status_code == 200
    Tokens(desk.console.settings.folder).remove("tests")
    assert code_of(ask()) == "console.login"


@pytest.mark.parametrize("given", [
    "Bearer", "Bearer ", "Bearer dgt_", f"Bearer {PREFIX}{'x' * 43}", f"Bearer {PREFIX}{'x' * 5000}", "Basic dGVzdDp0",
    "é",
])  # fmt: skip
def test_a_bad_token_never_falls_back_to_a_cookie(desk: Desk, given: str) -> None:
    signed_in = desk.as_role(Role.ADMIN)
    assert signed_in.get("/api/v1/technicians").status_code == 200
    answer = signed_in.get("/api/v1/technicians", headers={"authorization": given.encode()})
    assert (answer.status_code, code_of(answer)) == (401, "console.login")


def test_a_token_opens_no_page(desk: Desk) -> None:
    headers = bearing(token_of(desk, Role.ADMIN))
    for way in WAYS:
        if way.role is not None and not way.api:
            answer = desk.client.request(way.method, way.path.replace("{", "").replace("}", ""), headers=headers)
            assert code_of(answer) in ("console.login", "console.csrf"), way


def test_changing_the_api_takes_a_token_or_a_page_of_ours(desk: Desk) -> None:
    desk.answers({"file": "x", "accepted": False, "code": "envelope.malformed", "checks": []})
    evil = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}
    files = {"file": ("a.suit", b"x")}
    viewer = desk.as_role(Role.VIEWER)
    assert code_of(viewer.client.post("/api/v1/verify", files=files)) == "console.csrf"
    mine = {"x-csrf-token": viewer.csrf}
    assert code_of(viewer.client.post("/api/v1/verify", files=files, headers={**mine, **evil})) == "console.csrf"
    assert viewer.client.post("/api/v1/verify", files=files, headers=mine).json()["file"] == "a.suit"
    token = bearing(token_of(desk))
    assert desk.client.post("/api/v1/verify", files=files, headers={**token, **evil}).json()["accepted"] is False
    answer = desk.client.post("/api/v1/verify", files=files, data={"other": "1"}, headers=token)
    assert (answer.status_code, code_of(answer)) == (400, "console.request")
    assert desk.client.post("/api/v1/verify", files=files, headers={**token, "host": "evil"}).status_code == 421


def test_names_are_taken_once_and_damage_is_said(desk: Desk) -> None:
    token_of(desk)
    with pytest.raises(DevguardError, match="already") as caught:
        token_of(desk)
    assert caught.value.code == "console.token"
    desk.clock.now += 61
    token_of(desk)  # the one of before has ended
    tokens = Tokens(desk.console.settings.folder)
    with pytest.raises(DevguardError, match="no token"):
        tokens.remove("other")
    tokens.file.write_text(json.dumps({"format": 1, "tokens": [{"digest": 3}]}))
    assert code_of(desk.get("/api/v1/grants", headers=bearing(f"{PREFIX}x"))) == "console.people"


def test_metrics_ask_for_a_token_beyond_this_machine(tmp_path: Path) -> None:
    near = Desk.make(tmp_path / "near")
    assert near.get("/metrics").status_code == 200
    far = Desk.make(tmp_path / "far", loopback=False, hosts=frozenset({HOST}))
    assert code_of(far.get("/metrics")) == "console.login"
    answer = far.get("/metrics", headers=bearing(token_of(far)))
    assert answer.headers["content-type"].startswith("text/plain")
    assert "devguard_evidence_records 0.0" in answer.text


def test_what_is_not_there_is_said_in_json_and_ways_say_their_methods(desk: Desk) -> None:
    headers = bearing(token_of(desk))
    answer = desk.get("/api/v1/nothing", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "console.missing")
    answer = desk.client.delete("/api/v1/devices", headers=headers)
    assert (answer.status_code, code_of(answer), answer.headers["allow"]) == (405, "console.method", "GET")
