//! Network devices as Linux sees them: two of one machine on a wire, two machines on a socket, a tap interface of the host.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, facts, guest::program};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

const KERNELS: [&str; 2] = ["debian-6.1-amd64", "debian-6.12-amd64"];
const SOON: Duration = Duration::from_secs(60);
/// By its path: the guest's shell takes busybox's own `ip` for the name alone, which knows no namespaces.
const IP: &str = "/usr/bin/ip";

fn machine(kernel: &str, api: &str) -> GuestBuilder {
    GuestBuilder::new(kernel).memory("384M").arg("--api-socket", api)
}

/// What a machine says of one of its network devices.
fn net(api: &Path, id: &str) -> Result<Value> {
    let done = guest_tests::api::ctl(&program()?, api, &["--json", "describe"])?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "describe: {said}");
    let all: Value = serde_json::from_slice(&done.stdout)?;
    Ok(facts::find(&all["virtio"]["nets"], "id", id)?.clone())
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Loads the driver and waits for its devices.
fn appear(guest: &mut Guest, count: usize) -> Result<()> {
    guest.check(&format!(
        "modprobe virtio_net && for n in $(seq 100); do \
         test $(ls -d /sys/class/net/eth* 2> /dev/null | wc -l) = {count} && exit 0; sleep 0.1; done; exit 1"
    ))?;
    Ok(())
}

/// Frames that `ping` brought, by the device's own counters.
fn counts(guest: &mut Guest, prefix: &str, device: &str) -> Result<(u64, u64)> {
    let text = guest.check(&format!(
        "{prefix} cat /sys/class/net/{device}/statistics/rx_packets /sys/class/net/{device}/statistics/tx_packets"
    ))?;
    let numbers: Vec<u64> = text.lines().map_while(|n| n.parse().ok()).collect();
    match numbers[..] {
        [received, sent] => Ok((received, sent)),
        _ => anyhow::bail!("odd statistics: {text}"),
    }
}

fn two_on_a_wire(kernel: &str, mtu: u32) -> Result<()> {
    let files = Scratch::new("net-wire")?;
    let wire = format!("link=wire,mtu={mtu}");
    let mut guest = machine(kernel, &files.text("api"))
        .arg("--net", &wire)
        .arg("--net", &wire)
        .start()?;
    appear(&mut guest, 2)?;
    ensure!(
        guest.check("cat /sys/class/net/eth0/address /sys/class/net/eth1/address /sys/class/net/eth0/mtu")?
            == format!("02:64:61:78:00:00\n02:64:61:78:00:01\n{mtu}"),
        "{kernel}: addresses and MTU"
    );
    guest.check(&format!(
        "{IP} netns add other && {IP} link set eth1 netns other && {IP} address add 10.0.0.1/24 dev eth0 && {IP} link set eth0 up && \
         {IP} netns exec other ip address add 10.0.0.2/24 dev eth1 && {IP} netns exec other ip link set eth1 up"
    ))?;
    ensure!(
        guest.check("cat /sys/class/net/eth0/carrier")? == "1",
        "{kernel}: no carrier"
    );
    let before = counts(&mut guest, "", "eth0")?;
    // The largest payload of one packet has 20 bytes of IP and 8 of ICMP before it; the next one comes in fragments.
    for size in [0, 1, 56, mtu - 29, mtu - 28, mtu - 27, 3 * mtu] {
        let said = guest.check(&format!("ping -c 3 -i 0.2 -s {size} 10.0.0.2"))?;
        ensure!(said.contains("3 packets received"), "{kernel}: {size} bytes: {said}");
    }
    let after = counts(&mut guest, "", "eth0")?;
    let other = counts(&mut guest, &format!("{IP} netns exec other"), "eth1")?;
    ensure!(
        after.0 >= before.0 + 21 && after.1 >= before.1 + 21 && other.0 >= 21 && other.1 >= 21,
        "{kernel}: {before:?}, {after:?}, {other:?}"
    );
    let (left, right) = (net(&files.join("api"), "net0")?, net(&files.join("api"), "net1")?);
    for (one, opposite) in [(&left, &right), (&right, &left)] {
        ensure!(
            one["carrier"] == true && one["driver"] == true && one["sent"]["malformed"] == 0,
            "{kernel}: {one}"
        );
        let (sent, received) = (&one["sent"], &opposite["received"]);
        let lost = facts::number(sent, "frames")? - facts::number(received, "frames")?;
        ensure!(
            lost <= facts::number(received, "dropped")? && sent["dropped"] == 0,
            "{kernel}: {left} {right}"
        );
    }
    // A stream, checked at its end. The receiver's input never ends: it would hang up with it.
    guest.check(&format!(
        "dd if=/dev/urandom of=/tmp/sent bs=1M count=4 2> /dev/null; mkfifo /tmp/open; \
         {IP} netns exec other sh -c 'nc -l -p 7 <> /tmp/open > /tmp/got' & \
         for n in $(seq 50); do {IP} netns exec other netstat -ltn | grep -q ':7 ' && break; sleep 0.1; done; \
         nc 10.0.0.2 7 < /tmp/sent && wait && cmp /tmp/sent /tmp/got"
    ))?;
    guest.power_off()?;
    Ok(())
}

