"""What docs/perf.md and the model-analyzer example tell people to run fits the repository."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bench.triton import live_latency, overhead, perf_analyzer, report, sweep
from lipsync.tensors import MODELS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "perf.md").read_text("utf-8")
EXAMPLE = (ROOT / "bench" / "perf" / "model-analyzer.yaml").read_text("utf-8")
BY_NAME = {model.name: model for model in MODELS}


def _commands() -> list[list[str]]:
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT, re.S)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


ANALYZERS = [words[words.index("perf_analyzer") :] for words in _commands() if "perf_analyzer" in words]
BENCHES = [words[words.index("bench") + 1 :] for words in _commands() if "bench" in words]


@pytest.mark.parametrize("words", ANALYZERS, ids=" ".join)
def test_a_perf_analyzer_command_names_a_model_and_its_own_inputs(words: list[str]) -> None:
    streams = "--streaming" in words
    rest = [word for word in words[1:] if word not in ("--streaming", "--serial-sequences")]
    said = dict(zip(rest[::2], rest[1::2], strict=True))
    assert streams == BY_NAME[said["-m"]].streams
    assert (ROOT / said["--input-data"]).name == f"{said['-m']}.json"
    assert (ROOT / said["--input-data"]).is_file()
    assert int(said.get("-b", 1)) <= max(BY_NAME[said["-m"]].max_batch_size, 1)
    if said.get("--shared-memory", "none") != "none":
        assert said["--output-shared-memory-size"] == str(perf_analyzer.LARGEST_OUTPUT)


def test_the_bench_commands_are_taken() -> None:
    parsers = {"perf": sweep._parser(), "serving": overhead._parser(), "live": live_latency._parser()}
    assert {words[0] for words in BENCHES} == set(parsers)
    for command, *words in BENCHES:
        parsers[command].parse_args(words)


def test_every_column_of_the_table_is_explained() -> None:
    explained = [name for row in re.findall(r"^\| ([^|]+) \|", DOCUMENT, re.M) for name in row.split(", ")]
    for column in (*report.COLUMNS[1:], *report.TIMES):
        assert column in explained or column.removesuffix(" ms") in explained, column


def test_the_example_for_model_analyzer_names_models_and_their_own_inputs() -> None:
    models = re.findall(r"^  (\w+):\n(?:    parameters: \{batch_sizes: \[(.*)\]\}\n)?(.*)\n", EXAMPLE, re.M)
    assert len(models) == EXAMPLE.count("input-data")
    for name, batches, flags in models:
        assert f"input-data: bench/perf/{name}.json}}" in flags
        assert max(map(int, batches.split(", ")) if batches else [0]) <= BY_NAME[name].max_batch_size
        assert ('streaming: "true"' in flags) == BY_NAME[name].streams
