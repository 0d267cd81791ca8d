"""`make bench`: devguard against its peers on this machine, as ratios, each taken in one run.

Every figure is the median of five rounds in which the compared programs alternate, so that whatever else the machine
does hits all alike. All Python programs run from compiled bytecode kept in a temporary folder, as installed ones do.
Keys, trust and images are made for the run and deleted after it. An aim that is not met is printed, never an error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import bench_delta
import bench_evidence
import bench_handshake
import bench_link
import bench_packets
import bench_peers
import bench_shelf
import bench_verdict

ROUNDS = 5
SMALL, LARGE, HUGE = 4 << 10, 256 << 20, 2 << 30
BIN = Path(sys.executable).parent
# Linux counts what a process was before it became another program, so only a small parent measures memory rightly.
LAUNCHER = """
import json, os, sys
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]))
"""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was compared, the two figures, the outcome, and the aim it was held against."""

    what: str
    ours: str
    theirs: str
    outcome: str
    aim: str
    met: bool | None

    def text(self) -> str:
        verdict = {True: "aim met", False: "aim NOT met", None: ""}[self.met]
        return f"{self.what:34} {self.ours:>22} {self.theirs:>24} {self.outcome:>12}  {self.aim:18} {verdict}".rstrip()


def environment(folder: Path) -> dict[str, str]:
    """What every measured program sees: its own devguard home, bytecode on, nothing of the caller's settings."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DEVGUARD", "COVERAGE"))
    }
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "DEVGUARD_HOME": str(folder / "home")}


def seconds(command: list[str], env: dict[str, str]) -> float:
    """Wall time of one run, from start to exit; a run that fails ends the bench."""
    start = time.perf_counter()
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return taken


def medians(commands: dict[str, list[str]], env: dict[str, str]) -> dict[str, float]:
    """The median wall time of each command over alternating rounds, after one round that only warms up."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for index in range(ROUNDS + 1):
        for name, command in commands.items():
            taken = seconds(command, env)
            if index:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak(command: list[str], env: dict[str, str]) -> float:
    """The most memory a fresh run had resident, in MiB."""
    launched = subprocess.run(
        [sys.executable, "-S", "-E", "-c", LAUNCHER, *command], env=env, capture_output=True, text=True, check=True
    )
    status, kib = json.loads(launched.stdout)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return float(kib) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# what is verified; made in a child of its own, through the public library


class SparseWriter:
    """Writes to a file and leaves its runs of zero bytes to the file system."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        if data.count(0) == len(data):
            self.file.seek(len(data), os.SEEK_CUR)
        else:
            self.file.write(data)
        return len(data)


def prepare(folder: Path) -> None:
    """Images, a trust document, signed releases, an openssl signature and an MCUboot image in `folder`."""
    from devguard.cose.algorithms import Algorithm
    from devguard.cose.roles import RoleName
    from devguard.custody.memory import MemorySigner
    from devguard.trust.document import KeyEntry, Role, build_trust, trust_payload

    signers = {
        RoleName.ROOT: MemorySigner.generate(Algorithm.ESP384),
        RoleName.RELEASE: MemorySigner.generate(Algorithm.ESP256),
        RoleName.QUALITY: MemorySigner.generate(Algorithm.ML_DSA_65),
    }
    roles = {name: Role(1, (KeyEntry(signer.key, f"Bench {name}"),)) for name, signer in signers.items()}
    now = int(time.time())
    document = trust_payload(version=1, issued=now, expires=now + 86_400, roles=roles)
    (folder / "bench.trust").write_bytes(build_trust(document, [signers[RoleName.ROOT]]))
    for name, size in (("small", SMALL), ("large", LARGE), ("huge", HUGE)):
        image = folder / f"{name}.bin"
        make_image(image, size)
        make_release(image, folder / f"{name}.suit", [signers[RoleName.RELEASE], signers[RoleName.QUALITY]])
        if name == "huge":
            image.unlink()
    peers(folder)


def make_image(path: Path, size: int) -> None:
    """Random bytes; of the huge one only the first MiB, the rest zero and never stored."""
    with path.open("wb") as file:
        for _ in range(0, min(size, LARGE if size <= LARGE else 1 << 20), 1 << 20):
            file.write(os.urandom(min(size, 1 << 20)))
        file.truncate(size)


def make_release(image: Path, out: Path, signers: list[Any]) -> None:
    """A release of the image, integrated, signed by the two keys."""
    from devguard.cose.sign import sign1
    from devguard.image.measure import measure
    from devguard.manifest.build import build_envelope
    from devguard.manifest.description import parse_description, scaffold
    from devguard.manifest.envelope import add_signature, signature_payload, write_envelope
    from devguard.manifest.model import Clock, ModelFacts

    text = scaffold("bench-model", "1.0.0", "bench.devguard.example", "revA")
    description = parse_description(text.encode())
    names = tuple(component.id for component in description.components)
    facts = ModelFacts(
        name=description.model,
        vendor=description.vendor,
        revisions=description.revisions,
        flash_base=0,
        image_capacity=4 << 30,
        battery_capacity_mwh=1500,
        clock=Clock.RTC,
        technicians=1,
        components=names,
    )
    with image.open("rb") as reader, out.open("wb") as file:
        envelope = build_envelope(description, facts, {names[0]: measure(reader)})
        for signer in signers:
            block = sign1(signer, signature_payload(envelope), typ=None, detached=True).encode()
            envelope = add_signature(envelope, block)
        reader.seek(0)
        sparse: Any = SparseWriter(file)
        write_envelope(envelope, {f"#{names[0]}": reader}, sparse)
        file.truncate(file.tell())


def peers(folder: Path) -> None:
    """The same images signed for openssl (P-256) and, where it is installed, for imgtool."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    from devguard.image.measure import measure

    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "peer.pub.pem").write_bytes(public)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "peer.pem").write_bytes(private)
    for name in ("small", "large"):
        with (folder / f"{name}.bin").open("rb") as reader:
            digest = measure(reader).digest
        (folder / f"{name}.sig").write_bytes(key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))
    if (BIN / "imgtool").exists():
        command = [f"{BIN}/imgtool", "sign", "--key", f"{folder}/peer.pem", "--header-size", "32", "--pad-header"]
        command += ["--align", "4", "--version", "1.0.0", "--slot-size", "0x10000"]
        command += [f"{folder}/small.bin", f"{folder}/small.mcuboot"]
        subprocess.run(command, check=True, capture_output=True)


