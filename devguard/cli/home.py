"""The devguard home: where one person's or station's keys, trust, grants and evidence live.

    keys/NAME.key, keys/NAME.pub    encrypted private keys and public exports
    keys/station.key                this station's own Ed25519 key, made at first use; it signs only checkpoints
    trust/current.trust             the trust document in use: the first complete one, until a person replaces it
    grants/*.grant                  grants received
    evidence/                       the log and its checkpoint, nothing else
    config.toml                     defaults for options: [push] port = "..."

Nothing is created by looking; folders appear, mode 0700, when something is first written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import FileSigner, KeyInfo
    from devguard.evidence.log import EvidenceLog
    from devguard.trust.document import TrustDocument

KEY_SUFFIXES: Final = (".key", ".pub")
GRANT_LIMIT: Final = 16 * 1024
TRUST_LIMIT: Final = 64 * 1024
STATION: Final = "station"


def default_home() -> Path:
    """The platform's user data directory for devguard."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "devguard"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "devguard"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "devguard"


@dataclass(frozen=True, slots=True)
class Home:
    """One home directory and what is found in it."""

    path: Path

    @property
    def keys(self) -> Path:
        """Folder of keys."""
        return self.path / "keys"

    @property
    def trust_file(self) -> Path:
        """The trust document in use."""
        return self.path / "trust" / "current.trust"

    @property
    def grants(self) -> Path:
        """Folder of grants."""
        return self.path / "grants"

    @property
    def evidence_folder(self) -> Path:
        """Folder of the evidence log."""
        return self.path / "evidence"

    def make(self, folder: Path) -> Path:
        """Create a folder of the home, readable by its owner only."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused("file.unreadable", f"cannot create {folder}: {error.strerror}") from error
        return folder

    def config(self) -> dict[str, Any]:
        """Defaults for options from config.toml, as click's default map; {} without the file."""
        path = self.path / "config.toml"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed("config.malformed", f"{path}: {error}") from error
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Malformed("config.malformed", f"{path}: {error}") from error

    # keys

    def key_path(self, reference: str) -> Path:
        """The file a KEY argument means: a path that exists, or NAME in keys/ (the private file first)."""
        as_path = Path(reference)
        if as_path.is_file():
            return as_path
        if os.sep not in reference:
            for suffix in KEY_SUFFIXES:
                candidate = self.keys / f"{reference}{suffix}"
                if candidate.is_file():
                    return candidate
        raise Malformed("file.missing", f"no key {reference!r}: neither a file nor a name in {self.keys}")

    def key_info(self, reference: str) -> KeyInfo:
        """Public half, person and role of a key, private file or public export."""
        from devguard.custody.keyfile import read_info

        return read_info(self.key_path(reference))

    def signer(self, reference: str, passphrase: Callable[[str], bytes]) -> FileSigner:
        """The signer of a KEY argument; the passphrase is asked for by the key's name."""
        from devguard.custody.keyfile import load_signer

        path = self.key_path(reference)
        return load_signer(path, lambda: passphrase(path.stem))

    def private_keys(self) -> list[Path]:
        """All private key files in keys/, in name order."""
        return sorted(self.keys.glob("*.key")) if self.keys.is_dir() else []

    def one_key(self, role: str) -> Path:
        """The only private key of a role in keys/; refuses when there are none or several."""
        from devguard.custody.keyfile import read_info

        found = [path for path in self.private_keys() if read_info(path).role == role]
        if len(found) != 1:
            raise Refused(
                "file.missing" if not found else "key.purpose",
                f"{len(found) or 'no'} keys of role {role} in {self.keys}",
                "say which with --key",
            )
        return found[0]

    def station(self) -> FileSigner:
        """This station's own key, made at first use. It has no passphrase: it signs while nobody sits here."""
        from devguard.cose.algorithms import Algorithm
        from devguard.custody.keyfile import create_key, load_signer

        path = self.keys / f"{STATION}.key"
        if not path.exists():
            self.make(self.keys)
            if self.evidence_folder.exists():
                raise Refused(
                    "log.truncated",
                    f"there is evidence but no station key {path}",
                    "restore the key from backup; a new key cannot continue this log",
                )
            try:
                create_key(
                    path,
                    name=STATION,
                    person="this station",
                    role="station",
                    algorithm=Algorithm.ED25519,
                    development=False,
                    passphrase=None,
                )
            except DevguardError as error:
                if error.code != "key.exists":  # another devguard made it in the meantime
                    raise
        return load_signer(path, lambda: b"")

    # trust and grants

    def trust(self, given: Path | None) -> TrustDocument:
        """The trust document given, or the one kept; vouched for by its own root, its time not yet judged.

        Raises `Refused("trust.missing")` without either, and what `read_trust` raises.
        """
        from devguard.custody.files import read_limited
        from devguard.trust.document import read_trust

        if given is None and not self.trust_file.is_file():
            raise Refused("trust.missing", f"no trust document: none was given and {self.trust_file} does not exist")
        return read_trust(read_limited(given or self.trust_file, TRUST_LIMIT))

    def keep_trust(self, data: bytes) -> bool:
        """Keep a trust document as the one in use if none is kept yet; whether it was kept."""
        from devguard.custody.files import write_atomic

        if self.trust_file.exists():
            return False
        self.make(self.trust_file.parent)
        write_atomic(self.trust_file, data)
        return True

    def grant_files(self) -> list[Path]:
        """All grants kept, in name order."""
        return sorted(self.grants.glob("*.grant")) if self.grants.is_dir() else []

    # evidence

    def evidence(self) -> EvidenceLog:
        """The evidence log, open for appending; sealed by the station's key."""
        from devguard.evidence.log import EvidenceLog

        station = self.station()
        self.make(self.evidence_folder)
        return EvidenceLog.open(self.evidence_folder, station)
