"""A program in place of ffmpeg that fails in a chosen way, or runs the real one."""

import os
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

# What the script does for each fault. `-h long` is always answered: that is how the service chooses its ffmpeg.
FAULTS = {
    "killed": "kill -KILL $$",
    "terminated": "kill -TERM $$",
    "crashed": "kill -SEGV $$",
    "hung": "exec sleep 1000",
    "busy": "while true; do :; done",
    "mute": "exit 0",
    "rubbish": "echo '#not what ffmpeg says 0: 1'; head -c 3000 /dev/urandom; exit 0",
    "failing": "echo 'Invalid data found when processing input' >&2; exit 1",
    "unlinked": "echo 'error while loading shared libraries: libx264.so' >&2; exit 127",
}
_SCRIPT = """#!/bin/sh
arguments="$*"
case "$arguments" in *"-h long"*) echo "-fps_mode"; exit 0;; esac
echo "$arguments" >> "{folder}/started"
read -r fault times matching < "{folder}/fault"
matches=$([ -n "$matching" ] || echo yes)
IFS=@
for part in $matching; do case "$arguments" in *"$part"*) matches=yes;; esac; done
unset IFS
if [ -z "$matches" ]; then fault=none; fi
if [ "$times" = 0 ]; then fault=none; fi
if [ "$fault" != none ] && [ "$times" != always ]; then
    echo "$fault $((times - 1)) $matching" > "{folder}/fault"
fi
case "$fault" in
{cases}
esac
exec "{real}" "$@"
"""


@dataclass(frozen=True)
class ProgramFolder:
    """The folder of the program `ffmpeg`; a process that has it first in its PATH uses the program."""

    folder: Path

    @property
    def path(self) -> str:
        """The PATH of such a process."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"


class FakeFfmpeg(ProgramFolder):
    """An ffmpeg that can be made to fail."""

    @property
    def program(self) -> Path:
        return self.folder / "ffmpeg"

    def started(self) -> list[str]:
        """Return the arguments of each run since the last call."""
        log = self.folder / "started"
        if not log.exists():
            return []
        runs = log.read_text().splitlines()
        log.unlink()
        return runs

    def fail(self, fault: str, *matching: str, times: int | None = None) -> None:
        """Fail in this way from now on where the arguments contain one of `matching`, for a number of `times` only."""
        new = self.folder / "fault.new"
        new.write_text(f"{fault} {'always' if times is None else times} {'@'.join(matching)}\n")
        new.replace(self.folder / "fault")

    def work(self) -> None:
        """Run the real ffmpeg from now on."""
        self.fail("none")


def write_fake_ffmpeg(folder: Path) -> FakeFfmpeg:
    """Write the program into a new folder; it works until `fail` is called."""
    folder.mkdir()
    fake = FakeFfmpeg(folder)
    fake.work()
    cases = "\n".join(f"{name}) {command} ;;" for name, command in FAULTS.items())
    # Written under another name: a process that starts meanwhile never finds half of it.
    script = folder / "ffmpeg.new"
    script.write_text(_SCRIPT.format(folder=folder, cases=cases, real=imageio_ffmpeg.get_ffmpeg_exe()))
    script.chmod(0o755)
    script.replace(fake.program)
    return fake
