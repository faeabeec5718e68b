#!/usr/bin/env bash
# Run `make test-fast` on every Python 3.12 and 3.13 of this machine, in build/pythons/VERSION. On 3.12, the Python of
# NVIDIA's image, every model is called in a live Triton, too (with the stub for 3.12); on 3.13 everything but the embedded
# Triton works (see scripts/setup.sh). PYTHONS="3.12" chooses.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
    command -v "python$1" && "python$1" -c '' 2>/dev/null && return
    for place in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if [ -x "$place" ]; then echo "$place"; return; fi
    done
    return 1
}

# the signature of every model, a video of `avatar`, and a session of `live`
LIVE_TESTS="tests/models/test_signatures.py tests/models/test_avatar.py tests/models/test_live.py"
ran=() missing=()
for version in ${PYTHONS:-3.12 3.13}; do
    if ! python=$(find_python "$version" | tail -n 1) || [ -z "$python" ]; then
        missing+=("$version")
        continue
    fi
    echo "test-pythons: $version, $python"
    venv=build/pythons/$version
    without=1
    if [ "$version" = 3.12 ]; then without=; fi
    make --no-print-directory VENV="$venv" PYTHON="$python" WITHOUT_TRITON="$without" test-fast
    if [ -z "$without" ]; then "$venv/bin/python" -m pytest -q $LIVE_TESTS; fi
    ran+=("$version")
done
echo "test-pythons: passed on ${ran[*]:-none}${missing[*]:+; not found: ${missing[*]}}"
[ "${#ran[@]}" -gt 0 ]
