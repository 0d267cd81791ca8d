"""Coming in: one-time links, keys of one's own, what is refused, and how often one may try."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authenticator import PRESENT, Authenticator
from console_support import Desk, code_of
from devguard.console import passkeys
from devguard.console.people import Kind, Passkey, Register, check_name
from devguard.console.table import Role
from devguard.errors import DevguardError

NAME, ORIGIN = "bench.example", "https://bench.example:8443"
TESS = "Tess Technician"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.make(tmp_path)


@pytest.fixture
def far(tmp_path: Path) -> Desk:
    """A console that other machines reach."""
    hosts = frozenset({"bench.example:8443"})
    return Desk.make(tmp_path, tls=True, loopback=False, origin=ORIGIN, hosts=hosts, name=NAME)


def ticket(desk: Desk, kind: Kind, role: Role = Role.TECHNICIAN, seconds: int = 600) -> str:
    now = int(desk.clock.now)
    return desk.console.register.give(kind, TESS, role, now + seconds, now)


def with_key(desk: Desk, role: Role = Role.TECHNICIAN) -> Authenticator:
    """Somebody is registered, and this is their key."""
    key = Authenticator()
    options = passkeys.registration_options(NAME, TESS, b"c" * 32, ())
    reply = key.register(options, ORIGIN)
    made = passkeys.registered(reply, challenge=b"c" * 32, name=NAME, origin=ORIGIN, now=1)
    desk.console.register.add(TESS, role, made)
    return key


def challenge(desk: Desk) -> dict[str, Any]:
    answer = desk.post_json("/sign-in/options", {})
    assert answer.status_code == 200
    data: dict[str, Any] = answer.json()
    assert data["userVerification"] == "required"
    assert data["allowCredentials"] == []
    return data


# links


def test_a_link_signs_in_once(desk: Desk) -> None:
    secret = ticket(desk, Kind.SIGN_IN)
    kept = desk.console.register.tickets_file.read_text()
    assert secret not in kept
    answer = desk.get(f"/in?ticket={secret}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TESS in desk.get("/").text
    desk.client.cookies.clear()
    assert code_of(desk.get(f"/in?ticket={secret}")) == "console.login"


def test_a_link_is_short_lived_and_is_no_invitation(desk: Desk) -> None:
    late = ticket(desk, Kind.SIGN_IN)
    invitation = ticket(desk, Kind.ENROL, seconds=100_000)
    desk.clock.now += 600
    for wrong in (late, invitation, "", "x" * 3000, "\u20ac"):
        assert code_of(desk.get("/in", params={"ticket": wrong})) == "console.login"
    assert desk.console.register.look(Kind.ENROL, invitation, int(desk.clock.now)) is not None


def test_over_the_network_a_link_signs_nobody_in(far: Desk) -> None:
    secret = ticket(far, Kind.SIGN_IN)
    assert code_of(far.get(f"/in?ticket={secret}")) == "console.login"


def test_guessing_ends(desk: Desk) -> None:
    good = ticket(desk, Kind.SIGN_IN)
    limits = desk.console.settings.limits
    for _ in range(limits.signs):
        assert code_of(desk.get("/in?ticket=guess")) == "console.login"
    answer = desk.get(f"/in?ticket={good}")
    assert (answer.status_code, code_of(answer)) == (429, "console.rate")
    assert code_of(desk.post_json("/sign-in/options", {})) == "console.rate"
    desk.clock.now += limits.sign_window
    assert desk.get(f"/in?ticket={good}").status_code == 303


# keys of one's own


def test_a_registered_key_signs_in(far: Desk) -> None:
    key = with_key(far)
    answer = far.post_json("/sign-in", key.sign_in(challenge(far), ORIGIN))
    assert answer.json() == {"go": "/"}
    assert far.client.cookies["__Host-devguard"]
    assert TESS in far.get("/").text


Lie = Callable[[Authenticator, dict[str, Any]], dict[str, Any]]
LIES: dict[str, Lie] = {
    "origin": lambda key, asked: key.sign_in(asked, "https://evil.example"),
    "relying party": lambda key, asked: key.sign_in(asked, ORIGIN, name="evil.example"),
    "user not verified": lambda key, asked: key.sign_in(asked, ORIGIN, flags=PRESENT),
    "other key": lambda key, asked: {**Authenticator(id=key.id, count=9).sign_in(asked, ORIGIN)},
    "unknown key": lambda key, asked: Authenticator().sign_in(asked, ORIGIN),
    "registration": lambda key, asked: key.sign_in(asked, ORIGIN, kind="webauthn.create"),
    "no id": lambda key, asked: {**key.sign_in(asked, ORIGIN), "id": 7},
    "empty": lambda key, asked: {**key.sign_in(asked, ORIGIN), "rawId": ""},
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused(far: Desk, name: str) -> None:
    key = with_key(far)
    answer = far.post_json("/sign-in", LIES[name](key, challenge(far)))
    assert (answer.status_code, code_of(answer)) == (401, "console.login")
    assert not far.client.cookies


def test_a_counter_that_goes_back_is_a_copied_key(far: Desk) -> None:
    key = with_key(far)
    copy = Authenticator(key.key, key.id, key.count)
    assert far.post_json("/sign-in", key.sign_in(challenge(far), ORIGIN)).status_code == 200
    far.client.cookies.clear()
    assert far.post_json("/sign-in", copy.sign_in(challenge(far), ORIGIN)).status_code == 401


def test_a_reply_counts_once_and_soon(far: Desk) -> None:
    key = with_key(far)
    reply = key.sign_in(challenge(far), ORIGIN)
    assert far.post_json("/sign-in", reply).status_code == 200
    far.client.cookies.clear()
    assert code_of(far.post_json("/sign-in", reply)) == "console.login"
    late = key.sign_in(challenge(far), ORIGIN)
    far.clock.now += far.console.settings.limits.challenge
    assert code_of(far.post_json("/sign-in", late)) == "console.login"


@pytest.mark.parametrize("wrong", [[], {}, {"response": 5}, {"response": {"clientDataJSON": "e30"}}, {"response": {}}])
def test_replies_that_are_none(far: Desk, wrong: object) -> None:
    assert code_of(far.post_json("/sign-in", wrong)) == "console.request"
    assert far.post_json("/sign-in", wrong, headers={"content-type": "text/plain"}).status_code == 400


def test_who_was_removed_is_out_with_the_next_click(far: Desk) -> None:
    key = with_key(far, Role.ADMIN)
    far.post_json("/sign-in", key.sign_in(challenge(far), ORIGIN))
    assert far.get("/").status_code == 200
    far.console.register.remove("tess  TECHNICIAN")
    assert code_of(far.get("/")) == "console.login"
    assert code_of(far.post_json("/sign-in", key.sign_in(challenge(far), ORIGIN))) == "console.login"


# registration


def test_an_invitation_registers_one_key_by_a_command(far: Desk) -> None:
    secret = ticket(far, Kind.ENROL)
    assert TESS in far.get(f"/enrol?ticket={secret}").text
    options = far.post_json("/enrol/options", {"ticket": secret}).json()
    assert options["authenticatorSelection"]["residentKey"] == "required"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    far.answers({"person": TESS, "role": "technician"})
    reply = Authenticator().register(options, ORIGIN)
    answer = far.post_json("/enrol", {"ticket": secret, "reply": reply})
    assert answer.json() == {"go": "/sign-in"}
    call = far.calls[-1]
    assert call["args"][:2] == ["serve", "keep"]
    said = json.loads(call["stdin"])
    assert (said["ticket"], said["reply"], said["origin"], said["name"]) == (secret, reply, ORIGIN, NAME)
    assert secret not in call["args"]
    assert code_of(far.post_json("/enrol", {"ticket": secret, "reply": reply})) == "console.login"  # challenge is spent


def test_nobody_registers_uninvited(far: Desk) -> None:
    for path, data in (("/enrol/options", {"ticket": "guess"}), ("/enrol/options", {})):
        assert code_of(far.post_json(path, data)) == "console.login"
    assert code_of(far.get("/enrol?ticket=guess")) == "console.login"
    assert code_of(far.post_json("/enrol", {"ticket": "guess", "reply": 1})) == "console.request"
    assert far.calls == []


@pytest.mark.parametrize("change", [{"flags": PRESENT}, {"name": "evil.example"}])
def test_a_registration_that_lies(change: dict[str, Any]) -> None:
    options = passkeys.registration_options(NAME, TESS, b"c" * 32, ())
    reply = Authenticator().register(options, ORIGIN, **change)
    with pytest.raises(DevguardError) as caught:
        passkeys.registered(reply, challenge=b"c" * 32, name=NAME, origin=ORIGIN, now=1)
    assert caught.value.code == "console.login"
    for broken in ({}, {"id": "x"}, {**reply, "response": {"clientDataJSON": "", "attestationObject": "AA"}}):
        with pytest.raises(DevguardError):
            passkeys.registered(broken, challenge=b"c" * 32, name=NAME, origin=ORIGIN, now=1)


# the files


def test_the_files_are_private_and_whole(tmp_path: Path) -> None:
    register = Register(tmp_path)
    assert register.people() == ()
    register.add(TESS, Role.VIEWER, Passkey("a", "b", 0, NAME, 1))
    register.add("tess technician", Role.ADMIN, Passkey("c", "d", 0, NAME, 2))
    one = register.people()[0]
    assert (one.person, one.role, [key.id for key in one.keys]) == (TESS, Role.ADMIN, ["a", "c"])
    register.give(Kind.ENROL, TESS, Role.VIEWER, 100, 1)
    for path in (register.file, register.tickets_file):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(DevguardError) as caught:
        register.add("Other", Role.VIEWER, Passkey("a", "b", 0, NAME, 1))
    assert caught.value.code == "console.person"
    register.remove(TESS)
    assert (register.people(), register.invited(1)) == ((), False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[",
        '{"format": 2, "people": []}',
        '{"format": 1, "people": [1]}',
        '{"format": 1, "people": [{}]}',
        '{"format": 1, "people": ' + "[" * 50_000,
        '{"format": 1, "people": [{"person": "a", "role": "king", "added": 1, "keys": []}]}',
    ],
)
def test_damaged_files_let_nobody_in(far: Desk, text: str) -> None:
    far.console.register.file.write_text(text)
    with pytest.raises(DevguardError) as caught:
        far.console.register.people()
    assert caught.value.code == "console.people"
    assert far.get("/sign-in").status_code == 400
    reply = Authenticator().sign_in(challenge(far), ORIGIN)
    assert code_of(far.post_json("/sign-in", reply)) == "console.people"


def test_names() -> None:
    assert check_name("  Tess \t Technician ") == TESS
    for wrong in ("", "  ", "x" * 81, "a\u202eb", "a\x00b"):
        with pytest.raises(DevguardError):
            check_name(wrong)


def test_options_of_the_browser_hold_no_list_of_people(far: Desk) -> None:
    with_key(far)
    assert TESS not in far.get("/sign-in").text
    assert far.post_json("/sign-in/options", {}).json()["rpId"] == NAME
