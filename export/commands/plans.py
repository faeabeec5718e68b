"""`plans`: build the TensorRT plans of a repository on the machine that serves it."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import add_repository, positive_seconds, print_line

HELP = "build TensorRT plans where they run, after `models --format tensorrt`"
DESCRIPTION = (
    "Build a TensorRT plan for each network that was exported with --format tensorrt, on the GPU that will run it, "
    "with trtexec of NVIDIA's Triton image. Each plan is judged by the accuracy thresholds of every export; one that "
    "misses them is not put in place, and its network is served from its ONNX file. Plans are kept by GPU, version of "
    "TensorRT and ONNX file, and built again only if one of them changes."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from ..plans import cache, trtexec

    add_repository(parser, "the model repository")
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache.FOLDER,
        metavar="DIR",
        help="folder that keeps the plans and TensorRT's timing cache (default: %(default)s)",
    )
    parser.add_argument(
        "--trtexec",
        type=Path,
        default=trtexec.PROGRAM,
        metavar="FILE",
        help="the program that builds plans (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=trtexec.BUILD_SECONDS,
        metavar="SECONDS",
        help="time that the build of one plan may take (default: %(default)g)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands of trtexec; needs neither a GPU nor trtexec"
    )


def run(args: argparse.Namespace) -> int:
    """Build the plans."""
    from ..plans import builder, cache, machine, trtexec, trtexec_options

    if not builder.planned_networks(args.repository):
        print_line(f"{args.repository}: no network was exported with --format tensorrt, so there are no plans to build")
        return 0
    if args.dry_run:
        known = trtexec.find_version(args.trtexec) if args.trtexec.exists() else trtexec_options.TYPED
        for line in builder.commands(args.repository, args.trtexec, known):
            print_line(line)
        return 0
    gpu = machine.identify()
    tool = trtexec.Trtexec(args.trtexec, print_line, args.timeout)
    with cache.open_cache(args.cache, print_line) as opened:
        builder.PlanBuilder(args.repository, opened, gpu, tool, print_line).bring_up_to_date()
    return 0
