#!/usr/bin/env bash
# What pip can't install: python3-venv ("venv"), Qt's system libraries and a screen for tests ("window").
# Nothing missing: silent. Otherwise apt-get as root or with passwordless sudo, else names the packages.
set -euo pipefail

[[ $(uname) == Linux ]] || exit 0
missing=()

venv() {
    local python=${PYTHON:-python3}
    "$python" -c "import ensurepip" 2>/dev/null ||
        missing+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
}

window() {
    local known library package
    known=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p)
    while read -r library package; do
        grep -qF "$library " <<<"$known" || missing+=("$package")
    done <<'LIBRARIES'
libEGL.so.1 libegl1
libGL.so.1 libgl1
libxkbcommon.so.0 libxkbcommon0
libxkbcommon-x11.so.0 libxkbcommon-x11-0
libxcb-cursor.so.0 libxcb-cursor0
libxcb-icccm.so.4 libxcb-icccm4
libxcb-image.so.0 libxcb-image0
libxcb-keysyms.so.1 libxcb-keysyms1
libxcb-randr.so.0 libxcb-randr0
libxcb-render-util.so.0 libxcb-render-util0
libxcb-shape.so.0 libxcb-shape0
libxcb-xkb.so.1 libxcb-xkb1
libX11-xcb.so.1 libx11-xcb1
libdbus-1.so.3 libdbus-1-3
libglib-2.0.so.0 libglib2.0-0
libfontconfig.so.1 libfontconfig1
LIBRARIES
    command -v xvfb-run >/dev/null || missing+=(xvfb)
    command -v xauth >/dev/null || missing+=(xauth)
}

"$1"
((${#missing[@]})) || exit 0

if [[ $(id -u) == 0 ]]; then as_root=(env)
elif sudo -n true 2>/dev/null; then as_root=(sudo)
fi
if [[ -z ${as_root+set} ]] || ! command -v apt-get >/dev/null; then
    echo "Missing on this machine: ${missing[*]} (Debian's names). Install them and run make again." >&2
    exit 1
fi
echo "Installing with apt-get: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
