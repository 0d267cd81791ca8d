"""What stands behind a port's name, before one byte is written to it.

A device path must be a serial terminal: no file, no pipe, no disk, not the terminal somebody types at. A USB adapter
must be a serial adapter and nothing else: what is also a keyboard, a disk or a hub is refused. None of this proves
anything about who is at the far end; it keeps a port from being something else altogether. Linux shows the interfaces
in sysfs; elsewhere, and for ports that hang on no USB, nothing is asked.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from devguard.errors import LinkError

SERIAL_CLASSES: Final = frozenset({"02", "0a", "ff"})
"""Interface classes of serial adapters: CDC control, CDC data, vendor's own (FTDI, CP210x, PL2303, CH340)."""
_SYSFS: Final = Path("/sys")
_CONSOLES: Final = frozenset({(5, 0), (5, 1), (5, 2)})  # the process's own terminal, the console, the pty multiplexer
_VIRTUAL: Final = 4  # major of the virtual consoles, minors below 64, and of the first serial ports, from 64 on
_FIRST_SERIAL: Final = 64
_STANDARD: Final = (0, 1, 2)
_HINT: Final = "name the port of the device: `devguard device list`"


def check_terminal(path: str) -> None:
    """Return when `path` may be a serial port; `LinkError("link.port")` for anything else. OSError when it is not
    there."""
    found = os.stat(path)
    if not stat.S_ISCHR(found.st_mode):
        raise LinkError("link.port", f"{path} is not a serial port", _HINT)
    number = (os.major(found.st_rdev), os.minor(found.st_rdev))
    console = number in _CONSOLES or (number[0] == _VIRTUAL and number[1] < _FIRST_SERIAL)
    if console or found.st_rdev in _typed_at():
        raise LinkError("link.port", f"{path} is a terminal that people type at, not a serial port", _HINT)


def _typed_at() -> set[int]:
    """The terminals of this process's standard streams."""
    return {os.fstat(number).st_rdev for number in _STANDARD if os.isatty(number)}


def check_adapter(path: str, sysfs: Path = _SYSFS) -> None:
    """Return when the port is no USB adapter, or one that is a serial adapter and nothing else.

    `LinkError("link.port")` names the class of an interface that a serial adapter has no use for.
    """
    place = sysfs / "class" / "tty" / Path(os.path.realpath(path)).name / "device"
    try:
        here = place.resolve(strict=True)
    except OSError:
        return
    device = next((one for one in here.parents if (one / "bDeviceClass").is_file()), None)
    if device is None:
        return
    for interface in sorted(device.glob("*:*/bInterfaceClass")):
        try:
            found = interface.read_text(encoding="ascii", errors="replace").strip().lower()
        except OSError:
            continue  # pulled out in this moment; opening it will fail
        if found not in SERIAL_CLASSES:
            raise LinkError(
                "link.port",
                f"the adapter of {path} is more than a serial adapter: it also has an interface of USB class {found}",
                "pull it out, and use a plain serial adapter of your own",
            )
