"""Names: whatever a repository calls its roles and files, nothing but a shelf's own forms becomes a path.

Invariants: a path that `check_path` accepts lies inside any root it is joined to, on POSIX and on Windows, and names
no device; a repository with a hostile name in it is refused, and neither asked for that name nor written to disk by it.
"""

from __future__ import annotations

import itertools
import posixpath
import re
import time
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import DelegatedRole, MetaFile, TargetFile, Targets

from devguard.errors import DevguardError, Malformed, Refused
from devguard.shelf.carry import carry
from devguard.shelf.freshness import TOP, moment
from devguard.shelf.names import BINS, bin_digit, bin_role, check_line, check_path, line_of, probe, release_target
from shelf_support import DAY, PUMP, TufRepository, bench, repo, state

__all__ = ["repo"]

DIGEST = "0123456789abcdef" * 4
HOSTILE = (
    "/etc/passwd", "//server/share", "..", "../../etc/passwd", "a/../../b", "insulin-pump/../x", ".", "", " ",
    "nul\0", "insulin-pump\0", "a\\b", "..\\..\\x", "C:", "c:\\windows", "\\\\?\\c:\\x", "insulin-pump:stream",
    "con", "nul", "com1", "lpt9.x", "aux.json", "Insulin-Pump", "insulin-pump.", "insulin-pump ", "-pump", "~",
    "pump~g", "pump~10", "pump~\uff10", "a" * 65, "a" * 70_000, "insulin\u2010pump", "\uff49nsulin-pump",
    "in\u00adsulin", "pump\u202egnp", "\ud800", "\u2024\u2024/x", "..%2f..%2fx", "%2e%2e", "%00", "insulin%2dpump",
    "..%c0%af", "pump\n", "pump\r\nX: y", "root", "timestamp", "snapshot", "targets", "trust", "root~0", "*", "?",
    "<x>", "|", "'; drop", "$HOME",
)  # fmt: skip
DEVICES = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\..*)?", re.IGNORECASE)
LINE = st.from_regex(r"[a-z0-9._~/\\%:-]{1,12}", fullmatch=True) | st.sampled_from([PUMP, "a..b", "x.y", *HOSTILE[:40]])
VERSION = st.sampled_from(["1.0.0", "1.0.0-rc.1", "1.0.0+b-7", "1.0", "..", "1.0.0/../..", "01.0.0", "1.0.0\\x", "%2e"])


def is_inside(path: str) -> None:
    """The law of an accepted path."""
    plain = path.encode("ascii").decode()
    assert plain.isprintable()
    assert len(path) <= 400
    root = PurePosixPath("/shelf")
    assert posixpath.normpath(root / path) == f"/shelf/{path}"  # nothing to resolve, nothing doubled
    windows = PureWindowsPath("c:/shelf") / path
    assert windows.parts[:2] == ("c:\\", "shelf")
    assert list(windows.parts[2:]) == path.split("/")
    for part in path.split("/"):
        assert part not in ("", ".", "..")
        assert not set(part) & set('\\:*?"<>|%')
        assert not part.endswith((".", " "))
        assert not part.startswith((".", " "))
        assert not DEVICES.fullmatch(part)
        assert len(part) <= 255


def accepted(path: str) -> bool:
    try:
        given = check_path(path)
    except (Refused, Malformed):
        return False
    assert given == path
    is_inside(path)
    return True


@given(st.text(max_size=60))
@example("metadata/../../root.json")
@example("metadata/1.root.json\n")
@example("metadata//root.json")
@example("metadata/\u0661.root.json")
@example(f"targets/{DIGEST}.1.trust")
@example(f"targets/../{DIGEST}.1.0.0.suit")
@example(f"targets/a/b/{DIGEST}.1.0.0.suit")
def test_any_text(path: str) -> None:
    accepted(path)


