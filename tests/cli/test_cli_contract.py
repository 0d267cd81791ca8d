"""What holds for every command: help, exit statuses, one JSON object, where options and defaults come from."""

from __future__ import annotations

import importlib
import os
import pty
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from cli_support import World, devguard, finish, ok, start
from devguard.cli import main as cli_main
from devguard.errors import CODES


def commands() -> list[tuple[str, ...]]:
    """Every command there is, groups included."""
    found: list[tuple[str, ...]] = [()]
    for name, (module, attribute, _) in cli_main.TABLE.items():
        command = getattr(importlib.import_module(module), attribute)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in (*getattr(command, "table", {}), *command.commands)]
            groups = [(sub, one) for sub, one in command.commands.items() if isinstance(one, click.Group)]
            found += [(name, sub, third) for sub, one in groups for third in one.commands]
    return found


LEAVES = [path for path in commands() if path and not any(other[:-1] == path for other in commands() if other)]
CONTRACT = [
    "key new",
    "key show",
    "key check",
    "key export",
    "trust init",
    "trust show",
    "trust check",
    "release new",
    "release build",
    "release sign",
    "verify",
    "inspect",
    "grant issue",
    "grant show",
    "grant check",
    "device list",
    "device info",
    "push",
    "approve",
    "emulate",
    "evidence show",
    "evidence verify",
    "demo",
    "status",
    "explain",
]


def test_the_contract_s_commands_are_there() -> None:
    assert {" ".join(path) for path in LEAVES} >= set(CONTRACT)


