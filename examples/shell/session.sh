#!/bin/sh
# A session with the command, from an image made of nothing to a container that goes on by itself. Needs busybox; no network.
set -eu

place=$(mktemp -d)
export ZIND_STORE="$place/store"
trap 'zind rm -f demo > /dev/null 2>&1; rm -rf "$place"' EXIT

mkdir -p "$place/root/bin"
cp "$(command -v busybox)" "$place/root/bin/busybox"
for name in sh echo cat sleep; do ln -s busybox "$place/root/bin/$name"; done
zind import "$place/root" demo:1
zind images

zind run --rm demo:1 sh -c 'echo "process $$ of a container of its own"'
zind run -d --name demo demo:1 sh -c 'echo ready; while :; do sleep 1; done'
zind exec demo sh -c 'echo "a second program"'
zind logs demo
zind ps
zind stop -t 1 demo
zind ps -a
