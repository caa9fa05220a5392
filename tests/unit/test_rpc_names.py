"""The names of RPC programs."""

from tempfile import NamedTemporaryFile

from twisted.trial.unittest import SynchronousTestCase

from portmapd.rpc_names import Programs, read_programs


class RpcNamesTests(SynchronousTestCase):
    """``/etc/rpc``, and the names that are built in."""

    def read(self, data: bytes) -> Programs:
        """The names in a file."""
        with NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            return read_programs(file.name)

    def test_names(self) -> None:
        """Each line has a name, a number and aliases; what is behind a hash is a comment."""
        found = self.read(b"# comment\nrpcbind\t100000\tportmap sunrpc\nmine 7 our # files\n\n")
        self.assertEqual((found.name(100000), found.name(7)), ("rpcbind", "mine"))
        self.assertEqual([found.number(text) for text in ("our", "mine", "sunrpc")], [7, 7, 100000])

    def test_malformed(self) -> None:
        """What is no such line is passed over."""
        found = self.read(b"x\nx y\nx -1\nx 1x\n\xff 12\nx " + b"9" * 5_000)
        self.assertEqual(found.name(12), "\ufffd")
        self.assertIsNone(found.number("x"))

    def test_built_in(self) -> None:
        """Without a file, the usual programs have their names."""
        found = read_programs("/nonexistent")
        self.assertEqual((found.name(100003), found.number("mountd")), ("nfs", 100005))
        self.assertEqual((found.name(7), found.number("mine")), ("", None))