@given(LINE, VERSION, st.sampled_from(["metadata", "targets", "Metadata", "", "/metadata", "metadata/..", "targets/."]))
def test_text_that_is_nearly_right(line: str, version: str, folder: str) -> None:
    for path in (
        f"{folder}/1.{line}.json",
        f"{folder}/{line}.json",
        f"{folder}/1.{line}~0.json",
        f"{folder}/{line}/{DIGEST}.{version}.suit",
        f"{folder}/{DIGEST}/{line}.{version}.suit",
        f"{folder}/trust/{DIGEST}.{line}.trust",
        f"{folder}/trust/{DIGEST}.1.trust/{line}",
    ):
        accepted(path)


@given(st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", fullmatch=True), st.sampled_from(BINS))
def test_every_line_that_is_taken_makes_paths_that_are_inside(model: str, digit: str) -> None:
    try:
        check_line(model)
    except Refused:
        return
    assert accepted(f"metadata/7.{model}.json")
    assert accepted(f"metadata/7.{bin_role(model, digit)}.json")
    assert line_of(bin_role(model, digit)) == (model, digit)
    target = release_target(model, "1.0.0-rc.1+b7")
    assert accepted(f"targets/{model}/{DIGEST}.{target.partition('/')[2]}")
    is_inside(target)
    assert bin_digit(probe(model, digit)) == digit


OWN = (
    *(f"metadata/{role}.json" for role in TOP),
    f"metadata/4.{PUMP}~a.json",
    f"targets/{PUMP}/{DIGEST}.1.0.0-rc.1+b7.suit",
    f"targets/trust/{DIGEST}.12.trust",
)


@pytest.mark.parametrize("path", OWN)
def test_a_shelfs_own_paths(path: str) -> None:
    assert accepted(path)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_name_is_taken_anywhere(name: str) -> None:
    forms = "{0}", "metadata/{0}", "targets/{0}", "metadata/{0}~0.json", "targets/{1}/{0}", "targets/{1}/{2}.{0}"
    more = "targets/{0}/{2}.1.0.0.suit", "targets/trust/{2}.{0}", "targets/trust/{2}.{0}.trust"
    roles = () if name in TOP else ("metadata/{0}.json", "metadata/1.{0}.json")
    for form in (*forms, *more, *roles):
        assert not accepted(form.format(name, PUMP, DIGEST))


@pytest.mark.parametrize("name", ["1.root", "2.snapshot", "3.pump", "0.x"])
def test_no_line_is_called_like_a_version_of_something_else(name: str) -> None:
    with pytest.raises(Refused):
        check_line(name)


def as_role(repo: TufRepository, name: str) -> None:
    """The targets key delegates to it, and the snapshot lists it."""
    delegations = repo.signed["targets"].delegations
    key = repo.keys[PUMP][0].key.fingerprint
    delegations.roles[name] = DelegatedRole(name, [key], 1, True, [f"{name}/*"])
    repo.signed[name] = Targets(expires=moment(repo.now + DAY))
    repo.keys[name] = repo.keys[PUMP]
    repo.signed["targets"].version += 1


def as_listed(repo: TufRepository, name: str) -> None:
    """The online key alone: the snapshot lists it, nobody delegates to it."""
    repo.signed["snapshot"].meta[f"{name}.json"] = MetaFile(1)


def as_target(repo: TufRepository, name: str) -> None:
    role = bin_role(PUMP, bin_digit(name))
    repo.signed[role].targets[name] = TargetFile.from_data(name, b"x", ["sha256"])
    repo.signed[role].version += 1


def as_trust(repo: TufRepository, name: str) -> None:
    repo.signed["targets"].targets[name] = TargetFile.from_data(name, b"x", ["sha256"])
    repo.signed["targets"].version += 1


PLACES = {"role": as_role, "listed": as_listed, "target": as_target, "trust": as_trust}
SAMPLE = ("/etc/passwd", "../../../x", "..", "con", "..\\x", "insulin-pump/../../x", "a\0b", "%2e%2e%2fx", "\u2025/x")


def attacked(repo: TufRepository, folder: Path, place: str, name: str) -> None:
    shelf = bench(folder / "home", repo)
    (folder / "stick").mkdir()
    before = state(folder)
    PLACES[place](repo, name)
    repo.publish()
    repo.asked.clear()
    with pytest.raises(DevguardError) as caught:
        carry(shelf, repo, folder / "stick" / "shelf", int(time.time()))
    assert caught.value.code in ("shelf.name", "shelf.malformed")
    assert state(folder) == before
    assert all(accepted(path) for path in repo.asked)


@pytest.mark.parametrize(("name", "place"), [*zip(SAMPLE, itertools.cycle(PLACES), strict=False)])
def test_a_repository_with_a_hostile_name_is_refused(
    place: str, name: str, repo: TufRepository, tmp_path: Path
) -> None:
    attacked(repo, tmp_path, place, name)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=12).map(lambda text: f"{text}/../x"), place=st.sampled_from([*PLACES]))
