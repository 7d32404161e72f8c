#!/usr/bin/env bash
# Where this machine has a Python 3.8: an environment .venv38 with Scipion and without TensorFlow, as at a facility, for the tests of the
# Scipion side there. Elsewhere it says so and those tests are skipped. Safe to repeat; quick when nothing changed.
#   PYTHON38=/path/to/python3.8   use this Python instead of looking for one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=.venv38
STAMP=$VENV/.gmmhet-stamp

say() { printf '[setup38] %s\n' "$*"; }

find_python38() {
    local python
    for python in ${PYTHON38:-} "$(command -v python3.8 || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python3.8; do
        if [ -n "$python" ] && "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 8))' >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    return 1
}

python38=$(find_python38) || { say "No Python 3.8 on this machine: the tests of the Scipion side on it are skipped."; exit 0; }
wanted=$(cat setup.py constraints-py38.txt tools/setup38.sh gmmhet/__init__.py | sha256sum)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ]; then
    say "Ready: $VENV"
    exit 0
fi
say "Virtual environment $VENV from $python38"
"$python38" -m venv --clear "$VENV"
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input -c constraints-py38.txt -e ".[dev]"
"$VENV/bin/python" -m pip check
echo "$wanted" > "$STAMP"
say "Ready: $VENV"