# the table


def throughput(folder: Path, env: dict[str, str], verify: Callable[[str], list[str]]) -> Row:
    """256 MiB against openssl; what each takes for 4 KiB is its start-up and is taken off."""
    aim = ">= 0.95 of openssl"
    if shutil.which("openssl") is None:
        return Row("verify 256 MiB, throughput", "", "openssl is missing", "", aim, None)

    def dgst(name: str) -> list[str]:
        key = ["-verify", f"{folder}/peer.pub.pem", "-signature", f"{folder}/{name}.sig"]
        return ["openssl", "dgst", "-sha256", *key, f"{folder}/{name}.bin"]

    found = medians(
        {"ours": verify("large"), "ours0": verify("small"), "theirs": dgst("large"), "theirs0": dgst("small")}, env
    )
    ours, theirs = found["ours"] - found["ours0"], found["theirs"] - found["theirs0"]
    mib = LARGE >> 20
    speeds = f"{mib / ours:.0f} MiB/s", f"openssl {mib / theirs:.0f} MiB/s"
    return Row("verify 256 MiB, throughput", *speeds, f"{theirs / ours:.2f}", aim, theirs / ours >= 0.95)


def whole_process(folder: Path, env: dict[str, str], verify: Callable[[str], list[str]]) -> Row:
    """4 KiB against imgtool, from start to exit."""
    aim = "<= 0.85 of imgtool"
    if not (folder / "small.mcuboot").exists():
        return Row("verify 4 KiB, whole process", "", "imgtool is missing", "", aim, None)
    imgtool = [f"{BIN}/imgtool", "verify", "--key", f"{folder}/peer.pub.pem", f"{folder}/small.mcuboot"]
    found = medians({"ours": verify("small"), "theirs": imgtool}, env)
    ratio = found["ours"] / found["theirs"]
    times = f"{found['ours'] * 1e3:.0f} ms", f"imgtool {found['theirs'] * 1e3:.0f} ms"
    return Row("verify 4 KiB, whole process", *times, f"{ratio:.2f}", aim, ratio <= 0.85)


def memory(env: dict[str, str], verify: Callable[[str], list[str]]) -> list[Row]:
    """Peak memory at 256 MiB and 2 GiB: flat, and small."""
    large, huge = (statistics.median(peak(verify(name), env) for _ in range(ROUNDS)) for name in ("large", "huge"))
    shown = f"{huge:.1f} MiB at 2 GiB", f"{large:.1f} MiB at 256 MiB"
    flat = Row("verify, peak memory, growth", *shown, f"{huge - large:+.1f} MiB", "within 5 MiB", huge - large <= 5)
    most = max(large, huge)
    return [flat, Row("verify, peak memory", f"{most:.1f} MiB", "", "", "under 45 MiB", most < 45)]


def start_up(env: dict[str, str]) -> Row:
    """`devguard --help` against an empty program."""
    found = medians({"ours": [f"{BIN}/devguard", "--help"], "theirs": [sys.executable, "-c", "pass"]}, env)
    times = f"{found['ours'] * 1e3:.0f} ms", f"python {found['theirs'] * 1e3:.0f} ms"
    return Row("devguard --help, whole process", *times, f"{found['ours'] / found['theirs']:.1f}", "no aim", None)


def main() -> int:
    """Print the table; 0 whatever it says."""
    parser = argparse.ArgumentParser(description="devguard against its peers, as ratios")
    parser.add_argument("--quick", action="store_true", help="fewer lines and peers in the comparison of links")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        prepare(arguments.prepare)
        return 0
    with tempfile.TemporaryDirectory(prefix="devguard-bench-") as name:
        folder = Path(name)
        env = environment(folder)
        print("making keys, trust and images...", file=sys.stderr)
        subprocess.run([sys.executable, __file__, "--prepare", name], check=True, env=env)

        def verify(image: str) -> list[str]:
            return [f"{BIN}/devguard", "verify", "--trust", f"{folder}/bench.trust", f"{folder}/{image}.suit", "--json"]

        print(f"medians of {ROUNDS} alternating runs")
        for row in (throughput(folder, env, verify), whole_process(folder, env, verify), *memory(env, verify)):
            print(row.text(), flush=True)
        print(start_up(env).text())
    links = (bench_link.rows, lambda: bench_peers.rows(quick=arguments.quick))
    evidence = (lambda: bench_evidence.rows(100_000)) if arguments.quick else bench_evidence.rows
    for rows in (
        bench_verdict.rows,
        bench_handshake.rows,
        bench_packets.rows,
        bench_shelf.rows,
        bench_delta.rows,
        evidence,
        *links,
    ):
        for figures in rows():
            print(Row(*figures).text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
