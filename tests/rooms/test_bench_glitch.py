"""Invariant: a fault strikes once, on the threads it was meant for, and leaves the code as it was."""

from __future__ import annotations

import threading

import pytest

from devguard.bench.attacks.glitch import instrumented
from devguard.cose.roles import RoleName
from devguard.errors import Refused
from devguard.trust.quorum import Quorum
from devguard.verdict import versions

MODULES = ("devguard.verdict.steps", "devguard.trust.quorum")
HERE = threading.current_thread().name
LACKING = Quorum(RoleName.RELEASE, 2, (), ())


def test_one_branch_turned_round_once() -> None:
    code = Quorum.__bool__.__code__
    with instrumented(HERE, MODULES) as glitch:
        assert Quorum.__bool__.__code__ is not code
        assert not LACKING
        (answer,) = (number for number in glitch.seen if glitch.sites[number].kind == "return")
        glitch.armed = answer
        assert LACKING  # struck
        assert glitch.struck
        assert not LACKING  # once
    assert Quorum.__bool__.__code__ is code
    assert not LACKING


def test_other_threads_are_not_hit() -> None:
    with instrumented("somebody else", MODULES) as glitch:
        glitch.armed = 0
        assert not LACKING
        assert not glitch.seen


def test_everything_is_put_back_after_an_error() -> None:
    before = [one.__code__ for one in vars(versions).values() if hasattr(one, "__code__")]
    with pytest.raises(Refused), instrumented(HERE, ("devguard.verdict.versions",)):
        raise Refused("session.order", "an error inside")
    assert [one.__code__ for one in vars(versions).values() if hasattr(one, "__code__")] == before
    assert "_glitch" not in vars(versions)


def test_every_judging_module_has_places_that_can_be_hit() -> None:
    with instrumented("nobody") as glitch:
        kinds = {kind: sum(site.kind == kind for site in glitch.sites) for kind in ("if", "return", "raise")}
    assert kinds["if"] > 150
    assert kinds["raise"] > 50
    assert kinds["return"] > 5
