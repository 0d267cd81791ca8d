"""Proof by type: a Release comes from judge() alone, and a verdict cannot contradict itself."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace
from typing import Any

import pytest

from builders import judge_bytes, make_release, make_vendor
from devguard.errors import DevguardError, LocalProtocolError, Malformed, Refused
from devguard.verdict.judge import Check, Release, Verdict


@pytest.fixture(scope="module")
def accepted() -> Verdict:
    vendor = make_vendor("types")
    return judge_bytes(make_release(vendor), vendor)


def values(release: Release) -> dict[str, Any]:
    return {one.name: getattr(release, one.name) for one in fields(release)}


def test_the_constructor_wants_the_proof(accepted: Verdict) -> None:
    given = values(accepted.require())
    with pytest.raises(TypeError):
        Release(**given)
    for proof in (None, True, object(), accepted.require()):
        with pytest.raises(LocalProtocolError):
            Release(**given, proof=proof)


def test_no_second_release_from_the_first(accepted: Verdict) -> None:
    release = accepted.require()
    with pytest.raises((ValueError, DevguardError)):
        replace(release, model="pacemaker-programmer")
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps, lambda one: one.__getstate__()):
        with pytest.raises(LocalProtocolError):
            duplicate(release)
    with pytest.raises(LocalProtocolError):
        object.__new__(Release).__setstate__([])
    with pytest.raises(AttributeError):
        release.model = "x"  # type: ignore[misc] # frozen


def test_there_are_no_kinds_of_release() -> None:
    with pytest.raises(LocalProtocolError):
        type("Forged", (Release,), {"__post_init__": lambda self, proof: None})


def test_the_proof_is_not_kept_in_the_release(accepted: Verdict) -> None:
    release = accepted.require()
    assert not hasattr(release, "proof")
    assert "proof" not in repr(release)


PASSED = Check("envelope", True, "fine", "s")
FAILED = Check("envelope", False, "bad", "s", "envelope.malformed")


@pytest.mark.parametrize(
    ("checks", "code"),
    [((), None), ((PASSED,), None), ((FAILED,), None), ((FAILED,), "image.digest"), ((PASSED,), "image.digest")],
)
def test_a_verdict_does_not_contradict_itself(checks: tuple[Check, ...], code: str | None) -> None:
    with pytest.raises(LocalProtocolError):
        Verdict(checks, (), code, None)


def test_a_release_does_not_turn_a_failed_check_around(accepted: Verdict) -> None:
    with pytest.raises(LocalProtocolError):
        Verdict((FAILED,), (), "envelope.malformed", accepted.require())
    with pytest.raises(LocalProtocolError):
        replace(accepted, checks=(*accepted.checks, FAILED))
    with pytest.raises(LocalProtocolError):
        replace(accepted, checks=())
    with pytest.raises(LocalProtocolError):
        replace(accepted, release=None)


@pytest.mark.parametrize(("code", "kind"), [("image.digest", Refused), ("envelope.malformed", Malformed)])
def test_require_raises_by_the_kind_of_the_code(code: str, kind: type[DevguardError]) -> None:
    verdict = Verdict((Check("image", False, "why", "s", code),), (), code, None)
    assert not verdict
    with pytest.raises(kind) as caught:
        verdict.require()
    assert (caught.value.code, caught.value.message) == (code, "why")
