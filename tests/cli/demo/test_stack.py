"""The stack: compose.yaml and its files, and what `glasscache demo --stack` starts and ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
import yaml

from cache_core.cli.app import app
from cache_core.cli.demo import stack
from cache_core.cli.demo.stack.processes import Servers, url_of
from cache_core.cli.demo.stack.servers import start_exporter
from tests.support import servers
from tests.support.paths import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load(
    (ROOT / "compose" / "prometheus.yml").read_text(encoding="utf-8")
)
each_service = pytest.mark.parametrize("name", SERVICES)


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------------- compose.yaml


@pytest.mark.slow
def test_it_is_a_compose_file() -> None:
    """The schema of the Compose specification accepts it."""
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    run(checker, "--builtin-schema", "vendor.compose-spec", str(ROOT / "compose.yaml"))


@pytest.mark.slow
def test_the_schema_would_find_a_misspelt_key(tmp_path: Path) -> None:
    """The schema check fails for a compose file with a misspelt key."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8").replace("    ports:", "    prots:")
    (tmp_path / "compose.yaml").write_text(text, encoding="utf-8")
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(tmp_path / "compose.yaml")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 1


def test_everything_is_in_it() -> None:
    """The stack has every service that the documentation promises."""
    assert set(SERVICES) == {
        "redis", "redis-exporter", "chroma", "agent", "tuner",
        "prometheus", "alertmanager", "jaeger", "grafana",
    }  # fmt: skip


@each_service
def test_a_service_has_a_pinned_image_and_says_whether_it_works(name: str) -> None:
    """Each service has a health check and an image of a fixed version."""
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    if "build" in service:
        build = ROOT / service["build"]["context"] / service["build"]["dockerfile"]
        (base,) = re.findall(r"^FROM (\S+)", build.read_text(encoding="utf-8"), re.MULTILINE)
    else:
        base = service["image"]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.]+)*", base), base


@each_service
def test_ports_are_published_on_loopback_and_stores_not_at_all(name: str) -> None:
    """Published ports are on 127.0.0.1, and stores are in an internal network."""
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    if set(SERVICES[name]["networks"]) == {"store"}:
        assert not ports
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_what_is_declared_is_used_and_what_is_used_is_declared() -> None:
    """Volumes, networks and secrets are declared exactly where they are used."""
    mounts = [mount.split(":")[0] for one in SERVICES.values() for mount in one.get("volumes", ())]
    assert {mount for mount in mounts if not mount.startswith(".")} == set(COMPOSE["volumes"])
    assert {net for one in SERVICES.values() for net in one["networks"]} == set(COMPOSE["networks"])
    secrets = [secret for one in SERVICES.values() for secret in one.get("secrets", ())]
    used = {one["source"] if isinstance(one, dict) else one for one in secrets}
    assert used == set(COMPOSE["secrets"])


def test_what_is_mounted_is_there(tmp_path: Path) -> None:
    """Files of the project are in it; the secrets are, once the script has run, and stay."""
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source, target, *mode = mount.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"], target
    script = tmp_path / "compose" / "secrets.sh"
    script.parent.mkdir()
    for name in ("secrets.sh", "redis.acl"):
        shutil.copy(ROOT / "compose" / name, script.parent)
    run("sh", str(script))
    files = [tmp_path / secret["file"] for secret in COMPOSE["secrets"].values()]
    before = [file.read_text() for file in files]
    assert all(before)
    run("sh", str(script))
    assert [file.read_text() for file in files] == before


