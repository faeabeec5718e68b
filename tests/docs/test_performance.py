"""The commands on the performance pages and the model-analyzer example fit the repository."""

from __future__ import annotations

import re

import pytest

from bench.triton import perf_analyzer, report
from lipsync.tensors import MODELS
from tests.docs.pages import COMMANDS, PAGES, ROOT

PAGE = PAGES["docs/performance/perf-analyzer.md"]
EXAMPLE = (ROOT / "bench" / "perf" / "model-analyzer.yaml").read_text("utf-8")
BY_NAME = {model.name: model for model in MODELS}
ANALYZERS = [words[words.index("perf_analyzer") :] for _, words in COMMANDS if "perf_analyzer" in words]


@pytest.mark.parametrize("words", ANALYZERS, ids=" ".join)
def test_a_perf_analyzer_command_names_a_model_and_its_own_inputs(words: list[str]) -> None:
    streams = "--streaming" in words
    rest = [word for word in words[1:] if word not in ("--streaming", "--serial-sequences")]
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    assert streams == BY_NAME[given["-m"]].streams
    assert (ROOT / given["--input-data"]).name == f"{given['-m']}.json"
    assert (ROOT / given["--input-data"]).is_file()
    assert int(given.get("-b", 1)) <= max(BY_NAME[given["-m"]].max_batch_size, 1)
    if given.get("--shared-memory", "none") != "none":
        assert given["--output-shared-memory-size"] == str(perf_analyzer.LARGEST_OUTPUT)


def test_every_column_of_the_table_is_explained() -> None:
    explained = [name for row in re.findall(r"^\| ([^|]+) \|", PAGE, re.M) for name in row.split(", ")]
    for column in (*report.COLUMNS[1:], *report.TIMES):
        assert column in explained or column.removesuffix(" ms") in explained, column


def test_the_example_for_model_analyzer_names_models_and_their_own_inputs() -> None:
    models = re.findall(r"^  (\w+):\n(?:    parameters: \{batch_sizes: \[(.*)\]\}\n)?(.*)\n", EXAMPLE, re.M)
    assert len(models) == EXAMPLE.count("input-data")
    for name, batches, flags in models:
        assert f"input-data: bench/perf/{name}.json}}" in flags
        assert max(map(int, batches.split(", ")) if batches else [0]) <= BY_NAME[name].max_batch_size
        assert ('streaming: "true"' in flags) == BY_NAME[name].streams
