"""A port mapper on sockets of the application's own, and on a reactor of its choice.

Run it with ``twistd --reactor=asyncio -ny own_sockets.py``.
"""

from twisted.application.internet import StreamServerEndpointService, UDPServer
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint

from portmapd import Policy, PortmapServer, Registry, mapping

HOST, PORT = "127.0.0.1", 10111

registry = Registry()
registry.map(*(mapping(100000, 2, netid, "127.0.0.1.39.127") for netid in ("udp", "tcp")))
server = PortmapServer(registry, Policy(), reactor)

application = Application("own_sockets")
UDPServer(PORT, server.datagramProtocol(HOST), HOST, 65535).setServiceParent(application)
for endpoint, factory in (
    (TCP4ServerEndpoint(reactor, PORT, interface=HOST), server.streamFactory()),
    (UNIXServerEndpoint(reactor, "rpcbind.sock"), server.streamFactory()),
    (UNIXServerEndpoint(reactor, "channel.sock"), server.channelFactory()),
):
    StreamServerEndpointService(endpoint, factory).setServiceParent(application)
