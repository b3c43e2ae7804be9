"""`OTEL_*` variables as platforms inject them: the agent starts, and one line says what is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult

import telemetry
from cache_core.model.tasks import background
from telemetry import PrometheusInstrument, exporters, reported
from tests.support import servers
from tests.support.collector import Collector, collector, grpc_collector
from tests.support.waiting import wait_until

GRPC = "otlp_proto_grpc"


@pytest.fixture
def by_grpc() -> Iterator[Collector]:
    with grpc_collector() as found:
        yield found


@pytest.fixture
def provided(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TracerProvider]]:
    """The providers that `configure` sets, which do not become this process's own."""
    found: list[TracerProvider] = []
    monkeypatch.setattr(trace, "set_tracer_provider", found.append)
    monkeypatch.setattr(exporters, "_configured", [])
    yield found
    for provider in found:
        provider.shutdown()


def _set(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "glasscache"]


@pytest.mark.parametrize(
    ("variables", "line", "sends"),
    [
        ({"SDK_DISABLED": "true", "EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_SDK_DISABLED", False),
        ({"SDK_DISABLED": "True", "TRACES_EXPORTER": "console"}, "OTEL_SDK_DISABLED", False),
        ({"SDK_DISABLED": "true", "SPAN_ATTRIBUTE_COUNT_LIMIT": "x"}, "OTEL_SDK_DISABLED", False),
        ({"TRACES_EXPORTER": "none"}, "", True),
        ({"TRACES_EXPORTER": "otlp, none,"}, "", True),
        ({"TRACES_EXPORTER": " "}, "", True),
        ({"EXPORTER_OTLP_PROTOCOL": "http/json"}, "", True),
        ({"EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, "", True),
        ({"TRACES_EXPORTER": "zipkin"}, "not sent: zipkin (not installed", False),
        ({"TRACES_EXPORTER": "otlp,zipkin"}, "sent, but not by zipkin (not installed", True),
        ({"EXPORTER_OTLP_TRACES_PROTOCOL": "htpp"}, "not sent: otlp (OTEL_EXPORTER_OTLP_TR", False),
        ({"BSP_MAX_QUEUE_SIZE": "0"}, "not sent: otlp_proto_http (ValueError", False),
        ({"SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "not sent: ValueError", False),
        ({"PYTHON_TRACER_PROVIDER": "bogus"}, "left alone", False),
        ({"PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "x"}, "not sent: otlp_proto_h", False),
        (
            {"EXPORTER_OTLP_PROTOCOL": "grpc", "EXPORTER_OTLP_COMPRESSION": "zstd"},
            "not sent: otlp_proto_grpc (",
            False,
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_whatever_the_environment_says_the_agent_starts(
    variables: dict[str, str],
    line: str,
    sends: bool,
    monkeypatch: pytest.MonkeyPatch,
    provided: list[TracerProvider],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`configure` never raises; what is not sent is named in one line, and the rest is sent."""
    _set(monkeypatch, variables)
    with caplog.at_level(logging.INFO):
        sent = telemetry.configure("shop")
    assert sent.ours == sends == bool(provided)
    assert telemetry.configure("again").ours == sends
    lines = _lines(caplog)
    assert len(lines) == (len(set(lines)) if line else 0)
    assert all(line in found for found in lines)
    assert bool(lines) == bool(line)


@pytest.mark.parametrize(
    "variables",
    [
        {"EXPORTER_OTLP_HEADERS": "authorization=Basic sekret", "BSP_MAX_QUEUE_SIZE": "-1"},
        {"EXPORTER_OTLP_ENDPOINT": "http://me:sekret@[bad", "EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"SPAN_LINK_COUNT_LIMIT": "sekret", "EXPORTER_OTLP_TRACES_HEADERS": "x=sekret"},
    ],
)
def test_no_password_of_the_environment_is_logged(
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    provided: list[TracerProvider],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Headers and passwords in addresses stay out of our lines, also where an error quotes them."""
    _set(monkeypatch, variables)
    telemetry.configure()
    assert "sekret" not in "\n".join(_lines(caplog))


def _send_one() -> None:
    provider = exporters._provider("shop")
    assert provider is not None
    provider.get_tracer("agent").start_span("one").end()
    provider.force_flush()


def test_spans_arrive_by_every_exporter_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
    provided: list[TracerProvider],
    by_grpc: Collector,
) -> None:
    """By gRPC, set as protocol or by name, and a list of two: each receives the spans."""
    _set(monkeypatch, {"EXPORTER_OTLP_PROTOCOL": "grpc", "EXPORTER_OTLP_ENDPOINT": by_grpc.url})
    _send_one()
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    _set(monkeypatch, {"TRACES_EXPORTER": GRPC})
    _send_one()
    assert [span.name for span in by_grpc.spans] == ["one", "one"]
    shown: list[str] = []

    def show(_, spans):
        shown.extend(span.name for span in spans)
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(ConsoleSpanExporter, "export", show)
    with collector() as received:
        _set(
            monkeypatch,
            {"TRACES_EXPORTER": "otlp,console", "EXPORTER_OTLP_ENDPOINT": received.url},
        )
        _send_one()
        assert [span.name for span in received.spans] == ["one"]
    assert shown == ["one"]


@pytest.mark.slow
def test_http_at_a_grpc_port_is_not_taken_for_an_outage(
    monkeypatch: pytest.MonkeyPatch,
    provided: list[TracerProvider],
    by_grpc: Collector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line says which port speaks what, long before the SDK gives up, and comes once."""
    monkeypatch.setattr(reported, "_PATIENCE_SECONDS", 0.01)
    _set(monkeypatch, {"EXPORTER_OTLP_ENDPOINT": by_grpc.url})
    sent = telemetry.configure()
    provided[0].get_tracer("agent").start_span("one").end()
    sent.flush(0.0)
    expected = f"Port {servers.port_of(by_grpc.url)} speaks gRPC, and this exporter HTTP"
    wait_until(lambda: any(expected in line for line in _lines(caplog)))
    sent.shutdown()
    assert len(_lines(caplog)) == 1


@pytest.mark.parametrize("status", [500, 404])
def test_a_collector_that_rejects_spans_is_named_once(
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    provided: list[TracerProvider],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whichever way sending fails, one line has the exporter and its host and port."""
    with collector(status=status) as received:
        _set(monkeypatch, {"EXPORTER_OTLP_ENDPOINT": received.url})
        sent = telemetry.configure()
        for _ in range(2):
            provided[0].get_tracer("agent").start_span("one").end()
            sent.flush(0.5)
        sent.shutdown()
    host = received.url.removeprefix("http://")
    assert [line for line in _lines(caplog) if f"otlp_proto_http to {host}" in line]
    assert len(_lines(caplog)) == 1


def test_without_a_provider_that_works_metrics_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong OTEL_PYTHON_TRACER_PROVIDER costs the spans, and nothing else."""
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "bogus")
    instruments = background().run(telemetry.default_instruments, "environment")
    assert any(isinstance(item, PrometheusInstrument) for item in instruments)
    (spans,) = (item for item in instruments if isinstance(item, telemetry.TracingInstrument))
    assert spans.scope("lookup", None) is None
    assert [line for line in _lines(caplog) if "OTEL_PYTHON_TRACER_PROVIDER fails" in line]
    for item in instruments:
        if isinstance(item, PrometheusInstrument):
            item.close()
