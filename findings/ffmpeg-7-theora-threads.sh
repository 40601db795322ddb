#!/bin/sh
# The ffmpeg 7.0.2 that imageio-ffmpeg 0.6.0 brings decodes Theora wrongly, other pictures from run to
# run, with exit code 0 and no message.
#
# imageio-ffmpeg 0.6.0 (ffmpeg 7.0.2, static), imageio-ffmpeg 0.8.1 (ffmpeg 9.0.2). Linux, x86-64.
#
# Frames of a grey that rises from picture to picture come with the levels of earlier ones. Seen where
# the decoder works in several threads and what reads it is slower: on 2 cores in half of the runs that
# Python reads, in few of those below. With -threads 1 before -i, or in 9.0.2, every run gives the same,
# right levels.
#
# Exits with 1 if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip="$folder/env/bin/pip install -q --disable-pip-version-check --no-deps"
$pip --target "$folder/old" imageio-ffmpeg==0.6.0
$pip --target "$folder/new" imageio-ffmpeg==0.8.1

cd "$folder"
old=$(echo old/imageio_ffmpeg/binaries/ffmpeg-*)
new=$(echo new/imageio_ffmpeg/binaries/ffmpeg-*)
chmod +x "$old" "$new"
source="color=black:s=96x64:r=25,trim=end_frame=17,format=yuv444p,geq=lum='24+N*12':cb=128:cr=128"
"$new" -v error -f lavfi -i "$source" -pix_fmt yuv420p -c:v libtheora -q:v 9 rising.ogv

results() { # PROGRAM OPTIONS...: different results of 100 runs
    program=$1
    shift
    for _ in $(seq 100); do
        "$program" -v error "$@" -i rising.ogv -vf "select='between(n\\,0\\,16)'" -vsync passthrough \
            -c:v ppm -pix_fmt rgb24 -f image2pipe - | md5sum
    done | sort | uniq -c | wc -l
}
many=$(results "$old")
one=$(results "$old" -threads 1)
echo "rising.ogv, different results of 100 runs: $many; with -threads 1: $one"
[ "$many" -gt 1 ] && [ "$one" = 1 ] || { echo "differs; it was 2 to 10, and 1" && exit 1; }
