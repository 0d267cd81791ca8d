"""SoftHSM2 tokens for tests: each in a folder of its own, made and initialised by the test that wants it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

PIN, OFFICER_PIN = "246813", "97531864"
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


def module_path() -> str | None:
    """The path of the SoftHSM2 module where it is installed."""
    return next((path for path in MODULES if Path(path).is_file()), None)


def absent() -> str | None:
    """What a test with tokens lacks on this machine; None: nothing."""
    if module_path() is None or shutil.which("softhsm2-util") is None:
        return "SoftHSM2 is not installed (Debian: apt-get install softhsm2)"
    if importlib.util.find_spec("pkcs11") is None:
        return "python-pkcs11 is not installed (extra pkcs11)"
    return None


class Tokens:
    """A SoftHSM2 with a store of its own, which SOFTHSM2_CONF points at while the test runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = str(module_path())
        self.store = folder / "tokens"
        self.store.mkdir(parents=True)
        self.config = folder / "softhsm2.conf"
        self.config.write_text(
            f"directories.tokendir = {self.store}\nobjectstore.backend = file\nlog.level = ERROR\n", encoding="utf-8"
        )
        monkeypatch.setenv("SOFTHSM2_CONF", str(self.config))

    def make(self, label: str) -> str:
        """A new initialised token; the URI that means it."""
        run("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", OFFICER_PIN)
        return self.uri(label)

    def uri(self, label: str, **more: str) -> str:
        """The URI of a token, or of an object on it."""
        extra = "".join(f";{name}={value}" for name, value in more.items())
        return f"pkcs11:token={label}{extra}?module-path={self.module}"

    def hold(self, label: str, pem: Path, name: str) -> None:
        """Import a PKCS#8 key, as people do who did not generate it on the token."""
        run("softhsm2-util", "--import", pem, "--token", label, "--label", name, "--id", "c0", "--pin", PIN)


def run(*command: object) -> None:
    """A tool that has to succeed."""
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