#[test]
fn two_devices_of_a_machine_are_connected_on_6_1() -> Result<()> {
    two_on_a_wire("debian-6.1-amd64", 1500)
}

#[test]
fn two_devices_of_a_machine_are_connected_on_6_12() -> Result<()> {
    two_on_a_wire("debian-6.12-amd64", 9000)
}

/// A driver that goes and comes back finds a device that works, and frames of the meantime are gone.
#[test]
fn a_driver_comes_back_to_its_device() -> Result<()> {
    let files = Scratch::new("net-driver")?;
    let mut guest = machine(QUICK, &files.text("api"))
        .arg("--net", "link=wire")
        .arg("--net", "link=wire")
        .start()?;
    appear(&mut guest, 2)?;
    guest.check(&format!(
        "{IP} address add 10.0.0.1/24 dev eth0 && {IP} link set eth0 up && {IP} netns add other && \
         readlink /sys/class/net/eth1/device > /tmp/device"
    ))?;
    let driver = "/sys/bus/virtio/drivers/virtio_net";
    guest.check(&format!("basename $(cat /tmp/device) > {driver}/unbind"))?;
    until("no driver", || Ok(net(&files.join("api"), "net1")?["driver"] == false))?;
    // Whatever is sent now is for nobody.
    guest.check("ping -c 2 -W 1 10.0.0.2 > /dev/null; true")?;
    until("lost frames", || {
        Ok(facts::number(&net(&files.join("api"), "net1")?["received"], "dropped")? > 0)
    })?;
    guest.check(&format!(
        "basename $(cat /tmp/device) > {driver}/bind; for n in $(seq 100); do test -e /sys/class/net/eth1 && break; sleep 0.1; done; \
         {IP} link set eth1 netns other && {IP} netns exec other ip address add 10.0.0.2/24 dev eth1 && \
         {IP} netns exec other ip link set eth1 up && {IP} neigh flush dev eth0"
    ))?;
    let said = guest.check("ping -c 3 -i 0.2 10.0.0.2")?;
    ensure!(said.contains("3 packets received"), "{said}");
    guest.power_off()?;
    Ok(())
}

fn end(kernel: &str, files: &Scratch, n: u8) -> Result<Guest> {
    let link = format!("link={},mac=02:64:61:78:01:0{n}", files.text("link"));
    let mut guest = machine(kernel, &files.text(&format!("api{n}")))
        .arg("--net", &link)
        .start()?;
    appear(&mut guest, 1)?;
    guest.check(&format!("ip address add 10.0.0.{n}/24 dev eth0 && ip link set eth0 up"))?;
    Ok(guest)
}

fn carrier(guest: &mut Guest, on: bool) -> Result<()> {
    let wanted = if on { "1" } else { "0" };
    until(&format!("carrier {on}"), || {
        Ok(guest.check("cat /sys/class/net/eth0/carrier")? == wanted)
    })
}

