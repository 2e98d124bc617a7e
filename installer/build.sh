# Sourced by installer/up and tests/run: builds the programs and the guest image. Quick when nothing changed.
# shellcheck shell=bash

HOST_TARGET=$(rustc -vV | sed -n 's/^host: //p')
HOST_ARCH=$(dpkg --print-architecture)

# build_programs PROFILE [ARCH]: the host's program, the image builder, and the static ones for the guest, which is for this
# host's processor unless ARCH (amd64, arm64) says otherwise.
build_programs() {
    say "building slipway and its image builder ($1)"
    cargo build --locked --quiet --profile "$1" -p slipway -p slipway-image
    BIN_DIR=$PWD/target/$([ "$1" = dev ] && echo debug || echo "$1")
    build_guest_programs "${2:-$HOST_ARCH}"
}

build_guest_programs() {
    local target=$HOST_TARGET linker=() triple
    if [ "$1" != "$HOST_ARCH" ]; then
        case $1 in
            amd64) triple=x86_64-linux-gnu ;;
            arm64) triple=aarch64-linux-gnu ;;
            *) fail "there is no guest image for $1" "amd64 and arm64 can be built" ;;
        esac
        need_cross "$triple" "$1"
        target=${triple/-linux/-unknown-linux}
        linker=("CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER=$triple-gcc")
    fi
    say "building the guest's programs for $1"
    # Static, because they run where no library is; at a fixed address, because dockerd starts the agent's stand-ins by the
    # hundred, and a program that relocates itself first touches most of its pages.
    env "${linker[@]}" RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
        cargo build --locked --quiet --profile agent --target "$target" -p slipway-agent -p slipway-iptables -p slipway-welcome
    STATIC_DIR=$PWD/target/$target/agent
}

# build_image [ARCH]: builds guest-image/out, for another processor than the host's guest-image/out.ARCH, unless what it is made
# of is what it was made of. After `build_programs PROFILE [ARCH]`.
build_image() {
    local arch=${1:-$HOST_ARCH} out=guest-image/out inputs
    [ "$arch" = "$HOST_ARCH" ] || out=guest-image/out.$arch
    inputs=$(image_inputs "$arch")
    if [ -f "$out/manifest.json" ] && [ "$(cat "$out.inputs" 2>/dev/null)" = "$inputs" ]; then
        say "the guest image for $arch is built already"
        return
    fi
    say "building the guest image for $arch (the first time fetches about 420 MB of Debian packages)"
    "$BIN_DIR/slipway-image" build --arch "$arch" --out "$out" --agent "$STATIC_DIR/slipway-agent" \
        --iptables "$STATIC_DIR/slipway-iptables" --welcome "$STATIC_DIR/slipway-welcome"
    # Read again: a mirror that no longer has a pinned package makes the builder write the lock anew.
    image_inputs "$arch" >"$out.inputs"
}

image_inputs() {
    sha256sum guest-image/slipway.yaml "guest-image/slipway.$1.lock" guest-image/{fsnotify,splice}/* "$BIN_DIR/slipway-image" \
        "$STATIC_DIR/slipway-agent" "$STATIC_DIR/slipway-iptables" "$STATIC_DIR/slipway-welcome"
}

# The window's pages, into ui/dist.
build_pages() {
    say "building the pages"
    if ! cmp -s ui/package-lock.json ui/node_modules/.slipway-lock; then
        (cd ui && npm ci --silent --no-audit --no-fund) && cp ui/package-lock.json ui/node_modules/.slipway-lock
    fi
    (cd ui && npm run --silent build)
}

# build_window PROFILE: needs the pages.
build_window() {
    say "building the window ($1)"
    cargo build --locked --quiet --profile "$1" -p slipway-desktop --features window
}
