"""Faults in the device's judgement: one branch that goes the wrong way once, one refusal that is skipped once.

The functions that judge are given code in which every `if`, every yes or no and every `raise` asks a `Glitch` first. It
notes which of them the device comes to, and turns one of them round, once: what a pulse on a supply line does to a
branch. Only threads of one name are hit; everything is as it was when the `with` ends. Source: attack catalogue, G04.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import threading
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

JUDGES: Final = (
    "devguard.verdict.judge",
    "devguard.verdict.blocks",
    "devguard.verdict.signatures",
    "devguard.verdict.steps",
    "devguard.verdict.result",
    "devguard.verdict.target",
    "devguard.verdict.versions",
    "devguard.verdict.images",
    "devguard.trust.quorum",
    "devguard.trust.document",
    "devguard.cose.sign",
    "devguard.cose.keys",
    "devguard.manifest.release",
    "devguard.device.attendant",
    "devguard.device.node",
    "devguard.device.download",
    "devguard.device.bootloader",
    "devguard.session.device_side",
)
"""Where a device decides about a release, from its envelope to its boot."""
_NAME: Final = "_glitch"


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One place that can be hit: module, line, and whether it is an `if`, a `return` or a `raise`."""

    module: str
    line: int
    kind: str

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.kind} at {self.module.removeprefix('devguard.')}:{self.line}"


@dataclass(slots=True)
class Glitch:
    """What the instrumented code asks. `thread`: the beginning of the name of the threads that are hit; `seen`: sites
    they came to; `armed`: the one to turn round at its next coming; `struck`: it was."""

    thread: str
    sites: list[Site] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    armed: int | None = None
    struck: bool = False

    def __call__(self, number: int, value: object) -> object:
        """The truth of an `if` or a `return`, or whether a `raise` is to be made."""
        if not threading.current_thread().name.startswith(self.thread):
            return value
        self.seen.add(number)
        if self.armed != number:
            return value
        self.armed, self.struck = None, True
        return not value


class _Instrument(ast.NodeTransformer):
    """Puts the question into every `if`, every yes or no that is returned, and before every `raise` of a module."""

    def __init__(self, module: str, sites: list[Site]) -> None:
        self._module = module
        self._sites = sites
        self._truth = False  # inside a function that answers yes or no

    def _ask(self, node: ast.stmt | ast.expr, kind: str, value: ast.expr) -> ast.expr:
        self._sites.append(Site(self._module, node.lineno, kind))
        number = ast.Constant(len(self._sites) - 1)
        return ast.Call(ast.Name(_NAME, ast.Load()), [number, value], [])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        outer, self._truth = self._truth, isinstance(node.returns, ast.Name) and node.returns.id == "bool"
        self.generic_visit(node)
        self._truth = outer
        return node

    def visit_Return(self, node: ast.Return) -> ast.Return:
        self.generic_visit(node)
        if self._truth and node.value is not None:
            node.value = self._ask(node, "return", node.value)
        return node

    def visit_If(self, node: ast.If) -> ast.If:
        self.generic_visit(node)
        node.test = self._ask(node, "if", node.test)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.IfExp:
        self.generic_visit(node)
        node.test = self._ask(node, "if", node.test)
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.If | ast.Raise:
        self.generic_visit(node)
        if node.exc is None:
            return node
        return ast.If(self._ask(node, "raise", ast.Constant(value=True)), [node], [])


@contextlib.contextmanager
def instrumented(thread: str, modules: Sequence[str] = JUDGES) -> Iterator[Glitch]:
    """While this holds, the functions of `modules` ask the `Glitch` that is given."""
    glitch = Glitch(thread)
    before: list[tuple[types.FunctionType, types.CodeType]] = []
    loaded = [importlib.import_module(name) for name in modules]
    try:
        for module in loaded:
            vars(module)[_NAME] = glitch
            codes = _codes(module, glitch.sites)
            for function in _functions(module):
                new = codes.get((function.__qualname__, function.__code__.co_firstlineno))
                if new is not None and new.co_freevars == function.__code__.co_freevars:
                    before.append((function, function.__code__))
                    function.__code__ = new
        yield glitch
    finally:
        for function, code in reversed(before):  # one that was met twice is put back to what it was first
            function.__code__ = code
        for module in loaded:
            vars(module).pop(_NAME, None)


def _codes(module: types.ModuleType, sites: list[Site]) -> dict[tuple[str, int], types.CodeType]:
    """The instrumented code of every function of a module, by qualified name and first line."""
    source = inspect.getsource(module)
    tree = _Instrument(module.__name__, sites).visit(ast.parse(source))
    found: dict[tuple[str, int], types.CodeType] = {}
    waiting = [compile(ast.fix_missing_locations(tree), module.__file__ or module.__name__, "exec")]
    while waiting:
        for one in waiting.pop().co_consts:
            if isinstance(one, types.CodeType):
                found[one.co_qualname, one.co_firstlineno] = one
                waiting.append(one)
    return found


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """Every function and method that is defined in a module, those behind properties and class methods too."""
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members: list[Any] = list(vars(value).values()) if isinstance(value, type) else [value]
        for one in members:
            for plain in (
                one,
                getattr(one, "__func__", None),
                getattr(one, "fget", None),
                getattr(one, "__wrapped__", None),
            ):
                if isinstance(plain, types.FunctionType):
                    yield plain
