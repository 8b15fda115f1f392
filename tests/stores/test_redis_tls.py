"""Through TLS: the server proves who it is, we prove who we are, and what is wrong is said."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

import pytest
from tests.servers.redis import Servers, free_port

from sojourn import Event, SessionManager, Unavailable, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("redis")

PATIENCE = 20.0
"""Seconds after which a message counts as lost."""


class Certificate(NamedTuple):
    """A certificate that is its own authority, and its key."""

    certificate: Path
    key: Path


def certificate(folder: Path, name: str) -> Certificate:
    """Make a certificate for this machine."""
    program = shutil.which("openssl")
    if program is None:
        reason = "openssl is not installed: apt-get install openssl"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    what: list[str] = [program, "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    what += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    what += ["-addext", "subjectAltName=IP:127.0.0.1"]
    what += ["-out", str(made.certificate), "-keyout", str(made.key)]
    subprocess.run(what, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("theirs"), "theirs")


@pytest.fixture(scope="module")
def place(ours: Certificate, theirs: Certificate) -> Iterator[str]:
    """A server that speaks TLS to those whose certificate it knows."""
    servers, port = Servers(), free_port()
    options = {
        "--tls-port": str(port),
        "--tls-cert-file": str(theirs.certificate),
        "--tls-key-file": str(theirs.key),
        "--tls-ca-cert-file": str(ours.certificate),
    }
    try:
        servers.add(*(part for pair in options.items() for part in pair))
        yield f"127.0.0.1:{port}"
    finally:
        servers.stop()


def url(place: str, **options: object) -> str:
    return f"rediss://{place}/?{urlencode({'timeout': 60, **options})}"


async def test_sessions_are_kept_and_watched(
    place: str, ours: Certificate, theirs: Certificate
) -> None:
    """Watching has a connection of its own, which is made in the same way."""
    told = {"ca": theirs.certificate, "certificate": ours.certificate, "key": ours.key}
    where = url(place, **told)
    async with SessionManager.open(where) as one, SessionManager.open(where) as other:
        session = await one.create(id="s", user="u", state={"n": 1})
        subscription = other.store.subscribe("default", "s")  # type: ignore[attr-defined]  # it can
        await subscription.wait(PATIENCE)  # it was subscribed to: there may have been changes
        await one.append(session, Event(kind="note", body="x" * 100_000))
        await subscription.wait(PATIENCE)
        assert subscription.changed.is_set() is False
        found = await other.require("s", events=1)
        assert (found.state["n"], len(found.events[0].body)) == (1, 100_000)
        subscription.close()


async def test_what_is_wrong_with_a_certificate_is_said(
    place: str, ours: Certificate, theirs: Certificate
) -> None:
    """At once, where trying again would not help."""
    for options, reason in (
        ({"certificate": ours.certificate, "key": ours.key}, "certificate verify failed"),
        ({"ca": theirs.certificate, "timeout": 1}, ""),
        (
            {"ca": theirs.certificate, "certificate": theirs.certificate, "key": theirs.key},
            "unknown ca",
        ),
        ({"ca": "/nowhere/ca.crt"}, "a file for TLS is not there"),
    ):
        store = open_store(url(place, **options))
        with pytest.raises(Unavailable) as caught:
            await store.open()
        assert reason in str(caught.value)
        await store.close()


async def test_a_plain_client_is_told(place: str) -> None:
    store = open_store(f"redis://{place}/?timeout=1")
    with pytest.raises(Unavailable):
        await store.open()
    await store.close()


_REFUSING = """
import ssl, socket, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
held = []
while True:
    held.append(listener.accept()[0])
    try:
        held.append(context.wrap_socket(held.pop(), server_side=True))
        held[-1].recv(65536)
        held[-1].sendall(b"-ERR not you\\r\\n")
    except OSError:
        pass
"""
"""A server that refuses everybody, and then says and hears nothing any more."""


@pytest.fixture
def refusing(theirs: Certificate) -> Iterator[str]:
    program = [sys.executable, "-c", _REFUSING, str(theirs.certificate), str(theirs.key)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None, "it is a pipe"
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


async def test_who_refuses_is_quoted_and_not_bid_farewell(
    refusing: str, theirs: Certificate
) -> None:
    """A farewell may never be answered: waiting for it would hide what was said before."""
    before = sockets()
    store = open_store(url(refusing, ca=theirs.certificate, timeout=10))
    with pytest.raises(Unavailable, match="not you"):
        await store.open()
    await store.close()
    await asyncio.sleep(0)  # the loop closes a socket in the turn after
    assert sockets() == before


def sockets() -> set[str]:
    """Return the sockets of this process."""
    held = Path("/proc/self/fd").iterdir()
    found = {str(each.readlink()) for each in held if each.is_symlink()}
    return {each for each in found if each.startswith("socket:")}
