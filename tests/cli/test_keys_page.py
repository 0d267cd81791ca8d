"""Invariant: every command of keys/README.md, in the order it stands there, does what the page says.

The page's own lines are run, not copies of them. What a test has to stand in for: the release that is signed, the
people at the ceremony's terminal, and a token with the label the page names.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from cli_support import ROOT, World, devguard
from devguard.custody import pkcs8
from softhsm import PIN, Tokens

PAGE = ROOT / "keys" / "README.md"
FENCED = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPED = "one passphrase for all"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
CEREMONY = [
    "y", "Acme Devices", "Wanda Witness", "3", "2",
    *("Rhea Root", "ESP384", "file", "y"), *("Rolf Root", "ESP384", "file", "y"),
    *("Ruth Root", "ML-DSA-65", "file", "y"),
    *("remy.pub", "y", "1"), *("quinn.pub", "y", "1"), *("thea.pub", "y", "1"), *("dana.pub", "y", "1"),
    "", "y",
]  # fmt: skip


class Terminal(io.StringIO):
    """The officers, answering."""

    def isatty(self) -> bool:
        return True


def commands() -> list[list[str]]:
    lines = [line for block in FENCED.findall(PAGE.read_text(encoding="utf-8")) for line in block.splitlines()]
    assert len(lines) > 35
    assert all(line.startswith("devguard ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_every_command_of_the_page_does_what_it_says(
    world: World, tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.make("remy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pkcs8, "PARALLEL", 1)
    monkeypatch.setattr("devguard.custody.offline.networks_up", lambda root: ())
    secret = tmp_path / "secret"
    world.suit(tmp_path / "pump.suit", signers=())
    on_token = {"remy"}
    for words in commands():
        words = [one.replace(MODULE, tokens.module) for one in words]
        typed = PIN if on_token & set(words) and words[:2] != ["key", "export"] else TYPED
        monkeypatch.setenv("DEVGUARD_PASSPHRASE", typed)
        if words[:2] == ["key", "ceremony"] and len(words) == 3:
            monkeypatch.delenv("DEVGUARD_PASSPHRASE")
            secret.write_text(f"{TYPED}\n" * 3)
            monkeypatch.setattr(sys, "stdin", Terminal("\n".join([*CEREMONY, ""])))
            with secret.open() as file:
                done = devguard(*words, "--passphrase-fd", file.fileno())
        else:
            done = devguard(*words)
        assert done.status == 0, (words, done.out, done.err)
    assert "revoked" in devguard("trust", "show", "root/current.trust", "--json").out
