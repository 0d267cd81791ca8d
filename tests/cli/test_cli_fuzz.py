"""Whatever a file holds and whatever an option says: an exit status of the contract, one answer, never a traceback.

Invariant: status in {0, 1, 2, 3, 4}; with `--json` exactly one object on stdout, except on 2; nothing unprintable.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli_support import PUMP, World, devguard

TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=20),
    st.sampled_from(
        ["", "-", "--", ".", "..", "/", "/dev/null", "/dev/zero", "x" * 5000, "\udcff", "²", "1" * 5000, "*", "1.1.0"]
    ),
    st.integers().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
)
# (command, options that take text); FILE is a fuzzed file, GOOD a good release, GRANT a good grant
COMMANDS: tuple[tuple[list[str], list[str]], ...] = (
    (["verify", "FILE"], ["--trust", "--envelope", "--model", "--serial", "--installed", "--now"]),
    (["verify", "GOOD"], ["--trust", "--envelope", "--model", "--serial", "--installed", "--now"]),
    (["inspect", "FILE"], ["--mcuboot-key", "--cose-key"]),
    (["key", "show", "FILE"], []),
    (["key", "export", "--public", "FILE"], ["--out"]),
    (["trust", "show", "FILE"], []),
    (["trust", "check", "FILE"], ["--now"]),
    (["trust", "sign", "FILE", "--key", "root"], []),
    (["release", "build", "FILE", "-o", "out.suit"], []),
    (["release", "sign", "FILE", "--key", "release"], ["--trust"]),
    (["grant", "show", "FILE"], []),
    (["grant", "check", "FILE"], ["--trust", "--model", "--serial", "--site", "--now"]),
    (["grant", "check", "GRANT"], ["--trust", "--model", "--serial", "--site", "--now"]),
    (["push", "FILE", "--key", "tech", "--grant", "GRANT", "--dry-run"], ["--trust", "--serial", "--reason"]),
    (["push", "GOOD", "--key", "tech", "--grant", "FILE", "--dry-run"], ["--trust", "--serial", "--work-order"]),
    (["approve", "FILE", "--key", "second", "--grant", "GRANT", "-o", "out.approval"], []),
    (["evidence", "verify"], ["--key"]),
    (["explain"], []),
)


@st.composite
def files(draw: st.DrawFn) -> Callable[[list[bytes]], bytes]:
    """Garbage, or a good file of some kind cut, changed or grown."""
    if draw(st.booleans()):
        data = draw(st.binary(max_size=300))
        return lambda _: data
    which, at, bit = draw(st.integers(0, 99)), draw(st.integers(0, 1 << 20)), draw(st.integers(0, 7))
    kind = draw(st.sampled_from(["cut", "flip", "grow", "swap", "whole"]))

    def change(good: list[bytes]) -> bytes:
        data = bytearray(good[which % len(good)])
        place = at % len(data)
        if kind == "cut":
            return bytes(data[:place])
        if kind == "flip":
            data[place] ^= 1 << bit
        elif kind == "grow":
            data += data[place : place + 40]
        elif kind == "swap":
            data[place : place + 8] = b"\xff" * 8
        return bytes(data)

    return change


@pytest.fixture(scope="module")
def good(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path, list[bytes]]:
    """A home to work in and a good file of every kind."""
    folder = tmp_path_factory.mktemp("fuzz")
    home = world.copy(folder)
    grant = world.grant(folder / "good.grant", "IP-1")
    paths = [
        world.suits["1.1.0"], world.trust, grant, home / "keys" / "tech.key", world.folder / "1.1.0.toml", world.image,
    ]  # fmt: skip
    return world, home, [path.read_bytes() for path in paths]


def run(good: tuple[World, Path, list[bytes]], data: st.DataObject) -> None:
    world, home, samples = good
    command, options = data.draw(st.sampled_from(COMMANDS))
    (home.parent / "file").write_bytes(data.draw(files())(samples))
    names = {"FILE": home.parent / "file", "GOOD": world.suits["1.1.0"], "GRANT": home.parent / "good.grant"}
    args = [str(names.get(one, one)) for one in command]
    for option in data.draw(st.lists(st.sampled_from(options), max_size=2, unique=True)) if options else ():
        args.append(f"{option}={data.draw(TEXTS)}")
    if command == ["explain"]:
        args += ["--", data.draw(TEXTS)]
    as_json = data.draw(st.booleans()) and command != ["explain"]
    result = devguard(*args, "--home", home, *(["--json"] if as_json else [])) if "--" not in args else devguard(*args)
    assert result.status in (0, 1, 2, 3, 4), (args, result.err)
    if as_json and result.status != 2:
        json.dumps(result.json).encode()
    if as_json and result.status == 2:
        assert result.out == ""
    assert all(char.isprintable() or char == "\n" for char in result.out + result.err), args
    (result.out + result.err).encode("utf-8")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_any_file_and_any_option(good: tuple[World, Path, list[bytes]], data: st.DataObject) -> None:
    run(good, data)


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_any_file_and_any_option_at_length(good: tuple[World, Path, list[bytes]], data: st.DataObject) -> None:
    run(good, data)


@given(
    st.lists(
        st.one_of(TEXTS, st.sampled_from(["key", "new", "verify", "push", "--json", "--home", "-q", PUMP])), max_size=5
    )
)
def test_any_words(words: list[str]) -> None:
    if "demo" in words or "emulate" in words:
        return
    result = devguard(*words, "--home", "nowhere")
    assert result.status in (0, 1, 2, 3, 4), words