@pytest.mark.parametrize("path", commands(), ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(path: tuple[str, ...], option: str) -> None:
    result = ok(*path, option)
    assert result.out.startswith("Usage: devguard")
    assert result.err == ""
    if path in LEAVES:
        for shared in ("--json", "--home", "-q, --quiet"):
            assert shared in result.out


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_no_such_option(path: tuple[str, ...]) -> None:
    result = devguard(*path, "--no-such-option", "--json")
    assert result.status == 2
    assert result.out == ""
    assert result.err.splitlines()[-1] == f"hint: devguard {' '.join(path)} --help"


@pytest.mark.parametrize("args", [["frobnicate"], ["key", "frobnicate"], ["--home"], ["verify"], ["--nope"]])
def test_usage(args: list[str]) -> None:
    result = devguard(*args)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert "hint: " in result.err


@pytest.mark.parametrize("args", [[], ["key"]])
def test_nothing_asked(args: list[str]) -> None:
    result = devguard(*args)
    assert result.status == 2
    assert result.err.startswith("Usage: devguard")


def test_version() -> None:
    assert ok("--version").out.startswith("devguard ")


FAILURES = [
    (["key", "show", "nobody"], 3, "file.missing"),
    (["key", "export", "--public", "nobody"], 3, "file.missing"),
    (["key", "new", "tech", "--person", "P", "--role", "technician"], 1, "key.exists"),
    (["trust", "show", "nowhere"], 3, "file.missing"),
    (["trust", "check", "{image}"], 3, "trust.malformed"),
    (["trust", "sign", "{image}", "--key", "root"], 3, "trust.malformed"),
    (["trust", "init", "t", "--root", "nobody", "--threshold", "1", "--expires", "2090-01-01"], 3, "file.missing"),
    (["release", "new", "toaster", "1.0.0"], 1, "image.class"),
    (["release", "build", "nowhere", "-o", "x"], 3, "file.missing"),
    (["release", "sign", "{image}", "--key", "release"], 3, "envelope.malformed"),
    (["verify", "{image}"], 3, "envelope.malformed"),
    (["grant", "show", "{image}"], 3, "grant.malformed"),
    (["grant", "check", "nowhere"], 3, "file.missing"),
    (["device", "info", "--port", "nowhere"], 4, "link.port"),
    (["push", "{suit}", "--grant", "nowhere"], 3, "file.missing"),
    (["push", "{image}"], 3, "envelope.malformed"),
    (["approve", "nowhere", "--key", "second", "--grant", "g", "-o", "x"], 3, "file.missing"),
    (["evidence", "show", "--home", "nowhere"], 1, "log.missing"),
    (["evidence", "verify", "--home", "nowhere"], 1, "log.missing"),
    (["emulate", "toaster"], 1, "image.class"),
    (["inspect", "nowhere"], 3, "file.missing"),
]


def _name(value: object) -> str:
    return "-".join(value[:2]) if isinstance(value, list) else ""


@pytest.mark.parametrize(("args", "status", "code"), FAILURES, ids=_name)
def test_failures_speak_both_languages(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], status: int, code: str
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # a code is never wrapped
    told = [one.format(image=world.image, suit=world.suits["1.1.0"]) for one in args]
    if "push" in args:  # two technicians are at home in the fixture; say which
        told += ["--key", "tech"]
    plain = devguard(*told)
    assert plain.status == status
    assert any(code in line for line in (plain.out + plain.err).splitlines())
    if args[0] not in ("verify", "inspect"):
        assert plain.out == ""
        lines = plain.err.splitlines()
        assert lines[-2].startswith(f"error: {code}: ")
        assert lines[-1].startswith("hint: ")
    for_program = devguard(*told, "--json")
    assert for_program.status == status
    data = for_program.json
    if args[0] == "verify":
        assert (data["code"], data["accepted"]) == (code, False)
    elif args[0] == "inspect":
        assert data["problems"][0]["code"] == code
    else:
        assert set(data["error"]) == {"code", "message", "hint"}
        assert data["error"]["code"] == code
    if args[0] == "push":
        assert set(data) >= {"accepted", "code", "device", "report", "link"}
        assert (data["accepted"], data["code"]) == (False, code)


@pytest.mark.parametrize("code", CODES)
def test_explain(code: str) -> None:
    result = ok("explain", code)
    info = CODES[code]
    for text in (code, info.cause, info.remedy, f"exit    {int(info.exit)}"):
        assert text in result.out
    data = ok("explain", code, "--json").json
    assert data == {"code": code, "cause": info.cause, "remedy": info.remedy, "exit": int(info.exit)}


def test_explain_all_and_unknown() -> None:
    assert [row["code"] for row in ok("explain", "--json").json["codes"]] == list(CODES)
    assert all(code in ok("explain").out for code in CODES)
    result = devguard("explain", "image.digist")
    assert result.status == 2
    assert "did you mean image.digest?" in result.err


# where the home is


def test_home_before_and_after_the_command(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVGUARD_HOME")
    assert ok("--home", world.home, "key", "show", "tech").out == ok("key", "show", "tech", "--home", world.home).out
    assert ok("--home", tmp_path / "x", "key", "show", "tech", "--home", world.home).out.startswith("tech: ")
    monkeypatch.setenv("DEVGUARD_HOME", str(world.home))
    assert ok("key", "show", "tech").out.startswith("tech: ")
    assert devguard("key", "show", "tech", "--home", tmp_path / "x").status == 3


def test_looking_makes_nothing(tmp_path: Path) -> None:
    for args in (
        ["status", "--no-ports"],
        ["key", "show", "x"],
        ["evidence", "verify"],
        ["trust", "show"],
        ["explain"],
    ):
        devguard(*args)
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "data").exists()


def test_quiet_prints_results_and_errors_only(world: World, home: Path) -> None:
    assert ok("key", "show", "tech", "-q").out == ok("key", "show", "tech").out
    assert devguard("push", world.suits["1.1.0"], "--key", "tech", "-q").err.startswith("error: grant.missing")


# colours


def on_a_terminal(args: list[str], env: dict[str, str]) -> str:
    """What a command prints to a pseudo-terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "devguard.cli.main", *args],
        stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **env},
    )  # fmt: skip
    os.close(slave)
    said = b""
    while select.select([master], [], [], 30)[0]:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        said += part
    assert process.wait(timeout=30) in range(6)
    os.close(master)
    return said.decode()


def test_colours_only_on_a_terminal_that_wants_them(world: World, home: Path) -> None:
    args = ["verify", str(world.suits["1.1.0"])]
    assert "\x1b[32m" in on_a_terminal(args, {"TERM": "xterm"})
    assert "\x1b" not in on_a_terminal(args, {"TERM": "xterm", "NO_COLOR": "1"})
    assert "\x1b" not in ok(*args).out
    assert "\x1b" not in finish(start(*args)).out


# config.toml


def configure(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)


def test_defaults_from_the_home_s_config(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suit = world.suits["1.1.0"]
    configure(home, "[verify]\nnow = 2099-06-01T00:00:00Z\n")
    assert devguard("verify", suit, "--json").code == "trust.expired"
    assert devguard("verify", suit, "--json", "--now", "2030-01-01").status == 0
    monkeypatch.setenv("DEVGUARD_VERIFY_NOW", "2030-01-01")
    assert devguard("verify", suit).status == 0
    monkeypatch.delenv("DEVGUARD_VERIFY_NOW")
    monkeypatch.delenv("DEVGUARD_HOME")
    assert devguard("verify", suit, "--json", "--home", home).code == "trust.expired"
    assert devguard("--home", home, "verify", suit, "--json").code == "trust.expired"


def test_defaults_of_every_kind(world: World, home: Path) -> None:
    configure(
        home, '[grant.issue]\nmodel = ["insulin-pump"]\nserial = ["IP-1"]\nmax-uses = 3\n[push]\ndry-run = true\n'
    )
    made = ok("grant", "issue", "--authority", "authority", "--technician", "tech", "-o", "t.grant", "--json").json
    assert (made["models"], made["serials"], made["max_uses"]) == (["insulin-pump"], ["IP-1"], 3)
    pushed = ok("push", world.suits["1.1.0"], "--key", "tech", "--grant", "t.grant", "--json").json
    assert pushed["dry_run"] is True


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[[", "config.toml"),
        ("verify = 3", "[verify]"),
        ("[verfy]", "verfy"),
        ("[verify]\nnwo = 1", "did you mean now?"),
        ("[verify]\ntrust = true", "[verify] trust"),
        ("[verify]\ntrust = [1]", "[verify] trust"),
        ('[verify]\ntrust = "a\\u0000b"', "[verify] trust"),
        ("[verify]\ntrust = {a=1}", "[verify] trust"),
        ("[verify]\nfiles = 'x'", "files"),
        ("a=" + "[" * 5000, "config.toml"),
    ],
)
def test_a_malformed_config(world: World, home: Path, text: str, names: str) -> None:
    configure(home, text)
    result = devguard("verify", world.suits["1.1.0"])
    assert (result.status, result.code) == (3, "config.malformed")
    assert names in result.err
    assert devguard("verify", world.suits["1.1.0"], "--json").json["error"]["code"] == "config.malformed"
    assert ok("verify", "--help").out.startswith("Usage")


def test_a_config_that_is_no_text(world: World, home: Path) -> None:
    (home / "config.toml").write_bytes(b"\xff\xfe")
    assert devguard("status", "--no-ports").code == "config.malformed"


# when the disk says no


@contextmanager
def full_disk() -> Iterator[None]:
    """Every write to a file fails, also for root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "args",
    [
        ["verify", "{suit}"],
        ["push", "{suit}", "--key", "tech", "--grant", "nowhere"],
        ["release", "sign", "{unsigned}", "--key", "release"],
        [
            "grant",
            "issue",
            "--authority",
            "authority",
            "--technician",
            "tech",
            "--model",
            "x",
            "--any-serial",
            "-o",
            "g",
        ],
    ],
    ids=lambda args: args[0],
)
def test_nothing_is_done_without_a_record(world: World, home: Path, tmp_path: Path, args: list[str]) -> None:
    ok("verify", world.suits["1.1.0"])  # the log exists
    unsigned = world.suit(tmp_path / "unsigned.suit", signers=())
    before = unsigned.read_bytes()
    told = [one.format(suit=world.suits["1.1.0"], unsigned=unsigned) for one in args]
    with full_disk():
        result = devguard(*told, "--json")
    assert result.status == 4
    assert result.json["error"]["code"] in ("log.full", "file.unreadable")
    if args[0] == "verify":
        assert result.json["accepted"] is False
    assert unsigned.read_bytes() == before
    assert not (tmp_path / "g").exists()
    ok("evidence", "verify")


