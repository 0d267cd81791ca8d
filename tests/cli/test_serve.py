"""`devguard serve` as a process: where it listens, whom it lets in, how it ends, and the people it knows."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib.util
import json
import os
import signal
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authenticator import Authenticator
from browser import Start
from cli_support import devguard, finish, ok, records, start
from devguard.console import passkeys
from devguard.console.journal import hold


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A self-made certificate for these names, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.touch(0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, private


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_link_signs_in_once_and_the_end_is_clean(serving: Start, home: Path, sign: int) -> None:
    served = serving()
    assert served.base.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=served.base, follow_redirects=True) as client:
        assert client.get("/").status_code == 401
        page = client.get(served.url)
        assert page.status_code == 200
        assert "server" not in page.headers
        assert client.get("/").status_code == 200
        assert httpx.get(served.url).status_code == 401
        second = devguard("serve", "--home", home)
        assert (second.status, second.code) == (4, "console.running")
        assert httpx.get(served.link("Tom Technician", "viewer")).status_code == 303
    served.process.send_signal(sign)
    result = finish(served.process)
    assert result.status == 0
    assert "go on" in result.err
    assert served.url.partition("=")[2] not in result.err
    assert not (home / "console" / "running.json").exists()
    ticket = served.url.partition("=")[2]
    assert not any(ticket.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())
    done = [(one["action"], one["code"]) for one in records(home)]
    assert ("console.serve", None) in done
    assert ("console.serve", "console.running") in done
    assert ("console.link", None) in done
    ok("evidence", "verify", "--home", home)


def test_beyond_this_machine_it_wants_tls_and_people(home: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "bench.example")
    tls = ["--tls-cert", cert, "--tls-key", key]
    for options, code in (
        (["--bind", "0.0.0.0"], "console.tls"),
        (["--bind", "::"], "console.tls"),
        (["--bind", "bench.example"], "console.tls"),
        (["--tls-cert", cert], "console.tls"),
        (["--bind", "0.0.0.0", "--tls-cert", cert, "--tls-key", cert], "console.tls"),
        (["--bind", "0.0.0.0", "--tls-cert", tmp_path / "none", "--tls-key", key], "console.tls"),
        (["--bind", "0.0.0.0", *tls], "console.login"),
    ):
        result = devguard("serve", *options, "--json", "--home", home)
        assert (result.status, result.code) == (1, code), options
        assert records(home)[-1]["code"] == code
    key.chmod(0o644)
    assert devguard("serve", *tls, "--home", home).code == "console.tls"


def test_over_tls_with_an_invitation(serving: Start, home: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "bench.example", "localhost")
    ok("serve", "enrol", "Tess Technician", "--role", "technician", "--home", home)
    served = serving("--bind", "0.0.0.0", "--tls-cert", cert, "--tls-key", key)
    assert served.base.startswith("https://bench.example:")
    assert served.url == f"{served.base}/"
    port = int(served.base.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(cert))
    at = f"https://localhost:{port}"
    with httpx.Client(verify=context, base_url=at, headers={"host": f"bench.example:{port}"}) as client:
        answer = client.get("/sign-in")
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"]
        assert client.get("/sign-in", headers={"host": f"127.0.0.1:{port}"}).status_code == 421
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((httpx.ConnectError, ssl.SSLError)):
        httpx.get(at, verify=old)
    assert served.stop() == 0


def test_a_port_that_is_taken(serving: Start, home: Path, tmp_path: Path) -> None:
    served = serving()
    other = tmp_path / "other"
    result = devguard("serve", "--port", served.base.rpartition(":")[2], "--home", other)
    assert (result.status, result.code) == (4, "console.bind")


def test_people_are_invited_registered_and_removed(home: Path) -> None:
    assert "nobody" in ok("serve", "people", "--home", home).out
    invited = ok("serve", "enrol", "Tess  Technician", "--role", "technician", "--home", home, "--json").json
    assert (invited["url"], invited["person"]) == (None, "Tess Technician")
    secret = invited["path"].partition("=")[2]
    options = passkeys.registration_options("bench.example", "Tess Technician", b"c" * 32, ())
    said = {
        "ticket": secret,
        "reply": Authenticator().register(options, "https://bench.example"),
        "challenge": (b"c" * 32).hex(),
        "name": "bench.example",
        "origin": "https://bench.example",
    }
    results = []
    for given in (said, said):  # the second finds the invitation used up
        process = start("serve", "keep", "--json", "--home", home, stdin=-1)
        out, _ = process.communicate(json.dumps(given), timeout=60)
        results.append(json.loads(out))
    assert results[0] == {"person": "Tess Technician", "role": "technician"}
    assert results[1]["error"]["code"] == "console.login"
    rows = ok("serve", "people", "--home", home, "--json").json["people"]
    assert [(row["person"], row["role"], len(row["keys"])) for row in rows] == [("Tess Technician", "technician", 1)]
    assert stat.S_IMODE(os.stat(home / "console" / "people.json").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(home / "console").st_mode) == 0o700
    ok("serve", "remove", "tess technician", "--home", home)
    assert devguard("serve", "remove", "tess technician", "--home", home).code == "console.person"
    actions = [one["action"] for one in records(home)]
    assert [one for one in actions if one.startswith("console.")] == [
        "console.enrol", "console.register", "console.register", "console.remove", "console.remove"
    ]  # fmt: skip
    for wrong in ("[]", json.dumps({**said, "challenge": "zz"}), "x" * 70_000):
        process = start("serve", "keep", "--json", "--home", home, stdin=-1)
        out, _ = process.communicate(wrong, timeout=60)
        assert json.loads(out)["error"]["code"] == "console.request"
    assert devguard("serve", "link", "--home", home).code == "console.missing"
    assert devguard("serve", "enrol", "", "--role", "viewer", "--home", home).code == "console.person"


def test_without_its_packages_it_says_which(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in ("webauthn", "uvicorn") else find(name, *more)
    )
    result = devguard("serve", "--home", home)
    assert (result.status, result.code) == (1, "console.package")
    assert "uvicorn, webauthn" in result.err
    assert "devguard[web]" in result.err


def test_where_the_system_keeps_the_output_no_link_is_printed(
    serving: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    served = serving()
    assert served.url == f"{served.base}/"
    assert httpx.get(served.link("Bea Bench", "admin")).status_code == 303
    assert served.stop() == 0


def test_a_request_that_never_begins_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head drips in, on a new connection and on one that was used; a request that goes on is left alone."""
    from devguard.cli.serve_tls import Identity, Patient, Server, configured, listen

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if scope["path"] == "/slow":
                await asyncio.sleep(1)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def drip(port: int, first: bytes) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if first:
            writer.write(first)
            await reader.readuntil(b"\r\n\r\n")
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(b"G")
                await asyncio.sleep(0.05)
                if reader.at_eof():
                    break
        writer.close()
        return asyncio.get_running_loop().time() - began

    async def both() -> list[float]:
        server = Server(configured(app, Identity("localhost", (), None)))
        sock = listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        port = sock.getsockname()[1]
        whole = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
        times = [await drip(port, b""), await drip(port, whole)]
        server.should_exit = True
        await serving
        return times

    monkeypatch.setattr(Patient, "seconds", 0.3)
    times = asyncio.run(both())
    assert all(0.2 < one < 4.5 for one in times), times


