"""Trials of what works: each takes the running services, leaves them healthy, and returns a line for the report."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .commands import attempt, require, run
from .deployment import EXPORT, GATEWAY, TRITON, Deployment

ROOT = Path(__file__).resolve().parents[2]


def images_have_labels_and_no_tools(deployment: Deployment) -> str:
    """The images carry OCI labels; the gateway has no pip, torch, librosa or second ffmpeg."""
    sizes = []
    for name in ("export", "gateway", "triton"):
        image = f"talking-avatar/{name}:0.1.0"
        labels = run("docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image)
        require('"org.opencontainers.image.version":"0.1.0"' in labels, f"labels, got {labels}")
        size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", image))
        sizes.append(f"{name} {size / 1e9:.2f} GB")
    code = "from importlib.util import find_spec as f; print([n for n in ('pip', 'torch', 'librosa', 'numba') if f(n)])"
    found = run("docker", "run", "--rm", "talking-avatar/gateway:0.1.0", "python", "-c", code)
    require(found.strip() == "[]", f"none of these packages in the gateway, got {found}")
    return ", ".join(sizes)


def everything_comes_up(deployment: Deployment) -> str:
    """`up --wait` returns when all is healthy; the export has said what it did."""
    begin = time.monotonic()
    done = deployment.try_compose("up", "--wait", "--no-build")
    logs = "\n".join(deployment.logs(service, 15) for service in (EXPORT, TRITON, GATEWAY))
    require(done.returncode == 0, f"`up` succeeds, got {done.stdout}\n{logs}")
    log = deployment.logs(EXPORT, 200)
    require("this takes minutes" in log and "complete," in log, f"progress in the log of the export, got\n{log}")
    return f"healthy after {time.monotonic() - begin:.0f} s"


def forms_are_answered(deployment: Deployment) -> str:
    """A form from the host is a video, with and without another background."""
    first = deployment.post(deployment.samples / "speech.wav")
    require(first.is_video(), f"a video, got {first.describe()}")
    green = deployment.post(background="Green")
    require(green.is_video(), f"a video with a green background, got {green.describe()}")
    return f"first {first.describe()}; {first.headers.get('x-avatar-frames')} frames"


def grpc_is_answered_from_outside_and_from_another_container(deployment: Deployment) -> str:
    """`avatar`, `live` and the parts answer the project's client on the host and in a container of the network."""
    script = Path(__file__).with_name("grpc_calls.py")
    outside = run(sys.executable, script, "127.0.0.1:8001", deployment.samples)
    volumes = ("-v", f"{deployment.samples}:/samples:ro", "-v", f"{script}:/calls.py:ro")
    network = ("--network", "talking-avatar_default", "--read-only", "--cap-drop", "ALL", "--user", "0")
    call = ("talking-avatar/gateway:0.1.0", "python", "/calls.py", "triton:8001", "/samples")
    inside = run("docker", "run", "--rm", *network, *volumes, *call)
    require(outside == inside, f"the same from both, got\n{outside}\nand\n{inside}")
    return outside.strip().replace("\n", "; ")


def side_doors_are_shut(deployment: Deployment) -> str:
    """HTTP is not reachable, and nobody without the token may register memory or turn the log off."""
    published = run("docker", "port", deployment.container(TRITON))
    require("8000" not in published and "0.0.0.0" not in published, f"8001 and 8002 on 127.0.0.1, got {published}")  # noqa: S104
    probe = "import socket; socket.create_connection(('triton', 8000), timeout=3)"
    done = attempt("docker", "exec", deployment.container(GATEWAY), "python", "-c", probe)
    require("refused" in done.stdout, f"no HTTP from the gateway's container, got {done.stdout}")
    output = run(sys.executable, Path(__file__).with_name("side_doors.py"), "127.0.0.1:8001")
    require("open" not in output, f"every side door shut, got {output}")
    return output.strip().replace("\n", ", ")


def containers_are_hardened(deployment: Deployment) -> str:
    """User 1000, no capabilities, a read-only root, and only volumes and /tmp writable."""
    code = (
        "id -u; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; "
        "for f in / /usr /opt /run /etc /models /opt/tritonserver; do "
        "[ -d $f ] && touch $f/x 2> /dev/null && echo WRITABLE $f; done; true"
    )
    for service in (TRITON, GATEWAY):
        output = deployment.execute(service, "sh", "-c", code).split("\n")
        require(output[0] == "1000" and not any("WRITABLE" in line for line in output), f"hardened, got {output}")
        require("CapEff:\t0000000000000000" in output and "NoNewPrivs:\t1" in output, f"hardened, got {output}")
    return "user 1000, no capabilities, nothing writable but /tmp and the volumes"


def a_quota_sets_the_threads(deployment: Deployment) -> str:
    """With `--cpus 1` both images count one core."""
    code = "from lipsync.triton.cpu import threads_per_model as t, usable_cores as c; print(c(), t())"
    results = []
    for image, python in (("triton", "python3"), ("gateway", "python")):
        command = ("--entrypoint", python, f"talking-avatar/{image}:0.1.0", "-c", code)
        results.append(run("docker", "run", "--rm", "--cpus", "1", *command).split())
    require(results == [["1", "1"], ["1", "1"]], f"one core and one thread, got {results}")
    return "one core, one thread in both images"


def a_second_up_changes_nothing(deployment: Deployment) -> str:
    """Nothing is exported again."""
    begin = time.monotonic()
    deployment.up()
    require("exporting from" not in deployment.logs(EXPORT, 20), "no new export")
    return f"{time.monotonic() - begin:.0f} s, nothing exported"


def a_changed_export_is_served_after_a_restart(deployment: Deployment) -> str:
    """Another format: the export makes new versions, and Triton's own openvino backend serves them."""
    deployment.environment |= {"EXPORT_FORMAT": "openvino"}
    begin = time.monotonic()
    deployment.up()
    deployment.compose("restart", "-t", "45", TRITON)
    deployment.wait_healthy(TRITON)
    deployment.wait_healthy(GATEWAY)
    config = deployment.execute(TRITON, "cat", "/models/repository/wav2lip/config.pbtxt")
    require('backend: "openvino"' in config, f"the openvino backend, got {config[:300]}")
    answer = deployment.post()
    require(answer.is_video(), f"a video, got {answer.describe()}")
    return f"exported, restarted and served in {time.monotonic() - begin:.0f} s"


def down_leaves_nothing(deployment: Deployment) -> str:
    """`down --volumes` removes containers, network and volumes."""
    deployment.down("--volumes")
    left = run("docker", "ps", "--all", "--quiet") + run("docker", "volume", "ls", "--quiet")
    require(not left.strip(), f"no container and no volume, got {left}")
    return "no container, no volume"
