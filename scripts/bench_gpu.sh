#!/bin/sh
# In the archive of `make pack-gpu`: makes an environment of what is here and of the packages of this machine's Python
# (PyTorch with CUDA among them), without a network, and runs `python -m bench gpu` with the given options.
# In a checkout it does the same with the archive of `make pack-gpu PACK=--packages-only`, unpacked there.
# PYTHON names the Python that has PyTorch (default: python3).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -d "$here/bench" ]; then here=$(dirname "$here"); fi  # in a checkout this file is in scripts/
cd "$here"
machine=${PYTHON:-python3}
version=$("$machine" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != 3.12 ]; then
    echo "bench-gpu: Python 3.12 is needed, $machine is $version; set PYTHON to one that has PyTorch" >&2
    exit 2
fi
if [ ! -e .venv/.complete ]; then
    # Triton's stub needs a shared libpython; where this machine's Python has none, the archive's Python takes its place
    python=$machine
    if ! "$machine" -c 'from embedded.installation import check_machine; check_machine()' 2>/dev/null; then
        python=$here/python/bin/python3.12
    fi
    packages=$("$machine" -c 'import sysconfig as s; print("\n".join(dict.fromkeys([s.get_path("purelib"), s.get_path("platlib")])))')
    rm -rf .venv
    LD_LIBRARY_PATH="$here/python/lib" "$python" -m venv --without-pip .venv
    cp -rl site/. .venv/lib/python3.12/site-packages/
    # the packages of this archive come first, then the sources, then those of the machine
    printf '%s\n%s\n%s\n' "$here" "$here/client" "$packages" > .venv/lib/python3.12/site-packages/machine.pth
    echo "$python" > .venv/.complete
fi
if [ "$(cat .venv/.complete)" = "$here/python/bin/python3.12" ]; then
    export LD_LIBRARY_PATH="$here/python/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
exec .venv/bin/python -m bench gpu "$@"
