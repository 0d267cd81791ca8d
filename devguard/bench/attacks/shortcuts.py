"""Class E, third part: around the rules by way of files, settings, defaults, or what an update may carry along."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import devguard
from devguard.bench.attacks.host import Answer
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.vendor import TRUST_OPTIONS, Vendor
from devguard.session.verbs import Verb

_VERBS: Final = 256
_KNOWN: Final = frozenset(Verb)


class LocalPolicy(Row):
    """Files, settings and environment of the station, changed by who owns it; and a host whose checks say yes."""

    id = "E06"
    title = "Tamper with local policy, roles or trust store"
    precedent = "CVE-2018-5448 (Medtronic 2090), local administrators"
    attacker = Attacker.INSIDER
    regulation = ("1.B1", "11.3")

    def play(self, scene: Scene) -> None:
        evil = Vendor.make(scene.folder / "evil")
        own = scene.folder / "evil-trust"
        env = {"DEVGUARD_PASSPHRASE": evil.passphrase}
        init = ("trust", "init", own, *TRUST_OPTIONS, "--expires", "2029-01-01")
        scene.holds("the attacker has a document", scene.world.run(evil.home, *init, env=env).status == 0)
        build = evil.release(scene.world.model.facts, "1.2.0", 3)
        file = scene.file(build)
        trust = scene.home / "trust" / "current.trust"
        codes = ("trust.rollback", "trust.changed", "trust.unknown", "key.unknown")
        push = scene.pushing(file)
        for what, change in self._changes(own, trust):
            change()
            scene.refuses(f"{what}: an attacker's release", push, *codes, "trust.signature", "trust.malformed",
                          "file.missing", "file.unreadable", "log.tampered", by=By.OFFLINE)  # fmt: skip
            trust.unlink(missing_ok=True)
            trust.write_bytes(scene.world.trust)
        for name in ("DEVGUARD_TRUST", "DEVGUARD_PUSH_TRUST"):
            attempt = self._with(scene, file, {name: str(own / "current.trust")})
            scene.refuses(f"{name} in the environment", attempt, *codes, by=By.OFFLINE)
        (scene.home / "config.toml").write_text(f'[push]\ntrust = "{own / "current.trust"}"\n')
        scene.refuses("the same in config.toml", push, *codes, by=By.OFFLINE)
        (scene.home / "config.toml").write_text("[push]\nno-verify = true\n")
        scene.refuses("a setting that turns checks off", push, "config.malformed", by=By.NOBODY)
        (scene.home / "config.toml").unlink()
        # The shim that makes every check of the host say yes: a host that has none.
        scene.refuses("a host whose checks say yes", scene.offering(build), "key.unknown", by=By.DEVICE_ALONE)
        scene.goes_through("the honest release", scene.pushing(scene.file(scene.next)))

    @staticmethod
    def _changes(own: Path, trust: Path) -> Iterator[tuple[str, Any]]:
        genuine = trust.read_bytes()
        yield "the trust store replaced", lambda: shutil.copy(own / "current.trust", trust)
        yield (
            "one bit changed in it",
            lambda: trust.write_bytes(genuine[:-9] + bytes((genuine[-9] ^ 1,)) + genuine[-8:]),
        )

        def link() -> None:
            trust.unlink()
            trust.symlink_to(own / "current.trust")

        yield "a link in its place", link
        yield "the store empty", lambda: trust.write_bytes(b"")

    @staticmethod
    def _with(scene: Scene, file: Path, env: dict[str, str]) -> Any:
        options = scene.world.push_options(scene.folder)
        return scene.commanding("push", file, *options, env=env)


class DefaultCredential(Row):
    """A station as it comes out of the box, weak words to keep a key by, one key for two, what the package holds."""

    id = "E07"
    title = "Default, shared or empty service credential"
    precedent = "CVE-2020-25175/25179 (GE), CVE-2017-12725/12726 (Medfusion), CVE-2025-4395, CVE-2019-13530"
    attacker = Attacker.OUTSIDER
    regulation = ("1.A3",)

    def play(self, scene: Scene) -> None:
        file, fresh = scene.file(scene.next), scene.folder / "fresh"
        said = len(scene.tap.to_device)
        options = ("--port", scene.device.port, "--serial", scene.device.serial)
        for what, more in (("a fresh station", ()), ("with a genuine grant alone", self._grant(scene))):
            answer = scene.world.run(fresh, "push", file, *options, *more)
            scene.holds(f"{what} pushes nothing ({answer.code})", self._refused(answer))
        scene.holds("and says nothing to the device", len(scene.tap.to_device) == said)
        made = ("key", "new", "weak", "--person", "Finn", "--role", "technician")
        for word in ("", "0000", "12345678", "aaaaaaaaaaaa", "Technician2026", "Finn"):
            attempt = scene.commanding(*made, env={"DEVGUARD_PASSPHRASE": word})
            scene.refuses(f"a key kept by {word!r}", attempt, "key.passphrase", by=By.OFFLINE)
        add = (
            "technician",
            "add",
            scene.home / "keys" / "technician.key",
            "--any-site",
            "--trained-until",
            "2029-01-01",
        )
        scene.goes_through("a technician on the list", scene.commanding(*add))
        twice = scene.commanding(*add, "--name", "somebody-else")
        scene.refuses("one key for two people", twice, "grant.technician", by=By.OFFLINE)
        scene.holds("the package holds no private key and no passphrase", not _secrets_of_package())

    @staticmethod
    def _grant(scene: Scene) -> tuple[str | Path, ...]:
        path = scene.folder / "found.grant"
        path.write_bytes(scene.grant().raw)
        return "--grant", path

    @staticmethod
    def _refused(answer: Answer) -> bool:
        return answer.status in (1, 3) and answer.code is not None


def _secrets_of_package() -> list[str]:
    """Files of the installed package that hold a private key in any of its usual forms."""
    package = Path(devguard.__file__).parent
    heads = (
        b"PRIVATE KEY" + b"-----\n",
        b"302e0201" + b"00300506",
        b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70",
    )
    found = []
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and any(head in path.read_bytes() for head in heads):
            found.append(path.name)
    return found


ROWS: Final[tuple[type[Row], ...]] = (LocalPolicy, DefaultCredential)
