"""The attack bench as a pytest plugin, for vendors who run it against their own emulators or boards.

    pytest --devguard-device=insulin-pump                       every row, on the model's emulated device
    pytest --devguard-device=/dev/pts/7 --devguard-model=insulin-pump --devguard-home=DIR
                                                                on an emulator of one's own; the first run makes DIR
    pytest --devguard-device=/dev/ttyUSB0 --devguard-serial=SN-1 ...
                                                                on a board, whose serial number has to be typed

Each row is a test item beside the tests that are there; `-k A01` picks one. A row that is not applicable, or out of
reach with that device, is skipped with its reason. The fixture `devguard_scene` is for rows of one's own. Nothing is
loaded before the option is given.
"""

from __future__ import annotations

import os
import pkgutil
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from devguard.bench.attacks.host import Host
    from devguard.bench.attacks.row import Result, Row
    from devguard.bench.attacks.scene import Scene
    from devguard.bench.attacks.world import World

HOST: Final = "devguard.cli.in_process:CommandLine"  # it lives in a later room: named here, never imported
_PSEUDO: Final = "/dev/pts/"
_WORLD: Final = pytest.StashKey["World"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's options."""
    group = parser.getgroup("devguard", "the attack bench of devguard")
    group.addoption("--devguard-device", metavar="PORT|MODEL", help="Attack this device: a model's name, or a port.")
    group.addoption("--devguard-model", metavar="MODEL", help="The model of the device on the port.")
    group.addoption("--devguard-serial", metavar="SERIAL", help="Its serial number; a board's has to be typed.")
    group.addoption("--devguard-home", metavar="DIR", help="The throw-away vendor the device was enrolled by.")
    group.addoption("--devguard-baud", type=int, default=115_200, help="Speed of a real port (default: 115200).")
    group.addoption("--devguard-full", action="store_true", help="Counts in the thousands; takes long.")


class AttackSucceeded(Exception):
    """A row was broken."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.why)
        self.result = result


class AttackItem(pytest.Item):
    """One row of the catalogue."""

    def __init__(self, *, row: type[Row], **more: Any) -> None:
        super().__init__(**more)
        self.row = row
        self.add_marker("devguard_attack")

    def runtest(self) -> None:
        """Play it; a row that cannot apply is skipped."""
        from devguard.bench.attacks.row import Status
        from devguard.bench.attacks.run import play_row, why_absent

        why = why_absent(self.row)
        if why is not None:
            pytest.skip(why)
        result = play_row(self.row, world_of(self.config), full=bool(self.config.getoption("devguard_full")))
        self.user_properties.append(("devguard", result.as_dict()))
        if result.status is Status.NOT_APPLICABLE:
            pytest.skip(result.why)
        if result.status is Status.BROKEN:
            raise AttackSucceeded(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What was tried, and what broke."""
        if not isinstance(excinfo.value, AttackSucceeded):
            return super().repr_failure(excinfo, style)
        tried = "\n".join(f"  {one}" for one in excinfo.value.result.attempts)
        return f"{self.row.id} {self.row.title}\n{tried}\nbroken: {excinfo.value.result.why}"

    def reportinfo(self) -> tuple[Path, None, str]:
        """How the row is called in reports."""
        return self.path, None, f"{self.row.id} {self.row.title}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the rows behind what was collected; `-k` and `-m` choose among them as among all."""
    if not config.getoption("devguard_device"):
        return
    from devguard.bench.attacks.registry import ROWS

    items += [AttackItem.from_parent(session, name=row.id, row=row) for row in ROWS]


def pytest_configure(config: pytest.Config) -> None:
    """The plugin's marker, and the options that contradict each other."""
    config.addinivalue_line("markers", "devguard_attack: a row of devguard's attack catalogue")
    if config.getoption("devguard_device"):
        _check_options(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Clear the bench."""
    world = config.stash.get(_WORLD, None)
    if world is not None:
        world.close()


@pytest.fixture
def devguard_scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene with the device as rows find it, for rows of one's own; what its oracles found broken fails the test."""
    from devguard.bench.attacks.scene import Scene

    if not request.config.getoption("devguard_device"):
        pytest.skip("no --devguard-device")
    world = world_of(request.config)
    scene = Scene(world, *world.begin(request.node.name.replace("/", "_")))
    yield scene
    scene.end()
    if scene.broken:
        pytest.fail("; ".join(scene.broken), pytrace=False)


def world_of(config: pytest.Config) -> World:
    """The world of this run, made when the first row asks for it."""
    if _WORLD not in config.stash:
        config.stash[_WORLD] = _make(config)
    return config.stash[_WORLD]


def _check_options(config: pytest.Config) -> None:
    device, model = config.getoption("devguard_device"), config.getoption("devguard_model")
    if "/" not in device:
        from devguard.device.models import model_names

        if device not in model_names():
            raise pytest.UsageError(
                f"--devguard-device: {device} is neither a port nor one of {', '.join(model_names())}"
            )
        return
    if model is None or config.getoption("devguard_home") is None:
        raise pytest.UsageError("a device on a port needs --devguard-model and --devguard-home")
    if not device.startswith(_PSEUDO) and not config.getoption("devguard_serial"):
        raise pytest.UsageError(f"{device} may be a board: type its serial number with --devguard-serial")


def _make(config: pytest.Config) -> World:
    from devguard.bench.attacks.world import World
    from devguard.errors import DevguardError

    device, host = str(config.getoption("devguard_device")), _host()
    folder = Path(tempfile.mkdtemp(prefix="devguard-attacks-"))
    try:
        if "/" not in device:
            return World.make(device, host, folder)
        return _outside(config, device, host, folder)
    except DevguardError as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.exit(f"{error.code}: {error.message} ({error.hint})", returncode=4)


def _host() -> Host:
    host: Host = pkgutil.resolve_name(HOST)()
    return host


def _outside(config: pytest.Config, port: str, host: Host, folder: Path) -> World:
    """The world of a device that is not ours; without its vendor that one is made, and the run ends with what to do."""
    from devguard.bench.attacks.outside import OutsideWorld, lend, proven_serial

    model, home = config.getoption("devguard_model"), Path(config.getoption("devguard_home"))
    passphrase = os.environ.get("DEVGUARD_PASSPHRASE")
    if not passphrase:
        pytest.exit("set DEVGUARD_PASSPHRASE: the throw-away vendor's keys are under it", returncode=4)
    if not home.exists():
        lend(model, host, home, passphrase)
        pytest.exit(
            f"made the throw-away vendor in {home}. Enrol the device with {home / 'current.trust'} and the device "
            f"authority {home / 'vendor' / 'keys' / 'factory.key'}, then run this again. Never a device that a patient "
            "depends on: this bench pushes what it made itself.",
            returncode=4,
        )
    baud, typed = config.getoption("devguard_baud"), config.getoption("devguard_serial")
    serial = proven_serial(port, baud, home)
    if typed is not None and serial != typed:
        pytest.exit(f"the device on {port} proves serial {serial}, not {typed}: nothing was attacked", returncode=4)
    return OutsideWorld.reach(model, port, serial, host, home, passphrase, folder, baud=baud)
