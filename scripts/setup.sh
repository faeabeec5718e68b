#!/usr/bin/env bash
# Makes the environment: checks the parts that pip cannot install, then installs the lock.
# Called by `make setup` with VENV set; PYTHON, if set, names the interpreter to use. WITHOUT_TRITON=1 also takes a
# Python on which everything but the embedded Triton works.
set -euo pipefail

# The Python versions that everything works with, in order of preference. The stub of NVIDIA's Triton wheel was built
# for numpy 1: with numpy 2 it reads every array as empty. numpy 1 has no wheel for Python 3.13.
SUPPORTED="3.11 3.12" VERSIONS="3.11 or 3.12"
if [ -n "${WITHOUT_TRITON:-}" ]; then SUPPORTED="3.11 3.12 3.13" VERSIONS="3.11, 3.12 or 3.13"; fi

# The CPU build of torch is 190 MB, the CUDA build that plain PyPI gives is gigabytes. If this index cannot be reached,
# pip falls back to the configured one. `make setup TORCH_INDEX=` takes PyPI's build.
TORCH_INDEX="${TORCH_INDEX-https://download.pytorch.org/whl/cpu}"

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

runs() { command -v "$1" >/dev/null && "$1" -c '' 2>/dev/null; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
supports() { case " $SUPPORTED " in *" $1 "*) ;; *) return 1 ;; esac; }

INSTALL_PYTHON="On Debian 12 and Ubuntu 24.04: apt-get install python3 python3-venv. Elsewhere: pyenv or \`uv python install 3.12\`, then make setup PYTHON=/path/to/python"

# the Python that was requested; otherwise that of the existing environment, or the first supported one on PATH
if [ -n "${PYTHON:-}" ]; then
    runs "$PYTHON" || fail "no Python found as $PYTHON. $INSTALL_PYTHON"
elif runs "$VENV/bin/python"; then
    PYTHON=$VENV/bin/python
else
    for PYTHON in $(printf 'python%s ' $SUPPORTED) python3; do
        if runs "$PYTHON"; then break; fi
    done
    runs "$PYTHON" || fail "no Python found, $VERSIONS is needed. $INSTALL_PYTHON"
fi
version=$(version_of "$PYTHON")
if [ "$version" = 3.13 ] && ! supports 3.13; then
    fail "Python $VERSIONS is needed, $PYTHON is 3.13: NVIDIA's Triton wheel needs numpy 1, which has no wheel for 3.13. $INSTALL_PYTHON. With a Triton on another machine: make setup WITHOUT_TRITON=1"
fi
supports "$version" || fail "Python $VERSIONS is needed, $PYTHON is $version. $INSTALL_PYTHON"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail "this Python has no venv module. On Debian and Ubuntu: apt-get install python$version-venv"
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
    existing=$(version_of "$VENV/bin/python")
    [ "$existing" = "$version" ] || fail "the environment in $VENV is of Python $existing, not $version; remove it and try again"
fi
# after an interrupted run, the environment may lack pip
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip "$@"; }
quiet=--quiet
if [ -t 1 ]; then quiet=; fi  # at a terminal, show the progress of the downloads

torch=$(grep -E '^torch==' requirements.lock)
if ! pip freeze 2>/dev/null | grep -qE "^${torch//./\\.}(\+|$)"; then
    echo "setup: installing $torch"
    pip install $quiet --no-deps --retries 1 \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch" 2> >(grep -vE '^WARNING: (Location|Retrying)' >&2)
fi

# uv installs in a quarter of a minute what takes pip two minutes. It does not read pip's configuration, so pip's main
# index and certificates are passed on. Its other indexes are not: uv would take a wheel from one of them even if the main
# index has a more specific wheel of the same version. Where uv fails, for example because a package is only there, pip
# installs the lock.
configured() { # NAME: pip's setting from the environment, otherwise from its files
    local variable=PIP_${1^^}
    variable=${variable//-/_}
    printf '%s' "${!variable-$(pip config get "global.$1" 2>/dev/null || true)}"
}
uv() {
    local name value settings=(VIRTUAL_ENV="$VENV")
    while read -r name value; do
        value=$(configured "$value")
        if [ -n "$value" ]; then settings+=("$name=${value//$'\n'/ }"); fi
    done <<< "UV_DEFAULT_INDEX index-url
SSL_CERT_FILE cert
UV_HTTP_TIMEOUT timeout"
    env "${settings[@]}" "$VENV/bin/uv" "$@"
}
install() { # pip's arguments
    if [ -x "$VENV/bin/uv" ] && uv pip install $quiet "$@"; then return; fi
    pip install $quiet "$@" 2> >(grep -vE '^WARNING: Location' >&2)
}

echo "setup: installing the other packages of requirements.lock"
others=$(mktemp)
trap 'rm -f "$others"' EXIT
grep -vE '^torch==' requirements.lock > "$others"
if [ ! -x "$VENV/bin/uv" ]; then
    pip install --quiet --no-deps "$(grep -E '^uv==' requirements.lock)" 2>/dev/null || true
fi
install --no-deps --requirement "$others"
install --no-deps --no-build-isolation --editable . --editable client
# after the packages, of which tritonclient installs its own binary there; its libraries are those of the embedded Triton
if [ "$version" != 3.13 ]; then "$VENV/bin/python" scripts/install_perf_analyzer.py; fi
echo "setup: done, the environment is in $VENV"
