#!/bin/sh
# Installs what the build and the tests need from Debian, by package name, and only what is missing.
# usage: setup.sh build | test
set -eu

build="g++ make cmake libclang-dev pkg-config python3 python3-pip ca-certificates"
test="python3-venv nodejs npm curl"

wanted="$build"
[ "${1:-build}" = test ] && wanted="$build $test"

have() {
    case "$1" in
        # A machine may carry its own build of these, which serves as well as Debian's package.
        python3) command -v python3 >/dev/null ;;
        python3-pip) python3 -m pip --version >/dev/null 2>&1 ;;
        python3-venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
        nodejs) command -v node >/dev/null ;;
        npm) command -v npm >/dev/null ;;
        g++|make|cmake|curl) command -v "$1" >/dev/null ;;
        libclang-dev) ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 ;;
        pkg-config) command -v pkg-config >/dev/null ;;
        *) dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
    esac
}

missing=""
for package in $wanted; do
    have "$package" || missing="$missing $package"
done

if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    echo "cargo is installed but not on PATH: run '. \$HOME/.cargo/env' first" >&2
    exit 1
fi
if ! command -v cargo >/dev/null; then
    echo "Rust is needed: install it with rustup (https://rustup.rs), then run this again" >&2
    exit 1
fi

[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "These are needed and can't be installed here, because this is not Debian:$missing" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "These Debian packages are needed:$missing" >&2; exit 1; }
    as_root=sudo
fi
echo "Installing Debian packages:$missing"
$as_root apt-get update -q
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $missing
