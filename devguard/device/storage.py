"""A device's state directory: flash, counters, therapy and identity as files that survive a kill at any moment.

    flash.bin      the flash, every byte inverted, so that a hole of a sparse file reads as erased
    wear.bin       erase cycles of each sector, 4 bytes big endian      weak.cbor  bits that a power cut left half way
    counters.cbor  identity.cbor  protected.cbor  format, content, SHA-256; replaced whole
    settings.cbor  therapy.cbor    under a MAC with the key in protected.cbor (`therapy_files`); replaced whole
    device-N.key   private keys, 0600      current.trust   the trust document as received      lock
    erasure.cbor   of a device that is decommissioned, or about to be (`erase`)

`identity.cbor` is written last: a device is provisioned when it stands. A file that is damaged, or missing on a
provisioned device, is `Refused("device.state")`, never a fresh start: that would forget every counter; where it is the
therapy's, the device gives its safe one. One process at a time holds the directory (`Refused("device.busy")`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from devguard import wire
from devguard.custody.files import file_error, write_atomic
from devguard.device import fields
from devguard.device.cells import Cells
from devguard.device.counters import Counters, CounterStore, check_no_regression
from devguard.device.counters_codec import decode_counters, encode_counters
from devguard.device.erase import IDENTITY, MARKER, Erasing, Sign, shred
from devguard.device.flash import Fault, FlashGeometry, FlashMemory
from devguard.device.keys import from_pem
from devguard.device.models import Model
from devguard.device.stored import read_file, unwrap, wrap
from devguard.device.therapy import Plan, Therapy, new_therapy
from devguard.device.therapy_files import TherapyFiles
from devguard.errors import DevguardError, LocalProtocolError, Refused
from devguard.session.erasure import sign_erasure

MAX_FILE: Final = 1 << 20
MAX_KEYS: Final = 4
_COUNT: Final = 4
_MAX_WEAK: Final = 1 << 26  # one mask as large as its sector for each sector, at worst
_FORMAT: Final = 1
_INVERT: Final = bytes(255 - value for value in range(256))


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One device key: its private key in PEM, and the credential the device authority signed for it."""

    pem: bytes
    credential: bytes


@dataclass(frozen=True, slots=True)
class StoredIdentity:
    """Who the device is. The first key is the one it prefers."""

    model: str
    revision: str
    serial: str
    site: str | None
    keys: tuple[StoredKey, ...]


class FileBackend:
    """Flash bytes in one file, read and written in place; a new file is erased flash (zeros where not `inverted`).

    `Refused("device.state")` for a file of another size, `file.unreadable` when the system fails.
    """

    def __init__(self, path: Path, size: int, *, inverted: bool = True) -> None:
        self._path = path
        self._size = size
        self._table = _INVERT if inverted else None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            found = os.fstat(self._file).st_size
            if found == 0:
                os.ftruncate(self._file, size)
        except OSError as error:
            raise file_error(path, error) from None
        if found not in (0, size):
            os.close(self._file)
            raise Refused("device.state", f"{path} has {found} bytes, the model's flash {size}")

    @property
    def size(self) -> int:
        """Bytes of flash."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`."""
        try:
            data = os.pread(self._file, length, offset)
        except OSError as error:
            raise file_error(self._path, error) from None
        if len(data) != length:
            raise Refused("device.state", f"{self._path} ends early")
        return data if self._table is None else data.translate(self._table)

    def write(self, offset: int, data: bytes) -> None:
        """Puts `data` at `offset`."""
        view = memoryview(data if self._table is None else data.translate(self._table))
        try:
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise file_error(self._path, error) from None

    def sync(self) -> None:
        """Makes earlier writes survive the host's own power cut."""
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise file_error(self._path, error) from None

    def close(self) -> None:
        """Gives the file back."""
        os.close(self._file)


