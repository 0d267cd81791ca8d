"""Notices of incidents: sent once the record is durable, signed, without people's words; receivers that misbehave."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli_support import World, devguard, ok, records
from devguard.cli import notice_ways, notices

SECRET = "sixteen characters and more"
NEW = ("evidence", "incident", "new", "--title", "Mrs. Miller in bed 4", "--device", "IP-9")
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice_ways, "SECONDS", 0.6)
    monkeypatch.setattr(notices, "_AT_END", 1.5)


@pytest.fixture
def home(world: World, tmp_path: Path) -> Path:
    return world.copy(tmp_path / "bench")


@dataclass(slots=True)
class Receiver:
    """A server on loopback. answer: what it does with a connection once it has read a request."""

    answer: Callable[[Any], None] = lambda connection: connection.sendall(OK)
    context: ssl.SSLContext | None = None
    got: list[bytes] = field(default_factory=list)
    port: int = 0

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection:
                connection.settimeout(5)
                self.got.append(_request(connection))
                self.answer(connection)
        except OSError:
            return


def _request(connection: socket.socket) -> bytes:
    said = b""
    while b"\r\n\r\n" not in said:
        said += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = said.partition(b"\r\n\r\n")
    length = int(next((line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), b"x: 0").split()[1])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one.port = listening.getsockname()[1]
        threading.Thread(target=one.serve, args=(listening,), daemon=True).start()
        yield one


def configure(home: Path, **said: str) -> None:
    secret = home / "secret"
    secret.write_text(SECRET + "\n")
    given = {"secret": str(secret), **said}
    home.joinpath("config.toml").write_text(
        "[incidents]\n" + "\n".join(f"{name} = {json.dumps(text)}" for name, text in given.items())
    )


def waiting(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "outbox").glob("*")) if (home / "outbox").is_dir() else []


# what goes well


@pytest.mark.parametrize("form", ["ocsf", "jsonl", "cef"])
def test_a_notice_is_signed_and_without_peoples_words(home: Path, receiver: Receiver, form: str) -> None:
    configure(home, webhook=f"http://127.0.0.1:{receiver.port}/hook?x=1", format=form)
    made = ok(*NEW, "--home", home, "--json").json
    (request,) = receiver.got
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:])
    assert lines[0] == "POST /hook?x=1 HTTP/1.1"
    said = f"{fields['Devguard-Time']}.{fields['Devguard-Delivery']}.".encode() + body
    assert fields["Devguard-Signature"] == "sha256=" + hmac.new(SECRET.encode(), said, hashlib.sha256).hexdigest()
    assert b"Miller" not in body
    assert made["id"].encode() in body
    assert b"IP-9" in body
    assert waiting(home) == []
    if form != "cef":
        assert isinstance(json.loads(body), dict)


def test_a_rules_incident_is_told_too(world: World, home: Path, receiver: Receiver, tmp_path: Path) -> None:
    configure(home, webhook=f"http://localhost:{receiver.port}/")
    bad = tmp_path / "bad of Mrs Miller.suit"
    bad.write_bytes(world.suits["1.0.0"].read_bytes()[:-1] + b"\x00")
    for _ in range(5):
        assert devguard("verify", bad, "--home", home).status == 1
    (request,) = receiver.got
    event = json.loads(request.partition(b"\r\n\r\n")[2])
    (raised,) = [row for row in records(home, raised=True) if row["action"] == "incident.open"]
    assert event["metadata"]["correlation_uid"] == raised["request"]
    assert event["finding_info_list"][0]["title"] == "incident burst"
    assert b"Miller" not in request


def test_nothing_is_sent_where_nothing_is_set_up(home: Path, receiver: Receiver) -> None:
    ok(*NEW, "--home", home)
    configure(home)
    ok(*NEW, "--home", home)
    assert waiting(home) == []
    assert ok("evidence", "incident", "notify", "--home", home).out == "0 notices sent, none waits\n"


# syslog


def test_syslog_by_tcp_udp_and_socket(home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        configure(home, syslog=f"tcp://127.0.0.1:{tcp.getsockname()[1]}")
        ok(*NEW, "--home", home)
        connection, _ = tcp.accept()
        with connection:
            said = connection.makefile("rb").read()
    length, _, line = said.partition(b" ")
    assert int(length) == len(line)
    for family, place in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(tmp_path / "log"))):
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind(place)
            one.settimeout(5)
            name = f"unix://{place}" if family == socket.AF_UNIX else f"udp://127.0.0.1:{one.getsockname()[1]}"
            configure(home, syslog=name)
            ok(*NEW, "--home", home)
            line = one.recv(4096)
        assert line.startswith(b"<10")
        assert b"CEF:0|devguard|" in line
        assert b"Miller" not in line
    assert waiting(home) == []


# receivers that misbehave


def _endless(connection: Any) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        connection.sendall(b"x" * 4096)


def _dripping(connection: Any) -> None:
    for _ in range(60):
        connection.sendall(b"H")
        time.sleep(0.1)


ANSWERS: dict[str, Callable[[Any], None]] = {
    "silent": lambda _connection: time.sleep(3),
    "endless": _endless,
    "dripping": _dripping,
    "500": lambda connection: connection.sendall(b"HTTP/1.1 500 Oh\r\n\r\n"),
    "redirect": lambda connection: connection.sendall(b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1/\r\n\r\n"),
    "closed": lambda connection: connection.close(),
    "garbage": lambda connection: connection.sendall(bytes(range(256)) * 8),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_receiver_that_misbehaves_costs_the_notice_and_not_the_command(
    home: Path, receiver: Receiver, name: str
) -> None:
    configure(home, webhook=f"http://127.0.0.1:{receiver.port}/")
    receiver.answer = ANSWERS[name]
    begun = time.monotonic()
    made = ok(*NEW, "--home", home, "--json").json
    assert time.monotonic() - begun < 10  # the machine may be busy; the notice itself has 1.5 s
    assert any(row["request"] == made["id"] for row in records(home))
    assert len(receiver.got) == 1  # a redirect is not followed
    assert len(waiting(home)) == 1
    refused = devguard("evidence", "incident", "notify", "--home", home)
    assert (refused.status, refused.code) == (4, "incident.unsent")
    receiver.answer = lambda connection: connection.sendall(OK)
    assert ok("evidence", "incident", "notify", "--home", home, "--json").json["sent"] == 1
    ids = {line for request in receiver.got for line in request.split(b"\r\n") if line.startswith(b"Devguard-Delivery")}
    assert len(ids) == 1  # the same notice each time
    assert waiting(home) == []


def test_one_that_is_gone_is_not_asked_for_each(home: Path, receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    configure(home, webhook=f"http://127.0.0.1:{port}/", syslog=f"tcp://127.0.0.1:{port}")
    for _ in range(3):
        ok(*NEW, "--home", home)
    assert len(waiting(home)) == 6
    refused = devguard("evidence", "incident", "notify", "--home", home)
    assert refused.code == "incident.unsent"
    attempts = [json.loads((home / "outbox" / name).read_text())["attempts"] for name in waiting(home)]
    assert sorted(attempts) == [1, 1, 1, 1, 2, 2]
    assert records(home)[-1]["code"] == "incident.unsent"


def test_the_outbox_is_bounded_and_gives_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    configure(home, webhook=f"http://127.0.0.1:{port}/")
    monkeypatch.setattr(notices, "KEPT", 2)
    monkeypatch.setattr(notices, "ATTEMPTS", 2)
    for _ in range(4):
        ok(*NEW, "--home", home)
    kept = waiting(home)
    assert len(kept) == 2
    assert kept == sorted(kept)
    assert devguard("evidence", "incident", "notify", "--home", home).code == "incident.unsent"
    assert waiting(home) == kept[1:]
    assert records(home)[-1]["details"]["dropped"] == "1"


def test_what_lies_in_the_outbox_is_not_believed(home: Path, receiver: Receiver) -> None:
    configure(home, webhook=f"http://127.0.0.1:{receiver.port}/")
    (home / "outbox").mkdir()
    bad = (b"", b"{", b"[]", b'{"id": 1}', b'{"id": "x", "attempts": true, "body": "x"}', b"[" * 60_000)
    for number, data in enumerate(bad):
        (home / "outbox" / f"{number:012d}.webhook").write_bytes(data)
    ok("evidence", "incident", "notify", "--home", home)
    assert receiver.got == []
    assert waiting(home) == []


def test_sending_records_sends_what_waits(home: Path, receiver: Receiver, tmp_path: Path) -> None:
    configure(home, webhook=f"http://127.0.0.1:{receiver.port}/")
    receiver.answer = ANSWERS["500"]
    ok(*NEW, "--home", home)
    store = ["--store", f"sqlite:///{tmp_path / 'group.sqlite'}", "--home", home]
    assert [one["code"] for one in ok("ledger", "send", *store, "--json").json["findings"]] == ["incident.unsent"]
    receiver.answer = lambda connection: connection.sendall(OK)
    assert ok("ledger", "send", *store, "--json").json["findings"] == []
    assert waiting(home) == []


# TLS


def certificate(folder: Path, name: str, *, days: int = 10) -> ssl.SSLContext:
    """A server's context with a certificate of its own making, which lies in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name[0].isdigit():
        names = [x509.IPAddress(ipaddress.ip_address(name))]
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*private))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize(
    ("name", "days", "trusted", "sent"),
    [("127.0.0.1", 10, True, True), ("127.0.0.1", 10, False, False), ("other.example", 10, True, False),
     ("127.0.0.1", -1, True, False)],
    ids=["good", "unknown", "another name", "expired"],
)  # fmt: skip
def test_the_certificate_is_checked(
    home: Path, receiver: Receiver, tmp_path: Path, name: str, days: int, trusted: bool, sent: bool
) -> None:
    receiver.context = certificate(tmp_path, name, days=days)
    ca = {"ca": str(tmp_path / "cert.pem")} if trusted else {}
    configure(home, webhook=f"https://127.0.0.1:{receiver.port}/", **ca)
    ok(*NEW, "--home", home)
    assert (len(receiver.got), len(waiting(home))) == ((1, 0) if sent else (0, 1))


