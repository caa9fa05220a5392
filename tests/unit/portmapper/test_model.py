"""SET, UNSET and holders, in any order, beside a model of the rules."""

from collections.abc import Sequence

from attrs import frozen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import AlreadyRegistered, AuthRefused
from portmapd.oncrpc import xdr
from portmapd.oncrpc.netid import NETIDS, PROTOCOLS, format_address, split_address
from portmapd.oncrpc.program import PROGRAM, Pmap, read_pmap, read_rpcb
from portmapd.portmapper.caller import Audience, Caller
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Key, Mapping, mapping
from tests.support.rpc_samples import (
    PROPERTY,
    TRUE,
    PortMapper,
    local,
    loopback,
    pmap,
    remote,
    rpcb,
)

CALLERS = st.sampled_from(
    (local(0), local(104), local(105), loopback(port=800), loopback(port=5000), remote())
)
PROGRAMS = st.sampled_from((1, 2, PROGRAM))
VERSIONS = st.sampled_from((1, 2))
NAMES = st.sampled_from(tuple(NETIDS))
NUMBERS = st.sampled_from((111, 2049))


@frozen
class Row:
    """What the model knows of a mapping: its address, and who may change it."""

    address: str
    owner: str
    holder: Holder | None = None

    def is_open_to(self, caller: Caller) -> bool:
        """May *caller* replace or remove it, as far as its owner is concerned?"""
        return self.holder is None and caller.owner in {"superuser", self.owner}


def address_of(netid: str, port: int) -> str:
    """A valid address."""
    family = NETIDS[netid]
    return format_address(family.wildcard, port) if family.wildcard else f"/run/{port}"


