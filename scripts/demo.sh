#!/bin/sh
# Run the shipped demonstration:  sh scripts/demo.sh COMMAND FOLDER
#
# An unfinished run in FOLDER is resumed. A finished one is kept, and the next free folder
# (FOLDER-2, FOLDER-3, ...) takes a new run, which ends in the same adapter: the seed is the same.
set -eu

usage="usage: sh scripts/demo.sh COMMAND FOLDER"
command=${1:?$usage}
first=${2:?$usage}

folder=$first
number=1
while [ -f "$folder/evaluation.json" ]; do # written last: the mark of a finished run
    echo "== $folder holds a finished run"
    number=$((number + 1))
    folder=$first-$number
done

if [ -f "$folder/recipe.yaml" ]; then
    echo "== resuming the unfinished run in $folder"
    exec "$command" resume "$folder"
fi
echo "== a new run in $folder"
exec "$command" run tiny-demo "output=$folder"
