#!/usr/bin/env bash
# Everything that `make demo` and `make test` need: Debian packages (when this user may install them), the virtual environment .venv with the
# pinned Python packages (one pip call), gmmhet itself (editable) and Scipion's configuration. Safe to repeat; quick when nothing changed.
#   PYTHON=/path/to/python3.11   use this Python instead of looking for one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=.venv
STAMP=$VENV/.gmmhet-stamp

say() { printf '[setup] %s\n' "$*"; }

# ---- Debian packages -------------------------------------------------------------------------------------------------------------------
apt_prefix() {  # prints how to call apt-get as root; fails where it cannot be called
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then echo env; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then echo "sudo -n env"; else return 1; fi
}

install_debian() {  # install_debian WHAT-FOR PACKAGE...: installs, or says what to install and returns 1
    local purpose=$1 prefix; shift
    if ! prefix=$(apt_prefix); then
        say "Missing for $purpose: $*. Install them as root, for example: apt-get install $*"
        return 1
    fi
    say "Installing Debian packages for $purpose: $*"
    { $prefix apt-get -qq update && $prefix DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; } \
        </dev/null >"$VENV.apt.log" 2>&1 || { tail -n 20 "$VENV.apt.log"; say "apt-get failed (whole log: $VENV.apt.log)"; return 1; }
}

debian_packages() {
    local missing=() pair
    for pair in relion_refine:relion mpirun:openmpi-bin ssh:openssh-client Xvfb:xvfb xdotool:xdotool import:imagemagick openbox:openbox; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} = 0 ] || install_debian "RELION and the GUI test" "${missing[@]}" ||
        say "Going on without: what needs them is skipped or says so."
}

# ---- Python ----------------------------------------------------------------------------------------------------------------------------
is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }
has() { "$1" -c "import $2" >/dev/null 2>&1; }
is_system() { "$1" -c 'import sys; sys.exit(sys.base_prefix != "/usr")'; }

candidates() {
    [ -z "${PYTHON:-}" ] || { echo "$PYTHON"; return; }
    command -v python3.11 || true
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11.*/bin/python3.11 2>/dev/null || true
    echo /usr/bin/python3.11
    command -v python3 || true
}

find_python() {  # prints a Python 3.11, one with tkinter and ensurepip if there is one
    local python first=""
    for python in $(candidates); do
        is_311 "$python" || continue
        if has "$python" tkinter && has "$python" ensurepip; then echo "$python"; return; fi
        first=${first:-$python}
    done
    [ -n "$first" ] && echo "$first"
}

choose_python() {  # sets CHOSEN
    if ! CHOSEN=$(find_python); then
        [ -z "${PYTHON:-}" ] || { say "PYTHON=$PYTHON is not a Python 3.11: name one, or unset PYTHON."; exit 1; }
        install_debian "Python 3.11" python3.11 python3.11-venv python3-tk || true
        CHOSEN=$(find_python) || { say "No Python 3.11 found. Install it (Debian 12: apt-get install python3.11 python3.11-venv python3-tk) or name one with PYTHON=..."; exit 1; }
    fi
    if is_system "$CHOSEN"; then
        local missing=()
        has "$CHOSEN" ensurepip || missing+=(python3.11-venv)
        has "$CHOSEN" tkinter || missing+=(python3-tk)
        [ ${#missing[@]} = 0 ] || install_debian "Python" "${missing[@]}" || true
    fi
    has "$CHOSEN" ensurepip || { say "$CHOSEN cannot make virtual environments (no module ensurepip): install python3.11-venv."; exit 1; }
    has "$CHOSEN" tkinter || say "$CHOSEN has no tkinter: Scipion's windows will not open (install python3-tk); everything else works."
}

holds_this_checkout() {  # a copied or moved checkout needs its own environment
    local here=$PWD
    (cd / && "$here/$VENV/bin/python" -c 'import gmmhet, os, sys; sys.exit(not os.path.samefile(gmmhet.__path__[0], sys.argv[1]))' \
        "$here/gmmhet") 2>/dev/null
}

python_packages() {
    local extra=dev
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then extra=dev,gpu; fi
    local wanted
    wanted=$({ echo "$extra"; cat setup.py pyproject.toml constraints.txt tools/setup.sh tools/environment.py gmmhet/__init__.py; } | sha256sum)
    if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ] && holds_this_checkout; then return; fi
    choose_python
    say "Virtual environment $VENV from $CHOSEN ($("$CHOSEN" -V 2>&1))"
    "$CHOSEN" -m venv --clear "$VENV"
    say "Installing the pinned Python packages (a few minutes, about 3 GB with TensorFlow)"
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt -e ".[$extra]"
    "$VENV/bin/python" -m pip check
    "$VENV/bin/python" -c 'import sys; sys.path.insert(0, "tools"); import environment; environment.fix_site()'
    echo "$wanted" > "$STAMP"
}

scipion_config() {
    "$VENV/bin/python" -c 'import sys; sys.path.insert(0, "tools"); import environment; environment.apply("demo_out/scipion")'
}

debian_packages
python_packages
scipion_config
say "Ready: $PWD/$VENV"
