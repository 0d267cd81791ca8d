"""What the programs of this process open, make and start, told by the interpreter itself (PEP 578, audit events).

For benches that have to show what did not happen: no file outside of a folder, no other program, no port that listens.
Writes into the interpreter's own caches are left out. The hook is installed at first use and stays, as hooks do; while
nobody watches it does nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_WRITE: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES: Final = {
    "os.mkdir": (0,), "os.remove": (0,), "os.rmdir": (0,), "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,),
    "os.chmod": (0,), "os.truncate": (0,), "os.utime": (0,),
}  # fmt: skip
"""Events that change what lies on disk -> which of their arguments are the paths that change."""
STARTS: Final = frozenset({"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork"})
LISTENS: Final = frozenset({"socket.bind", "socket.listen"})
_CACHE: Final = "__pycache__"


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was done. `path`: what it was done to, empty where that is no path; `real`: where that lay then;
    `writes`: whether it may change something there."""

    event: str
    path: str
    real: str
    writes: bool


_watching: list[list[Seen]] = []
_installed: list[bool] = []


@contextlib.contextmanager
def watched() -> Iterator[list[Seen]]:
    """All that any thread of this process does meanwhile, in order."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_heard)
    seen: list[Seen] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def outside(seen: list[Seen], *folders: Path | str) -> list[Seen]:
    """Of these, what may have changed something that lies in none of the folders. A name without a folder belongs to
    an open one, which was opened by its own."""
    roots = tuple(os.path.realpath(folder) for folder in folders)
    return [one for one in seen if one.writes and os.sep in one.path and not _below(one.real, roots)]


def _below(real: str, roots: tuple[str, ...]) -> bool:
    return any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, mode, flags = args
        writes = bool((flags or 0) & _WRITE) or bool(set(mode or "") & set("wax+"))
        found = [Seen(event, _text(path), os.path.realpath(_text(path)), writes)]
    elif event in _CHANGES:
        # It is done to the name itself, which may be that of a link.
        paths = [_text(args[at]) for at in _CHANGES[event]]
        found = [
            Seen(event, path, os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)), True)
            for path in paths
        ]
    elif event in STARTS or event in LISTENS:
        found = [Seen(event, "", "", False)]
    else:
        return
    for seen in list(_watching):
        seen += [one for one in found if _CACHE not in one.path]


def _text(path: object) -> str:
    if isinstance(path, (str, bytes, os.PathLike)):
        return os.fsdecode(path)
    return ""
