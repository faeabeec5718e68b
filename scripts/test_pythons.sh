#!/usr/bin/env bash
# Run `make test-fast` on every Python 3.12 and 3.13 of this machine, in build/pythons/VERSION. On 3.13 everything but
# the embedded Triton works (see scripts/setup.sh). PYTHONS="3.12" chooses.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
    command -v "python$1" && "python$1" -c '' 2>/dev/null && return
    for place in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if [ -x "$place" ]; then echo "$place"; return; fi
    done
    return 1
}

ran=() missing=()
for version in ${PYTHONS:-3.12 3.13}; do
    if ! python=$(find_python "$version" | tail -n 1) || [ -z "$python" ]; then
        missing+=("$version")
        continue
    fi
    echo "test-pythons: $version, $python"
    make --no-print-directory VENV="build/pythons/$version" PYTHON="$python" WITHOUT_TRITON=1 test-fast
    ran+=("$version")
done
echo "test-pythons: passed on ${ran[*]:-none}${missing[*]:+; not found: ${missing[*]}}"
[ "${#ran[@]}" -gt 0 ]
