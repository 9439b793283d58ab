#!/bin/sh
# A selftest as the kernel has them, for a machine that mounts the folder it lies in: its words are KTAP.
here=$(dirname "$0")
echo "KTAP version 1"
echo "1..3"
n=0
check() {
  n=$((n + 1))
  what=$1
  shift
  if "$@" > /dev/null 2>&1; then echo "ok $n $what"; else echo "not ok $n $what"; fi
}
refused() { ! "$@"; }
check "finds its data beside itself" grep -q "^of the host$" "$here/data/words"
check "is a program that can be mapped" test -x "$0"
check "changes nothing" refused touch "$here/new"
