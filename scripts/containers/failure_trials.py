"""Trials of what fails: processes are killed, disks are full, starts are wrong. Each leaves the services healthy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

from .commands import attempt, require
from .deployment import EXPORT, GATEWAY, TRITON, Deployment, host_shared_memory

MODELS = ("wav2lip", "mel_spectrogram", "avatar")  # one of each kind: a network, a part, a job
_SIGNAL_STUB = """\
for process in /proc/[0-9]*; do
    [ "$(cat $process/comm)" = triton_python_b ] && tr '\\0' ' ' < $process/cmdline | grep -q ' {model}_0_0 ' \\
        && kill -{signal} ${{process#/proc/}}
done; true"""
_KILL_TRITON = """\
for process in /proc/[0-9]*; do
    [ "$(cat $process/comm)" = tritonserver ] && kill -9 ${process#/proc/}
done; true"""
_KILL_GATEWAY = """\
for process in /proc/[0-9]*; do
    tr '\\0' ' ' < $process/cmdline | grep -q '^python -m gateway' && kill -9 ${process#/proc/}
done; true"""
_FILL = """\
import sys
with open(sys.argv[1], "wb", 0) as file:
    try:
        while True:
            file.write(bytes(1 << 16))
    except OSError:
        pass
"""


def a_killed_model_is_replaced(deployment: Deployment) -> str:
    """A dead process of a model ends the container; the next one serves. The same for every kind of model."""
    results = []
    for model in MODELS:
        seconds = _recovery(deployment, partial(_signal_stub, deployment, model, "KILL"))
        results.append(f"{model} {seconds:.0f} s")
    return "kill to the next good form: " + ", ".join(results)


def a_hung_model_is_replaced(deployment: Deployment) -> str:
    """A stopped process of a model is noticed too."""
    seconds = _recovery(deployment, partial(_signal_stub, deployment, "wav2lip", "STOP"))
    return f"stop to the next good form: {seconds:.0f} s"


def a_killed_triton_is_restarted(deployment: Deployment) -> str:
    """tritonserver is killed."""
    seconds = _recovery(deployment, partial(_shell, deployment, TRITON, _KILL_TRITON))
    return f"kill to the next good form: {seconds:.0f} s"


def a_killed_gateway_is_restarted(deployment: Deployment) -> str:
    """The gateway's process is killed."""
    count = deployment.restarts(GATEWAY)
    begin = time.monotonic()
    _shell(deployment, GATEWAY, _KILL_GATEWAY)
    deployment.wait_restarted(GATEWAY, count)
    deployment.wait_healthy(GATEWAY)
    seconds = time.monotonic() - begin
    answer = deployment.post()
    require(answer.is_video(), f"a video, got {answer.describe()}")
    return f"healthy after {seconds:.0f} s"


def a_stop_in_the_middle_of_a_form_is_answered(deployment: Deployment) -> str:
    """The gateway gives a running form its grace, then 503; a form whose Triton stops gets 503 too."""
    results = []
    for service in (GATEWAY, TRITON):
        form = deployment.posting(deployment.speech(240))
        time.sleep(4)
        begin = time.monotonic()
        deployment.compose("stop", "-t", "45", service)
        seconds = time.monotonic() - begin
        answer = form.answer()
        require(answer.status == 503 and "retry-after" in answer.headers, f"a 503, got {answer.describe()}")
        status = deployment.state(service)["ExitCode"]
        require(status == 0, f"{service} ends with 0, got {status}\n{deployment.logs(service)}")
        deployment.compose("start", service)  # not `up --wait`: it fails while the gateway is still unhealthy
        deployment.wait_healthy(TRITON)
        deployment.wait_healthy(GATEWAY)
        results.append(f"{service.removesuffix('-cpu')} stopped in {seconds:.0f} s, the form got 503")
    # the gateway was healthy all the time that Triton was away, and looks for it every few seconds
    return f"{'; '.join(results)}; a good form {deployment.wait_good_form():.0f} s later"


def a_full_shared_memory_is_the_services_fault(deployment: Deployment) -> str:
    """The shared memory of Triton is full: 503, and 200 again without a restart."""
    deployment.execute(TRITON, "python3", "-c", _FILL, "/dev/shm/full")  # noqa: S108
    answers = [deployment.post(deployment.speech(30), "White") for _ in range(2)]
    deployment.execute(TRITON, "rm", "-f", "/dev/shm/full")  # noqa: S108
    for answer in answers:
        fair = answer.is_video() or (answer.status == 503 and "retry-after" in answer.headers)
        require(fair, f"a video or a 503 with Retry-After, got {answer.describe()}")
    seconds = deployment.wait_good_form()
    return f"{', '.join(str(answer.status) for answer in answers)}; a good form {seconds:.0f} s after it was emptied"


def a_full_disk_is_the_services_fault(deployment: Deployment) -> str:
    """The work volume of the gateway full: 503, and 200 again without a restart."""
    path = deployment.variable(GATEWAY, "AVATAR_WORK_DIR") + "/full"
    deployment.execute(GATEWAY, "python", "-c", _FILL, path)
    answer = deployment.post(deployment.speech(30))
    deployment.execute(GATEWAY, "rm", "-f", path)
    fair = answer.status == 503 and "retry-after" in answer.headers
    require(fair, f"a 503 with Retry-After, got {answer.describe()}")
    return f"503; a good form {deployment.wait_good_form():.0f} s after it was emptied"


def a_start_without_triton_is_a_failure(deployment: Deployment) -> str:
    """`up -d` fails if Triton does not start, and says so, and the gateway does not start."""
    deployment.down()
    broken = deployment.folder / "broken.yml"
    broken.write_text('services: {triton-cpu: {command: ["false"]}}\n')
    deployment.files.append(str(broken))
    done = deployment.try_compose("up", "-d", "--no-build")
    gateway = deployment.state(GATEWAY)
    deployment.down()
    deployment.files.pop()
    require(done.returncode != 0, f"`up -d` fails, got 0:\n{done.stdout}")
    require(not gateway["Running"], "the gateway is not started")
    said = re.findall(r"dependency failed.*", done.stdout)
    return f"`up -d` ended with {done.returncode}: {said[-1] if said else done.stdout.splitlines()[-1]}"


def weights_that_cannot_be_read_are_not_taken_for_none(deployment: Deployment) -> str:
    """A weights folder of mode 0700 ends the start with a sentence."""
    weights = deployment.folder / "weights"
    weights.chmod(0o700)
    done = deployment.try_compose("up", "-d", "--no-build")
    log = deployment.logs(EXPORT)
    deployment.down()
    weights.chmod(0o755)
    require(done.returncode != 0 and "cannot be read by user 1000" in log, f"a refusal, got {done.returncode}\n{log}")
    return "`up` fails: cannot be read by user 1000; run: chmod a+rX weights"


def shared_memory_of_the_host_is_left_clean(deployment: Deployment) -> str:
    """With docker/shared-memory.yml frames pass through /dev/shm; the start after a kill removes what was left."""
    before = host_shared_memory()
    deployment.files.append("docker/shared-memory.yml")
    deployment.environment |= {"AVATAR_TRITON_TOKEN": "a" * 64}
    deployment.up()
    answer = deployment.post()
    require(answer.is_video(), f"a video, got {answer.describe()}")
    log = deployment.logs(GATEWAY, 200)
    require("through shared memory" in log, f"frames through shared memory, got\n{log}")
    regions = host_shared_memory() - before
    a_killed_triton_is_restarted(deployment)
    left = regions & host_shared_memory()
    require(bool(regions) and not left, f"none of {len(regions)} regions left, got {len(left)}")
    deployment.down()
    deployment.files.pop()
    after = host_shared_memory() - before
    require(not after, f"nothing in /dev/shm after `down`, got {after}")
    return f"{len(regions)} regions of a killed Triton removed by the next start; none after down"


def _signal_stub(deployment: Deployment, model: str, signal: str) -> None:
    _shell(deployment, TRITON, _SIGNAL_STUB.format(model=model, signal=signal))


def _shell(deployment: Deployment, service: str, script: str) -> None:
    """Run a script in a container; the container may end by it."""
    attempt("docker", "exec", "--user", "1000", deployment.container(service), "sh", "-c", script)


def _recovery(deployment: Deployment, harm: Callable[[], None]) -> float:
    """Do harm to Triton; return the seconds until the next good form. Until then every form is answered with a 503."""
    count, begin = deployment.restarts(TRITON), time.monotonic()
    harm()
    deployment.wait_restarted(TRITON, count)
    deployment.wait_good_form()
    seconds = time.monotonic() - begin
    deployment.wait_healthy(TRITON)
    deployment.wait_healthy(GATEWAY)
    return seconds
