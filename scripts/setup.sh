#!/usr/bin/env bash
# Makes the environment: looks for what pip cannot bring, then installs the lock.
# Called by `make setup` with PYTHON and VENV set.
set -euo pipefail

# The CPU build of torch is 190 MB, the CUDA build that plain PyPI gives is gigabytes. Where this index cannot
# be reached pip falls back to the configured one. `make setup TORCH_INDEX=` takes PyPI's build.
TORCH_INDEX="${TORCH_INDEX-https://download.pytorch.org/whl/cpu}"

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

runs() { command -v "$1" >/dev/null && "$1" -c '' 2>/dev/null; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# python3.11 first, then whatever python3 is, if it is a 3.11; a PYTHON that was asked for, or none
if [ "$PYTHON" = python3.11 ] && ! runs "$PYTHON"; then PYTHON=python3; fi
runs "$PYTHON" || fail "no Python found as $PYTHON. On Debian 12: apt-get install python3.11 python3.11-venv"
version=$(version_of "$PYTHON")
[ "$version" = 3.11 ] || fail "Python 3.11 is needed, $PYTHON is $version. On Debian 12: apt-get install python3.11 python3.11-venv (or: make setup PYTHON=/path/to/python3.11)"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail "this Python has no venv module. On Debian 12: apt-get install python3.11-venv"
# processor, glibc and a shared libpython, by the launcher's own rules; these modules need no package
"$PYTHON" - <<'PY' || exit 1
import sys
from embedded.errors import MissingDependency
from embedded.installation import check_machine
try:
    check_machine()
except MissingDependency as error:
    sys.exit(f"setup: {error}")
PY

export PIP_DISABLE_PIP_VERSION_CHECK=1
if runs "$VENV/bin/python"; then
    version=$(version_of "$VENV/bin/python")
    [ "$version" = 3.11 ] || fail "the environment in $VENV is of Python $version; remove it and try again"
fi
# where a run was interrupted, pip may be missing in it still
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip "$@"; }
quiet=--quiet
if [ -t 1 ]; then quiet=; fi  # somebody watches: show what is fetched, and how far it is

torch=$(grep -E '^torch==' requirements.lock)
if ! pip freeze 2>/dev/null | grep -qE "^${torch//./\\.}(\+|$)"; then
    echo "setup: installing $torch"
    pip install $quiet --retries 1 --constraint requirements.lock \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch" 2> >(grep -vE '^WARNING: (Location|Retrying)' >&2)
fi
echo "setup: installing the other packages of requirements.lock"
grep -vE '^torch==' requirements.lock |
    pip install $quiet --no-deps --requirement /dev/stdin 2> >(grep -vE '^WARNING: Location' >&2)
pip install $quiet --no-deps --no-build-isolation --editable . --editable client 2> >(grep -vE '^WARNING: Location' >&2)
"$VENV/bin/python" scripts/install_perf_analyzer.py  # after pip, which lays tritonclient's own in its place
echo "setup: done, the environment is in $VENV"