/// Messages of RDMA go to and fro between two machines; `first` has address 10.0.0.1, and `second` 10.0.0.2.
fn rdma_between(first: &mut Guest, second: &mut Guest) -> Result<()> {
    const PING: &str = "ibv_rc_pingpong -d rxe0 -m 1024 -s 4096 -n 200";
    const MESSAGES: &str = "200 iters in";
    for (number, guest) in [&mut *first, &mut *second].into_iter().enumerate() {
        let find = include_str!("../../suites/rdma-gid.sh");
        guest.client().put_file("/gid", 0o755, find.as_bytes())?;
        guest.check(&format!(
            "modprobe -a rdma_rxe ib_uverbs && rdma link add rxe0 type rxe netdev eth0 && /gid {number} rxe0 > /tmp/gid"
        ))?;
    }
    first.check(&format!(
        "({PING} -g $(cat /tmp/gid) > /tmp/server 2>&1 &) < /dev/null > /dev/null 2>&1; \
         for n in $(seq 100); do netstat -ltn | grep -q ':18515 ' && exit 0; sleep 0.1; done; cat /tmp/server; exit 1"
    ))?;
    let said = second.check(&format!("{PING} -g $(cat /tmp/gid) 10.0.0.1"))?;
    ensure!(said.contains(MESSAGES), "{said}");
    let said = first.check(&format!(
        "for n in $(seq 100); do grep -q '{MESSAGES}' /tmp/server && break; sleep 0.1; done; cat /tmp/server"
    ))?;
    ensure!(said.contains(MESSAGES), "{said}");
    Ok(())
}

/// Two machines, one after the other, and then another in the place of the first.
#[test]
fn machines_meet_over_a_socket() -> Result<()> {
    let files = Scratch::new("net-link")?;
    let [older, newer] = KERNELS;
    let mut first = end(older, &files, 1)?;
    carrier(&mut first, false)?;
    ensure!(net(&files.join("api1"), "net0")?["carrier"] == false);
    let mut second = end(newer, &files, 2)?;
    carrier(&mut first, true)?;
    carrier(&mut second, true)?;
    for size in [56, 1472, 4000] {
        let said = second.check(&format!("ping -c 3 -i 0.2 -s {size} 10.0.0.1"))?;
        ensure!(said.contains("3 packets received"), "{size} bytes: {said}");
    }
    let before = net(&files.join("api1"), "net0")?;
    rdma_between(&mut first, &mut second)?;
    // Each message of 4096 bytes is four packets of the path's MTU and an answer.
    let after = net(&files.join("api1"), "net0")?;
    for way in ["sent", "received"] {
        let frames = |of: &Value| facts::number(&of[way], "frames");
        ensure!(frames(&after)? > frames(&before)? + 800, "{way}: {before}, {after}");
    }
    first.power_off()?;
    carrier(&mut second, false)?;
    let mut third = end(older, &files, 3)?;
    carrier(&mut second, true)?;
    carrier(&mut third, true)?;
    let said = third.check("ping -c 3 -i 0.2 10.0.0.2")?;
    ensure!(said.contains("3 packets received"), "{said}");
    third.power_off()?;
    second.power_off()?;
    ensure!(!files.join("link").exists(), "the socket is left behind");
    Ok(())
}

/// A request to the kernel's routing (rtnetlink(7); its protocol is number 0), acknowledged.
fn route(kind: u16, body: &[u8]) -> Result<()> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    // Request, acknowledge, create.
    let flags: u16 = 0x1 | 0x4 | 0x400;
    let len = u32::try_from(16 + body.len())?;
    let header = [
        &len.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
    ];
    send(&socket, &[&header.concat(), body].concat(), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (_, len) = recv(&socket, &mut answer, RecvFlags::empty())?;
    ensure!(len >= 20, "{len} bytes of an answer");
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    ensure!(
        error == 0,
        "request {kind}: {}",
        std::io::Error::from_raw_os_error(-error)
    );
    Ok(())
}

