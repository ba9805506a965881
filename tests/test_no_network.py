"""The refusal of the network works, here and in processes that tests start."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import constants

ELSEWHERE = "192.0.2.1"  # reserved for documentation (RFC 5737): nobody answers there
REFUSED = "the tests refuse the network"


def test_another_machine_is_refused_by_address_and_by_name() -> None:
    with pytest.raises(OSError, match=REFUSED):
        socket.create_connection((ELSEWHERE, 80), timeout=1)
    with socket.socket() as stream, pytest.raises(OSError, match=REFUSED):
        stream.connect_ex((ELSEWHERE, 80))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        pytest.raises(OSError, match=REFUSED),
    ):
        datagram.sendto(b"?", (ELSEWHERE, 53))
    with pytest.raises(OSError, match=REFUSED):
        socket.getaddrinfo("example.org", 443)


def test_libraries_meet_the_refusal_as_a_missing_network() -> None:
    with pytest.raises(OSError, match=REFUSED):
        urllib.request.urlopen("http://example.org/", timeout=1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_not_refused(host: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection((host, server.getsockname()[1]), timeout=5) as client,
        server.accept()[0] as peer,
    ):
        client.sendall(b"heard")
        assert peer.recv(5) == b"heard"


def test_unix_sockets_are_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has about 100 characters
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("here")
        server.listen()
        client.connect("here")
        peer, _ = server.accept()
        with peer:
            client.sendall(b"heard")
            assert peer.recv(5) == b"heard"


def test_processes_that_tests_start_are_refused_too(tmp_path: Path) -> None:
    reach_out = f"import socket; socket.create_connection(('{ELSEWHERE}', 80), timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", reach_out], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert REFUSED in done.stderr


def test_the_hub_is_offline_and_its_cache_is_nobodys() -> None:
    assert constants.HF_HUB_OFFLINE
    assert "calib_ebm-tests-" in constants.HF_HOME
