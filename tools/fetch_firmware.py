"""Obtain real firmware for the demo and the benches into .cache/firmware, which git ignores.

The images are public: MicroPython for the micro:bit inside two source distributions of `uflash`, Nordic's
connectivity firmware inside two of `pc-ble-driver-py`. pip downloads the archives with pinned hashes; the HEX text
is taken out as text. Nothing of theirs is imported or run here. Without a network this says so and exits 1.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "firmware"
MANIFESTS = ROOT / "firmware_manifests"
PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"


@dataclass(frozen=True)
class Source:
    """One image: the archive that holds it, where in the archive, what it is called here, its SHA-256."""

    package: str
    version: str
    archive_sha256: str
    member: str
    name: str
    text_sha256: str
    models: tuple[str, ...]
    bench_only: bool = False


SOURCES = (
    Source(
        "uflash", "1.0.8", "b3bff3a02c90165c1c74cb61a7cd55c3ab5e76c4d4124cf3ee84cdcedb5609f4",
        "uflash-1.0.8/uflash.py", "microbit-micropython-1.0.hex",
        "1fe9f5346bb325a58031b5a82c679eb636c32c965c3769235636ff3e45fd3702", (PUMP, PROGRAMMER),
    ),
    Source(
        "uflash", "1.3.0", "f5cd58cb84394572100715a7829f8b1278d950d793913662c5aef6849f39484e",
        "uflash-1.3.0/uflash.py", "microbit-micropython-1.0.1.hex",
        "945ce1ceca094802afc8397936bbdf42e1c1f4f95763b70e9b8d0d5470555f05", (PUMP, PROGRAMMER),
    ),
    Source(
        "pc-ble-driver-py", "0.8.1", "6ecdf6d1759632625f41fac7ca1562ecc111999ef502bd28a1af00fa8d1355f2",
        "pc_ble_driver_py-0.8.1/pc_ble_driver_py/hex/sd_api_v3/connectivity_1.1.0_1m_with_s132_3.0.hex",
        "connectivity_1.1.0_1m_with_s132_3.0.hex",
        "91ce39ea1d1cda6a15c8de0608be13b23fbfe4fbb43c8b3027710176454105cd", (PROGRAMMER,), bench_only=True,
    ),
    Source(
        "pc-ble-driver-py", "0.11.4", "8444c411621d38a624642869b5c60e100362ced1016c89c4f059f7978b6bb46b",
        "pc_ble_driver_py-0.11.4/pc_ble_driver_py/hex/sd_api_v3/connectivity_1.2.3_1m_with_s132_3.1.hex",
        "connectivity_1.2.3_1m_with_s132_3.1.hex",
        "e2d2e2c9da83d518c88fef20cc6d2583696ee737f9a7934a7c65d4d24cd48aa2", (PROGRAMMER,), bench_only=True,
    ),
    Source(
        "pc-ble-driver-py", "0.11.4", "8444c411621d38a624642869b5c60e100362ced1016c89c4f059f7978b6bb46b",
        "pc_ble_driver_py-0.11.4/pc_ble_driver_py/hex/sd_api_v3/connectivity_1.2.3_115k2_with_s132_3.1.hex",
        "connectivity_1.2.3_115k2_with_s132_3.1.hex",
        "aa7d8d3db4c3fd0072aeba4c083d44c7101d2fcc5426afda825ebb965526eb52", (), bench_only=True,
    ),
)  # fmt: skip


def download(source: Source, folder: Path) -> Path:
    """The archive, its hash checked by pip."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.archive_sha256}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-binary", ":all:", "--require-hashes", "--retries", "1", "--timeout", "10",
        "-d", str(folder), "-r", str(wanted),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    return next(folder.glob("*.tar.gz"))


def extract(source: Source, archive: Path) -> bytes:
    """The HEX text: a member as it is, or the string that a Python member assigns to `_RUNTIME`."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(source.member)
        if member is None:
            raise ValueError(f"{source.member} is not a file in {archive.name}")
        data = member.read()
    if not source.member.endswith(".py"):
        return data
    for node in ast.parse(data).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_RUNTIME":
            return str(ast.literal_eval(node.value)).encode()
    raise ValueError(f"no runtime in {source.member}")


def fetch(source: Source) -> None:
    """Put one image into the cache, whole or not at all."""
    target = CACHE / source.name
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == source.text_sha256:
        return
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        folder = Path(scratch)
        data = extract(source, download(source, folder))
        if hashlib.sha256(data).hexdigest() != source.text_sha256:
            raise ValueError(f"{source.name} is not the text that was pinned")
        part = folder / source.name
        part.write_bytes(data)
        part.replace(target)


def place(source: Source) -> None:
    """Copy one image to where release descriptions look for it."""
    for model in source.models:
        folder = MANIFESTS / model / "images"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(CACHE / source.name, folder / source.name)


def main() -> int:
    """Fetch what is missing; exit 1 when something could not be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--place", action="store_true", help="also put all images where firmware_manifests/ wants them")
    parser.add_argument("--all", action="store_true", help="also what only the benches use")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless something is fetched or fails")
    chosen = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        if source.bench_only and not (chosen.all or chosen.place):
            continue
        try:
            fetch(source)
        except (OSError, ValueError, StopIteration, tarfile.TarError, subprocess.SubprocessError) as error:
            reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1:]
            print(f"could not obtain {source.name}: {' '.join(reason)}", file=sys.stderr)
            return 1
        if chosen.place:
            place(source)
        if not chosen.quiet:
            print(f"{CACHE.name}/{source.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
