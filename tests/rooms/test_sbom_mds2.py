"""Answers for buyers: every section answered, every reason given, and another configuration gives another answer."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from devguard.errors import LocalProtocolError
from devguard.evidence.actions import ACTIONS
from devguard.sbom.mds2 import SECTIONS, Answer, DeviceFacts, Facts, KeyFacts, Say, TrustFacts
from devguard.sbom.mds2_rules import RULES, answers

ROOT = Path(__file__).resolve().parents[2]
TRUST = TrustFacts(
    version=3, expires="2030-01-01T00:00:00Z", development=False, require_sbom=True, require_device_nonce=True,
    thresholds={"release": (1, 2), "quality": (1, 1), "technician-authority": (1, 1), "device-authority": (1, 1),
                "witness": (1, 1)},
)  # fmt: skip
FULL = Facts(
    trust=TRUST, records=12, actions=ACTIONS, roster=True, shelf=True,
    keys=(KeyFacts("tech", "technician", "token"), KeyFacts("station", "station", "open")),
    packages={"pkcs11": True, "sbom": True},
    settings={"push.known-exploited": "x", "release.sign.known-exploited": "x"},
    models=(DeviceFacts("pacemaker-programmer", 2, False, "2041-12-31"),),
)  # fmt: skip
BARE = Facts(trust=None, records=None, actions=ACTIONS)
OLD = DeviceFacts("mcumgr-legacy", 1, True)


def said(facts: Facts) -> dict[str, Answer]:
    return {f"{one.section} {one.name}": one for one in answers(facts)}


@pytest.mark.parametrize("facts", [FULL, BARE, replace(FULL, models=(OLD,))], ids=["full", "bare", "old"])
def test_every_section_is_answered_and_every_answer_stands_on_something(facts: Facts) -> None:
    found = answers(facts)
    assert list(dict.fromkeys(one.section for one in found)) == list(SECTIONS)
    assert len({(one.section, one.name) for one in found}) == len(found) == len(RULES)
    for one in found:
        assert one.evidence
        assert one.question.endswith("?")
        assert one.why or one.say is Say.YES
        for what in one.evidence:
            kind, _, name = what.partition(" ")
            assert kind in ("page", "test", "trust", "config", "key", "file", "records", "extra", "model"), what
            if kind in ("page", "test"):
                assert (ROOT / name).is_file(), what


def test_not_applicable_without_a_reason_is_none() -> None:
    for say, evidence in ((Say.NOT_APPLICABLE, ("page x",)), (Say.NO, ("page x",)), (Say.YES, ())):
        with pytest.raises(LocalProtocolError):
            Answer("MPII", "x", "?", say, "", evidence)


def but(role: str) -> TrustFacts:
    return replace(TRUST, thresholds={name: one for name, one in TRUST.thresholds.items() if name != role})


CHANGES: list[tuple[str, Facts, Say]] = [
    ("AUDT kept", replace(FULL, records=None), Say.NO),
    ("DTBK log", replace(FULL, records=None), Say.NOT_APPLICABLE),
    ("IGAU log", replace(FULL, records=None), Say.NOT_APPLICABLE),
    ("AUDT witness", replace(FULL, trust=but("witness")), Say.NO),
    ("CSUP quality", replace(FULL, trust=but("quality")), Say.NO),
    ("CSUP release", replace(FULL, trust=None), Say.NO),
    ("AUTH grant", replace(FULL, trust=but("technician-authority")), Say.NO),
    ("AUTH list", replace(FULL, roster=False), Say.NO),
    ("AUTH two", replace(FULL, models=(OLD,)), Say.NO),
    ("CSUP found", replace(FULL, shelf=False), Say.NO),
    ("NAUT device", replace(FULL, trust=but("device-authority")), Say.NO),
    ("NAUT nonce", replace(FULL, trust=replace(TRUST, require_device_nonce=False)), Say.NO),
    ("PAUT token", replace(FULL, keys=(KeyFacts("tech", "technician", "passphrase"),)), Say.NO),
    ("PAUT token", replace(FULL, keys=()), Say.NOT_APPLICABLE),
    ("PAUT passphrase", replace(FULL, keys=(KeyFacts("tech", "technician", "open"),)), Say.NO),
    ("PAUT development", replace(FULL, keys=(KeyFacts("tech", "technician", "token", True),)), Say.NO),
    ("PAUT development", replace(FULL, trust=replace(TRUST, development=True)), Say.NO),
    ("RDMP models", replace(FULL, models=(OLD,)), Say.NO),
    ("SBOM demanded", replace(FULL, trust=replace(TRUST, require_sbom=False)), Say.NO),
    ("SBOM known", replace(FULL, settings={"push.known-exploited": "x"}), Say.NO),
    ("SBOM known", replace(FULL, packages={"sbom": False}), Say.NO),
    ("STCF keys", replace(FULL, keys=(KeyFacts("tech", "technician", "open"),)), Say.NO),
    ("CNFS policy", replace(FULL, trust=None), Say.NO),
]


@pytest.mark.parametrize(("name", "facts", "say"), CHANGES)
def test_another_configuration_another_answer(name: str, facts: Facts, say: Say) -> None:
    before, after = said(FULL)[name], said(facts)[name]
    assert (before.say, after.say) == (Say.YES, say)
    assert before.evidence != after.evidence


def test_every_rule_that_looks_at_the_configuration_is_changed_by_it() -> None:
    """A rule whose answer nothing changes is a fixed one."""
    seen = [said(facts) for facts in (FULL, BARE, replace(FULL, models=(OLD,)), *(facts for _, facts, _ in CHANGES))]
    same = {key for key in seen[0] if len({(one[key].say, one[key].why, one[key].evidence) for one in seen}) == 1}
    fixed = {f"{section} {name}" for section, name, _, rule in RULES if rule.__name__ == "<lambda>"}
    assert same == fixed | {"AUDT actions"}


def test_audt_lists_the_actions_of_the_registry() -> None:
    assert said(FULL)["AUDT actions"].why.split(", ") == list(ACTIONS)
    assert len(set(ACTIONS)) == len(ACTIONS)
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+(-[a-z]+)?", one) for one in ACTIONS)
