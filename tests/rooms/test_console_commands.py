"""Commands that the console runs to their end: so many at once, so many waiting, and no more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from console_support import Desk
from devguard.console.commands import Answer
from devguard.console.settings import Limits
from devguard.errors import LinkError


def test_only_so_many_run_and_wait(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, limits=Limits(commands=1, waiting=1))
    go = tmp_path / "go"
    desk.answers({"done": True}, until=str(go))
    ask = desk.console.commands.ask

    async def three() -> list[Answer]:
        first = asyncio.create_task(ask(["one"]))
        while not desk.calls:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(ask(["two"]))
        await asyncio.sleep(0)
        with pytest.raises(LinkError) as refused:
            await ask(["three"])
        assert refused.value.code == "console.busy"
        assert [call["args"][0] for call in desk.calls] == ["one"]
        go.touch()
        return [await first, await second, await ask(["four"])]

    answers = asyncio.run(three())
    assert [one.data for one in answers] == [{"done": True}] * 3
    assert [call["args"][0] for call in desk.calls] == ["one", "two", "four"]


def test_a_command_that_is_stopped_gives_its_turn_back(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, limits=Limits(commands=1, waiting=0))
    desk.answers({}, until=str(tmp_path / "never"))
    ask = desk.console.commands.ask

    async def two() -> Answer:
        with pytest.raises(LinkError) as slow:
            await ask(["one"], seconds=1)
        assert slow.value.code == "console.slow"
        desk.answers({"done": True})
        return await ask(["two"])

    assert asyncio.run(two()).data == {"done": True}
