"""Three machines with three members of etcd: what one shares, the others have."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.support.machines import TTL, Machine, Network, cluster
from tests.support.namespace import eventually

pytestmark = pytest.mark.programs("etcd", "etcdctl", "curl")

EXCLUSIVE, SHARED = 1, 4
BOTH = EXCLUSIVE | SHARED
#: Seconds by which a machine of tests may be slower than what is promised.
SLOW = 5.0
#: A lease that would outlive the test.
LONG = 60
PORTMAPCTL = str(Path(sys.executable).with_name("portmapctl"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Give a cluster that no test harms."""
    with cluster(tmp_path_factory.mktemp("cluster")) as network:
        yield network


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Give a cluster of the test's own."""
    with cluster(tmp_path) as network:
        yield network


def held(machine: Machine, name: str) -> list[str]:
    """On which machines a name is listed."""
    return sorted(row[5] for row in machine.do("listed", name=name)["rows"])


def test_seen(shared: Network) -> None:
    """A service is seen on the others, soon; and it is gone there soon after its end."""
    one, two, three = shared.machines
    delays = []
    for number in range(20):
        name = f"seen{number}"
        waiting = [each.begin("until", name=name, count=1) for each in (two, three)]
        registered = one.outcome(one.begin("reg", by="a", name=name, port=4711, flags=SHARED))
        seen = [each.outcome(serial) for each, serial in zip((two, three), waiting, strict=True)]
        delays += [each["value"] - registered["begun"] for each in seen]
    (row,) = two.do("listed", name="seen0")["rows"]
    assert (row[0], row[1], row[3:]) == ("seen0", 0, [4711, "", "one", "10.9.0.1"])
    one.do("close", by="a")
    for each in (two, three):
        each.do("until", name="seen19", count=0)
    # Other things that the machine does must not fail the test.
    assert min(delays) < 0.05, delays


def test_exclusive(shared: Network) -> None:
    """A name has one holder in the whole cluster; the refusal says who."""
    one, two, three = shared.machines
    one.do("reg", by="a", name="mine", port=4711, flags=BOTH)
    error, why = two.refused("reg", by="b", name="mine", port=4712, flags=BOTH)
    assert error == "AlreadyRegistered"
    assert "by uid 0, pid " in why
    assert why.endswith(" on host one")
    # The same machine has it once, too; and what is refused is not shared.
    error, _ = one.refused("reg", by="b", name="mine", port=4712, flags=BOTH)
    assert error == "AlreadyRegistered"
    three.do("until", name="mine", count=1)
    one.do("dereg", by="a", name="mine")
    eventually(lambda: "value" in take(two, "mine"), "the name is free")
    three.do("until", name="mine", count=1)
    assert held(three, "mine") == ["two"]
    two.do("close", by="b")


def take(machine: Machine, name: str) -> dict[str, object]:
    """Try to have a name."""
    return machine.outcome(machine.begin("reg", by="b", name=name, port=1, flags=BOTH))


def test_watched(shared: Network) -> None:
    """A watcher is told of what is there, and of every change, in order."""
    one, two, three = shared.machines
    one.do("reg", by="w", name="watched", port=1, flags=SHARED)
    three.do("until", name="watched", count=1)
    watching = three.begin("watched", name="watched", count=4)
    three.do("until", name="watched", count=1)
    two.do("reg", by="w", name="watched", port=2, flags=SHARED)
    three.do("until", name="watched", count=2)
    one.do("close", by="w")
    three.do("until", name="watched", count=1)
    two.do("close", by="w")
    told = [row[:2] for row in three.outcome(watching)["value"]]
    assert told == [
        ["registered", "one"],
        ["registered", "two"],
        ["deregistered", "one"],
        ["deregistered", "two"],
    ]


def test_processes_are_killed(network: Network) -> None:
    """What killed processes shared is gone everywhere."""
    one, two, three = network.machines
    for number in range(5):
        one.do("reg", by=f"c{number}", name="killed", port=1 + number, flags=SHARED)
    two.do("until", name="killed", count=5)
    waiting = [each.begin("until", name="killed", count=0) for each in (two, three)]
    one.end_processes()
    for each, serial in zip((two, three), waiting, strict=True):
        each.outcome(serial)


def test_daemon_is_killed(network: Network) -> None:
    """What a machine shared whose daemon is killed is gone within the time of its lease, and a
    second; if the daemon is started again at once, it is there all the time.
    """
    one, two, _ = network.machines
    assert one.daemon is not None
    one.do("reg", by="a", name="kept", port=4711, flags=BOTH)
    two.do("until", name="kept", count=1)
    watching = two.begin("watched", name="kept", count=2)
    one.daemon.stop(SIGKILL)
    one.start(urls(network))
    one.joined()
    # Its client has registered again; the entry and the name have been there all the time.
    time.sleep(TTL + 1)
    assert held(two, "kept") == ["one"]
    killed = time.monotonic()
    one.daemon.stop(SIGKILL)
    gone = two.outcome(two.begin("until", name="kept", count=0))["value"]
    assert gone - killed < TTL + 1 + SLOW
    changes = [row[:2] for row in two.outcome(watching)["value"]]
    assert changes == [["registered", "one"], ["deregistered", "one"]]