class Machine(RuleBasedStateMachine):
    """The port mapper, and a dictionary that follows its rules."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.mapper = PortMapper()
        self.rows: dict[Key, Row] = {}
        self.heard: dict[Key, Mapping] = {}
        self.mapper.registry.follow(self.hear, *ChangeKind)

    def hear(self, changes: Sequence[ChangeRecord]) -> None:
        """Keep a copy of the registry by its changes alone."""
        for change in changes:
            subject = change.subject
            assert isinstance(subject, Mapping)
            if change.kind is ChangeKind.MAPPED:
                assert subject.key not in self.heard
                self.heard[subject.key] = subject
            else:
                assert self.heard.pop(subject.key) is subject

    def asked(self, caller: Caller, version: int, procedure: int, arguments: bytes) -> bool | None:
        """The answer to SET or UNSET; None if the caller may not ask."""
        try:
            return self.mapper.ask(caller, version, procedure, arguments) == TRUE
        except AuthRefused:
            return None

    def set_expected(self, caller: Caller, key: Key, address: str) -> bool | None:
        """What the rules say of a SET; it is done in the model."""
        if caller.audience is not Audience.LOCAL:
            return None
        existing = self.rows.get(key)
        if existing is not None and existing.address == address:
            return True
        if existing is None:
            done = key[0] != PROGRAM
        else:
            done = existing.is_open_to(caller) and existing.address not in self.mapper.bound
        if done:
            self.rows[key] = Row(address, caller.owner)
        return done

    def unset_expected(self, caller: Caller, keys: list[Key]) -> bool | None:
        """What the rules say of an UNSET; it is done in the model."""
        if caller.audience is not Audience.LOCAL:
            return None
        existing = [key for key in keys if key in self.rows]
        for key in existing:
            if key[0] == PROGRAM:
                return False
            if caller.owner != "superuser" and not self.rows[key].is_open_to(caller):
                return False
        for key in existing:
            del self.rows[key]
        return True

    @rule(caller=CALLERS, program=PROGRAMS, version=VERSIONS, netid=NAMES, port=NUMBERS)
    def set_address(
        self, caller: Caller, program: int, version: int, netid: str, port: int
    ) -> None:
        """SET of versions 3 and 4."""
        address = address_of(netid, port)
        expected = self.set_expected(caller, (program, version, netid), address)
        arguments = rpcb(program, version, netid, address, "ignored")
        assert self.asked(caller, 4, 1, arguments) == expected

    @rule(
        caller=CALLERS,
        program=PROGRAMS,
        version=VERSIONS,
        protocol=st.sampled_from((6, 17)),
        port=NUMBERS,
    )
    def set_port(
        self, caller: Caller, program: int, version: int, protocol: int, port: int
    ) -> None:
        """SET of version 2."""
        netid = PROTOCOLS[protocol].name
        address = address_of(netid, port)
        expected = self.set_expected(caller, (program, version, netid), address)
        assert self.asked(caller, 2, 1, pmap(program, version, protocol, port)) == expected

    @rule(caller=CALLERS, program=PROGRAMS, version=VERSIONS, netid=NAMES | st.just(""))
    def unset(self, caller: Caller, program: int, version: int, netid: str) -> None:
        """UNSET of versions 3 and 4; without a netid, of all."""
        netids = [netid] if netid else list(NETIDS)
        expected = self.unset_expected(caller, [(program, version, n) for n in netids])
        assert self.asked(caller, 3, 2, rpcb(program, version, netid)) == expected

    @rule(caller=CALLERS, program=PROGRAMS, version=VERSIONS, protocol=st.integers(0, 20))
    def unset_all(self, caller: Caller, program: int, version: int, protocol: int) -> None:
        """UNSET of version 2, which ignores the protocol."""
        expected = self.unset_expected(caller, [(program, version, n) for n in NETIDS])
        assert self.asked(caller, 2, 2, pmap(program, version, protocol, 7)) == expected

    @rule(target=holders, uid=st.sampled_from((0, 104)))
    def open(self, uid: int) -> Holder:
        """A connection of the local channel."""
        return self.mapper.registry.open(Holder(uid, 1))

    @rule(holder=holders, program=PROGRAMS, version=VERSIONS, netids=st.sets(NAMES, min_size=1))
    def hold(self, holder: Holder, program: int, version: int, netids: set[str]) -> None:
        """Some mappings for a connection's life, all or none."""
        address = {netid: address_of(netid, 2049) for netid in netids}
        new = [
            mapping(program, version, netid, address[netid], holder.owner, holder)
            for netid in netids
        ]
        try:
            self.mapper.registry.map(*new)
        except AlreadyRegistered:
            assert any(m.key in self.rows for m in new)
        else:
            assert not any(m.key in self.rows for m in new)
            self.rows |= {m.key: Row(m.address, m.owner, holder) for m in new}

    @rule(holder=consumes(holders))
    def close(self, holder: Holder) -> None:
        """The connection ends."""
        self.mapper.registry.close(holder)
        self.rows = {key: row for key, row in self.rows.items() if row.holder is not holder}
        assert (holder.mappings, holder.allowance.held) == ({}, 0)

    @rule(netid=NAMES, port=NUMBERS)
    def bind(self, netid: str, port: int) -> None:
        """An address is bound, or is no longer."""
        self.mapper.bound ^= {address_of(netid, port)}

    @invariant()
    def registry_agrees(self) -> None:
        """The registry is what the rules say, and what its changes told."""
        registered = {m.key: m for m in self.mapper.registry.mappings}
        found = {key: Row(m.address, m.owner, m.holder) for key, m in registered.items()}
        assert found == self.rows
        assert registered == self.heard
        assert len(self.mapper.registry.mappings) == len(self.rows)

    @invariant()
    def dumps_agree(self) -> None:
        """Both kinds of DUMP show it, each in its own words."""
        results = self.mapper.ask(loopback(), 3, 4) or b""
        rows = [(r.program, r.version, r.netid) for r in xdr.Reader(results).sequence(read_rpcb)]
        assert rows == sorted(self.rows)
        results = self.mapper.ask(loopback(), 2, 4) or b""
        ports = {
            Pmap(program, version, number, split_address(row.address)[1])
            for (program, version, netid), row in self.rows.items()
            if (number := NETIDS[netid].number) is not None
        }
        assert set(xdr.Reader(results).sequence(read_pmap)) == ports

    @invariant()
    def lookups_agree(self) -> None:
        """GETPORT finds exactly what a protocol has of a program."""
        for program in (1, 2, PROGRAM):
            for protocol, netid in PROTOCOLS.items():
                there = any((program, version, netid.name) in self.rows for version in (1, 2))
                port = self.mapper.ask(loopback(), 2, 3, pmap(program, 1, protocol))
                assert (port != bytes(4)) == there


class ModelTests(SynchronousTestCase):
    """The machine above, at work."""

    def test_model(self) -> None:
        """After any operations in any order, registry, answers, changes and model agree."""
        shape = settings(PROPERTY, max_examples=60, stateful_step_count=40)
        run_state_machine_as_test(Machine, settings=shape)