@pytest.mark.server
def test_redis_takes_the_users_and_passwords_that_the_script_makes(tmp_path: Path) -> None:
    """A real Redis accepts the users of `secrets.sh`, each with its rights."""
    for name in ("secrets.sh", "redis.acl"):
        shutil.copy(ROOT / "compose" / name, tmp_path)
    run("sh", str(tmp_path / "secrets.sh"))
    assert "/run/secrets/redis_acl" in SERVICES["redis"]["command"]
    port = servers.free_port()
    made = tmp_path / "secrets"
    command = [
        servers.require("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--dir", str(tmp_path), "--aclfile", str(made / "redis_acl"),
    ]  # fmt: skip
    with servers.running(command, port):
        with contextlib.closing(redis.Redis(port=port)) as anybody:
            assert anybody.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                anybody.get("gc1:a")
        for user, file in (
            ("glasscache", "redis_password"),
            ("exporter", "redis_exporter_password"),
            ("operator", "redis_operator_password"),
        ):
            url = servers.redis_url(port, user, (made / file).read_text())
            with contextlib.closing(redis.Redis.from_url(url)) as client:
                assert client.info("memory")
                if user == "operator":
                    client.config_set("maxmemory", "512mb")
                    assert client.slowlog_get() == []
                else:
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        client.config_set("maxmemory", "512mb")


def test_no_secret_is_committed() -> None:
    """Git ignores the secrets, and none is tracked."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    ignored = run("git", "check-ignore", "compose/secrets/dashboard_token", cwd=ROOT)
    assert ignored.strip() == "compose/secrets/dashboard_token"
    assert run("git", "ls-files", "compose/secrets", cwd=ROOT) == ""


def test_the_image_is_built_from_files_that_are_there_and_sent() -> None:
    """Every path that the Dockerfile copies exists, and `.dockerignore` does not exclude it."""
    text = (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in sent, name


@pytest.mark.parametrize("name", ["agent", "tuner"])
def test_our_commands_take_the_options_that_they_are_given(name: str) -> None:
    """The commands of the compose file parse with the real command line."""
    command = SERVICES[name]["command"]
    words = command if command[0] != "sh" else command[-1].partition(" exec ")[2].split()
    assert words[0] == "glasscache"
    made = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    made.make_context(words[1], list(words[2:]))


def test_every_host_that_is_named_is_a_service_in_reach() -> None:
    """A service that names a host shares a network with it."""
    by_hand = {
        "prometheus": (ROOT / "compose" / "prometheus.yml").read_text(encoding="utf-8"),
        "grafana": (ROOT / "grafana/provisioning/datasources/glasscache.yml").read_text("utf-8"),
    }
    found = set()
    for name, service in SERVICES.items():
        words = json.dumps([service.get("command"), service.get("environment")])
        text = words + by_hand.get(name, "")
        for host, port in re.findall(r"[\s/\[@]([a-z][a-z-]+):(\d{4,5})\b", text):
            if host != "localhost":
                found.add((host, int(port)))
                shared = set(SERVICES[host]["networks"]) & set(service["networks"])
                assert shared, f"{name} cannot reach {host}"
    assert found == {
        ("redis", 6379), ("chroma", 8000), ("jaeger", 4318), ("jaeger", 16686), ("agent", 9464),
        ("redis-exporter", 9121), ("prometheus", 9090), ("alertmanager", 9093),
    }  # fmt: skip


@pytest.mark.server
def test_prometheus_accepts_its_configuration_with_the_rules(tmp_path: Path) -> None:
    """Prometheus accepts the configuration and the rules, laid out as in the container."""
    shutil.copytree(ROOT / "alerts", tmp_path / "alerts")
    shutil.copy(ROOT / "compose" / "prometheus.yml", tmp_path)
    told = run(servers.require("promtool"), "check", "config", str(tmp_path / "prometheus.yml"))
    assert "2 rule files found" in told
    jobs = {job["job_name"] for job in PROMETHEUS["scrape_configs"]}
    assert {"agent", "redis"} <= jobs
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]
    exporter = SERVICES["redis-exporter"]["command"][0]
    assert "-include-system-metrics" in exporter
    seconds = float(exporter.rpartition("-connection-timeout ")[2].removesuffix("s"))
    assert seconds < 10, "Prometheus gives up on a scrape after 10 s"


def test_grafana_and_prometheus_agree_on_the_interval() -> None:
    """The data source's interval is Prometheus's scrape interval."""
    text = (ROOT / "grafana/provisioning/datasources/glasscache.yml").read_text(encoding="utf-8")
    interval = PROMETHEUS["global"]["scrape_interval"]
    assert f"timeInterval: {interval}" in text


def test_alertmanager_finds_every_secret_that_it_names() -> None:
    """Secret files named by Alertmanager's configuration are those mounted for it."""
    text = (ROOT / "alerts" / "alertmanager.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"_file: (\S+)", text))
    assert named == {secret["target"] for secret in SERVICES["alertmanager"]["secrets"]}


# ---------------------------------------------------------------------------- demo --stack


PROGRAMS = (
    "redis-server", "prometheus", "prometheus-alertmanager", "prometheus-redis-exporter",
)  # fmt: skip
SERVERS = {"redis", "redis_exporter", "alertmanager", "prometheus"}
_CODE = "from cache_core.cli.app import main; main()"


@contextlib.contextmanager
def start(
    *arguments: str, root: Path = ROOT, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CACHE_", "REDIS_", "CHROMA_", "SEMANTIC_", "OTEL_"))
    }
    # Without L2 no model is loaded: these tests are about the servers.
    with subprocess.Popen(
        [sys.executable, "-c", _CODE, "demo", "--stack", *arguments],
        cwd=root, env=clean | {"CACHE_TIERS": "l1,l3,l4"} | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def listening(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the table of what listens where, as far as Prometheus."""
    assert process.stderr is not None
    found: dict[str, str] = {}
    for line in process.stderr:
        name, _, where = line.strip().partition(" ")
        if name in SERVERS:
            found[name] = where.strip()
        if name == "prometheus":
            return found
    raise AssertionError(found)


def answers(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(re.findall(r":(\d+)", url)[0]))) == 0


def gone(urls: dict[str, str], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(answers, urls.values())):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def installed() -> None:
    for program in PROGRAMS:
        servers.require(program)


@pytest.mark.server
def test_a_redis_that_hangs_is_reported_as_down(tmp_path: Path) -> None:
    """The exporter answers in time, and says so: no answer would tell nothing."""
    program = servers.require("prometheus-redis-exporter")
    with servers.redis_server(tmp_path) as url, Servers.guarded(tmp_path) as group:
        exporter = url_of(start_exporter(group, program, url), "/metrics")
        with servers.admin(url) as client:
            client.client_pause(20_000)
            with urllib.request.urlopen(exporter, timeout=5) as answer:
                assert "\nredis_up 0\n" in answer.read().decode()


@pytest.mark.server
@pytest.mark.usefixtures("installed")
def test_a_headless_run_has_everything_around_it_and_leaves_nothing() -> None:
    """A run with the stack reports every server, and all have ended after it."""
    with start("--requests", "100", "--json") as process:
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    report = json.loads(output)
    assert sum(report["outcomes"].values()) == 100
    where = report["listening"]
    assert where.keys() >= SERVERS | {"metrics"}
    assert len(set(where.values())) == len(where)
    assert report["notes"] == []
    assert report["alerts"] == []
    assert gone({name: where[name] for name in SERVERS}, 0.5)


@pytest.mark.server
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_outlives_the_demo_however_it_ends(how: signal.Signals) -> None:
    """Any signal that ends the demo ends its servers, too."""
    with start("--steady", "--json") as process:
        where = listening(process)
        assert where.keys() == SERVERS
        assert all(map(answers, where.values()))
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode == (-9 if how == signal.SIGKILL else 0)
        assert gone(where)


@pytest.mark.server
@pytest.mark.usefixtures("installed")
def test_nothing_outlives_a_crash(tmp_path: Path) -> None:
    """An exception within the stack ends its servers."""
    code = (
        "import sys; from pathlib import Path; from cache_core.cli.demo.stack import stack\n"
        "with stack(Path(sys.argv[1]), 1) as made:\n"
        "    print([place.where for place in made.places], flush=True); raise RuntimeError"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "RuntimeError" in done.stderr
    where = dict(enumerate(re.findall(r"'([^']+)'", done.stdout)))
    assert len(where) == len(SERVERS)
    assert gone({str(key): url for key, url in where.items()}, 0.5)


@pytest.mark.server
@pytest.mark.usefixtures("installed")
@pytest.mark.timeout(180)
def test_prometheus_watches_the_demo_and_an_alert_reaches_it() -> None:
    """The rules are loaded, both targets are up, and Alertmanager's webhook is the demo."""
    with start("--steady", "--rate", "20", "--json") as process:
        where = listening(process)

        def ask(query: str) -> list[Any]:
            url = f"{where['prometheus']}/api/v1/query?query={query}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                found: list[Any] = json.load(answer)["data"]["result"]
            return found

        for query in (
            "sum(up)==2",
            "sum(cache_lookups_total)>20",
            "glasscache:limit",
            "redis_up==1",
        ):
            deadline = time.monotonic() + 60
            while not ask(query):
                assert process.poll() is None
                assert time.monotonic() < deadline, query
                time.sleep(0.5)
        labels = ["alertname=CacheOfATest", "severity=critical", "job=agent", "cache=demo"]
        run(
            servers.require("amtool"), "alert", "add", *labels, "--annotation=summary=It works",
            f"--alertmanager.url={where['alertmanager']}",
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:  # in time, or the test's own limit ends it
            if "firing: CacheOfATest: It works" in line:
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert {"status": "firing", "alert": "CacheOfATest"} in json.loads(output)["alerts"]


@pytest.mark.slow
def test_what_is_missing_is_said_with_how_to_install_it(tmp_path: Path) -> None:
    """And the demo goes on without it, on the embedded store."""
    for program in ("sh", "cat"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    with start("--requests", "20", "--json", PATH=str(tmp_path)) as process:
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    report = json.loads(output)
    assert len(report["notes"]) == len(SERVERS)
    for program in PROGRAMS:
        assert any(note.endswith(f"apt-get install {program}") for note in report["notes"])
        assert f"apt-get install {program}" in " ".join(errors.split())
    assert "embedded_sqlite_and_chroma" in report["listening"]


@pytest.mark.slow
@pytest.mark.server
def test_without_the_shipped_files_it_says_so(tmp_path: Path) -> None:
    """The error of a copy of the code alone names what is not there."""
    for folder in ("glasscache", "cache_core", "telemetry"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    with start("--requests", "5", "--json", root=tmp_path, PYTHONPATH=str(tmp_path)) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    assert "alerts is not here" in " ".join(errors.split())


@pytest.mark.slow
def test_a_redis_of_ones_own_and_the_stacks_exclude_each_other() -> None:
    """`--stack` with `--redis-url` is rejected with a hint."""
    with start("--redis-url", "redis://127.0.0.1:1") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "leave --redis-url out" in " ".join(errors.split())


@pytest.mark.server
def test_the_adapted_alertmanager_keeps_routes_and_inhibitions(tmp_path: Path) -> None:
    """The demo's Alertmanager has the shipped routes and inhibitions, with one receiver."""
    shipped = yaml.safe_load((ROOT / "alerts" / "alertmanager.yml").read_text(encoding="utf-8"))
    text = stack.for_one_receiver(ROOT / "alerts" / "alertmanager.yml", "http://127.0.0.1:1/")
    adapted = yaml.safe_load(text)
    assert adapted["route"] == shipped["route"]
    assert adapted["inhibit_rules"] == shipped["inhibit_rules"]
    names = [receiver["name"] for receiver in shipped["receivers"]]
    assert [receiver["name"] for receiver in adapted["receivers"]] == names
    told = [one["name"] for one in adapted["receivers"] if "webhook_configs" in one]
    assert told == [one["name"] for one in shipped["receivers"] if len(one) > 1]
    (tmp_path / "alertmanager.yml").write_text(text, encoding="utf-8")
    run(servers.require("amtool"), "check-config", str(tmp_path / "alertmanager.yml"))
