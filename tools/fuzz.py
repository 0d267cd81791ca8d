"""Coverage-guided fuzzing of every parser with atheris (`make fuzz`); the invariant and the targets are tests/fuzz's.

    python tools/fuzz.py                     every target for a minute each, one after another
    python tools/fuzz.py trust grant -s 600  these, for ten minutes each
    python tools/fuzz.py --list

Each target runs in a process of its own, bounded in time for one input and in memory. Its corpus is kept in
`.cache/fuzz/NAME` and grows from run to run; it begins with sound input that devguard's own writers made
(`--seeds` writes that and stops), and holds nothing of anybody else. What breaks a parser is left in
`.cache/fuzz/found/NAME-*`: fix it, and add the bytes to tests/fuzz/fuzz_found.py, where every test run tries them
again.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / ".cache" / "fuzz"
FOUND = CORPUS / "found"
SECONDS = 60
SLOWEST = 20  # seconds for one input
MEMORY = 1024  # MiB
LONGEST = 16_384  # bytes of one input
HERE = (".", "tests", "tests/fuzz", "tests/rooms", "tests/sim", "tests/cli")


def targets() -> dict[str, Any]:
    """The targets by name."""
    sys.path[:0] = [str(ROOT / name) for name in HERE]
    from fuzz_targets import targets as found

    return found()


def seed(name: str, target: Any) -> Path:
    """The target's corpus folder, its sound inputs in it, each named by its digest."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (folder / hashlib.sha256(data).hexdigest()[:40]).write_bytes(data)
    return folder


def one(name: str, seconds: int) -> None:
    """Fuzz one target in this process; does not come back."""
    import atheris

    with atheris.instrument_imports(include=["devguard"]):
        target = targets()[name]
        target.seeds()
    FOUND.mkdir(parents=True, exist_ok=True)
    limits = [f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY}", f"-max_len={LONGEST}", f"-max_total_time={seconds}"]
    folder = seed(name, target)
    arguments = [sys.argv[0], str(folder), *limits, f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1"]
    atheris.Setup(arguments, lambda data: target.run(bytes(data)))
    atheris.Fuzz()


def main() -> int:
    """0 when nothing was found, 1 with the names of those where something was."""
    parser = argparse.ArgumentParser(description="fuzz devguard's parsers with atheris")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names, or beginnings of names (default: all)")
    parser.add_argument("-s", "--seconds", type=int, default=SECONDS, help=f"for each target (default {SECONDS})")
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    parser.add_argument("--seeds", action="store_true", help="write the first inputs of every corpus and stop")
    parser.add_argument("--one", metavar="TARGET", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.seconds)
        return 0
    known = targets()
    chosen = [name for name in known if not given.targets or name.startswith(tuple(given.targets))]
    if not chosen:
        parser.error(f"no target begins with {' or '.join(given.targets)}; --list names them")
    if given.list:
        print(*chosen, sep="\n")
        return 0
    if given.seeds:
        for name in chosen:
            print(f"{name:28} {len(list(seed(name, known[name]).iterdir()))} inputs")
        return 0
    broken = [name for name in chosen if not clean(name, given.seconds)]
    print(f"{len(chosen)} targets, {len(broken)} broken{': ' + ', '.join(broken) if broken else ''}")
    return 1 if broken else 0


def clean(name: str, seconds: int) -> bool:
    """Whether a target came through its time; what it printed is shown where it did not."""
    command = [sys.executable, __file__, "--one", name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()
    runs = next((line.split()[-1] for line in said if line.startswith("stat::number_of_executed_units")), "?")
    print(f"{name:28} {runs:>10} runs  {'ok' if done.returncode == 0 else 'BROKEN'}", flush=True)
    if done.returncode:
        print("\n".join(said[-40:]), done.stdout, sep="\n")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
