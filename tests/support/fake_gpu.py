"""A program in place of ffmpeg that plays a GPU: what NVENC and NVDEC would do, the real ffmpeg does on the CPU."""

from pathlib import Path

import imageio_ffmpeg

from tests.support.fake_ffmpeg import ProgramFolder

LOST_BYTES, LOST_FRAMES = 8_000_000, 5  # what is still encoded and decoded before a GPU is lost
_SCRIPT = """#!/bin/sh
case "$*" in *"-h long"*) echo "-fps_mode"; exit 0;; esac
mode=$(cat "{folder}/mode")
echo "$*" >> "{folder}/runs"
gpu=no
case "$*" in *h264_nvenc*) gpu=encoder;; *-hwaccel*) gpu=decoder;; esac
if [ $gpu = no ]; then exec "{real}" "$@"; fi
case "$mode $gpu" in
    none*) echo "Cannot load libcuda.so.1" >&2; exit 1;;
    full*encoder) echo "[h264_nvenc @ 0x1] OpenEncodeSessionEx failed: out of memory (10)" >&2; exit 1;;
esac
skipped=
for argument; do
    shift
    if [ -n "$skipped" ]; then skipped=; continue; fi
    case "$argument" in
        -hwaccel|-hwaccel_output_format|-rc|-b:v) skipped=yes; continue;;
        h264_nvenc) argument=libx264;;
        -cq) argument=-crf;;
        p[1-7]) argument=veryfast;;
        hwdownload,format=nv12) argument=format=nv12;;
        -fps_mode) if [ "$mode $gpu" = "lost decoder" ]; then set -- "$@" -frames:v {frames}; fi;;
    esac
    set -- "$@" "$argument"
done
if [ $mode != lost ]; then exec "{real}" "$@"; fi
if [ $gpu = encoder ]; then head -c {bytes} | "{real}" "$@"; else "{real}" "$@"; fi
echo "CUDA_ERROR_UNKNOWN: unknown error" >&2
exit 1
"""


class FakeGpu(ProgramFolder):
    """An ffmpeg that encodes and decodes as if it had a GPU."""

    @property
    def runs(self) -> list[str]:
        """The arguments of the runs so far."""
        return (self.folder / "runs").read_text().splitlines()

    def become(self, mode: str) -> None:
        """From now on `work`, have `none`, be `full` (all sessions of NVENC are taken), or be `lost` on the way."""
        (self.folder / "mode").write_text(mode)


def write_fake_gpu(folder: Path) -> FakeGpu:
    """Write the program into a new folder; its GPU works until `become` is called."""
    folder.mkdir()
    gpu = FakeGpu(folder)
    gpu.become("work")
    (folder / "runs").touch()
    text = _SCRIPT.format(folder=folder, real=imageio_ffmpeg.get_ffmpeg_exe(), bytes=LOST_BYTES, frames=LOST_FRAMES)
    script = folder / "ffmpeg.new"
    script.write_text(text)
    script.chmod(0o755)
    script.replace(folder / "ffmpeg")
    return gpu
