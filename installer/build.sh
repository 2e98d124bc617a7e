# Sourced by installer/up and tests/run: builds the programs and the guest image. Quick when nothing changed.
# shellcheck shell=bash

HOST_TARGET=$(rustc -vV | sed -n 's/^host: //p')
STATIC_DIR=$PWD/target/$HOST_TARGET/agent

# build_programs PROFILE: the host's program, the image builder, and the static ones for the guest.
build_programs() {
    say "building slipway and its image builder ($1)"
    cargo build --locked --quiet --profile "$1" -p slipway -p slipway-image
    say "building the guest's programs"
    # Static, because they run where no library is; at a fixed address, because dockerd starts the agent's stand-ins by the
    # hundred, and a program that relocates itself first touches most of its pages.
    RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
        cargo build --locked --quiet --profile agent --target "$HOST_TARGET" -p slipway-agent -p slipway-iptables -p slipway-welcome
    BIN_DIR=$PWD/target/$([ "$1" = dev ] && echo debug || echo "$1")
}

# Builds guest-image/out, unless what it is made of is what it was made of.
build_image() {
    local out=guest-image/out inputs
    inputs=$(image_inputs)
    if [ -f "$out/manifest.json" ] && [ "$(cat "$out.inputs" 2>/dev/null)" = "$inputs" ]; then
        say "the guest image is built already"
        return
    fi
    say "building the guest image (the first time fetches about 290 MB of Debian packages)"
    "$BIN_DIR/slipway-image" build --out "$out" --agent "$STATIC_DIR/slipway-agent" \
        --iptables "$STATIC_DIR/slipway-iptables" --welcome "$STATIC_DIR/slipway-welcome"
    # Read again: a mirror that no longer has a pinned package makes the builder write the lock anew.
    image_inputs >"$out.inputs"
}

image_inputs() {
    sha256sum guest-image/slipway.yaml guest-image/slipway.lock guest-image/fsnotify/* "$BIN_DIR/slipway-image" \
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
