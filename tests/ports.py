"""Ports for servers of tests."""

from __future__ import annotations

import socket


def free_ports(number: int) -> list[int]:
    """That nobody listens at now, on this machine's own address."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
