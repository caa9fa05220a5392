"""Tests of a program that finds its printer through a port mapper."""

import socket

from portmapd.client.blocking import PortmapClient
from portmapd.pytest_plugin import RunningPortMapper


def printer_port(port_mapper: PortmapClient) -> int:
    """The program that is tested: where the printer is."""
    return port_mapper.getport(200100, 1, socket.IPPROTO_TCP) or 515


def test_registered(portmapd: RunningPortMapper) -> None:
    """A printer that is registered is found."""
    with PortmapClient(portmapd.host, portmapd.port) as client:
        client.set(200100, 1, socket.IPPROTO_TCP, 9100)
        assert printer_port(client) == 9100


def test_not_registered(portmapd: RunningPortMapper) -> None:
    """Without one, it has its usual port. The port mapper is a new one."""
    with portmapd.client() as client:
        assert printer_port(client) == 515