class FileCells(Cells):
    """Cells whose wear is kept in one file, in place, and whose weak bits in another. A directory of an earlier
    devguard has neither: its flash counts as new. `Refused("device.state")` for a file of another size."""

    def __init__(self, folder: Path, geometry: FlashGeometry) -> None:
        self._weak_path = folder / "weak.cbor"
        sectors = geometry.size // geometry.sector_size
        self._file = FileBackend(folder / "wear.bin", _COUNT * sectors, inverted=False)
        counts = self._file.read(0, _COUNT * sectors)
        wear = [int.from_bytes(counts[at : at + _COUNT], "big") for at in range(0, len(counts), _COUNT)]
        super().__init__(sectors, geometry.sector_size, erase_cycles=geometry.erase_cycles, wear=wear)
        self.weak = self._read_weak(sectors) if self._weak_path.exists() else {}

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()

    def _worn(self, sector: int) -> None:
        self._file.write(_COUNT * sector, min(self.wear[sector], (1 << 8 * _COUNT) - 1).to_bytes(_COUNT, "big"))

    def _weakened(self) -> None:
        write_atomic(self._weak_path, wrap(wire.encode(self.weak)), 0o600)

    def _read_weak(self, sectors: int) -> dict[int, bytes]:
        value = fields.load(unwrap(read_file(self._weak_path, _MAX_WEAK), "cells", _MAX_WEAK), "cells")
        if not isinstance(value, dict):
            raise fields.damaged("cells")
        return {
            fields.uint(sector, "cells", sectors - 1): fields.blob(mask, "cells", self.sector_size)
            for sector, mask in value.items()
        }


class FileCounterStore:
    """Counters in one file, replaced whole. The file is read once; only this process writes it."""

    def __init__(self, path: Path, counters: Counters) -> None:
        self._path = path
        self._counters = counters

    def load(self) -> Counters:
        """The counters as last saved."""
        return self._counters

    def save(self, counters: Counters) -> None:
        """Replaces them; `LocalProtocolError` when one would go back."""
        check_no_regression(self._counters, counters)
        write_atomic(self._path, wrap(encode_counters(counters)), 0o600)
        self._counters = counters


