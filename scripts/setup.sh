#!/bin/sh
# Installs what the build, the tests and the benchmarks need from Debian, by package name, and only what is missing.
# usage: setup.sh build | test | bench FOLDER
# FOLDER is for nginx, where the machine has none: the package is unpacked there and not installed, because installing
# it would start a web server on port 80.
set -eu

build="g++ make cmake libclang-dev pkg-config python3 python3-pip ca-certificates"
test="python3-venv nodejs npm curl"
# Tests start servers of their own from its programs.
database="postgresql redis-server"

wanted="$build"
case "${1:-build}" in
    test) wanted="$build $test $database" ;;
    bench) wanted="$build $test" ;;
esac

have() {
    case "$1" in
        # A machine may carry its own build of these, which serves as well as Debian's package.
        python3) command -v python3 >/dev/null ;;
        python3-pip) python3 -m pip --version >/dev/null 2>&1 ;;
        python3-venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
        nodejs) command -v node >/dev/null ;;
        npm) command -v npm >/dev/null ;;
        g++|make|cmake|curl) command -v "$1" >/dev/null ;;
        # The C interface, which bindgen loads; `libclang-cpp` comes with other packages and is not it.
        libclang-dev) ls /usr/lib/llvm-*/lib /usr/lib/*/ 2>/dev/null |
            grep -Eq '^libclang(-[0-9][0-9.]*)?\.so' ;;
        pkg-config) command -v pkg-config >/dev/null ;;
        postgresql) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null ;;
        redis-server) command -v redis-server >/dev/null || command -v valkey-server >/dev/null ;;
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

as_root=""
[ "$(id -u)" = 0 ] || as_root=sudo

install_packages() {
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends "$@"
}

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "These are needed and can't be installed here, because this is not Debian:$missing" >&2
        exit 1
    fi
    if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
        echo "These Debian packages are needed:$missing" >&2
        exit 1
    fi
    echo "Installing Debian packages:$missing"
    $as_root apt-get update -q
    case " $missing " in
        *" postgresql "*)
            # The package would make a database and start a server for it, which nobody here asked for.
            install_packages postgresql-common
            $as_root sed -i 's/^[# ]*create_main_cluster.*/create_main_cluster = false/' \
                /etc/postgresql-common/createcluster.conf
            ;;
    esac
    case " $missing " in
        *" redis-server "*)
            # The same here; what is masked does not start.
            [ ! -d /run/systemd/system ] || $as_root systemctl mask redis-server || true
            ;;
    esac
    install_packages $missing
fi

unpack_nginx() {
    mkdir -p "$1"
    (cd "$1" && apt-get download -q nginx && dpkg-deb -x nginx_*.deb . && rm nginx_*.deb)
}

if [ "${1:-build}" = bench ] && ! PATH="$PATH:/usr/sbin:$2/usr/sbin" command -v nginx >/dev/null; then
    echo "Unpacking Debian's nginx in $2"
    # Lists of packages may be missing or old.
    unpack_nginx "$2" || { $as_root apt-get update -q && unpack_nginx "$2"; } ||
        echo "There is no nginx; the benchmarks leave its figures out" >&2
fi
