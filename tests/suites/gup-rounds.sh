#!/bin/sh
# Moves pages until it is told to stop; the last line it leaves is what broke.
n=0
while [ ! -e /tmp/stop ]; do
  memprobe anon 4194304 fill:0,1048576,$n dwrite:0,1048576,/dev/vda dread:2097152,1048576,/dev/vda \
    check:2097152,1048576,$n splice:0,524288 > /tmp/said 2>&1 || { tail -n 1 /tmp/said > /tmp/broke; exit 1; }
  n=$((n + 1))
  echo $n > /tmp/rounds.new && mv /tmp/rounds.new /tmp/rounds
done
