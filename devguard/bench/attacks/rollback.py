"""Class C: genuine releases at the wrong time, in the wrong order or in the wrong company."""

from __future__ import annotations

from typing import Final

from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene


class OlderRelease(Row):
    """The release before, with all its valid signatures, and the one that runs, before and after a reset."""

    id = "C01"
    title = "Replay of an older, correctly signed, vulnerable release"
    precedent = "TUF and Uptane rollback attack; pithead #856 (RAUC signed downgrade)"
    attacker = Attacker.MALICIOUS_REPOSITORY
    regulation = ("1.D1", "8.4")

    def play(self, scene: Scene) -> None:
        rebuilt = scene.release("1.1.1", 1)
        cases = (
            ("the older release", scene.old, "version.rollback"),
            ("the older number under a newer version", rebuilt, "version.rollback"),
            ("the release that runs", scene.current, "version.current"),
        )
        for reset in ("", ", after a reset"):
            for what, build, code in cases:
                file = scene.file(build)
                scene.refuses(f"{what}, pushed{reset}", scene.pushing(file), code, by=By.HOST)
                scene.refuses(f"{what}, offered{reset}", scene.offering(build), code, by=By.DEVICE_ALONE)
            scene.device.power_off()
            scene.device.power_on()


ROWS: Final[tuple[type[Row], ...]] = (OlderRelease,)
TO_WRITE: Final = {
    "C02": "Downgrade through the other code path (permanent/confirm flag)",
    "C04": "Fast-forward: a stolen key or insider burns the version space",
    "C05": "Freeze: stale metadata plus a rolled-back laptop clock",
    "C06": "Mix-and-match and partial bundles",
    "C08": "Newest release is itself known-exploited: SBOM component in CISA KEV, no VEX",
}
