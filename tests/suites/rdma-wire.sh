#!/bin/sh -e
# Two network devices on one wire, each with an address and an RDMA device, and routes over the wire between them.
modprobe virtio_net
modprobe rdma_rxe
until [ -e /sys/class/net/eth0 ] && [ -e /sys/class/net/eth1 ]; do sleep 0.1; done
for n in 0 1; do
  ip address add 10.0.0.$((n + 1))/32 dev eth$n
  ip link set eth$n up
  ip route add 10.0.0.$((2 - n)) dev eth$n src 10.0.0.$((n + 1))
  ip rule add pref $((10 + n)) iif eth$n lookup local
  echo 1 > /proc/sys/net/ipv4/conf/eth$n/accept_local
  rdma link add rxe$n type rxe netdev eth$n
done
# Ways out come before this kernel's own addresses.
ip rule add pref 100 lookup main
ip rule add pref 200 lookup local
ip rule delete pref 0
