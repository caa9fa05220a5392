"""A test of the adder: ``python -m twisted.trial test_adder``."""

from adder import ADDER
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from portmapd import Config, PortmapClient, PortmapperService
from portmapd.rpc import INT, Server, fields


class AdderTests(TestCase):
    """The adder, with a port mapper of the test's own."""

    async def test_add(self) -> None:
        """A client finds it, and it adds."""
        port_mapper = PortmapperService(Config(port=0, rpc_socket=None, local_socket=None), reactor)
        server = Server(reactor, ADDER, interfaces=("127.0.0.1",))
        for service in (port_mapper, server):
            service.startService()
            self.addCleanup(service.stopService)
        # With the port mapper that has this port, rather than the host's.
        await server.register(Config(port=port_mapper.port))
        client = PortmapClient(reactor, port=port_mapper.port, timeout=5)
        self.addCleanup(client.close)
        answer = await client.callit(0x2000_0002, 1, 1, fields(INT, INT).encode((40, 2)))
        self.assertEqual(int.from_bytes(answer.results), 42)