/// Gives an interface of the host an address with 24 bits of network, and brings it up.
fn configure(name: &str, address: Ipv4Addr) -> Result<()> {
    let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).context("the tap is not there")?;
    let index: u32 = index.trim().parse()?;
    let attribute = |kind: u16| [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &address.octets()].concat();
    // RTM_NEWADDR: family, prefix, flags, scope, interface; IFA_LOCAL and IFA_ADDRESS.
    let new_address = [&[2, 24, 0, 0][..], &index.to_ne_bytes(), &attribute(2), &attribute(1)].concat();
    route(20, &new_address)?;
    // RTM_NEWLINK: family and type, interface, flags and those to change: IFF_UP.
    let up = [[0; 4], index.to_ne_bytes(), 1_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat();
    route(16, &up)
}

/// The host's own network stack is at the other end.
#[test]
fn a_tap_connects_a_machine_with_its_host() -> Result<()> {
    let files = Scratch::new("net-tap")?;
    let mut guest = machine(QUICK, &files.text("api"))
        .arg("--net", "tap=dxtest0,mac=02:64:61:78:02:01,id=uplink")
        .start()?;
    configure("dxtest0", Ipv4Addr::new(10, 0, 7, 1))?;
    appear(&mut guest, 1)?;
    guest.check("ip address add 10.0.7.2/24 dev eth0 && ip link set eth0 up")?;
    let said = guest.check("ping -c 3 -i 0.2 -s 1472 10.0.7.1")?;
    ensure!(said.contains("3 packets received"), "{said}");
    let listener = TcpListener::bind((Ipv4Addr::new(10, 0, 7, 1), 0))?;
    let port = listener.local_addr()?.port();
    let host = thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        let mut got = vec![0; 1 << 20];
        stream.read_exact(&mut got)?;
        stream.write_all(b"thanks\n")?;
        Ok(got)
    });
    let sum = guest.check(&format!(
        "dd if=/dev/urandom of=/tmp/sent bs=1M count=1 2> /dev/null; nc 10.0.7.1 {port} < /tmp/sent | grep -q thanks && \
         sha256sum < /tmp/sent"
    ))?;
    let got = host.join().map_err(|_| anyhow::anyhow!("the host's side panicked"))??;
    fs::write(files.join("got"), got)?;
    ensure!(sum.starts_with(&facts::sha256(&files.join("got"))?), "other bytes came");
    let uplink = net(&files.join("api"), "uplink")?;
    ensure!(
        uplink["wire"] == "tap dxtest0" && uplink["sent"]["malformed"] == 0,
        "{uplink}"
    );
    // A second machine cannot have it.
    let ended = GuestBuilder::new(QUICK)
        .arg("--net", "tap=dxtest0,mac=02:64:61:78:02:02")
        .refused()?;
    ensure!(
        ended.code == 2
            && ended.stderr.contains("tap 'dxtest0' is in use by another process")
            && ended.stderr.contains("hint: "),
        "{}: {}",
        ended.code,
        ended.stderr
    );
    guest.power_off()?;
    // What was made for the run goes with it.
    ensure!(!Path::new("/sys/class/net/dxtest0").exists());
    let ended = GuestBuilder::new(QUICK)
        .arg("--net", "tap=lo,mac=02:64:61:78:02:02")
        .refused()?;
    ensure!(
        ended.code == 2 && ended.stderr.contains("'lo' is no tap interface"),
        "{}",
        ended.stderr
    );
    Ok(())
}

#[test]
fn wires_that_cannot_be_are_refused() -> Result<()> {
    let files = Scratch::new("net-refused")?;
    fs::write(files.join("file"), "data")?;
    for (net, why) in [
        ("link=alone".to_owned(), "has 1 ends: expected two"),
        (format!("link={}", files.text("link")), "has no address"),
        (
            format!("link={},mac=02:64:61:78:01:01", files.text("file")),
            "exists and is no socket",
        ),
        (
            format!("link={},mac=02:64:61:78:01:01", files.text("no/link")),
            "cannot listen on link socket",
        ),
    ] {
        let ended = GuestBuilder::new(QUICK).arg("--net", &net).refused()?;
        ensure!(
            ended.code == 2 && ended.stderr.contains(why),
            "{net}: {}: {}",
            ended.code,
            ended.stderr
        );
    }
    Ok(())
}
