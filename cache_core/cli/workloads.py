"""Kubernetes objects that run the tuner and the proxy, for `glasscache export kubernetes`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Head(Protocol):
    """Writes the beginning of an object, up to its metadata."""

    def __call__(self, kind: str, version: str, name: str, **labels: str) -> str:
        """Return it."""
        ...


_KEYS = {"CACHE_KEY": "cache-key", "CACHE_ENCRYPTION_KEYS": "encryption-keys"}
"""Variables that every program of a namespace has, or none, with their keys of the Secret."""


@dataclass(frozen=True, slots=True)
class Program:
    """One container of `glasscache`.

    Attributes:
        name: Of all its objects.
        command: After `glasscache`.
        port: Where it listens.
        live, ready: Paths of its probes.
        env: Names of the variables that it needs, with the key of the Secret that has each.
        replicas: Number of pods.
        memory: What it needs; its limit is twice as much.
    """

    name: str
    command: Sequence[str]
    port: int
    live: str
    ready: str
    env: Mapping[str, str]
    replicas: int
    memory: int


def tuner(namespace: str) -> Program:
    """Return the tuner of a cache's namespace, read-only: `--write` lets it change the tuning."""
    command = ("dashboard", "--namespace", namespace, "--host", "0.0.0.0")  # noqa: S104 - in a pod
    env = {"REDIS_URL": "redis-url", "CACHE_DASHBOARD_TOKEN": "dashboard-token"}
    health = "/_stcore/health"
    return Program("glasscache-tuner", command, 8501, health, health, env, 1, 512)


def proxy(namespace: str, upstream: str) -> Program:
    """Return the proxy before a provider."""
    command = ("proxy", "--namespace", namespace, "--upstream", upstream, "--host", "0.0.0.0")  # noqa: S104 - in a pod
    health = "/ops/health/"
    env = {"REDIS_URL": "redis-url"}
    return Program(
        "glasscache-proxy", command, 8787, f"{health}live", f"{health}ready", env, 2, 512
    )


def workload(program: Program, head: Head, image: str, secret: str) -> str:
    """Return a Deployment and its Service, as two documents.

    Args:
        program: What runs.
        head: Writes the beginnings.
        image: Image that has the command `glasscache`.
        secret: Name of the Secret.
    """
    name = program.name
    part = {"app.kubernetes.io/component": name.removeprefix("glasscache-")}
    labels = "".join(
        f"      {key}: {json.dumps(value)}\n"
        for key, value in {"app.kubernetes.io/name": "glasscache", **part}.items()
    )
    deployment = head("Deployment", "apps/v1", name, **part) + (
        f"spec:\n  replicas: {program.replicas}\n  selector:\n    matchLabels:\n{labels}"
        f"  template:\n    metadata:\n      labels:\n{_indented(labels)}"
        f"    spec:\n{_POD}      containers:\n{_container(program, image, secret)}"
    )
    service = head("Service", "v1", name, **part) + (
        f"spec:\n  selector:\n{_indented(labels, -2)}"
        f"  ports:\n    - name: http\n      port: {program.port}\n      targetPort: http\n"
    )
    return f"{deployment}---\n{service}"


_POD = """\
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        fsGroup: 10001
        seccompProfile:
          type: RuntimeDefault
      volumes:
        - name: data
          emptyDir: {}
        - name: tmp
          emptyDir: {}
"""


def _container(program: Program, image: str, secret: str) -> str:
    lines = [
        f"- name: {program.name.removeprefix('glasscache-')}",
        f"  image: {json.dumps(image)}",
        f"  args: {json.dumps(['glasscache', *program.command])}",
        "  ports:",
        "    - name: http",
        f"      containerPort: {program.port}",
        "  env:",
        "    - name: CACHE_DIR",
        "      value: /data",
        "    - name: HOME",
        "      value: /tmp",
        *_variables(program.env, secret),
        *_probe("readinessProbe", program.ready),
        *_probe("livenessProbe", program.live),
        "  resources:",
        "    requests:",
        "      cpu: 100m",
        f"      memory: {program.memory}Mi",
        "    limits:",
        f"      memory: {2 * program.memory}Mi",
        "  securityContext:",
        "    allowPrivilegeEscalation: false",
        "    readOnlyRootFilesystem: true",
        "    capabilities:",
        "      drop: [ALL]",
        "  volumeMounts:",
        "    - name: data",
        "      mountPath: /data",
        "    - name: tmp",
        "      mountPath: /tmp",
    ]
    return "".join(f"        {line}\n" for line in lines)


def _variables(env: Mapping[str, str], secret: str) -> Iterator[str]:
    for variable, key in {**env, **_KEYS}.items():
        yield f"    - name: {variable}"
        yield "      valueFrom:"
        yield "        secretKeyRef:"
        yield f"          name: {secret}"
        yield f"          key: {key}"
        if variable in _KEYS:
            yield "          optional: true"


def _probe(kind: str, path: str) -> Iterator[str]:
    yield f"  {kind}:"
    yield "    httpGet:"
    yield f"      path: {path}"
    yield "      port: http"
    yield "    periodSeconds: 10"
    yield "    timeoutSeconds: 5"
    yield "    failureThreshold: 6"


def _indented(text: str, by: int = 2) -> str:
    if by < 0:
        return "".join(line[-by:] for line in text.splitlines(keepends=True))
    return "".join(" " * by + line for line in text.splitlines(keepends=True))
