"""What stands before every page: the table, roles, sessions, Host, tokens, headers, sizes.

Invariant: nothing is answered that is not in the table, and nothing in the table to a lower role.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from console_support import HOST, ORIGIN, Desk, ask_raw, code_of
from devguard.console.app import handler_of
from devguard.console.guard import Guard
from devguard.console.headers import ALWAYS
from devguard.console.settings import Limits
from devguard.console.table import NAVIGATION, WAYS, Body, Role, Way

WRONG_SITE = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.make(tmp_path)


def named(way: Way) -> str:
    return f"{way.method} {way.path}"


def path_of(way: Way) -> str:
    """A path that the way answers to; its parameters are names of nothing."""
    return way.path.replace("{name}", "console.css").replace("{", "").replace("}", "")


def ask(desk: Desk, way: Way, **more: object) -> object:
    if way.body is Body.UPLOAD:
        more = {"files": {"file": ("a.suit", b"x")}, **more}
    elif way.body is Body.JSON:
        more = {"json": {}, **more}
    elif way.body is Body.FORM:
        more = {"data": {"a": "b"}, **more}
    return desk.client.request(way.method, path_of(way), **more)  # type: ignore[arg-type]


def test_the_table_and_the_application_have_the_same_ways(desk: Desk) -> None:
    guard = desk.client.app
    assert isinstance(guard, Guard)
    routes = {
        (method, route.path)
        for route in guard.app.routes  # type: ignore[attr-defined]
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert routes == {(way.method, way.path) for way in WAYS}
    assert len(guard.app.routes) == len(WAYS)  # type: ignore[attr-defined]  # no mounts, nothing else
    for way in WAYS:
        assert callable(handler_of(way))
        assert (way.body is Body.NONE) == (way.method == "GET")
    for entry in NAVIGATION:
        assert [way.role for way in WAYS if way.method == "GET" and way.path == entry.path] == [entry.role]


def test_what_is_not_in_the_table_does_not_exist(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path).as_role(Role.ADMIN)
    guard = desk.client.app
    assert isinstance(guard, Guard)
    guard.ways = tuple(way for way in WAYS if way.path != "/")  # forgotten in the table, there in the application
    assert code_of(desk.get("/")) == "console.missing"
    for path in ("/openapi.json", "/docs", "/static/../people.json", "/static/console.css/x", "//"):
        assert desk.get(path).status_code == 404
    assert code_of(desk.client.request("DELETE", "/sign-in")) == "console.method"
    assert desk.client.request("HEAD", "/in").status_code == 405  # a look at a link does not use it up


@pytest.mark.parametrize("way", [way for way in WAYS if way.role is not None], ids=named)
def test_every_way_refuses_a_lower_role_and_nobody(desk: Desk, way: Way) -> None:
    assert code_of(ask(desk, way)) == "console.login"  # type: ignore[arg-type]
    for role in Role:
        if way.role is not None and role < way.role:
            answer = ask(desk.as_role(role), way)
            assert (answer.status_code, code_of(answer)) == (403, "console.role")  # type: ignore[attr-defined, arg-type]
    assert desk.calls == []


@pytest.mark.parametrize("way", [way for way in WAYS if way.method != "GET"], ids=named)
def test_every_changing_way_wants_the_own_page_and_the_token(desk: Desk, way: Way) -> None:
    signed = desk.as_role(Role.ADMIN)
    token = {"x-csrf-token": signed.csrf}  # stolen: it is not enough
    assert code_of(ask(signed, way, headers={**token, **WRONG_SITE})) == "console.csrf"  # type: ignore[arg-type]
    for site in ("cross-site", "same-site", "none"):
        assert code_of(ask(signed, way, headers={**token, "sec-fetch-site": site})) == "console.csrf"  # type: ignore[arg-type]
    for origin in ("null", "https://127.0.0.1:8123", "http://127.0.0.1:8124"):
        assert code_of(ask(signed, way, headers={**token, "origin": origin})) == "console.csrf"  # type: ignore[arg-type]
    del signed.client.headers["origin"]
    assert code_of(ask(signed, way, headers=token)) == "console.csrf"  # type: ignore[arg-type]
    signed.client.headers["origin"] = ORIGIN
    if way.role is not None:
        assert code_of(ask(signed, way)) == "console.csrf"  # type: ignore[arg-type]
        other = desk.as_role(Role.ADMIN)
        assert code_of(ask(signed, way, headers={"x-csrf-token": other.csrf})) == "console.csrf"  # type: ignore[arg-type]
    assert desk.calls == []


def test_another_host_name_is_refused_before_anything_else(desk: Desk) -> None:
    signed = desk.as_role(Role.ADMIN)
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:9", "", f"{HOST}.evil.example"):
        answer = signed.get("/", headers={"host": host})
        assert (answer.status_code, code_of(answer)) == (421, "console.host")
    assert signed.get("/", headers={"host": "LOCALHOST:8123"}).status_code == 200


def test_every_answer_has_the_headers(desk: Desk) -> None:
    signed = desk.as_role(Role.VIEWER)
    for answer in (signed.get("/"), desk.get("/"), desk.get("/nothing"), desk.get("/", headers={"host": "x"})):
        for name, value in ALWAYS.items():
            assert answer.headers[name] == value
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers
    policy = ALWAYS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "immutable" in desk.get("/static/console.css").headers["cache-control"]


def test_under_tls_the_cookie_is_bound_to_it(tmp_path: Path) -> None:
    names = {"origin": "https://bench.example", "hosts": frozenset({"bench.example"}), "name": "bench.example"}
    desk = Desk.make(tmp_path, tls=True, **names)
    signed = desk.as_role(Role.VIEWER)
    assert desk.console.settings.cookie == "__Host-devguard"
    assert signed.get("/").headers["strict-transport-security"] == "max-age=31536000"
    assert "Secure" in signed.post("/language", {"language": "de"}).headers["set-cookie"]


def test_a_session_ends_when_idle_and_in_the_end(desk: Desk) -> None:
    limits = desk.console.settings.limits
    idle = desk.as_role(Role.VIEWER)
    desk.clock.now += limits.idle - 1
    assert idle.get("/").status_code == 200
    desk.clock.now += limits.idle - 1
    assert idle.get("/").status_code == 200
    assert idle.get("/static/console.css").status_code == 200
    desk.clock.now += limits.idle
    assert (idle.get("/").status_code, code_of(idle.get("/"))) == (401, "console.login")
    busy = desk.as_role(Role.VIEWER)
    began = desk.clock.now
    while desk.clock.now - began < limits.absolute - 800:
        desk.clock.now += 790
        assert busy.get("/").status_code == 200
    desk.clock.now = began + limits.absolute
    assert busy.get("/").status_code == 401


def test_what_a_page_asks_for_by_itself_keeps_no_session_alive(desk: Desk) -> None:
    signed = desk.as_role(Role.VIEWER)
    for _ in range(4):
        desk.clock.now += desk.console.settings.limits.idle / 2
        signed.get("/static/console.css")
    assert signed.get("/").status_code == 401


def test_signing_out_ends_it_at_both_ends(desk: Desk) -> None:
    signed = desk.as_role(Role.VIEWER)
    answer = signed.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert signed.get("/").status_code == 401


def test_forms_are_bounded_and_parsed_strictly(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, limits=Limits(form=1000)).as_role(Role.VIEWER)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert code_of(desk.client.post("/language", content=b"a=" + b"b" * 1000, headers=kind)) == "console.upload-size"
    endless = (b"x" * 100 for _ in range(1_000_000))
    assert code_of(desk.client.post("/language", content=endless, headers=kind)) == "console.upload-size"
    for wrong in (b"\xff\xfe=1", b"a=%ff", b"&".join([b"a=1"] * 240)):
        assert code_of(desk.client.post("/language", content=wrong, headers=kind)) == "console.request"
    assert code_of(desk.client.post("/language", json={})) == "console.request"
    assert code_of(desk.client.post("/language", content=b"", headers={**kind, "content-length": "x"})) != ""


def test_language_goes_back_to_this_console_only(desk: Desk) -> None:
    signed = desk.as_role(Role.VIEWER)
    assert 'lang="en"' in signed.get("/").text
    for back, to in (("/verify", "/verify"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\e", "/")):
        answer = signed.post("/language", {"language": "de", "back": back})
        assert (answer.status_code, answer.headers["location"]) == (303, to)
    assert '<html lang="de">' in signed.get("/").text
    assert code_of(signed.post("/language", {"language": "xx"})) == "console.request"
    fresh = desk.as_role(Role.VIEWER)
    assert '<html lang="de">' in fresh.get("/", headers={"accept-language": "fr, de-CH;q=0.8, en;q=0.2"}).text
    assert '<html lang="en">' in fresh.get("/", headers={"accept-language": "fr;q=x,,;;,de;q=0"}).text


def test_cookies_of_others_do_not_hide_ours(desk: Desk) -> None:
    signed = desk.as_role(Role.VIEWER)
    cookie = (
        f"bad[]=1; ={'x' * 50}; {desk.console.settings.cookie}={signed.client.cookies[desk.console.settings.cookie]}"
    )
    assert desk.client.get("/", headers={"cookie": cookie}).status_code == 200
    assert desk.client.get("/", headers={"cookie": f"{desk.console.settings.cookie}=\x00guess"}).status_code == 401


_DESKS: list[Desk] = []
TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=40)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "TRACE", "G\u00cb"]),
    path=st.one_of(st.sampled_from([way.path for way in WAYS]), TEXT.map(lambda text: f"/{text}")),
    headers=st.dictionaries(
        st.sampled_from(["host", "origin", "sec-fetch-site", "content-length", "content-type", "accept-language"]), TEXT
    ),
    body=st.binary(max_size=200),
)
def test_any_request_is_an_answer(
    tmp_path_factory: pytest.TempPathFactory, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    if not _DESKS:
        _DESKS.append(Desk.make(tmp_path_factory.mktemp("desk")).as_role(Role.ADMIN))

    async def once() -> AsyncIterator[bytes]:
        yield body

    spelled = {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}
    answer = ask_raw(_DESKS[0], method, path, spelled, once())
    assert 200 <= answer.status_code < 500 or code_of(answer) == "console.busy"
    for name, value in ALWAYS.items():
        assert answer.headers[name.lower()] == value
