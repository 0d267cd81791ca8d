"""What a verdict costs over hashing the image, and over the bare signature checks it cannot do without.

`rows()` is what `tools/bench.py` calls. The release is the insulin pump's own description, signed by two of three
release persons and one of quality, each with a P-256 and an ML-DSA-65 key. The trust document has been read; everything
else is judged anew each time: file, envelope, manifest, interpreter, quorum, six signatures. Nothing is kept between
verdicts. The floor verifies the same six signatures with the `cryptography` package alone, its key objects made. Times
are the processor's, for one thread does all of it.
"""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROUNDS = 301
NOW = 1_800_000_000
IMAGE = 4 << 10
DESCRIPTION = Path(__file__).parents[1] / "firmware_manifests/insulin-pump/1.1.0.toml"
Row = tuple[str, str, str, str, str, bool | None]


@dataclass(frozen=True)
class Scene:
    """A release on disk, the trust document it is judged by, and the same work without devguard."""

    file: Path
    trust: Any
    target: Any
    image: bytes
    bare: tuple[Callable[[], object], ...]


def rows() -> list[Row]:
    """Median cost of a verdict in ms over hashing its image, and as a multiple of the floor of the same run."""
    with tempfile.TemporaryDirectory(prefix="devguard-bench-") as name:
        mine, floor = _medians(_make(Path(name)))
    shown = f"{mine * 1e3:.2f} ms", f"bare checks {floor * 1e3:.2f} ms"
    return [("verdict over hashing, 6 signatures", *shown, f"{mine / floor:.2f}", "under 3 ms", mine < 3e-3)]


def _medians(scene: Scene) -> tuple[float, float]:
    """(verdict less hashing, floor), medians over alternating rounds after some that only warm up."""
    times: dict[str, list[float]] = {"verdict": [], "hashing": [], "floor": []}
    work = {"verdict": lambda: _judge(scene), "hashing": lambda: hashlib.sha256(scene.image).digest(),
            "floor": lambda: [check() for check in scene.bare]}  # fmt: skip
    gc.collect()
    for index in range(ROUNDS + 20):
        for name, do in work.items():
            start = time.thread_time()
            do()
            taken = time.thread_time() - start
            if index >= 20:
                times[name].append(taken)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    return middle["verdict"] - middle["hashing"], middle["floor"]


def _judge(scene: Scene) -> None:
    from devguard.cli.judging import judge_file

    with ExitStack() as stack:
        judged = judge_file(scene.file, trust=scene.trust, now=NOW, target=scene.target, stack=stack)
    if not judged.verdict:
        raise SystemExit(f"the bench's release was refused: {judged.verdict.failure}")


def _make(folder: Path) -> Scene:
    from devguard.cose.algorithms import Algorithm
    from devguard.cose.roles import RoleName
    from devguard.cose.sign import sign1
    from devguard.custody.memory import MemorySigner
    from devguard.device.models import load_model
    from devguard.image.measure import Measured
    from devguard.manifest.build import build_envelope
    from devguard.manifest.description import parse_description
    from devguard.manifest.envelope import add_signature, signature_payload, write_envelope
    from devguard.trust.document import KeyEntry, Role, build_trust, read_trust, trust_payload
    from devguard.verdict.judge import Target

    def hybrid(person: str) -> list[tuple[str, MemorySigner]]:
        return [(person, MemorySigner.generate(one)) for one in (Algorithm.ESP256, Algorithm.ML_DSA_65)]

    held = {
        RoleName.ROOT: (1, [("Rhea", MemorySigner.generate(Algorithm.ESP384))]),
        RoleName.RELEASE: (2, [*hybrid("Remy"), *hybrid("Rita"), *hybrid("Rolf")]),
        RoleName.QUALITY: (1, hybrid("Quinn")),
    }
    roles = {
        role: Role(most, tuple(KeyEntry(one.key, who) for who, one in keys)) for role, (most, keys) in held.items()
    }
    document = trust_payload(version=1, issued=NOW, expires=NOW + 86_400, roles=roles)
    trust = read_trust(build_trust(document, [held[RoleName.ROOT][1][0][1]]))
    facts = load_model("insulin-pump").facts
    image = os.urandom(IMAGE)
    description = parse_description(DESCRIPTION.read_bytes())
    component = description.components[0].id
    measured = Measured(-16, hashlib.sha256(image).digest(), len(image))
    envelope = build_envelope(description, facts, {component: measured})
    payload = signature_payload(envelope)
    bare: list[Callable[[], object]] = []
    for _, signer in (*held[RoleName.RELEASE][1][:4], *held[RoleName.QUALITY][1]):
        block = sign1(signer, payload, typ=None, detached=True)
        envelope = add_signature(envelope, block.encode())
        bare.append(_bare(signer, block.to_be_signed(payload), block.signature))
    file = folder / "release.suit"
    with tempfile.TemporaryFile() as reader, file.open("wb") as out:
        reader.write(image)
        reader.seek(0)
        write_envelope(envelope, {f"#{component}": reader}, out)
    return Scene(file, trust, Target(model=facts), image, tuple(bare))


def _bare(signer: Any, message: bytes, signature: bytes) -> Callable[[], object]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    public = signer.key.to_public()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        return lambda: public.verify(signature, message)
    half = len(signature) // 2
    der = encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
    return lambda: public.verify(der, message, ec.ECDSA(hashes.SHA256()))


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  ")
    sys.exit(0)
