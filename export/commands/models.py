"""`models`: build a model repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoints.registry import S3FD_FILE, SEGMENTATION_FILE, WAV2LIP_FILE, WAV2LIP_GAN_FILE
from ..errors import ExportError
from ..variants import Format, Precision, Profile
from .arguments import add_keep, add_repository, print_line, share

HELP = "build a complete model repository from checkpoints"
DESCRIPTION = (
    "Export every network, compare it with the original network, copy the Python models, and write the configs. An "
    "export that is not accurate enough is not written. What is up to date is not exported again. A new export becomes "
    "the next version of its model and is published in one step, so a running Triton in poll mode may use the folder."
)

_FILES = {  # option -> official name, and what it is
    "wav2lip": (WAV2LIP_FILE, "the generator wav2lip"),
    "wav2lip-gan": (WAV2LIP_GAN_FILE, "the generator wav2lip_gan"),
    "s3fd": (S3FD_FILE, "the face detector"),
    "segmentation": (SEGMENTATION_FILE, "the frozen graph of the person's mask"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    _add_checkpoints(parser.add_argument_group("checkpoints"))
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


def _add_checkpoints(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--weights", type=Path, metavar="DIR", help="folder with checkpoints under their official names")
    for flag, (_, network) in _FILES.items():
        group.add_argument(f"--{flag}", type=Path, metavar="FILE", help=f"{network}, instead of the one in --weights")
    group.add_argument(
        "--stand-ins",
        type=Path,
        nargs="?",
        const=Path("weights/stand-ins"),
        metavar="DIR",
        help="use stand-ins for all checkpoints that are missing; they are written into DIR (default: "
        "weights/stand-ins), and every result of them is marked",
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

    given = {name: getattr(args, flag.replace("-", "_")) for flag, (name, _) in _FILES.items()}
    files = {name: path for name, path in given.items() if path}
    if not (args.weights or files or args.stand_ins):
        raise ExportError("which checkpoints? give --weights DIR, single files such as --wav2lip FILE, or --stand-ins")
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
        files=files,
        stand_ins=args.stand_ins,
    )
    repository.build_repository(args.weights, args.repository, print_line, options)
    return 0
