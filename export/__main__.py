"""`python -m export`: from checkpoints to a model repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ExportError
from .variants import Format, Precision, Profile

DONE, FAILED = 0, 1  # argparse ends with 2 for wrong usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 for done, 1 for failed."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (ExportError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
    return FAILED


def _weights(options: argparse.Namespace) -> int:
    from .checkpoints import fetch, registry

    files = registry.with_mirror(registry.PUBLISHED, options.mirror) if options.mirror else registry.PUBLISHED
    choices = fetch.FetchOptions(options.accept_licence or None, options.replace, options.unverified)
    fetch.fetch(options.dir, _say, choices, files=files, given=options.given)
    return DONE


def _stand_ins(options: argparse.Namespace) -> int:
    from . import stand_ins

    stand_ins.write(options.weights, _say)
    return DONE


def _models(options: argparse.Namespace) -> int:
    from .build import repository
    from .validation.sample_media import Media

    shipped = Media.shipped()
    media = Media(tuple(options.frames or shipped.frames), tuple(options.speech or shipped.speech))
    how = repository.BuildOptions(
        options.profile, options.format, options.precision, media, options.keep, timing=not options.no_timing
    )
    repository.build_repository(options.weights, options.repository, _say, how)
    return DONE


def _list(options: argparse.Namespace) -> int:
    from .build import listing

    print(listing.table(options.repository))
    return DONE


def _prune(options: argparse.Namespace) -> int:
    from .build import repository

    repository.prune(options.repository, options.keep, _say)
    return DONE


def _configs(options: argparse.Namespace) -> int:
    from .triton_config import model_config

    folder = model_config.committed()
    if options.check:
        difference = model_config.differences(folder)
        if difference:
            print(difference)
            raise ExportError("the committed configs differ from lipsync/tensors.py; run `python -m export configs`")
        return DONE
    for path in model_config.write(folder):
        print(f"wrote {path.relative_to(folder.parent)}")
    return DONE


_COMMANDS = {
    "weights": _weights,
    "stand-ins": _stand_ins,
    "models": _models,
    "list": _list,
    "prune": _prune,
    "configs": _configs,
}


def _say(line: str) -> None:
    print(line, flush=True)  # somebody watches a pipe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Make the Triton model repository from checkpoints.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    weights = _add(
        commands,
        "weights",
        "download the published checkpoints, or take them from a folder",
        "Bring the four published checkpoints into a folder: from several sources, resumed after a break, held to "
        "their size and SHA-256; what is there and right is left alone. Proxies are those of the environment. "
        "The Wav2Lip weights are for research and personal use only.",
    )
    weights.add_argument(
        "--dir", type=Path, default=Path("weights"), help="folder to bring them into (default: weights)"
    )
    weights.add_argument(
        "--from", dest="given", type=Path, metavar="DIR", help="take the files from this folder; download nothing"
    )
    weights.add_argument(
        "--accept-licence", action="store_true", help="accept the licence of the Wav2Lip weights without being asked"
    )
    weights.add_argument("--mirror", metavar="URL", help="look here first; the files under their official names")
    weights.add_argument(
        "--replace", action="store_true", help="replace a wrong file that stands under an official name"
    )
    weights.add_argument(
        "--unverified",
        action="store_true",
        help="with --from: take files of another hash too (trained by yourself, on_progress), if they load",
    )

    stand_ins = _add(
        commands,
        "stand-ins",
        "write stand-in checkpoints, for machines without the published weights",
        "Write stand-ins of the four checkpoints, in the official formats and under the official "
        "names. Files that this command did not write are never overwritten.",
    )
    stand_ins.add_argument("--weights", type=Path, required=True, metavar="DIR", help="folder to write them into")

    models = _add(
        commands,
        "models",
        "make a complete model repository from checkpoints",
        "Export every net, hold it to the network that it came from, copy the Python models, write the configs. An "
        "export below its bar is not written. What is up to date is not made again; a new export becomes the next "
        "version of its model, put in place at once, so a running Triton in poll mode can be pointed at the folder.",
    )
    models.add_argument("--weights", type=Path, required=True, metavar="DIR", help="folder with the four checkpoints")
    _add_repository(models, "folder that Triton will load; made if missing; not a mount point itself")
    how = models.add_argument_group("what s3fd, wav2lip and wav2lip_gan are exported as")
    how.add_argument(
        "--profile",
        type=Profile,
        choices=list(Profile),
        default=Profile.CPU,
        help="the machine that the configs are for: instances, batch sizes, delays, accelerators (default: cpu)",
    )
    how.add_argument(
        "--format",
        type=Format,
        choices=list(Format),
        help="the file, and with it the backend (default: on a CPU whichever is fastest here; else onnx)",
    )
    how.add_argument(
        "--precision",
        type=Precision,
        choices=list(Precision),
        help="what the nets compute in (default: on a CPU whichever is fastest here, or fp32 with --format; else fp16)",
    )
    judged = models.add_argument_group("what they are calibrated (int8) and judged with")
    judged.add_argument(
        "--frames",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="pictures and videos with a face (default: those in samples/)",
    )
    judged.add_argument(
        "--speech", type=Path, nargs="+", metavar="FILE", help="recordings of speech (default: the one in samples/)"
    )
    judged.add_argument("--no-timing", action="store_true", help="leave the timing out of the reports; a minute less")
    _add_keep(models)

    listed = _add(
        commands,
        "list",
        "show what a repository holds",
        "Model, version (* is the one that Triton serves), checkpoint and its hash, format, precision, and whether "
        "the weights are real or stand-ins.",
    )
    _add_repository(listed, "the model repository")

    pruned = _add(
        commands, "prune", "remove older versions", "Remove the older versions of every exported net but a few."
    )
    _add_repository(pruned, "the model repository")
    _add_keep(pruned)

    configs = _add(
        commands,
        "configs",
        "write model_repository/*/config.pbtxt from lipsync/tensors.py",
        "Write the committed Triton configurations from the table of tensors.",
    )
    configs.add_argument(
        "--check", action="store_true", help="write nothing; print what differs and fail if anything does"
    )
    return parser


def _add_repository(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help=text)


def _add_keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep", type=_count, default=1, metavar="N", help="older versions of a net that stay (default: 1)"
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, short: str, long: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=short, description=long, epilog="Exit status: 0 done, 1 failed, 2 wrong usage."
    )


if __name__ == "__main__":
    sys.exit(main())