class DeviceDirectory:
    """An open state directory, locked until `close`. Use as a context manager."""

    def __init__(self, path: Path, model: Model) -> None:
        self.path = path
        self.model = model
        self._backend: FileBackend | None = None
        self._cells: FileCells | None = None
        self._lock = _lock(path)
        try:
            self._sweep()
            self.erasing = Erasing(path)
            self._end_erasure()
            self.identity = self._read_identity()
            if self.identity is not None and self.identity.model != model.name:
                raise Refused("device.state", f"{path} is the state of a {self.identity.model}, not a {model.name}")
            self._therapy = TherapyFiles(path, model)
            self.counters: CounterStore = FileCounterStore(path / "counters.cbor", self._read_counters())
            self._cells = FileCells(path, model.layout.flash)
            self._backend = FileBackend(path / "flash.bin", model.layout.flash.size)
        except DevguardError:
            self.close()
            raise

    def __enter__(self) -> DeviceDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the flash files and the lock back."""
        if self._cells is not None:
            self._cells.close()
            self._cells = None
        if self._backend is not None:
            self._backend.close()
            self._backend = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def flash(self, fault: Fault | None = None) -> FlashMemory:
        """The device's flash, as after a reset."""
        if self._backend is None:
            raise LocalProtocolError("device.state", "the state directory is closed")
        return FlashMemory(self.model.layout.flash, self._backend, fault, self.cells)

    @property
    def cells(self) -> Cells:
        """What has become of the flash's cells; a fault that is set here lasts until the directory is closed."""
        if self._cells is None:
            raise LocalProtocolError("device.state", "the state directory is closed")
        return self._cells

    def provision(self, identity: StoredIdentity, trust: bytes, counters: Counters | None = None) -> None:
        """Gives a device its identity once; `Refused("device.provisioned")` the second time.

        `counters`: what it counts from (None: as they are). The factory alone may set one back.
        """
        if self.identity is not None:
            raise Refused("device.provisioned", f"{self.path} belongs to device {self.identity.serial}")
        if identity.model != self.model.name or not 1 <= len(identity.keys) <= MAX_KEYS:
            raise LocalProtocolError("device.state", "identity of another model, or without a key")
        first = counters or self.counters.load()
        write_atomic(self.path / "counters.cbor", wrap(encode_counters(first)), 0o600)
        self._therapy.create(new_therapy(self.model))
        for number, key in enumerate(identity.keys):
            write_atomic(self._key_path(number), key.pem, 0o600)
        self.save_trust(trust)
        parts = [identity.model, identity.revision, identity.serial, identity.site]
        content = wire.encode([*parts, [key.credential for key in identity.keys]])
        write_atomic(self.path / IDENTITY, wrap(content), 0o600)
        self.counters = FileCounterStore(self.path / "counters.cbor", first)
        self.identity = identity
        self.erasing.forget()

    def decommission(self, content: bytes, sign: Sign) -> bytes:
        """Erases what makes the device somebody's, durably; the certificate, which says `content`."""
        if self.identity is None:
            raise Refused("device.unprovisioned", f"{self.path} holds no provisioned device")
        self.erasing.begin(content)
        with self._therapy.retired():
            certificate = self.erasing.finish(sign)
            self.identity = None
        return certificate

    def trust(self) -> bytes:
        """The trust document as received; `Refused("device.unprovisioned")` before there is one."""
        if self.identity is None:
            raise Refused("device.unprovisioned", f"{self.path} holds no provisioned device")
        return read_file(self.path / "current.trust")

    def save_trust(self, trust: bytes) -> None:
        """Replaces the trust document; whoever calls has judged the new one."""
        write_atomic(self.path / "current.trust", trust, 0o600)

    def load_therapy(self) -> Therapy:
        """The stored therapy, the safe one where what is stored is not proven; before enrolment, the factory's."""
        return new_therapy(self.model) if self.identity is None else self._therapy.load()

    def save_therapy(self, therapy: Therapy) -> Therapy | None:
        """Replaces the stored course of the therapy; its settings stay as they are stored. See `TherapyFiles.save`."""
        return self._therapy.save(therapy)

    def enter_settings(self, therapy: Therapy, plan: Plan) -> Therapy:
        """The device's own keys: settings made anew, stored and in force. No conversation calls it."""
        return self._therapy.enter(therapy, plan)

    def _read_counters(self) -> Counters:
        path = self.path / "counters.cbor"
        if self.identity is None and not path.exists():
            return Counters()
        return decode_counters(unwrap(read_file(path), "counters"))

    def _read_identity(self) -> StoredIdentity | None:
        path = self.path / IDENTITY
        if not path.exists():
            return None
        parts = fields.items(fields.load(unwrap(read_file(path), "identity"), "identity"), "identity", count=5)
        credentials = fields.items(parts[4], "identity", limit=MAX_KEYS)
        keys = tuple(
            StoredKey(self._read_key(number), fields.blob(credential, "identity"))
            for number, credential in enumerate(credentials)
        )
        if not keys:
            raise fields.damaged("identity")
        model, revision, serial = (fields.text(part, "identity") for part in parts[:3])
        site = None if parts[3] is None else fields.text(parts[3], "identity")
        return StoredIdentity(model, revision, serial, site, keys)

    def _read_key(self, number: int) -> bytes:
        path = self._key_path(number)
        pem = read_file(path)
        if path.stat().st_mode & 0o077:
            raise Refused("key.file", f"{path} can be read by others")
        return pem

    def _key_path(self, number: int) -> Path:
        return self.path / f"device-{number}.key"

    def _end_erasure(self) -> None:
        """An erasure that the power cut off is ended before anything else is looked at."""
        if self.erasing.begun and not self.erasing.unfinished and (self.path / IDENTITY).exists():
            self.erasing.forget()  # enrolled anew, and cut off before the old certificate went
        elif self.erasing.unfinished:
            self.erasing.finish(lambda content: sign_erasure(content, from_pem(self._read_key(0))))

    def _sweep(self) -> None:
        """Removes what a killed process left half written; the lock says that nobody is writing now."""
        for leftover in self.path.glob(".devguard-*.part"):
            with contextlib.suppress(OSError):
                leftover.unlink()
        if not (self.path / IDENTITY).exists() and not (self.path / MARKER).exists():
            for key in self.path.glob("device-*.key"):
                shred(key)  # of an enrolment that was cut off: nobody's, and never will be


def read_stored(path: Path, model: Model) -> tuple[Counters, Therapy]:
    """Counters and therapy of a provisioned device as they stand on disk, without its lock: for looking only."""
    counters = decode_counters(unwrap(read_file(path / "counters.cbor"), "counters"))
    return counters, TherapyFiles(path, model).load()


def _lock(path: Path) -> int | None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise file_error(path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        hint = "stop the other emulator or name another state directory"
        raise Refused("device.busy", f"{path} is in use by another process", hint) from None
    return descriptor