@pytest.mark.parametrize("args", [["verify", "{suit}"], ["key", "new", "n", "--person", "P", "--role", "release"]])
def test_a_home_that_cannot_be_made(world: World, tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "home", "x" * 300):
        result = devguard(*(one.format(suit=world.suits["1.1.0"]) for one in args), "--home", home)
        assert (result.status, result.code) == (4, "file.unreadable")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_somebody_else_s_home(world: World, home: Path, tmp_path: Path) -> None:
    home.chmod(0o700)
    program = (
        "import os; os.setgid(65534); os.setuid(65534)\n"
        f"from devguard.cli.main import main; main(['status', '--home', {str(home)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user cannot read this checkout")
    assert done.returncode == 4, done.stderr
    assert "error: file.unreadable" in done.stderr


# the one place that catches everything


def test_a_bug_is_not_an_answer(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from devguard.cli import judging

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(judging, "judge", broken)
    result = devguard("verify", world.suits["1.1.0"])
    assert (result.status, result.code) == (70, "internal.error")
    assert "SECURITY.md" in result.err
    data = devguard("verify", world.suits["1.1.0"], "--json").json
    assert data["error"]["code"] == "internal.error"


def test_json_survives_any_text(world: World, home: Path) -> None:
    name = "a\x85\u202e\U000e0001\udcff\x1b.suit"
    result = devguard("verify", name, "--json")
    assert result.status == 3
    assert result.out.rstrip("\n").isprintable()
    assert result.json["file"] == name


def test_a_reader_that_goes_away_makes_no_yes(world: World, home: Path) -> None:
    process = start("verify", world.image)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=30) in (1, 3)
    process.stderr.close()


@pytest.mark.parametrize("where", ["raise KeyboardInterrupt", "exec('raise KeyboardInterrupt')"])
def test_an_interrupt_ends_with_its_status_wherever_it_comes(tmp_path: Path, where: str) -> None:
    """Also in a string being executed, as every dataclass that an import makes is: `python -m` died of the signal."""
    (tmp_path / "interrupted.py").write_text(
        f"from devguard.cli import main\ndef run(**_):\n    {where}\nmain.devguard.main = run\nmain.main([])\n"
    )
    told = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (told.returncode, told.stdout) == (130, "")
    assert "interrupted; state is safe" in told.stderr
