"""Read from the server's log which models are loading, which are ready, and which failed and why.

Until every model is loaded the server answers no call, so the log is the only source of this information. A line is
`I1122 17:19:05.955087 5591 model_lifecycle.cc:472] "text"`, the text quoted as in JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TextIO

_LINE = re.compile(r'^(?P<level>[IWEF])\d{4} [\d:.]+ \d+ [\w.]+:\d+\] (?P<text>".*")$')
_LOADING = re.compile(r"loading: (?P<model>.+):\d+$")
_LOADED = re.compile(r"successfully loaded '(?P<model>[^']+)'")
_FAILED = (
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.*)", re.DOTALL),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.*)", re.DOTALL),
    re.compile(r"Invalid argument: (?P<reason>ensemble '?(?P<model>[^' ]+)'? .*)", re.DOTALL),
)
_PARSER = re.compile(r"\[libprotobuf ERROR .*?\] (?P<reason>.*)")  # written before its "Poll failed"
_FATAL = re.compile(r"(error|failed to|terminate called|what\(\):)", re.IGNORECASE)


@dataclass
class StartupLog:
    """The state of a start, updated by the lines of the log.

    Attributes:
        loading: models that the server is loading, in the order of their start.
        loaded: models that are ready.
        failed: reason by model; one line, without the Python traceback that the server appends.
        last_error: the last line that reports an error.
    """

    loading: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    last_error: str = ""
    _parser: str = ""
    _incomplete: str = ""  # the beginning of a line that is not complete yet

    def read(self, log: TextIO) -> None:
        """Read what was written to the log since the last call."""
        *lines, self._incomplete = (self._incomplete + log.read()).split("\n")
        for line in lines:
            self.feed(line)

    def feed(self, line: str) -> None:
        """Process one line of the log."""
        if found := _PARSER.match(line):
            self._parser = found["reason"]
        found = _LINE.match(line)
        if found is None:
            if _FATAL.match(line):
                self.last_error = line
            return
        text = _unquote(found["text"])
        if found["level"] in "EF":
            self.last_error = reason(text)
        self._read_model_line(text)

    def _read_model_line(self, text: str) -> None:
        if found := _LOADING.match(text):
            self.loading.append(found["model"])
        elif found := _LOADED.match(text):
            self._remove_loading(found["model"])
            self.loaded.append(found["model"])
        for pattern in _FAILED:
            if found := pattern.match(text):
                self._remove_loading(found["model"])
                why = reason(found["reason"])
                if self._parser and text.startswith("Poll failed"):
                    why, self._parser = f"{why}: {self._parser}", ""
                self.failed.setdefault(found["model"], why)

    def _remove_loading(self, model: str) -> None:
        if model in self.loading:
            self.loading.remove(model)


def reason(text: str) -> str:
    """Return a server message as one line, without traceback and without the server's error class."""
    sentence = text.split("\n\nAt:\n")[0].removeprefix("Internal: ").removeprefix("Invalid argument: ")
    return " ".join(sentence.removeprefix("TritonModelException: ").split())


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text.strip('"')
