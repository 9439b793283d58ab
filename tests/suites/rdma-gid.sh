#!/bin/sh
# `gid N DEVICE`: the index of the GID that DEVICE has by the address of end N of the wire, as soon as it has it.
for round in $(seq 300); do
  for file in /sys/class/infiniband/$2/ports/1/gids/*; do
    if [ "$(cat $file)" = 0000:0000:0000:0000:0000:ffff:0a00:000$(($1 + 1)) ]; then
      basename $file
      exit
    fi
  done
  sleep 0.1
done
exit 1
