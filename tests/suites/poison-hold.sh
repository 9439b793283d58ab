#!/bin/sh
# hold start N COMMAND...: starts a memprobe that waits at its step `stop`, and says where its page is.
# hold go N...: lets them go on, at once; says what the first of them said from then on, and ends as that one did.
case $1 in
start)
    n=$2
    shift 2
    mkfifo /tmp/go$n || exit 1
    (
        "$@" <> /tmp/go$n > /tmp/out$n 2>&1
        echo $? > /tmp/rc$n
    ) > /dev/null 2>&1 < /dev/null &
    for i in $(seq 300); do
        grep phys /tmp/out$n && exit 0
        sleep 0.1
    done
    cat /tmp/out$n
    exit 1
    ;;
go)
    shift
    for n in "$@"; do echo > /tmp/go$n; done
    for n in "$@"; do
        for i in $(seq 300); do
            [ -s /tmp/rc$n ] && break
            sleep 0.1
        done
    done
    sed -n '/phys/,$p' /tmp/out$1 | sed 1d
    exit $(cat /tmp/rc$1)
    ;;
esac
