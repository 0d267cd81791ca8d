"""The numbered steps of a judgement: their order, their standards, and how one is taken.

A step passes only when its judge returns; whatever it raises of devguard's errors is its failure. Skipping is
failing without a code. Source: devguard cli, "A verdict's code is the first failure in this order".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from devguard.errors import DevguardError
from devguard.verdict.result import Check

# Step name -> the standard it applies. The order is the contract's order of codes.
STEPS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "envelope": "SUIT draft-37 s8.2, s8.3",
        "manifest": "SUIT draft-37 s8.4; devguard formats: envelope",
        "signed": "SUIT draft-37 s8.3",
        "keys": "devguard formats: trust",
        "algorithms": "RFC 9053 s2; RFC 9864; RFC 9964",
        "signatures": "RFC 9052 s4.4",
        "hybrid": "devguard formats: trust",
        "threshold": "devguard formats: trust",
        "trust": "devguard formats: trust; TUF 1.0.34 s5.3",
        "revocation": "devguard formats: trust",
        "use-before": "SUIT update management s5 (use-before)",
        "vendor": "SUIT draft-37 s8.4.9.1",
        "class": "SUIT draft-37 s8.4.9.1",
        "device": "SUIT draft-37 s8.4.9.1",
        "components": "SUIT draft-37 s8.4.5; devguard formats: envelope",
        "sequence": "SUIT draft-37 s8.4.3; RFC 9124 s4.2.1",
        "security-version": "devguard formats: envelope",
        "requires": "SUIT update management s5 (version)",
        "sbom": "devguard formats: trust; FD&C Act 524B(b)(3)",
        "image": "SUIT draft-37 s8.4.8.6, s8.4.8.8",
    }
)


@dataclass(slots=True)
class Steps:
    """The steps taken so far, in order. Nothing in here ever turns a failed step into a passed one."""

    checks: list[Check] = field(default_factory=list)

    def step(self, name: str, judge_it: Callable[[], str]) -> None:
        """Take a step: `judge_it` returns why it is good, or raises why it is not."""
        try:
            detail = judge_it()
        except DevguardError as error:
            self.fail(name, error)
        else:
            self.checks.append(Check(name, True, detail, STEPS[name]))

    def fail(self, name: str, error: DevguardError) -> None:
        """Report a failed step."""
        self.checks.append(Check(name, False, error.message, STEPS[name], error.code))

    def skip(self, name: str, why: str) -> None:
        """Report a step that cannot be judged."""
        self.checks.append(Check(name, False, f"not judged: {why}", STEPS[name]))

    @property
    def code(self) -> str | None:
        """The code of the first failure."""
        return next((check.code for check in self.checks if not check.ok and check.code), None)

    @property
    def complete(self) -> bool:
        """Whether exactly the steps of the list were taken, in its order, and every one passed."""
        return [check.name for check in self.checks] == list(STEPS) and all(check.ok for check in self.checks)