def test_ten_gibibytes_are_refused_before_they_come(serving: Start, home: Path) -> None:
    served = serving()
    with httpx.Client(base_url=served.base) as client:
        client.get(served.url)
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    host = served.base.removeprefix("http://")
    head = (
        f"POST /verify HTTP/1.1\r\nHost: {host}\r\nOrigin: {served.base}\r\nCookie: {cookie}\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\nAccept: application/json\r\n"
        f"Content-Length: {10 << 30}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])), timeout=20) as line:
        line.sendall(head.encode() + b"x" * 1000)
        said = b""
        while chunk := line.recv(4096):
            said += chunk
            if b"console.upload-size" in said:
                break
    assert said.startswith(b"HTTP/1.1 413")
    assert b"console.upload-size" in said
    assert not list((home / "console").glob("uploads/*"))


def test_it_ends_while_somebody_watches_and_says_so(serving: Start, home: Path) -> None:
    served = serving()
    folder = home / "console" / "runs" / ("a" * 16)
    folder.mkdir(parents=True)
    asked = {"port": "/dev/none", "serial": "S", "name": "n", "key": "", "grant": "", "reason": "", "work_order": ""}
    row = {"format": 1, "id": folder.name, "person": "x", "began": 1.0, "shown": "x", "pid": os.getpid(), **asked}
    (folder / "run.json").write_text(json.dumps(row))
    lock = hold(folder)
    told: list[str] = []
    with httpx.Client(base_url=served.base, timeout=20) as client:
        client.get(served.url)
        with client.stream("GET", f"/bench/runs/{folder.name}/events") as answer:
            for line in answer.iter_lines():
                told.append(line)
                if line == "event: state":
                    served.process.send_signal(signal.SIGTERM)
    result = finish(served.process)
    os.close(lock)
    assert (result.status, "event: ending" in told) == (0, True)
    assert result.err.splitlines() == [
        "the console has ended; pushes that were begun go on, and are shown when it is started again"
    ]
