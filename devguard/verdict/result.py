"""What a judgement says: every check with its standard, every signature seen, and the release or nothing.

A verdict is true only when it carries a `Release`, and then every check has passed: refused is the state in which
a verdict starts, and the constructor refuses any mixture. Source: devguard cli, "verify".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from devguard.errors import CODES, DevguardError, Exit, LocalProtocolError, Malformed, Refused
from devguard.verdict.release import Release


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered step: what was looked at, how it came out, by which standard, and the code of its failure.

    A step that could not be judged because an earlier one failed is not ok and has no code of its own.
    """

    name: str
    ok: bool
    detail: str
    standard: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class SignatureSeen:
    """One signature block: the role and person of its key when the trust document lists it, its key by thumbprint
    (hexadecimal, "" when it names none), the algorithm's name, and whether it is valid and counts."""

    role: str | None
    person: str | None
    key: str
    alg: str
    ok: bool
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of `judge`. `claims` is what the manifest says of itself, believed only when accepted."""

    checks: tuple[Check, ...]
    signatures: tuple[SignatureSeen, ...]
    code: str | None
    release: Release | None
    claims: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        passed = bool(self.checks) and all(check.ok and check.code is None for check in self.checks)
        first = next((check.code for check in self.checks if not check.ok and check.code), None)
        if (self.release is not None) != passed or self.code != first or (self.code is None) != passed:
            raise LocalProtocolError("session.order", "a verdict whose checks, code and release do not agree")

    def __bool__(self) -> bool:
        return self.release is not None

    @property
    def failure(self) -> Check | None:
        """The check that decided: the first failed one with a code."""
        return next((check for check in self.checks if not check.ok and check.code), None)

    def require(self) -> Release:
        """The release, or the first failure raised as `Malformed` or `Refused` with its code."""
        if self.release is not None:
            return self.release
        failure = self.failure
        if failure is None or failure.code is None:
            raise LocalProtocolError("session.order", "a verdict without release and without failure")
        known = CODES.get(failure.code)
        kind: type[DevguardError] = Malformed if known is not None and known.exit is Exit.MALFORMED else Refused
        raise kind(failure.code, failure.detail)

    def to_json(self, file: str) -> dict[str, object]:
        """The JSON object of `verify --json` for `file`. `release` is what the manifest says of itself: on refusal
        it is a claim, for showing; None when not even that could be read."""
        return {
            "file": file,
            "accepted": bool(self),
            "code": self.code,
            "checks": [
                {"name": one.name, "ok": one.ok, "detail": one.detail, "standard": one.standard, "code": one.code}
                for one in self.checks
            ],
            "release": dict(self.claims) if self.claims is not None else None,
            "signatures": [
                {"role": one.role, "person": one.person, "key": one.key, "alg": one.alg, "ok": one.ok, "code": one.code}
                for one in self.signatures
            ],
        }
