"""The names of RPC programs."""

from pathlib import Path
from tempfile import NamedTemporaryFile

from twisted.trial.unittest import SynchronousTestCase

from portmapd.web.rpc_names import rpc_names


class RpcNamesTests(SynchronousTestCase):
    """``/etc/rpc``."""

    def read(self, data: bytes) -> dict[int, str]:
        """The names in a file."""
        with NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            return dict(rpc_names(Path(file.name)))

    def test_names(self) -> None:
        """Each line has a name and a number; comments and aliases count for nothing."""
        text = b"# comment\nportmapper\t100000\tportmap sunrpc\nnfs 100003 # files\n\n"
        self.assertEqual(self.read(text), {100000: "portmapper", 100003: "nfs"})

    def test_malformed(self) -> None:
        """What is no such line is passed over, and so is a file that is not there."""
        self.assertEqual(
            self.read(b"x\nx y\nx -1\nx 1x\n\xff 12\nx " + b"9" * 5_000), {12: "\ufffd"}
        )
        self.assertEqual(rpc_names(Path("/nonexistent")), {})
