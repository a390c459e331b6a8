#!/bin/sh
# Make the development environment .venv, or bring an existing one up to the lock.
# Needs Python 3.11 or newer with venv; a particular one is chosen by PYTHON=/path/to/python.
set -eu
cd "$(dirname "$0")/.."

OLDEST=3.11
CANDIDATES="${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}"
ENV=.venv

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
complete() { "$1" -c 'import ensurepip, sqlite3, ssl, venv' >/dev/null 2>&1; }

find_python() {
    incomplete=
    for candidate in $CANDIDATES; do
        new_enough "$candidate" || continue
        if complete "$candidate"; then
            echo "$candidate"
            return
        fi
        incomplete="${incomplete:-$candidate}"
    done
    explain "$incomplete" >&2
    return 1
}

explain() {
    if [ -n "$1" ]; then
        version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "error: $1 ($version) lacks one of the modules ensurepip, sqlite3, ssl, venv."
        echo "  Debian, Ubuntu: apt-get install python$version-venv"
        echo "  built from source: install the headers of SQLite and OpenSSL, then build Python again"
    else
        echo "error: Lineshaft needs Python $OLDEST or newer, and none of these is: $CANDIDATES"
        echo "  Debian, Ubuntu: apt-get install python3 python3-venv   macOS: brew install python"
        echo "  or name one: make PYTHON=/path/to/python3.13"
    fi
}

if ! new_enough "$ENV/bin/python"; then
    python=$(find_python)
    echo "Making $ENV with $("$python" --version)"
    "$python" -m venv --clear "$ENV"
fi
"$ENV/bin/python" -m pip --version >/dev/null 2>&1 || "$ENV/bin/python" -m ensurepip >/dev/null

pip_install() { "$ENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

echo "Installing the locked requirements into $ENV"
# The lock names everything, so nothing is to be resolved: older pips would look for versions that it does
# not name wherever a package of it wants another with an extra.
pip_install --no-deps --require-hashes --requirement requirements/dev.txt
# The build backend is in the lock as well, so nothing is fetched behind its back.
pip_install --no-deps --no-build-isolation --editable .
