#!/bin/sh
# Installs the command, its man pages and its completions, which it writes itself.
#
#   zind-cli/install.sh PREFIX [DESTDIR]
#
# Build it first: cargo build --release -p zind-cli. (CARGO_TARGET_DIR is heeded.)
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: $0 PREFIX [DESTDIR]" >&2
    exit 2
fi
root=${2:-}$1
here=$(cd "$(dirname "$0")" && pwd)
zind=${CARGO_TARGET_DIR:-$here/../target}/release/zind
if [ ! -x "$zind" ]; then
    echo "$0: there is no $zind: cargo build --release -p zind-cli" >&2
    exit 1
fi

share=$root/share
install -D -m 755 "$zind" "$root/bin/zind"
install -d "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" \
    "$share/fish/vendor_completions.d"
"$zind" man "$share/man/man1"
"$zind" completion bash > "$share/bash-completion/completions/zind"
"$zind" completion zsh > "$share/zsh/site-functions/_zind"
"$zind" completion fish > "$share/fish/vendor_completions.d/zind.fish"
