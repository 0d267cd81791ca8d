"""`devguard serve token|tokens|revoke`: shown once, on record, taken back."""

from __future__ import annotations

import time
from pathlib import Path

from cli_support import devguard, ok, records
from devguard.cli.home import Home
from devguard.console.table import Role
from devguard.console.tokens import Tokens


def test_a_token_from_its_making_to_its_end(home: Path) -> None:
    made = ok("serve", "token", "dashboard", "--role", "viewer", "--days", 2, "--json").json
    assert (made["name"], made["role"]) == ("dashboard", "viewer")
    assert abs(made["expires"] - time.time() - 2 * 86_400) < 60
    tokens = Tokens(Home(home).path / "console")
    found = tokens.find(made["token"], time.time())
    assert found is not None
    assert (found.name, found.role) == ("dashboard", Role.VIEWER)
    assert tokens.find(made["token"], made["expires"]) is None
    listed = ok("serve", "tokens", "--json")
    assert made["token"] not in listed.out
    assert listed.json["tokens"][0] | {"added": 0} == {
        "name": "dashboard", "role": "viewer", "added": 0, "expires": made["expires"], "good": True,
    }  # fmt: skip
    assert "dashboard" in ok("serve", "tokens").out
    again = devguard("serve", "token", "dashboard", "--role", "admin", "--json")
    assert (again.status, again.code) == (1, "console.token")
    assert devguard("serve", "token", "\x07", "--role", "admin", "--json").code == "console.token"
    assert devguard("serve", "token", "x", "--role", "viewer", "--days", 367).status == 2
    assert ok("serve", "revoke", "dashboard", "--json").json == {"name": "dashboard", "role": "viewer"}
    assert tokens.find(made["token"], time.time()) is None
    assert devguard("serve", "revoke", "dashboard", "--json").code == "console.token"
    told = [(one["action"], one["code"]) for one in records(home) if one["action"].startswith("console.")]
    assert told == [
        ("console.token", None), ("console.token", "console.token"), ("console.token", "console.token"),
        ("console.revoke", None), ("console.revoke", "console.token"),
    ]  # fmt: skip
    first = next(one for one in records(home) if one["action"] == "console.token")
    assert first["details"]["role"] == "viewer"
    assert made["token"] not in str(records(home))
