#!/bin/sh
# Installs the C face: header, shared and static library, pkg-config file.
#
#   zind-ffi/install.sh PREFIX [DESTDIR]
#
# Build it first: cargo build --release -p zind-ffi. LIBRARIES names the directory that has libzind.so and libzind.a,
# if it is not target/release (CARGO_TARGET_DIR is heeded).
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: $0 PREFIX [DESTDIR]" >&2
    exit 2
fi
prefix=$1
destdir=${2:-}
case $prefix in
    /*) ;;
    *) echo "$0: PREFIX must be absolute: $prefix" >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
libraries=${LIBRARIES:-${CARGO_TARGET_DIR:-$here/../target}/release}
for file in "$libraries/libzind.so" "$libraries/libzind.a"; do
    if [ ! -f "$file" ]; then
        echo "$0: there is no $file: cargo build --release -p zind-ffi" >&2
        exit 1
    fi
done

version=$(sed -n 's/^#define ZIND_VERSION "\(.*\)"$/\1/p' "$here/../include/zind.h")
soname=libzind.so.$(sed -n 's/^#define ZIND_ABI_VERSION \([0-9]*\)$/\1/p' "$here/../include/zind.h")
# The links are libzind.so -> libzind.so.0 -> libzind.so.0.1.0.
real=libzind.so.$version

install -d "$destdir$prefix/include" "$destdir$prefix/lib/pkgconfig"
install -m 644 "$here/../include/zind.h" "$destdir$prefix/include/zind.h"
install -m 755 "$libraries/libzind.so" "$destdir$prefix/lib/$real"
ln -sf "$real" "$destdir$prefix/lib/$soname"
ln -sf "$soname" "$destdir$prefix/lib/libzind.so"
install -m 644 "$libraries/libzind.a" "$destdir$prefix/lib/libzind.a"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" "$here/zind.pc.in" > "$destdir$prefix/lib/pkgconfig/zind.pc"
chmod 644 "$destdir$prefix/lib/pkgconfig/zind.pc"
