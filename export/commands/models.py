"""`models`: build a model repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..variants import Format, Precision, Profile
from .arguments import add_keep, add_repository, print_line, share

HELP = "build a complete model repository from checkpoints"
DESCRIPTION = (
    "Export every network, compare it with the original network, copy the Python models, and write the configs. An "
    "export that is not accurate enough is not written. What is up to date is not exported again. A new export becomes "
    "the next version of its model and is published in one step, so a running Triton in poll mode may use the folder."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR", help="folder with the four checkpoints")
    add_repository(parser, "folder for Triton, created if it does not exist; it must not be a mount point")
    _add_variant(parser.add_argument_group("variant of s3fd, wav2lip and wav2lip_gan"))
    _add_media(parser.add_argument_group("calibration (int8) and evaluation"))
    add_keep(parser)
    parser.add_argument(
        "--trial",
        type=share,
        metavar="SHARE",
        help="do not replace what is active: serve new exports next to it, for this share of the jobs (0 to 1); "
        "`activate` or `rollback` ends that",
    )
    parser.add_argument(
        "--live-networks",
        action=argparse.BooleanOptionalAction,
        help="serve the generators a second time for the model `live`, whose sessions then do not wait for the batches "
        "of videos; takes 0.6 GB of memory (default: only with a GPU)",
    )


def _add_variant(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--profile",
        type=_profile,
        choices=list(Profile),
        default=Profile.CPU,
        help="the machine that the configs are for: instances, batch sizes, delays, warm-up (default: cpu)",
    )
    group.add_argument(
        "--format",
        type=Format,
        choices=list(Format),
        help="file format, which also decides the backend (default: the fastest on this machine's CPU, or on its GPU "
        "with --profile gpu; torchscript where it finds no GPU)",
    )
    group.add_argument(
        "--precision",
        type=Precision,
        choices=list(Precision),
        help="precision of the networks (default: on a CPU the fastest on this machine, or fp32 with --format; "
        "else fp16)",
    )


def _add_media(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--frames", type=Path, nargs="+", metavar="FILE", help="images and videos with a face (default: from samples/)"
    )
    group.add_argument(
        "--speech", type=Path, nargs="+", metavar="FILE", help="recordings of speech (default: from samples/)"
    )
    group.add_argument(
        "--no-timing", action="store_true", help="do not time the exports for the reports; saves about a minute"
    )


def _profile(text: str) -> Profile:
    if text == Format.TENSORRT:
        raise argparse.ArgumentTypeError("tensorrt is a format: use --profile gpu --format tensorrt")
    try:
        return Profile(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(Profile)}") from None


def run(args: argparse.Namespace) -> int:
    """Build the repository."""
    from ..build import repository
    from ..validation.sample_media import Media

    shipped = Media.shipped()
    options = repository.BuildOptions(
        profile=args.profile,
        format=args.format,
        precision=args.precision,
        media=Media(tuple(args.frames or shipped.frames), tuple(args.speech or shipped.speech)),
        keep=args.keep,
        timing=not args.no_timing,
        live_networks=args.live_networks,
        trial=args.trial,
    )
    repository.build_repository(args.weights, args.repository, print_line, options)
    return 0
