"""The bounded machine that executes command sequences (draft-ietf-suit-manifest-37 section 6).

`run` executes the shared sequence and then one section with fresh parameters; every effect and every answer comes
from a `Platform`. What the draft leaves open is decided for refusal: a try-each or run-sequence that fails is a
failed directive and aborts whatever encloses it; strict order false, wait, set-parameters, override-multiple,
copy-params and everything about dependencies are refused, as is any command or parameter not known here.
Custom commands and parameters may not stand in the shared sequence (section 6.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from devguard.errors import Malformed, Refused
from devguard.manifest._checks import CONDITIONS, DIRECTIVES, Call, Condition
from devguard.manifest._parameters import check_parameters
from devguard.manifest.codec import MAX_COMPONENTS, CommandSequence, ComponentId, Manifest
from devguard.manifest.platform import Platform
from devguard.manifest.suit import CODE, Command, Digest, ManifestKey, Parameter, Section

__all__ = ["Budget", "Limits", "Platform", "Step", "Trace", "run"]

_NOT_IN_SHARED: Final = frozenset(DIRECTIVES)
# Looked up for every command executed, five times and more for one release: as plain integers.
_SET_INDEX: Final = int(Command.DIRECTIVE_SET_COMPONENT_INDEX)
_OVERRIDE: Final = int(Command.DIRECTIVE_OVERRIDE_PARAMETERS)
_TRY_EACH: Final = int(Command.DIRECTIVE_TRY_EACH)
_RUN_SEQUENCE: Final = int(Command.DIRECTIVE_RUN_SEQUENCE)
_SOFT_FAILURE: Final = int(Parameter.SOFT_FAILURE)
# Members that say something and change nothing of what is executed.
_INFORMATIVE: Final = frozenset({int(ManifestKey.COMPONENT_ID), int(ManifestKey.SET_VERSION), int(ManifestKey.COSWID)})


@dataclass(slots=True)
class Budget:
    """Commands that several runs may execute together; it shrinks as they do."""

    left: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run: nesting of sequences, commands executed (once per component), components; and the budget
    it shares with other runs, if any."""

    depth: int = 8
    steps: int = 4096
    components: int = MAX_COMPONENTS
    budget: Budget | None = None


class Step(NamedTuple):
    """One executed command: sequence nesting, whether it stood in the shared sequence, component index (None for
    set-component-index), code, and whether it passed."""

    depth: int
    shared: bool
    component: int | None
    command: int
    ok: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run executed, in order, and the parameters each component ended with."""

    steps: tuple[Step, ...]
    parameters: tuple[Mapping[int, object], ...]


class _ConditionFailed(Exception):
    """A condition said no. Leaves `run` as `Refused`; inside a soft sequence it only ends that sequence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class _Frame:
    """State that belongs to one sequence: its nesting, the selected components, whether failure is soft."""

    depth: int
    shared: bool
    selected: tuple[int, ...]
    soft: bool


