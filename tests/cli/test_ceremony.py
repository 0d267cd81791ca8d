"""Invariant: a ceremony makes a whole root and a record its keys signed, offline, or nothing at all."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cli_support import Result, World, descriptor, devguard, ok
from devguard.cli import ceremony
from devguard.cli.ceremony_record import check
from devguard.cli.context import Invocation
from devguard.custody import pkcs8
from devguard.custody.keyfile import read_info
from devguard.custody.offline import check_offline, networks_up
from devguard.custody.words import words
from devguard.errors import Refused
from devguard.trust.document import read_trust
from softhsm import PIN, Tokens

SECRETS = ("first secret words", "second secret words", "third secret words")
HEAD = ("y", "Acme Devices", "Wanda Witness")


class Terminal(io.StringIO):
    """Somebody who types answers."""

    def isatty(self) -> bool:
        return True


Answers = Sequence[str]
Lead = Callable[..., Result]


@pytest.fixture
def lead(monkeypatch: pytest.MonkeyPatch, offline: Path) -> Lead:
    """Lead a ceremony with these answers and passphrases."""
    monkeypatch.delenv("DEVGUARD_PASSPHRASE")
    monkeypatch.setattr(pkcs8, "PARALLEL", 1)  # the least a reader takes: these tests make many keys

    def run(folder: Path, answers: Answers, *more: object, secrets: Answers = SECRETS) -> Result:
        monkeypatch.setattr(sys, "stdin", Terminal("\n".join([*answers, ""])))
        fd = descriptor("\n".join([*secrets, ""]))
        try:
            return devguard("key", "ceremony", folder, "--passphrase-fd", fd, *more)
        finally:
            os.close(fd)

    return run


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with loopback and one interface that is down."""
    root = tmp_path / "machine"
    interface(root, "lo", state="unknown", kind="772", flags="0x9")
    interface(root, "eth0", state="down", flags="0x1002")
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/net/route").write_text("Iface\tDestination\tGateway\n")
    (root / "proc/net/if_inet6").write_text("00000000000000000000000000000001 01 80 10 80       lo\n")
    monkeypatch.setattr(ceremony, "SYSTEM", root)
    return root


def interface(root: Path, name: str, *, state: str, kind: str = "1", flags: str = "0x1003") -> None:
    folder = root / "sys/class/net" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("operstate", state), ("type", kind), ("flags", flags)):
        (folder / file).write_text(f"{text}\n")


def officer(name: str, algorithm: str = "Ed25519", where: str = "file") -> list[str]:
    return [name, algorithm, where, "y"]


def two(*, release: Answers = ("",)) -> list[str]:
    """Two officers, both sign; release keys as given; no others."""
    people = [*officer("Rhea Root"), *officer("Rolf Root", "ML-DSA-44")]
    return [*HEAD, "2", "2", *people, *release, "", "", "", "2099-01-01", "y"]


def test_a_root_is_made_and_its_record_checks(tmp_path: Path, lead: Lead, world: World) -> None:
    export = tmp_path / "release.pub"
    ok("key", "export", "release", "--public", "-o", export, "--home", world.home)
    folder = tmp_path / "root"
    result = lead(folder, two(release=[str(export), "y", "1"]))
    assert result.status == 0, result.err
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "1.trust", "ceremony.sig", "ceremony.txt", "current.trust",
        "keys/root-1.key", "keys/root-1.pub", "keys/root-2.key", "keys/root-2.pub",
    ]  # fmt: skip
    document = read_trust((folder / "current.trust").read_bytes())
    assert (document.roles["root"].threshold, document.development) == (2, False)  # type: ignore[index]
    assert [path.name for path in tmp_path.glob(".ceremony-*")] == []
    text = (folder / "ceremony.txt").read_text()
    for path in folder.glob("keys/*.pub"):
        info = read_info(path)
        assert info.key.fingerprint in text
        assert " ".join(words(info.key.thumbprint)[:8]) in text
        assert info.key.fingerprint in result.err
    assert document.digest.hex() in text
    assert "Wanda Witness: ____" in text
    assert "none up of eth0, lo" in text
    assert not any(secret in text + result.out + result.err for secret in SECRETS)
    checked = ok("key", "ceremony", folder, "--check", "--json").json
    assert checked["signed_by"] == ["Rhea Root", "Rolf Root"]
    assert checked["thumbprint"] == document.digest.hex()