def test_a_repository_with_any_name_that_climbs_is_refused(
    name: str, place: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("names")
    repo = TufRepository()
    repo.line(PUMP)
    repo.publish()
    attacked(repo, folder, place, name)


@pytest.mark.parametrize("name", SAMPLE[1:4])
def test_a_shelf_without_product_lines_smuggles_no_name_onto_a_stick(name: str, tmp_path: Path) -> None:
    """No line, so no line's rules: what the snapshot lists is still checked before it is a path."""
    repo = TufRepository()
    (tmp_path / "x.json").write_bytes(b"a secret of the bench")
    attacked(repo, tmp_path, "listed", name)


HASHES = (
    {"sha256": "../../../../climbed/x"},
    {"sha256": "/climbed/x"},
    {"sha256": "0" * 63},
    {"sha256": "A" * 64},
    {"sha256": "0" * 64 + "/../../../../climbed/x"},
    {"sha512": "0" * 128},
)


@pytest.mark.parametrize(
    ("hashes", "target"), [*((one, f"{PUMP}/9.9.9.suit") for one in HASHES), (HASHES[0], "trust/1.trust")]
)
def test_a_hash_is_no_path_either(hashes: dict[str, str], target: str, repo: TufRepository, tmp_path: Path) -> None:
    """A file on a stick is called by its hash; that too is what a repository says."""
    shelf = bench(tmp_path / "home", repo)
    shelf.refresh(repo, int(time.time()))
    role = "targets" if target.startswith("trust/") else bin_role(PUMP, bin_digit(target))
    repo.signed[role].targets[target] = TargetFile(1, hashes, target)
    repo.signed[role].version += 1
    repo.publish()
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    before = {str(path) for path in tmp_path.rglob("*")}
    with pytest.raises(DevguardError) as caught:
        carry(shelf, repo, tmp_path / "a" / "b" / "c" / "stick", int(time.time()))
    assert caught.value.code in ("shelf.malformed", "trust.rollback", "image.digest", "shelf.unreachable")
    assert {str(path) for path in tmp_path.rglob("*")} == before


def test_a_kept_document_that_is_listed_by_another_hash_alone(repo: TufRepository, tmp_path: Path) -> None:
    """Nothing has to be fetched, so nothing else would notice that there is no name for it on a stick."""
    shelf = bench(tmp_path / "home", repo)
    shelf.refresh(repo, int(time.time()))
    data = repo.files[next(path for path in repo.files if path.startswith("targets/trust/"))]
    repo.signed["targets"].targets["trust/1.trust"] = TargetFile.from_data("trust/1.trust", data, ["sha512"])
    repo.signed["targets"].version += 1
    repo.publish()
    with pytest.raises(DevguardError) as caught:
        carry(shelf, repo, tmp_path / "stick", int(time.time()))
    assert caught.value.code == "shelf.malformed"
