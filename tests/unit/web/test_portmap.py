"""The listing of ``/portmap``."""

import csv
import io
import json
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from portmapd.registry.holder import Holder
from portmapd.registry.registry import Registry
from portmapd.registry.service import PUBLIC
from portmapd.web.portmap import MAX_VALUES, PAGE, PortmapPage
from portmapd.web.query import Query, RequestRefused

#: A name is any text without spaces and control characters.
HOSTILE = "<script>alert(1)</script>&\"'"
FORMULAS = ("=1+1", "+1", "-1", "@x")


class PortmapPageTests(SynchronousTestCase):
    """Listings."""

    def setUp(self) -> None:
        self.registry = Registry()
        self.page = PortmapPage(self.registry)

    def register(self, name: str, port: str, uid: int = 0, pid: int = 1, flags: int = 0) -> None:
        """Register a service of a process."""
        holder = self.registry.open(Holder(uid, pid, exe="/bin/true"))
        self.registry.register(holder.new_service(name, port, flags))

    def body(self, accept: str = "", is_local: bool = True, **fields: Sequence[str]) -> str:
        """The whole answer."""
        return b"".join(self.page.answer(Query(fields, accept, is_local)).body).decode()

    def names(self, is_local: bool = True, **fields: Sequence[str]) -> list[str]:
        """The names that are listed."""
        rows = json.loads(self.body("application/json", is_local, **fields))
        return [row["service"] for row in rows]

    def test_csv(self) -> None:
        """CSV has the columns of httportmap, and is what callers get who do not say."""
        self.register("printer", "9100", 5, 7, PUBLIC)
        self.assertEqual(
            self.body(), "service,user,pid,port,prog\r\nprinter,5,7,9100,/bin/true\r\n"
        )
        kind = self.page.answer(Query()).kind
        self.assertEqual(kind, "text/csv; charset=utf-8; header=present")

    def test_json(self) -> None:
        """JSON has the same names; a port is a number or a path."""
        self.assertEqual(self.body("application/json"), "[]\n")
        self.register("a", "1")
        self.register("b", "/run/b")
        ports = [row["port"] for row in json.loads(self.body("application/json"))]
        self.assertEqual(ports, [1, "/run/b"])

    def test_unix(self) -> None:
        """UNIX sockets are listed for callers of this host alone, announcements for nobody."""
        self.register("tcp", "80")
        self.register("unix", "/run/x")
        self.register("pid2exe.portmapd", "*", flags=PUBLIC)
        self.assertEqual(self.names(), ["tcp", "unix"])
        self.assertEqual(self.names(is_local=False), ["tcp"])

    def test_filters(self) -> None:
        """Values of one field are alternatives; all fields must match."""
        for name, uid, pid in (("a", 1, 10), ("b", 1, 11), ("a", 2, 12)):
            self.register(name, "1", uid, pid)
        self.assertEqual(self.names(service=["a"]), ["a", "a"])
        self.assertEqual(self.names(service=["a", "b"], user=["1"]), ["a", "b"])
        self.assertEqual(self.names(pid=["11", "12"]), ["b", "a"])
        self.assertEqual(self.names(service=["c"]), [])

    def test_bad_filters(self) -> None:
        """What no service can match by its form is refused; a long value is not repeated."""
        for fields, said in (
            ({"uid": ["1"]}, "field 'uid' is none of service, user, pid"),
            ({"user": ["root"]}, "user 'root' is not a number"),
            ({"pid": ["-1"]}, "pid '-1' is not a number"),
            ({"pid": [""]}, "pid '' is not a number"),
            ({"pid": ["\u0663"]}, "is not a number"),
            ({"pid": ["1" * 5_000]}, "pid '1{64}' is not a number"),
            ({"service": ["x"] * (MAX_VALUES + 1)}, f"more than {MAX_VALUES} values"),
        ):
            with self.assertRaisesRegex(RequestRefused, said):
                self.page.answer(Query(fields))

    def test_hostile_names(self) -> None:
        """Whatever its name is, a service is one row of text."""
        names = (HOSTILE, *FORMULAS, 'a"b,c', "شبكة", "打印机", "x" * 255)
        for number, name in enumerate(names, 1):
            self.register(name, str(number))
        self.assertEqual(self.names(), list(names))
        rows = list(csv.reader(io.StringIO(self.body(), newline="")))
        self.assertEqual({len(row) for row in rows}, {5})
        for row, name in zip(rows[1:], names, strict=True):
            self.assertEqual(row[0], f"'{name}" if name in FORMULAS else name)
        html = self.body("text/html")
        self.assertNotIn("<script", html)
        self.assertIn("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;", html)

    def test_executable_that_is_no_text(self) -> None:
        """The path of an executable may be any bytes."""
        holder = self.registry.open(Holder(0, 1, exe="/bin/\udcff"))
        self.registry.register(holder.new_service("a", "1", PUBLIC))
        self.assertIn("/bin/\\udcff", self.body())
        (row,) = json.loads(self.body("application/json"))
        self.assertEqual(row["prog"], "/bin/\udcff")

    def test_changes_meanwhile(self) -> None:
        """A long listing is made in pieces, between which services may come and go."""
        for number in range(2 * PAGE + 1):
            self.register(f"s{number}", "1", pid=number)
        pieces = iter(self.page.answer(Query(is_local=True)).body)
        made = [next(pieces), next(pieces)]
        for holder in list(self.registry.holders_after(0))[: PAGE + 10]:
            self.registry.close(holder)
        made += pieces
        rows = b"".join(made).decode().splitlines()[1:]
        self.assertEqual(len(rows), 2 * PAGE + 1 - 10)
        self.assertEqual(len(set(rows)), len(rows))