def test_a_key_on_a_token_takes_part(tmp_path: Path, lead: Lead, tokens: Tokens) -> None:
    uri = tokens.make("officer")
    people = [*officer("Rhea Root", "ESP384", uri), *officer("Rolf Root")]
    answers = [*HEAD, "2", "2", *people, "", "", "", "", "2099-01-01", "y"]
    result = lead(tmp_path / "root", answers, "--json", secrets=[PIN, "second secret words"])
    assert result.status == 0, result.err
    assert set(result.json["keys"]) == {"root-1", "root-2"}
    assert "token: pkcs11:" in (tmp_path / "root/keys/root-1.key").read_text()
    check(tmp_path / "root")


def test_what_is_stopped_leaves_nothing(tmp_path: Path, lead: Lead) -> None:
    answers = two()
    for end in (0, 1, 4, 7, 8, 11, len(answers) - 1):
        result = lead(tmp_path / "root", answers[:end])
        assert result.status == 130, (end, result)
    for at in (0, 8):  # the clock, the first officer's fingerprint
        assert answers[at] == "y"
        assert lead(tmp_path / "root", [*answers[:at], "n", *answers[at + 1 :]]).status == 130
    refused = [*answers[:12], "n", *answers[13:]]
    assert lead(tmp_path / "root", refused).status == 130
    assert not (tmp_path / "root").exists()
    assert [path.name for path in tmp_path.glob(".ceremony-*")] == []


def test_one_person_is_one_officer(tmp_path: Path, lead: Lead) -> None:
    answers = two()
    at = answers.index("Rolf Root")
    result = lead(tmp_path / "root", [*answers[:at], "RHEA  root", "rhea root", *answers[at:]])
    assert result.status == 0
    assert "each officer is another person" in result.err


def test_careless_thresholds_are_not_offered(tmp_path: Path, lead: Lead) -> None:
    answers = two()
    result = lead(tmp_path / "root", [*HEAD, "1", "0", "2", "1", "3", *answers[4:]])
    assert result.status == 0
    assert read_trust((tmp_path / "root/1.trust").read_bytes()).roles["root"].threshold == 2  # type: ignore[index]


def test_a_network_that_is_up_refuses_unless_it_is_a_drill(tmp_path: Path, lead: Lead, offline: Path) -> None:
    interface(offline, "wlan0", state="up")
    refused = lead(tmp_path / "root", two(), "--json")
    assert (refused.status, refused.code) == (1, "key.network")
    assert "wlan0" in refused.json["error"]["message"]
    assert not (tmp_path / "root").exists()
    assert lead(tmp_path / "root", two(), "--online-drill").status == 0
    assert read_trust((tmp_path / "root/1.trust").read_bytes()).development
    assert all(read_info(path).development for path in (tmp_path / "root/keys").iterdir())
    assert "DRILL" in (tmp_path / "root/ceremony.txt").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("state", "flags", "up"),
    [("up", "0x1003", True), ("unknown", "0x1003", True), ("dormant", "0x1003", True), ("unknown", "0x1002", False),
     ("down", "0x1003", False), ("lowerlayerdown", "0x1003", False), ("unknown", "nonsense", True)],
)  # fmt: skip
def test_interfaces(offline: Path, state: str, flags: str, up: bool) -> None:
    interface(offline, "eth1", state=state, flags=flags)
    assert bool(networks_up(offline)) == up