# settings


@pytest.mark.parametrize(
    "said",
    [{"webhook": "http://soc.example/"}, {"webhook": "ftp://127.0.0.1/"}, {"webhook": "https://"}, {"webhook": ""},
     {"webhook": "https://u:p@soc.example/"}, {"webhook": "https://soc.example:99999/"},
     {"webhook": "https://soc.example/a b"}, {"webhook": "https://soc.example/\x01"},
     {"webhook": "https://soc.example/", "secret": "short"}, {"webhook": "https://soc.example/", "format": "xml"},
     {"syslog": "udp://host"}, {"syslog": "tls://host:1"}, {"syslog": "unix://"}, {"syslog": "tcp://host:no"}],
    ids=str,
)  # fmt: skip
def test_settings_that_are_none(home: Path, tmp_path: Path, said: dict[str, str]) -> None:
    """They are told by whoever is asked for notices; an incident goes on record in any case."""
    if "secret" in said:
        (tmp_path / "short").write_text("too short")
        said = {**said, "secret": str(tmp_path / "short")}
    configure(home, **said)
    ok(*NEW, "--home", home)
    assert waiting(home) == []
    refused = devguard("evidence", "incident", "notify", "--home", home)
    assert (refused.status, refused.code) == (3, "config.malformed")


def test_a_webhook_without_a_secret(home: Path) -> None:
    (home / "config.toml").write_text('[incidents]\nwebhook = "https://soc.example/"\n')
    assert devguard("evidence", "incident", "notify", "--home", home).code == "config.malformed"
    (home / "config.toml").write_text("[incidents]\nwebhook = 7\n")
    assert devguard("evidence", "incident", "notify", "--home", home).code == "config.malformed"
