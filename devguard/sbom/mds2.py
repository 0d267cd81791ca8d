"""Answers to the questions that hospitals ask of a device's security before they buy it, from the configuration.

The sections carry the codes of ANSI/NEMA HN 1-2019 (MDS2), so that whoever fills in the form finds the place; the form
is copyrighted, so questions, names and reasons here are ours. Each answer is yes, no or not applicable and says by
what: a setting, a file, a record, a page or a test. Pure: `Facts` in, answers out; another configuration, another
answer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from devguard.errors import LocalProtocolError

SECTIONS: Final[Mapping[str, str]] = {
    "MPII": "personal data on the device and how it is handled",
    "ALOF": "sessions that end by themselves",
    "AUDT": "records of what was done",
    "AUTH": "who may do what",
    "CSUP": "updates",
    "DTBK": "copies for the day after a loss",
    "EMRG": "access in an emergency",
    "IGAU": "data that was changed without leave",
    "MLDP": "malicious software",
    "NAUT": "who is at the other end of the line",
    "CONN": "connections",
    "PAUT": "proof of who a person is",
    "PLOK": "locks one can touch",
    "RDMP": "what others made, and how long it is supported",
    "SBOM": "what is inside",
    "SAHD": "less to attack",
    "SGUD": "guidance",
    "STCF": "secrecy of what is stored",
    "TXCF": "secrecy of what is sent",
    "TXIG": "integrity of what is sent",
    "RMOT": "service from afar",
    "DIDT": "removal of personal data",
    "CNFS": "configuration",
}


class Say(enum.StrEnum):
    """What is answered."""

    YES = "yes"
    NO = "no"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """The trust document in use. `thresholds`: persons who have to sign, and persons who can, by role."""

    version: int
    expires: str
    development: bool
    thresholds: Mapping[str, tuple[int, int]]
    require_sbom: bool
    require_device_nonce: bool


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A private key of this home. `custody`: "token", "passphrase" or "open", a file that nothing protects."""

    name: str
    role: str
    custody: str
    development: bool = False


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A model that is known here. `only_smp`: it speaks MCUmgr alone and knows neither grants nor signatures of ours;
    `end_of_support`: a day, None where its data file does not say."""

    name: str
    technicians: int
    only_smp: bool = False
    end_of_support: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The running configuration. `records`: of an evidence log that was verified, None without one; `packages`: whether
    an extra is installed; `settings`: what config.toml says, dotted; `actions`: those that records can carry."""

    trust: TrustFacts | None
    records: int | None
    actions: tuple[str, ...]
    keys: tuple[KeyFacts, ...] = ()
    packages: Mapping[str, bool] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    models: tuple[DeviceFacts, ...] = ()
    roster: bool = False
    shelf: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `why` is never empty where it is not yes; `evidence`: what it stands on, never empty: `page PATH`,
    `test PATH`, `trust NAME`, `config NAME`, `key NAME`, `file NAME`, `records N`, `extra NAME`, `model NAME`."""

    section: str
    name: str
    question: str
    say: Say
    why: str
    evidence: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.evidence or not (self.why or self.say is Say.YES):
            raise LocalProtocolError("internal.error", f"{self.section} {self.name} says nothing of why")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "section": self.section,
            "name": self.name,
            "question": self.question,
            "answer": self.say.value,
            "why": self.why,
            "evidence": list(self.evidence),
        }


Said = tuple[Say, str, tuple[str, ...]]
Rule = Callable[[Facts], Said]


def yes(why: str, *evidence: str) -> Said:
    """It is so."""
    return Say.YES, why, evidence


def no(why: str, *evidence: str) -> Said:
    """It is not so, and why."""
    return Say.NO, why, evidence


def absent(why: str, *evidence: str) -> Said:
    """There is nothing to be asked about, and why."""
    return Say.NOT_APPLICABLE, why, evidence