def test_addresses_and_routes_count_and_silence_refuses(offline: Path) -> None:
    assert check_offline(offline) == ("eth0", "lo")
    inet6, route = offline / "proc/net/if_inet6", offline / "proc/net/route"
    kept = inet6.read_text()
    inet6.write_text(f"{kept}fe800000000000000000000000000001 02 40 20 80     eth0\n")
    assert "IPv6" in networks_up(offline)[0]
    inet6.unlink()
    assert networks_up(offline) == ()
    route.write_text("Iface\tDestination\neth0\t00000000\n")
    assert "route" in networks_up(offline)[0]
    for root in (offline / "proc", offline / "nothing"):
        with pytest.raises(Refused) as caught:
            networks_up(root)
        assert caught.value.code == "key.network"


def test_where_a_ceremony_cannot_be(tmp_path: Path, lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devguard("key", "ceremony", tmp_path / "root").status == 2  # nobody at a terminal
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert lead(tmp_path / "full", two(), "--json").code == "key.exists"
    for variable in ("DEVGUARD_PIN", "DEVGUARD_PASSPHRASE"):
        with monkeypatch.context() as patched:
            patched.setenv(variable, "the same for all")
            assert devguard("key", "ceremony", tmp_path / "root", "--json").code == "key.passphrase"


def test_a_record_that_was_touched_is_refused(tmp_path: Path, lead: Lead) -> None:
    folder, other = tmp_path / "root", tmp_path / "other"
    assert lead(folder, two()).status == 0
    assert lead(other, two()).status == 0
    for name in ("ceremony.txt", "ceremony.sig", "1.trust", "current.trust", "keys/root-1.pub", "keys/root-2.key"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes((other / name).read_bytes())
        refused = devguard("key", "ceremony", folder, "--check", "--json")
        assert (refused.status, refused.code) == (1, "key.record"), name
        (folder / name).write_bytes(kept)
    text = (folder / "ceremony.txt").read_bytes()
    (folder / "ceremony.txt").write_bytes(text.replace(b"Wanda", b"Wendy"))
    assert devguard("key", "ceremony", folder, "--check", "--json").code == "key.record"
    (folder / "ceremony.txt").write_bytes(text)
    signatures = (folder / "ceremony.sig").read_bytes()
    (folder / "ceremony.sig").write_bytes(signatures[:-1] + bytes([signatures[-1] ^ 1]))
    assert devguard("key", "ceremony", folder, "--check", "--json").code == "key.record"
    for name in ("keys/root-1.key", "keys/root-2.key", "current.trust"):  # each officer has taken their own
        (other / name).unlink()
        ok("key", "ceremony", other, "--check")


def test_a_slip_costs_one_answer_and_not_the_ceremony(tmp_path: Path, lead: Lead, tokens: Tokens) -> None:
    uri = tokens.make("officer")
    slips = ["Rhea Root", "ESP384", "file", "ESP384", "pkcs11:token=none", "ESP384", uri, "ESP384", uri, "y"]
    typed = ["too short", "000000", PIN, "second secret words"]  # a PIN nobody's token asks for is not read
    answers = [*HEAD, "2", "2", *slips, *officer("Rolf Root"), "", "", "", "", "2099-01-01", "y"]
    result = lead(tmp_path / "root", answers, secrets=typed)
    assert result.status == 0, result.err
    for told in ("12 bytes or more", "no PKCS#11 module is named", "did not take the PIN"):
        assert result.err.count(told) == 1, told
    assert not any(secret in result.err + result.out for secret in typed)
    assert "pkcs11:" in (tmp_path / "root/keys/root-1.key").read_text()
    check(tmp_path / "root")


def test_a_key_that_stays_on_a_token_is_named_when_the_ceremony_stops(
    tmp_path: Path, lead: Lead, tokens: Tokens
) -> None:
    answers = [*HEAD, "2", "2", *officer("Rhea Root", "ESP384", tokens.make("officer"))]
    result = lead(tmp_path / "root", answers, secrets=[PIN])
    assert result.status == 130
    assert "root-1, on pkcs11:token=officer" in result.err
    assert not (tmp_path / "root").exists()


def test_the_witness_is_no_officer(tmp_path: Path, lead: Lead) -> None:
    answers = two()
    at = answers.index("Rhea Root")
    result = lead(tmp_path / "root", [*answers[:at], "wanda WITNESS", *answers[at:]])
    assert result.status == 0
    assert "none is the witness" in result.err


def test_exports_and_dates_that_cannot_be_are_asked_for_again(tmp_path: Path, lead: Lead, world: World) -> None:
    for name, more in (("bench", ["--development"]), ("other", [])):
        ok("key", "new", name, "--person", "B", "--role", "release", "--out", tmp_path / name, *more, "--passphrase-fd",
           descriptor("some secret words\n"))  # fmt: skip
        ok("key", "export", tmp_path / name, "--public", "-o", tmp_path / f"{name}.pub")
    both = f"{tmp_path}/other.pub,{tmp_path}/other.pub"
    people = [*officer("Rhea Root"), *officer("Rolf Root", "ML-DSA-44")]
    releases = [f"{tmp_path}/none.pub", f"{tmp_path}/bench.pub", both, f"{tmp_path}/other.pub", "y", "1"]
    result = lead(tmp_path / "root", [*HEAD, "2", "2", *people, *releases, "", "", "", "1999-01-01", "2099-01-01", "y"])
    assert result.status == 0, result.err
    for told in ("none.pub", "development key of B", "lists one key twice", "expires before it is issued"):
        assert told in result.err, told
    assert "note: no release could be signed" in result.err
    assert "note: more than two years" in result.err
    assert len(read_trust((tmp_path / "root/1.trust").read_bytes()).roles["release"].keys) == 1  # type: ignore[index]


def test_a_network_that_comes_up_meanwhile_refuses(
    tmp_path: Path, lead: Lead, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = ceremony._compared

    def plugged(what: str, thumbprint: bytes) -> None:
        inner(what, thumbprint)
        interface(offline, "eth0", state="up")

    monkeypatch.setattr(ceremony, "_compared", plugged)
    refused = lead(tmp_path / "root", two(), "--json")
    assert (refused.status, refused.code) == (1, "key.network")
    assert not (tmp_path / "root").exists()


def test_what_would_stand_in_the_way_at_the_end_is_told_at_the_beginning(
    tmp_path: Path, lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert lead(tmp_path / "link", two(), "--json").code == "key.exists"
    with monkeypatch.context() as patched:
        patched.setattr(os.path, "ismount", lambda path: path == tmp_path / "empty")
        assert lead(tmp_path / "empty", two(), "--json").code == "key.exists"
    assert lead(tmp_path / "empty", two()).status == 0


@pytest.mark.parametrize("now", [0, 1_700_000_000, 2**32])
def test_a_clock_that_cannot_be_right_refuses(
    tmp_path: Path, lead: Lead, monkeypatch: pytest.MonkeyPatch, now: int
) -> None:
    monkeypatch.setattr(Invocation, "now", staticmethod(lambda: now))
    assert lead(tmp_path / "root", two(), "--json").code == "trust.not-yet"
    assert not (tmp_path / "root").exists()


def test_the_check_follows_the_versions_after_the_first(tmp_path: Path, lead: Lead) -> None:
    folder = tmp_path / "root"
    assert lead(folder, two()).status == 0
    fd = descriptor("first secret words\nsecond secret words\n")
    keys = [f"--key={folder}/keys/root-{number}.key" for number in (1, 2)]
    ok("trust", "rotate", folder, "--expires", "2099-06-01", *keys, "--passphrase-fd", fd)
    assert (folder / "current.trust").read_bytes() == (folder / "2.trust").read_bytes()
    ok("key", "ceremony", folder, "--check")
    (folder / "2.trust").unlink()
    assert devguard("key", "ceremony", folder, "--check", "--json").code == "key.record"
