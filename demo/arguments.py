"""The options of `python -m demo`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .models import ACCEPT_LICENSE, add_variant
from .stack import DATABASE_OF_ROOT, URL_VARIABLE, default_database

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
DATABASE_VARIABLE = "AVATAR_DATABASE_DIR"
STORE_VARIABLE = "AVATAR_STORE"
HOST_VARIABLE, PORT_VARIABLE = "AVATAR_HOST", "AVATAR_PORT"


def parser() -> argparse.ArgumentParser:
    """Return the parser of both commands."""
    result = argparse.ArgumentParser(
        prog="python -m demo",
        description="Render a video from the samples, or run the whole service. The models are exported first if they "
        "are not there yet.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage.",
    )
    result.add_argument(
        "command", nargs="?", choices=("run", "up"), default="run", help="run: one video (default); up: the service"
    )
    _add_paths(result.add_argument_group("paths"))
    exported = result.add_argument_group("exported models")
    add_variant(exported)
    exported.add_argument(
        "--no-export", action="store_true", help="use the models in --repository as they are; export nothing"
    )
    _add_run(result.add_argument_group("run"))
    _add_up(result.add_argument_group("up"))
    return result


def _add_paths(paths: argparse._ArgumentGroup) -> None:
    paths.add_argument(
        "--weights", type=Path, metavar="DIR", default=ROOT / "weights", help="checkpoints (default: weights)"
    )
    paths.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        default=ROOT / "build" / "repository",
        help="folder of exported models (default: build/repository)",
    )
    paths.add_argument(
        "--logs",
        type=Path,
        metavar="DIR",
        default=ROOT / "build" / "logs",
        help="folder of the servers' logs (default: build/logs)",
    )
    paths.add_argument(
        ACCEPT_LICENSE,
        "--accept-licence",
        action="store_true",
        help="download missing weights without asking. This accepts that those of Wav2Lip are for research and "
        "personal use only",
    )


def _add_run(one: argparse._ArgumentGroup) -> None:
    for name, text in (("face.png", "image or video"), ("speech.wav", "audio")):
        flag = f"--{name.partition('.')[0]}"
        one.add_argument(flag, type=Path, metavar="FILE", default=SAMPLES / name, help=f"{text} (default: a sample)")
    one.add_argument(
        "--background",
        metavar="COLOR",
        default="From Input",
        help="the form's background field, such as White or Transparent (default: From Input)",
    )
    one.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=ROOT / "out",
        help="folder for demo.mp4 and demo.png (default: out)",
    )


def _add_up(service: argparse._ArgumentGroup) -> None:
    service.add_argument(
        "--host",
        metavar="ADDRESS",
        default=os.environ.get(HOST_VARIABLE) or "127.0.0.1",
        help=f"address that the gateway listens on; 0.0.0.0: all of this machine, so that others can reach it "
        f"(default: {HOST_VARIABLE}, or else 127.0.0.1)",
    )
    service.add_argument(
        "--port",
        metavar="N",
        type=int,
        default=os.environ.get(PORT_VARIABLE) or 16000,
        help=f"port of the gateway (default: {PORT_VARIABLE}, or else 16000)",
    )
    service.add_argument(
        "--database",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get(DATABASE_VARIABLE) or default_database(ROOT / "build")),
        help=f"data folder of PostgreSQL, which holds the jobs; not used with {URL_VARIABLE} (default: "
        f"{DATABASE_VARIABLE}, or else build/database, or {DATABASE_OF_ROOT} for root with a checkout in a closed "
        "folder)",
    )
    service.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        default=ROOT / "build" / "store",
        help=f"folder for the files of jobs (default: build/store); not used with {STORE_VARIABLE}",
    )
    for kind, name, port in (("grpc", "gRPC", 8001), ("metrics", "metrics", 8002)):
        text = f"Triton's {name} port (default: {port})"
        service.add_argument(f"--{kind}-port", metavar="N", type=int, default=port, help=text)
    service.add_argument("--http-port", metavar="N", type=int, help="Triton's HTTP port (default: HTTP is off)")