def test_link_is_cut(network: Network) -> None:
    """A machine that is cut off loses its names before another one can have them, and is told so;
    its own services go on, and all heals by itself.
    """
    one, two, three = network.machines
    one.do("reg", by="a", name="torn", port=4711, flags=BOTH)
    one.do("reg", by="b", name="there", port=4712, flags=SHARED)
    two.do("until", name="there", count=1)
    cut = time.monotonic()
    network.cut(one)
    gone = two.outcome(two.begin("until", name="there", count=0))["value"]
    assert gone - cut < TTL + 1 + SLOW
    eventually(lambda: "value" in take(two, "torn"), "another machine has the name")
    taken = time.monotonic()
    ((client, name, lost),) = one.do("lost")
    assert (client, name) == ("a", "torn")
    assert lost < taken
    assert one.refused("reg", by="a", name="other", port=1, flags=BOTH)[0] == "ClusterUnreachable"
    assert one.do("cluster")["state"] == "unreachable"
    network.mend(one)
    one.joined()
    three.do("until", name="there", count=1)
    assert held(three, "torn") == ["two"]


def test_member_is_killed(tmp_path: Path) -> None:
    """With a member of etcd killed, nothing is lost, and everything goes on."""
    # While the others agree on a leader, no lease can be kept alive.
    with cluster(tmp_path, "--cluster-ttl", "15") as network:
        _member_is_killed(network)


def _member_is_killed(network: Network) -> None:
    one, two, three = network.machines
    one.do("reg", by="a", name="before", port=4711, flags=BOTH)
    three.do("until", name="before", count=1)
    assert one.etcd is not None
    watching = three.begin("watched", name="before", count=2)
    one.etcd.process.stop(SIGKILL)
    two.do("reg", by="a", name="after", port=4712, flags=SHARED)
    three.do("until", name="after", count=1)
    one.joined()
    time.sleep(TTL)
    assert held(three, "before") == ["one"]
    one.do("close", by="a")
    assert [row[0] for row in three.outcome(watching)["value"]] == ["registered", "deregistered"]


def test_etcd_is_away(network: Network) -> None:
    """Without etcd the local channel goes on; what is known is told with its age, and no longer
    once it is too old. After a compaction nothing was missed.
    """
    one, two, _ = network.machines
    one.do("reg", by="a", name="first", port=4711, flags=SHARED)
    two.do("until", name="first", count=1)
    members = [each.etcd for each in network.machines if each.etcd]
    watching = two.begin("watched", name=["first", "second"], count=3)
    two.do("until", name="first", count=1)
    for member in members:
        member.process.stop(SIGKILL)
    one.do("dereg", by="a", name="first")
    one.do("reg", by="a", name="second", port=4712, flags=SHARED)
    eventually(lambda: two.do("listed", name="first")["age"] >= 2, "it says how old it is")
    for member in members:
        member.again()
    for member in members:
        member.wait()
    two.do("until", name="second", count=1)
    told = [row[0] for row in two.outcome(watching)["value"]]
    assert sorted(told) == ["deregistered", "registered", "registered"]
    assert one.log.read_text().count("is cut off from its cluster") == 1


def test_stale(tmp_path: Path) -> None:
    """What was known too long ago is refused rather than trusted."""
    with cluster(tmp_path, "--cluster-stale", "1", members=1) as network:
        one, two, _ = network.machines
        one.do("reg", by="a", name="first", port=4711, flags=SHARED)
        two.do("until", name="first", count=1)
        assert one.etcd is not None
        one.etcd.process.stop(SIGKILL)
        eventually(lambda: refusal(two) is not None, "it is refused")
        error, why = refusal(two) or ("", "")
        assert error == "ClusterUnreachable"
        assert "--cluster-stale is 1 s" in why


def refusal(machine: Machine) -> tuple[str, str] | None:
    """Why a listing is refused; None: it is not."""
    outcome = machine.outcome(machine.begin("listed"))
    return (outcome["error"], outcome["why"]) if "error" in outcome else None


def test_stop_and_handover(tmp_path: Path) -> None:
    """A hand-over is not noticed elsewhere; a stop gives everything back at once."""
    with cluster(tmp_path, "--cluster-ttl", str(LONG)) as network:
        _stop_and_handover(network)


def _stop_and_handover(network: Network) -> None:
    one, two, _ = network.machines
    one.do("reg", by="a", name="passed", port=4711, flags=BOTH)
    two.do("until", name="passed", count=1)
    watching = two.begin("watched", name="passed", count=2)
    said = one.namespace.run(PORTMAPCTL, "restart")
    assert "is restarted" in said
    one.joined()
    assert held(two, "passed") == ["one"]
    assert one.do("lost") == []
    stopped = time.monotonic()
    pids = one.namespace.run("pgrep", "-f", "portmapd --port 10111").split()
    one.namespace.run("kill", *pids)
    gone = two.outcome(two.begin("until", name="passed", count=0))["value"]
    assert gone - stopped < LONG / 2
    assert [row[0] for row in two.outcome(watching)["value"]] == ["registered", "deregistered"]


def urls(network: Network) -> list[str]:
    """The members of etcd."""
    return [each.etcd.url for each in network.machines if each.etcd]