@dataclass(slots=True)
class _Machine:
    components: tuple[ComponentId, ...]
    platform: Platform
    limits: Limits
    parameters: list[dict[int, object]]
    steps: list[Step] = field(default_factory=list)

    def top(self, sequence: CommandSequence, shared: bool) -> None:
        """Executes a section; with several components it must say first which one it means (section 6.2)."""
        first = sequence[0][0] if sequence else None
        if len(self.components) > 1 and first != _SET_INDEX:
            raise Malformed(CODE, "with several components a sequence begins with set-component-index")
        try:
            self.sequence(sequence, _Frame(0, shared, (0,), False))
        except _ConditionFailed as failed:
            raise Refused(failed.code, failed.message) from None

    def sequence(self, sequence: CommandSequence, frame: _Frame) -> None:
        if frame.depth > self.limits.depth:
            raise Malformed(CODE, f"command sequences nested deeper than {self.limits.depth}")
        for code, argument in sequence:
            if code == _SET_INDEX:
                self.count(frame, None, code)
                frame.selected = self.select(argument)
                continue
            for index in frame.selected:
                self.count(frame, index, code)
                self.command(frame, index, code, argument)

    def count(self, frame: _Frame, index: int | None, code: int) -> None:
        limits = self.limits
        if len(self.steps) >= limits.steps:
            raise Malformed(CODE, f"the manifest executes more than {limits.steps} commands")
        if limits.budget is not None:
            limits.budget.left -= 1
            if limits.budget.left < 0:
                raise Malformed(CODE, "the manifest executes too many commands in all")
        self.steps.append(Step(frame.depth, frame.shared, index, code, True))

    def select(self, argument: object) -> tuple[int, ...]:
        """Component indices a set-component-index argument names (section 6.5)."""
        if argument is True:
            return tuple(range(len(self.components)))
        indices = argument if isinstance(argument, list) else [argument]
        if not indices or not all(type(index) is int and 0 <= index < len(self.components) for index in indices):
            raise Malformed(CODE, "a component index outside the component list")
        if len(set(indices)) != len(indices):
            raise Malformed(CODE, "a component index is repeated")
        return tuple(indices)

    def command(self, frame: _Frame, index: int, code: int, argument: object) -> None:
        if code == _OVERRIDE:
            self.override(frame, index, argument)
        elif code == _TRY_EACH:
            self.try_each(frame, index, argument)
        elif code == _RUN_SEQUENCE:
            self.run_sequence(frame, index, argument)
        elif frame.shared and (code in _NOT_IN_SHARED or code < 0):
            raise Malformed(CODE, f"command {code} may not stand in the shared sequence")
        elif code in CONDITIONS or code in DIRECTIVES:
            if type(argument) is not int or not 0 <= argument < 16:
                raise Malformed(CODE, f"command {code} takes a reporting policy of four bits")
            call = Call(self.platform, self.components, index, self.parameters[index])
            if code in CONDITIONS:
                self.condition(CONDITIONS[code], call)
            else:
                DIRECTIVES[code](call)
        else:
            raise Malformed(CODE, f"command {code} is not one this devguard executes")

    def condition(self, condition: Condition, call: Call) -> None:
        """Asks the platform; a parameter that was never set fails the condition (section 8.4.9)."""
        missing = condition.needs is not None and condition.needs not in call.parameters
        if not missing and condition.holds(call):
            return
        self.steps[-1] = self.steps[-1]._replace(ok=False)
        why = "its parameter is not set" if missing else condition.why
        raise _ConditionFailed(condition.code, f"component {call.index}: {why}")

    def override(self, frame: _Frame, index: int, argument: object) -> None:
        if not isinstance(argument, Mapping):
            raise Malformed(CODE, "override-parameters takes a map")
        if frame.shared and any(key < 0 for key in argument):
            raise Malformed(CODE, "custom parameters may not stand in the shared sequence")
        values = check_parameters(argument, len(self.components))
        if _SOFT_FAILURE in values:
            if frame.depth == 0:
                raise Malformed(CODE, "soft failure may only be set inside try-each or run-sequence")
            frame.soft = values.pop(_SOFT_FAILURE) is True
        self.parameters[index].update(values)

    def try_each(self, frame: _Frame, index: int, argument: object) -> None:
        """The first branch that completes wins; of several failures the one that got furthest is reported."""
        branches = argument if isinstance(argument, tuple) else ()
        if sum(branch is not None for branch in branches) < 2:
            raise Malformed(CODE, "try-each takes at least two sequences")
        furthest, reason = -1, _ConditionFailed(CODE, "no branch")
        for branch in branches:
            if branch is None:
                return
            inner, before = _Frame(frame.depth + 1, frame.shared, (index,), True), len(self.steps)
            try:
                self.sequence(branch, inner)
                return
            except _ConditionFailed as failed:
                if not inner.soft:
                    raise Refused(failed.code, failed.message) from None
                if len(self.steps) - before >= furthest:
                    furthest, reason = len(self.steps) - before, failed
        raise Refused(reason.code, f"no branch of a try-each passed; the nearest: {reason.message}")

    def run_sequence(self, frame: _Frame, index: int, argument: object) -> None:
        if not isinstance(argument, tuple):
            raise Malformed(CODE, "run-sequence takes a command sequence")
        inner = _Frame(frame.depth + 1, frame.shared, (index,), False)
        try:
            self.sequence(argument, inner)
        except _ConditionFailed as failed:
            if not inner.soft:
                raise Refused(failed.code, failed.message) from None


def run(manifest: Manifest, section: Section, platform: Platform, limits: Limits | None = None) -> Trace:
    """Executes the shared sequence and then `section` (nothing more where the manifest has no such section).

    Raises `Refused` with the code of the condition that failed (image.vendor, image.class, image.device, image.digest,
    release.expired, device.battery, version.requires, ...), `Malformed` envelope.malformed for anything unknown, out of
    bounds or severed, and whatever the platform's directives raise.
    """
    bounds = limits or Limits()
    components = manifest.common.components
    if not 0 < len(components) <= bounds.components:
        raise Malformed(CODE, f"{len(components)} components, of 1 to {bounds.components} allowed")
    if manifest.common.extensions or set(manifest.extensions or {}) - _INFORMATIVE:
        raise Malformed(CODE, "the manifest has dependencies or other members that are not understood")
    commands = manifest.section(section)
    if isinstance(commands, Digest):
        raise Malformed(CODE, f"section {section.name.lower()} is severed and not at hand")
    machine = _Machine(components, platform, bounds, [{} for _ in components])
    if manifest.common.shared is not None:
        machine.top(manifest.common.shared, shared=True)
    if commands is not None:
        machine.top(commands, shared=False)
    return Trace(tuple(machine.steps), tuple(dict(values) for values in machine.parameters))
