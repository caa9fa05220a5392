"""What Prometheus is told."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from portmapd.errors import AlreadyRegistered
from portmapd.oncrpc.program import Pmap, encode_pmap
from tests.support.exchange import connect, connect_local, exchange, question
from tests.support.namespace import TOP, eventually, found
from tests.support.web import WebDaemon, web_daemon

Labels = frozenset[tuple[str, str]]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebDaemon]:
    """Give a daemon with a state file."""
    with web_daemon(tmp_path, "--state", str(tmp_path / "state" / "mappings")) as running:
        yield running


def samples(web: WebDaemon) -> dict[str, dict[Labels, float]]:
    """Every sample, by its name and its labels."""
    told: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(web.ask("/metrics").text):
        for sample in family.samples:
            told.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return told


def labels(**values: str) -> Labels:
    """The labels of a sample."""
    return frozenset(values.items())


def test_calls(web: WebDaemon) -> None:
    """Calls are told apart by version, procedure, transport and result; refusals by reason."""
    unknown = encode_pmap(Pmap(7, 1, 17, 0))
    with connect_local(web.daemon.path) as skt:
        for call in (question(2, 0), question(2, 3, unknown), question(2, 3, unknown)):
            exchange(skt, call)
        exchange(skt, question(3, 99))
    with connect(socket.SOCK_STREAM, "127.0.0.1", web.daemon.port) as skt:
        exchange(skt, question(2, 3, unknown))
    with web.client() as client:
        client.reg("printer.example.com", 9100, 1)
        with pytest.raises(AlreadyRegistered):
            client.reg("printer.example.com", 9101)
        told = samples(web)
    calls = told["portmapd_calls_total"]
    null = {"version": "2", "procedure": "NULL", "result": "success"}
    lookup = {"version": "2", "procedure": "GETPORT", "result": "failure"}
    assert calls[labels(**null, transport="local")] == 1
    assert calls[labels(**lookup, transport="local")] == 2
    assert calls[labels(**lookup, transport="tcp")] == 1
    refusals = told["portmapd_refusals_total"]
    assert refusals[labels(reason="PROC_UNAVAIL")] == 1
    assert refusals[labels(reason="ALREADY_REGISTERED")] == 1
    assert told["portmapd_registrations"][labels(kind="service")] == 2
    assert told["portmapd_connections"][labels(kind="channel")] == 1
    assert told["portmapd_connections"][labels(kind="http")] == 1
    assert told["portmapd_changes_total"][labels(kind="registered")] == 2
    assert len(told["portmapd_build_info"]) == 1
    assert told["process_resident_memory_bytes"][labels()] > 1_000_000


def test_bytes(web: WebDaemon) -> None:
    """Bytes are counted in both directions, whether replies are known before or not."""
    call = question(2, 3, encode_pmap(Pmap(100_000, 2, 17, 0)))
    for kind, transport in ((socket.SOCK_DGRAM, "udp"), (socket.SOCK_STREAM, "tcp")):
        with connect(kind, "127.0.0.1", web.daemon.port) as skt:
            replies = [exchange(skt, call) for _ in range(3)]
        told = samples(web)["portmapd_bytes_total"]
        mark = 4 * (transport == "tcp")
        for direction, messages in (("received", [call] * 3), ("sent", replies)):
            count = sum(len(message) + mark for message in messages)
            assert told[labels(direction=direction, transport=transport)] == count


def test_state_and_latency(web: WebDaemon) -> None:
    """How old the state file is, and how long a call takes, is measured without any caller."""
    eventually(lambda: samples(web)["portmapd_latency_seconds_count"][labels()], "a timed call")
    eventually(lambda: samples(web)["portmapd_state_age_seconds"][labels()] < 60, "it is written")
    told = samples(web)
    assert told["portmapd_state_behind_seconds"][labels()] == 0
    assert 0 < told["portmapd_latency_seconds_sum"][labels()] < 60


def test_no_names(web: WebDaemon) -> None:
    """No label has a service's name, a caller's address, or anything that a caller chose."""
    with connect_local(web.daemon.path) as skt:
        for program in range(300):
            exchange(skt, question(2, 3, encode_pmap(Pmap(program, 1, 17, 0))))
    with web.client() as client:
        client.reg('x"{}\\', 9100)
        text = web.ask("/metrics").text
    assert 'x"{}' not in text
    assert "127.0.0.1" not in text
    assert text.count("portmapd_calls_total{") < 10


needs_promtool = pytest.mark.skipif(not found("promtool"), reason="not on this machine: promtool")
CONTRIB = TOP / "contrib"


def promtool(*words: str, given: bytes = b"") -> None:
    """Run promtool, which must find nothing wrong."""
    done = subprocess.run(
        ["promtool", *words],
        cwd=CONTRIB / "prometheus",
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


def dashboard() -> list[str]:
    """The expressions of the dashboard, with values for its variables."""
    panels = json.loads((CONTRIB / "grafana" / "portmapd.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    return [e.replace("$__rate_interval", "5m").replace("$", "") for e in expressions]


@needs_promtool
def test_promtool(web: WebDaemon) -> None:
    """promtool finds nothing wrong with the names and the format."""
    with connect_local(web.daemon.path) as skt:
        exchange(skt, question(2, 0))
    promtool("check", "metrics", given=web.ask("/metrics").body)


@needs_promtool
def test_alerts(tmp_path: Path) -> None:
    """The alert rules are well-formed, and fire when they should; the dashboard's queries are."""
    promtool("check", "rules", "portmapd.rules.yml")
    promtool("test", "rules", "portmapd.rules.test.yml")
    rules = [{"record": f"r:{n}", "expr": text} for n, text in enumerate(dashboard())]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_contrib_names_what_there_is(web: WebDaemon) -> None:
    """The alert rules and the dashboard ask for metrics that are told."""
    with connect_local(web.daemon.path) as skt:
        exchange(skt, question(2, 99))
    told = {*samples(web), "up"}
    rules = yaml.safe_load((CONTRIB / "prometheus" / "portmapd.rules.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for expression in (*alerts, *dashboard()):
        names = re.findall(r"([a-z_]+)\{", expression)
        assert names
        assert set(names) <= told, expression
