"""Refuse the network to this process: imported by Python itself where PYTHONPATH names this folder.

Loopback and Unix sockets stay open (two gloo processes, a local service). What is raised is an
OSError, so that code under test meets what it would meet on a machine without network.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


class NetworkRefused(OSError):
    """A test tried to reach another machine."""


def _is_here(host: object) -> bool:
    if host in (None, "", b"", "localhost", socket.gethostname()):
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse(host: object) -> None:
    if not _is_here(host):
        raise NetworkRefused(f"the tests refuse the network, and this one asked for {host!r}")


def _guard_address(name: str) -> None:
    """Check the address, which is the last positional argument, before socket.<name>."""
    original = getattr(socket.socket, name)

    def guarded(self: socket.socket, *args: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse(args[-1][0])
        return original(self, *args)

    setattr(socket.socket, name, guarded)


def _guard_lookup() -> None:
    original = socket.getaddrinfo

    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse(host)
        return original(host, *args, **kwargs)

    socket.getaddrinfo = guarded


for _name in ("connect", "connect_ex", "sendto"):
    _guard_address(_name)
_guard_lookup()
