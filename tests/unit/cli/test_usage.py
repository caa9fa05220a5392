"""Command lines that are wrong: nobody is asked."""

import io
import re
import sys

from twisted.trial.unittest import SynchronousTestCase

from portmapd.cli.invocation import invoke

#: Words after ``portmapctl rpc``, and what is said about them.
WRONG = [
    ("list 127.0.0.1:0", "port '0' is not in the range 1 to 65535"),
    ("list 127.0.0.1:99999", "port '99999' is not in the range"),
    (f"list 127.0.0.1:{'9' * 5000}", "port '9+' is not in the range"),
    ("list a..b", "host 'a..b' is neither an address nor a name"),
    ("list [::1", r"'\[::1' is not \[ADDRESS\]:PORT"),
    (f"list /{'a' * 200}", "is no path of at most 107 bytes"),
    ("list --short --ports", "--short and --ports exclude each other"),
    ("list --udp /run/x", "--udp is not for a UNIX socket"),
    ("list --timeout 0", "0"),
    ("ping", "Missing argument 'PROGRAM'"),
    ("ping no-such", f"'no-such' is neither a number from 0 to {2**32 - 1} nor a name in /etc"),
    (f"ping {2**32}", "is neither a number"),
    ("ping nfs 4294967296", "'4294967296' is not a number from 0"),
    ("ping nfs x 127.0.0.1", "VERSION 'x' is not a number"),
    ("ping nfs --udp --tcp", "--udp and --tcp exclude each other"),
    ("ping nfs --netid tpc", "'tpc' is not one of"),
    ("ping nfs --address 127.0.0.1", "'127.0' in address '127.0.0.1' is not an inet address"),
    ("ping nfs --port 0", "0 is not in the range"),
    ("set 200100 1 tcp 70000", "'ADDRESS': .*port"),
    ("set 200100 1 tcp ::1.1.1", "is not an inet address"),
    ("set 200100 1 local x", "is not an absolute path"),
    ("unset 200100 -- -1", "'-1' is not a number"),
    ("nonsense", "there is no command 'nonsense'"),
    ("lst", r"there is no command 'lst' \(did you mean list\?\)"),
]


class UsageTests(SynchronousTestCase):
    """The exit status is 2, and one line says what is wrong."""

    def said(self, *words: str) -> tuple[int, str, str]:
        """The exit status of a command line, and what it prints."""
        out, error = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", error)
        status = invoke(words)
        return status, out.getvalue(), error.getvalue()

    def test_rpc(self) -> None:
        """Hosts, ports, programs, versions, netids and addresses that are none; contradictions."""
        for words, why in WRONG:
            status, out, error = self.said("rpc", *words.split())
            self.assertEqual((status, out, error.count("\n")), (2, "", 1), error)
            self.assertRegex(error, f"^portmapctl: .*{why}.*; see portmapctl rpc.* --help\n$")

    def test_help(self) -> None:
        """Every command of every group has help, by either name, and none is cut."""
        for words in ("", "rpc", "rpc ping", "services", "port", "connect", "run", "watch"):
            short = self.said(*words.split(), "-h")
            self.assertEqual(short, self.said(*words.split(), "--help"))
            self.assertEqual((short[0], short[2]), (0, ""))
            self.assertNotIn("...\n", re.sub(r"\[?[A-Z]+\]?\.\.\.\n", "", short[1]))
