"""RPC programs by their names: those of /etc/rpc, and built-in ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from attrs import frozen

#: The file of names, see rpc(5).
FILE = "/etc/rpc"
#: So much of the file is read, in bytes; a longer one is something else.
MAX_FILE = 1 << 20
LARGEST = (1 << 32) - 1

#: Names and aliases of what is in use, as glibc's /etc/rpc has them.
_BUILT_IN = """
portmapper 100000 portmap sunrpc rpcbind
rstatd 100001 rstat rstat_svc rup perfmeter
rusersd 100002 rusers
nfs 100003 nfsprog
ypserv 100004 ypprog
mountd 100005 mount showmount
ypbind 100007
walld 100008 rwall shutdown
yppasswdd 100009 yppasswd
rquotad 100011 rquotaprog quota rquota
sprayd 100012 spray
nlockmgr 100021
status 100024
bootparam 100026
ypupdated 100028 ypupdate
keyserv 100029 keyserver
ypxfrd 100069
nfs_acl 100227
vxi11_core 395183
vxi11_async 395184
vxi11_intr 395185
pcnfsd 150001
amd 300019 amq
"""


@frozen
class Programs:
    """The names of RPC programs.

    :param numbers: the number of each name and alias.
    :param names: the name of each number.
    """

    numbers: dict[str, int]
    names: dict[int, str]

    def name(self, number: int) -> str:
        """The name of a program; empty if it has none."""
        return self.names.get(number, "")

    def number(self, text: str) -> int | None:
        """The program that *text* is the name or the number of; None if it is neither."""
        if not (text.isascii() and text.isdecimal()):
            return self.numbers.get(text)
        # Python makes no numbers of thousands of digits.
        fits = len(text) <= len(str(LARGEST)) and int(text) <= LARGEST
        return int(text) if fits else None


def read_programs(path: str = FILE) -> Programs:
    """The names in a file as rpc(5) has it, and the built-in ones that it lacks."""
    text = ""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_FILE)
    numbers: dict[str, int] = {}
    names: dict[int, str] = {}
    for number, words in (*_rows(text), *_rows(_BUILT_IN)):
        names.setdefault(number, words[0])
        for word in words:
            numbers.setdefault(word, number)
    return Programs(numbers, names)


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number, and the name and aliases, of each line; lines without them are passed over."""
    for line in text.splitlines():
        name, *rest = line.partition("#")[0].split() or [""]
        if rest and rest[0].isascii() and rest[0].isdecimal() and len(rest[0]) <= 10:
            yield int(rest[0]), [name, *rest[1:]]
