"""The devguard home: where one person's or station's keys, trust, grants and evidence live.

    keys/NAME.key, keys/NAME.pub    encrypted private keys and public exports
    keys/station.key                this station's own Ed25519 key, made at first use; it signs only checkpoints
    trust/current.trust             the trust document in use: the first complete one, then what follows from it
    trust/N.trust                   every version that was in use here
    memory.cbor                     what must not be forgotten; the evidence log says whether it is the right one
    technicians.cbor                who may be granted anything here, and who is suspended; the memory names it
    grants/*.grant                  grants received
    releases/DIGEST.suit            releases pushed from here, to make patches from
    evidence/                       the log and its checkpoint, nothing else
    config.toml                     defaults for options: [push] port = "..."

Nothing is created by looking; folders appear, mode 0700, when something is first written.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from devguard.custody.files import file_error
from devguard.custody.uri import is_token_uri
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.custody.keyfile import FileSigner, KeyInfo
    from devguard.evidence.log import EvidenceLog
    from devguard.trust.document import TrustDocument

KEY_SUFFIXES: Final = (".key", ".pub")
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
    def memory_file(self) -> Path:
        """What this station remembers."""
        return self.path / "memory.cbor"

    @property
    def technicians_file(self) -> Path:
        """The technicians known here."""
        return self.path / "technicians.cbor"

    def trust_version(self, number: int) -> Path:
        """Where version `number` of the trust document is kept."""
        return self.trust_file.parent / f"{number}.trust"

    @property
    def grants(self) -> Path:
        """Folder of grants."""
        return self.path / "grants"

    @property
    def releases(self) -> Path:
        """Folder of releases kept to make patches from."""
        return self.path / "releases"

    @property
    def shelf_state(self) -> Path:
        """What is kept of the shelf that is followed from here; where it follows none there is no such file."""
        return self.path / "shelf" / "state"

    @property
    def evidence_folder(self) -> Path:
        """Folder of the evidence log."""
        return self.path / "evidence"

    @property
    def config_file(self) -> Path:
        """Defaults for options."""
        return self.path / "config.toml"

    def check(self) -> None:
        """Return when the home can be looked into, whether or not it exists yet; else `Refused("file.unreadable")`."""
        try:
            os.stat(self.config_file)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise Refused("file.unreadable", f"cannot look into the home {self.path}: {reason}") from error

    def make(self, folder: Path) -> Path:
        """Create a folder of the home, readable by its owner only."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused("file.unreadable", f"cannot create {folder}: {error.strerror}") from error
        return folder

    def config(self) -> dict[str, Any]:
        """What config.toml holds, not yet checked against any option; {} without the file."""
        path = self.config_file
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed("config.malformed", f"{path}: {error}") from error
        import tomllib

        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise Malformed("config.malformed", f"{path}: {reason}") from None

    # keys

    def key_path(self, reference: str) -> Path:
        """The file a KEY argument means: a path that exists, NAME in keys/ (the private file first), or the file in
        keys/ of the key that a `pkcs11:` URI means: person and role stand in files, not on tokens."""
        if is_token_uri(reference):
            return self._token_file(reference)
        candidates = [Path(reference)]
        if os.sep not in reference:
            candidates += [self.keys / f"{reference}{suffix}" for suffix in KEY_SUFFIXES]
        for candidate in candidates:
            try:
                if candidate.is_file():
                    return candidate
            except OSError as error:  # a name too long, a folder that may not be entered
                raise file_error(candidate, error) from None
        raise Malformed("file.missing", f"no key {reference!r}: neither a file nor a name in {self.keys}")

    def _token_file(self, uri: str) -> Path:
        from devguard.custody.keyfile import read_info
        from devguard.custody.tokenkeys import public_on
        from devguard.custody.uri import parse_uri

        key = public_on(parse_uri(uri))
        found = [path for path in self.private_keys() if read_info(path).key == key]
        if len(found) != 1:
            raise Refused(
                "key.token",
                f"{len(found) or 'no'} files in {self.keys} say whose key {key.fingerprint[:16]} on the token is",
                "make one: `devguard key new NAME --person PERSON --role ROLE --pkcs11 URI --existing`",
            )
        return found[0]

    def key_info(self, reference: str) -> KeyInfo:
        """Public half, person and role of a key, private file or public export."""
        from devguard.custody.keyfile import read_info

        return read_info(self.key_path(reference))

    def signer(self, reference: str, passphrase: Callable[[str], bytes], pin: Callable[[str], bytes]) -> FileSigner:
        """The signer of a KEY argument; the passphrase, or the PIN of its token, is asked for by the key's name."""
        from devguard.custody.keyfile import load_signer

        path = self.key_path(reference)
        return load_signer(path, lambda: passphrase(path.stem), lambda: pin(path.stem))

    def private_keys(self) -> list[Path]:
        """All private key files in keys/, in name order."""
        return sorted(self.keys.glob("*.key")) if self.keys.is_dir() else []

    def key_files(self) -> list[Path]:
        """All key files in keys/, private and public, in name order."""
        found = {path for suffix in KEY_SUFFIXES for path in self.keys.glob(f"*{suffix}")} if self.keys.is_dir() else ()
        return sorted(found)

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

    def station_public(self) -> Path:
        """Where the public half of this station's own key stands: its key file, or an export of it."""
        private, public = self.keys / f"{STATION}.key", self.keys / f"{STATION}.pub"
        return public if public.is_file() and not private.is_file() else private

    def station(self) -> FileSigner:
        """This station's own key, made at first use. It has no passphrase: it signs while nobody sits here."""
        from devguard.cose.algorithms import Algorithm
        from devguard.custody.keyfile import create_key, load_signer

        path = self.keys / f"{STATION}.key"
        if not path.exists():
            self.make(self.keys)
            # Looked at again: whoever begins the log at this moment has made the key before the folder.
            if self.evidence_folder.exists() and not path.exists():
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

        Either is compared with what this station remembers, one that was given only where it shares a root key with
        those kept here. Raises `Refused("trust.missing")` without either, `Refused("trust.rollback")` for one older
        than, or of one version with, what was seen here, the codes of the chain, and what `read_trust` raises.
        """
        from devguard.custody.files import read_limited
        from devguard.trust.document import read_trust

        if given is None:
            self._need_trust()
        data = read_limited(given or self.trust_file, TRUST_LIMIT)
        document = read_trust(data)
        self.remembers(document, data, given)
        return document

    def remembers(self, document: TrustDocument, data: bytes, given: Path | None) -> None:
        """Return when nothing this station remembers stands against a document; `given`: where it was given from, None
        for the one kept here. Raises as `trust`."""
        from devguard.cli.memory import check_given, check_trust

        if not self.memory_file.is_file():
            return
        if given is None:
            check_trust(self, document)
        else:
            check_given(self, document, data, given.parent)

    def _need_trust(self) -> None:
        if not self.trust_file.is_file():
            raise Refused("trust.missing", f"no trust document: none was given and {self.trust_file} does not exist")

    def keep_trust(self, data: bytes) -> bool:
        """Keep a trust document as the one in use if none is kept yet; whether it was kept.

        Where this station remembers a trust document, only that one or what follows from it is kept.
        """
        from devguard.cli.memory import check_trust
        from devguard.custody.files import write_atomic
        from devguard.custody.locks import locked
        from devguard.trust.document import read_trust

        if self.trust_file.exists():
            return False
        document = read_trust(data)
        self.make(self.trust_file.parent)
        with locked(self.trust_file):
            if self.trust_file.exists():
                return False
            if self.memory_file.is_file():
                try:
                    check_trust(self, document)
                except Refused:
                    return False
            with self._all_or_none([document.version]):
                self.keep_version(document.version, data)
                write_atomic(self.trust_file, data)
        return True

    def keep_version(self, number: int, data: bytes) -> None:
        """Keep a vouched-for document among the versions that were in use here."""
        from devguard.custody.files import write_atomic

        write_atomic(self.trust_version(number), data)

    def follow_trust(
        self, chain: Iterable[bytes], now: int, before: Callable[[TrustDocument], None] = lambda _newest: None
    ) -> TrustDocument:
        """Follow a chain of documents, oldest first, from the one kept; the newest is in use on return.

        Nothing changes unless the whole chain holds and `before`, called then, returns. Raises as `trust` and
        `devguard.trust.chain.follow`.
        """
        from devguard.custody.files import write_atomic
        from devguard.custody.locks import locked
        from devguard.trust.chain import Walk

        self._need_trust()
        with locked(self.trust_file):
            walk, newer = Walk.start(self.trust(None)), []
            for data in chain:
                reached = walk.step(data)
                if reached.newest is not walk.newest:
                    newer.append((reached.newest.version, data))
                walk = reached
            newest = walk.finish(now)
            before(newest)
            with self._all_or_none(number for number, _ in newer):
                for number, data in newer:
                    self.keep_version(number, data)
                if walk.data is not None:
                    write_atomic(self.trust_file, walk.data)
        return newest

    @contextlib.contextmanager
    def _all_or_none(self, numbers: Iterable[int]) -> Iterator[None]:
        """Versions that were not there before go again when not all that is to be written could be."""
        new = [path for path in map(self.trust_version, numbers) if not path.exists()]
        try:
            yield
        except DevguardError:
            for path in new:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            raise

    def grant_files(self) -> list[Path]:
        """All grants kept, in name order."""
        return sorted(self.grants.glob("*.grant")) if self.grants.is_dir() else []

    # evidence

    def keeps_evidence(self) -> bool:
        """Whether a log was ever begun here."""
        return self.evidence_folder.is_dir() or (self.keys / f"{STATION}.key").is_file()

    def evidence(self) -> EvidenceLog:
        """The evidence log, open for appending; sealed by the station's key."""
        from devguard.evidence.log import EvidenceLog

        station = self.station()
        self.make(self.evidence_folder)
        return EvidenceLog.open(self.evidence_folder, station)
