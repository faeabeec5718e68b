"""`python -m scripts.containers`: build, start, try and stop the containers; the report goes to build/containers.md."""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from . import base_images, failure_trials, job_trials, serving_trials
from .commands import Failed, require, require_root_on_debian, run, say
from .deployment import Deployment
from .engine import Engine
from .torch_index import TorchIndex

ROOT = Path(__file__).resolve().parents[2]
FREE_BYTES = 15 << 30
TRIALS: tuple[Callable[[Deployment], str], ...] = (
    serving_trials.images_have_labels_and_no_tools,
    failure_trials.weights_that_cannot_be_read_are_not_taken_for_none,
    serving_trials.everything_comes_up,
    serving_trials.forms_are_answered,
    serving_trials.grpc_is_answered_from_outside_and_from_another_container,
    serving_trials.side_doors_are_shut,
    serving_trials.containers_are_hardened,
    serving_trials.a_quota_sets_the_threads,
    job_trials.the_database_has_no_network_and_no_root,
    job_trials.a_job_is_run_by_the_worker,
    job_trials.a_dump_can_be_made_while_jobs_run,
    job_trials.a_killed_worker_loses_no_job,
    job_trials.a_killed_database_loses_no_job,
    failure_trials.a_killed_model_is_replaced,
    failure_trials.a_hung_model_is_replaced,
    failure_trials.a_killed_triton_is_restarted,
    failure_trials.a_killed_gateway_is_restarted,
    failure_trials.a_stop_in_the_middle_of_a_form_is_answered,
    failure_trials.a_full_shared_memory_is_the_services_fault,
    failure_trials.a_full_disk_is_the_services_fault,
    serving_trials.a_second_up_changes_nothing,
    serving_trials.a_changed_export_is_served_after_a_restart,
    failure_trials.a_start_without_triton_is_a_failure,
    failure_trials.shared_memory_of_the_host_is_left_clean,
    serving_trials.down_leaves_nothing,
)


def main() -> int:
    """Run the trials; return 0 if all passed."""
    names = [trial.__name__ for trial in TRIALS]
    parser = argparse.ArgumentParser(prog="python -m scripts.containers", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/containers"), help="folder for 15 GB")  # noqa: S108
    parser.add_argument("--port", type=int, default=16000, help="port of the gateway (default: 16000)")
    parser.add_argument("--report", type=Path, default=ROOT / "build" / "containers.md")
    parser.add_argument("--no-build", action="store_true", help="use the images of an earlier run")
    parser.add_argument("--keep", action="store_true", help="keep the containers and volumes at the end")
    parser.add_argument("trials", nargs="*", choices=[*names, []], help="only these trials")
    options = parser.parse_args()
    wanted = [trial for trial in TRIALS if not options.trials or trial.__name__ in options.trials]
    options.work.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, float, str]] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # so that the engine is stopped
        signal.signal(number, signal.default_int_handler)
    engine = Engine(options.work)
    try:
        require_root_on_debian()
        require(shutil.disk_usage(options.work).free > FREE_BYTES, f"15 GB free in {options.work}")
        engine.install()
        versions = engine.start()
        commit = run("git", "describe", "--always", "--dirty", cwd=ROOT).strip()
        say(f"{versions}, commit {commit}")
        with TorchIndex() as index:
            deployment = Deployment(ROOT, options.work, options.port, index.url)
            passed = _run_all(deployment, wanted, rows, options)
    except Failed as error:
        say(f"FAILED: {error}")
        return 1
    finally:
        engine.stop()
    _write_report(options.report, f"{versions}, commit {commit}", rows)
    return 0 if passed else 1


def _run_all(
    deployment: Deployment,
    wanted: list[Callable[[Deployment], str]],
    rows: list[tuple[str, str, float, str]],
    options: argparse.Namespace,
) -> bool:
    """Build, then run the trials; add a row for each: what, whether it passed, seconds, what was seen."""
    if not options.no_build:
        begin = time.monotonic()
        base_images.make(_base_images(), options.work, ROOT)
        say("building the three images")
        deployment.build()
        rows.append(("the images are built", "pass", time.monotonic() - begin, "base images included"))
    for trial in wanted:
        name, begin = trial.__name__.replace("_", " "), time.monotonic()
        say(name)
        try:
            verdict, seen = "pass", trial(deployment)
        except Exception as error:  # the next trials may tell more
            verdict, seen = "FAIL", str(error) if isinstance(error, Failed) else traceback.format_exc()
        rows.append((name, verdict, time.monotonic() - begin, seen))
        say(f"  {verdict}: {seen}")
        if verdict == "FAIL" and trial is serving_trials.everything_comes_up:
            break  # the rest would only fail, too
    if not options.keep:
        deployment.try_compose("down", "-t", "45", "--volumes")
    return all(verdict == "pass" for _, verdict, _, _ in rows)


def _base_images() -> list[str]:
    names = set()
    for file in (ROOT / "docker").glob("*.Dockerfile"):
        names |= set(re.findall(r"^FROM (\S+)", file.read_text(), re.M))
    names |= set(re.findall(r"image: (postgres:\S+)", (ROOT / "docker-compose.yml").read_text()))
    return sorted(names)


def _write_report(path: Path, what: str, rows: list[tuple[str, str, float, str]]) -> None:
    seconds = sum(row[2] for row in rows)
    lines = [f"{what}: {len(rows)} steps, {seconds / 60:.0f} minutes", ""]
    lines += ["| trial | result | seconds | seen |", "|---|---|---|---|"]
    for name, verdict, took, seen in rows:
        lines.append(f"| {name} | {verdict} | {took:.0f} | {' '.join(seen.split()).replace('|', '/')[:300]} |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    say(f"report: {path}")


if __name__ == "__main__":
    sys.exit(main())
