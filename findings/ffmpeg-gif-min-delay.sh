#!/bin/sh
# ffmpeg's GIF demuxer documents two options, and neither has an effect since 7.0.
#
# imageio-ffmpeg 0.6.0 (ffmpeg 7.0.2), imageio-ffmpeg 0.5.1 (ffmpeg 4.2.2), Pillow 12.0.0. Linux, x86-64.
#
# `ffmpeg -h demuxer=gif` lists -min_delay ("minimum valid delay between frames", default 2 hundredths
# of a second) and -default_delay (default 10): a frame with a shorter delay is to be shown for the
# default, as browsers show it for 100 ms. ffmpeg 4.2.2 does this. ffmpeg 7.0.2 (and 9.0.2, of
# imageio-ffmpeg 0.8.1) lists the same options and defaults, takes them without a warning, and
# gives the frames the delays of the file: a GIF that every browser plays at 10 frames a second comes at
# 100. Whoever reads GIFs through ffmpeg and wants the browsers' times has to correct them.
#
# Seen, of four frames with delays of 10, 100, 40 and 20 ms, times in hundredths:
#   4.2.2   0 10 20 24      with -min_delay 30 -default_delay 77:  0 77 154 231
#   7.0.2   0 1 11 15       with -min_delay 30 -default_delay 77:  0 1 11 15
#
# Exits with 1 if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip="$folder/env/bin/pip install -q --disable-pip-version-check"
$pip pillow==12.0.0
$pip --no-deps --target "$folder/old" imageio-ffmpeg==0.5.1
$pip --no-deps --target "$folder/new" imageio-ffmpeg==0.6.0

cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
from PIL import Image

frames = [Image.new("L", (8, 8), 60 * i) for i in range(4)]
frames[0].save("delays.gif", save_all=True, append_images=frames[1:], duration=[10, 100, 40, 20])
PYTHON

shown() { # PROGRAM OPTIONS...: the time of each frame
    program=$1
    shift
    "$program" -v error "$@" -i delays.gif -vsync passthrough -enc_time_base -1 \
        -c:v wrapped_avframe -f framecrc - 2>/dev/null |
        sed -n 's/^0, *\([0-9]*\), *\([0-9]*\),.*/\2/p' | tr '\n' ' '
}

old=$(echo old/imageio_ffmpeg/binaries/ffmpeg-*)
new=$(echo new/imageio_ffmpeg/binaries/ffmpeg-*)
chmod +x "$old" "$new"
"$new" -v error -h demuxer=gif | grep -E "min_delay|default_delay"

failed=0
check() { # WHAT GOT WANTED
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "  differs; it was: $3" && failed=1; }
}
check "4.2.2" "$(shown "$old")" "0 10 20 24 "
check "4.2.2, 30 and 77" "$(shown "$old" -min_delay 30 -default_delay 77)" "0 77 154 231 "
check "7.0.2" "$(shown "$new")" "0 1 11 15 "
check "7.0.2, 30 and 77" "$(shown "$new" -min_delay 30 -default_delay 77)" "0 1 11 15 "
exit $failed
