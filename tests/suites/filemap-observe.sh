#!/bin/sh
# Reads what /proc tells of the process four times, with a writer of its address space in the queue, and says how long that took.
pid=$(pidof xfs_io) || exit 1
(echo 1 > /proc/$pid/clear_refs; echo > /tmp/writer) > /dev/null 2>&1 &
sleep 0.2
now() { cut -d' ' -f1 /proc/uptime; }
slowest=0 n=0
while [ ! -e /tmp/fault ] && [ $n -lt 4 ]; do
  begun=$(now)
  cat /proc/$pid/maps /proc/$pid/status /proc/$pid/cmdline /proc/$pid/smaps > /dev/null || exit 1
  ms=$(echo $begun $(now) | awk '{ printf "%d", ($2 - $1) * 1000 }')
  [ $ms -gt $slowest ] && slowest=$ms
  n=$((n + 1))
done
[ -e /tmp/writer ] && writer=true || writer=false
[ -e /tmp/fault ] && waiting=false || waiting=true
echo "{\"reads\": $n, \"slowest\": $slowest, \"writer\": $writer, \"waiting\": $waiting}"
