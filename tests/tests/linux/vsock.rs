//! Streams between programs of a Linux guest and of the host.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ApiClient, facts};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

const SIZE: usize = 16 << 20;
const MANY: usize = 64;
/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(kernel: &str, files: &Scratch) -> Result<Guest> {
    let vsock = format!("cid=42,socket={}", files.text("v"));
    let mut guest = GuestBuilder::new(kernel)
        .memory("512M")
        .cpus("2")
        .arg("--vsock", &vsock)
        .arg("--api-socket", &files.text("api"))
        .arg("--on-reset", "restart")
        .start()?;
    load(&mut guest)?;
    Ok(guest)
}

fn load(guest: &mut Guest) -> Result<()> {
    guest.check("modprobe vmw_vsock_virtio_transport && for n in $(seq 100); do test -e /dev/vsock && exit 0; sleep 0.1; done; exit 1")?;
    Ok(())
}

/// A program of the host that listens for the guest at this port.
fn listen(files: &Scratch, port: u32) -> Result<UnixListener> {
    Ok(UnixListener::bind(files.join(&format!("v_{port}")))?)
}

fn knock(socket: &Path, port: u32) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "CONNECT {port}")?;
    Ok(stream)
}

/// A stream with a port of the guest.
fn connect(socket: &Path, port: u32) -> Result<UnixStream> {
    let mut stream = knock(socket, port)?;
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') {
        stream.read_exact(&mut byte).context("no answer")?;
        line.push(char::from(byte[0]));
    }
    ensure!(line.starts_with("OK "), "{line}");
    Ok(stream)
}

/// Has `memprobe` listen in the guest.
fn echo(guest: &mut Guest, port: u32, clients: usize) -> Result<()> {
    guest.check(&format!(
        "memprobe vsock echo {port} {clients} > /tmp/echo{port} 2>&1 & \
         for n in $(seq 100); do grep -q listening /tmp/echo{port} && exit 0; sleep 0.1; done; cat /tmp/echo{port}; exit 1"
    ))?;
    Ok(())
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed).to_le_bytes()[0])
        .collect()
}

/// What the guest sends arrives at a program of the host, which sends it back.
fn guest_to_host(guest: &mut Guest, files: &Scratch) -> Result<()> {
    let listener = listen(files, 9000)?;
    let sent = guest
        .check("dd if=/dev/urandom of=/tmp/data bs=1M count=16 2> /dev/null; sha256sum < /tmp/data | cut -d' ' -f1")?;
    let program = thread::spawn(move || -> Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        let mut twin = stream.try_clone()?;
        let mut all = Vec::new();
        let mut buffer = vec![0; 100_000];
        loop {
            let len = stream.read(&mut buffer)?;
            if len == 0 {
                twin.shutdown(Shutdown::Write)?;
                return Ok(all);
            }
            all.extend(&buffer[..len]);
            twin.write_all(&buffer[..len])?;
        }
    });
    let got = guest.check("memprobe vsock connect 2 9000 < /tmp/data | sha256sum | cut -d' ' -f1")?;
    ensure!(got == sent, "what came back is other than what was sent");
    let heard = program.join().expect("the program goes on")?;
    fs::write(files.join("heard"), &heard)?;
    ensure!(heard.len() == SIZE && facts::sha256(&files.join("heard"))? == sent);
    Ok(())
}

/// What the host sends comes back, over one stream and over many at once.
fn host_to_guest(guest: &mut Guest, files: &Scratch) -> Result<()> {
    let socket = files.join("v");
    for (port, clients, size) in [(5000, 1, SIZE), (5001, MANY, 256 << 10)] {
        echo(guest, port, clients)?;
        let streams: Vec<_> = (0..clients).map(|_| connect(&socket, port)).collect::<Result<_>>()?;
        let talk = |(seed, mut stream): (usize, UnixStream)| {
            thread::spawn(move || -> Result<bool> {
                let said = pattern(seed, size);
                let mut twin = stream.try_clone()?;
                let words = said.clone();
                let speaker =
                    thread::spawn(move || twin.write_all(&words).and_then(|()| twin.shutdown(Shutdown::Write)));
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard)?;
                speaker.join().expect("the speaker goes on")?;
                Ok(heard == said)
            })
        };
        let talks: Vec<_> = streams.into_iter().enumerate().map(talk).collect();
        for talk in talks {
            ensure!(talk.join().expect("it goes on")?, "port {port}: what came back differs");
        }
        let text = guest.check(&format!(
            "for n in $(seq 100); do grep echoed /tmp/echo{port} && exit 0; sleep 0.1; done; exit 1"
        ))?;
        ensure!(text == format!("echoed {} bytes", clients * size), "{text}");
    }
    Ok(())
}

/// A program of the host that has said all hears the guest still, and the other way round.
fn half_closed(guest: &mut Guest, files: &Scratch) -> Result<()> {
    let listener = listen(files, 9001)?;
    let program = thread::spawn(move || -> Result<String> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"all I have to say")?;
        stream.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        Ok(heard)
    });
    let said = guest.check("(sleep 1; echo later) | memprobe vsock connect 2 9001")?;
    ensure!(said == "all I have to say", "{said}");
    let heard = program.join().expect("the program goes on")?;
    ensure!(heard == "later\n", "{heard}");
    Ok(())
}

/// Nobody listens, at either end.
fn refused(guest: &mut Guest, files: &Scratch) -> Result<()> {
    let said = guest.fails("memprobe vsock connect 2 9999 < /dev/null")?;
    ensure!(said.contains("connect: Connection reset by peer"), "{said}");
    let mut stream = knock(&files.join("v"), 5999)?;
    ensure!(
        stream.read(&mut [0; 8]).unwrap_or(0) == 0,
        "a port without a listener has answered"
    );
    let mut stream = UnixStream::connect(files.join("v"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    ensure!(
        stream.read(&mut [0; 8]).unwrap_or(0) == 0,
        "what is no request was answered"
    );
    Ok(())
}

/// A program of the host that does not read: the guest waits, and the monitor holds no more than it says.
fn slow_host(guest: &mut Guest, files: &Scratch, client: &mut ApiClient) -> Result<()> {
    let listener = listen(files, 9002)?;
    let before = guest.resident()?;
    guest.check("(dd if=/dev/zero bs=1M count=64 2> /dev/null | memprobe vsock connect 2 9002; echo $? > /tmp/slow) > /dev/null 2>&1 &")?;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent =
        |client: &mut ApiClient| -> Result<u64> { facts::number(&client.get("/vm")?["virtio"]["vsock"], "sent") };
    let deadline = Instant::now() + PATIENCE;
    let mut last = sent(client)?;
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = sent(client)?;
        if now == last {
            break;
        }
        ensure!(Instant::now() < deadline, "the guest never waits");
        last = now;
    }
    guest.fails("test -e /tmp/slow")?;
    let grown = guest.resident()?.saturating_sub(before);
    // Most of it is the guest's own memory, which it touches for the first time.
    ensure!(grown < 64 << 20, "the monitor has grown by {grown} bytes");
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    while total < 64 << 20 {
        let len = stream.read(&mut buffer)?;
        ensure!(len > 0, "the stream ended after {total} bytes");
        total += len;
    }
    stream.shutdown(Shutdown::Write)?;
    let code = guest.check("for n in $(seq 100); do test -s /tmp/slow && break; sleep 0.1; done; cat /tmp/slow")?;
    ensure!(code == "0", "{code}");
    Ok(())
}

fn streams(kernel: &str) -> Result<()> {
    let files = Scratch::new("vsock")?;
    let mut guest = start(kernel, &files)?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    guest_to_host(&mut guest, &files).context("guest to host")?;
    host_to_guest(&mut guest, &files).context("host to guest")?;
    half_closed(&mut guest, &files).context("half-closed")?;
    refused(&mut guest, &files).context("refused")?;
    slow_host(&mut guest, &files, &mut client).context("slow")?;
    let left = &client.get("/vm")?["virtio"]["vsock"];
    ensure!(left["cid"] == 42 && left["malformed"] == 0, "{left}");
    // A reset ends what is open, and the next boot has streams again.
    echo(&mut guest, 5002, 2)?;
    let mut open = connect(&files.join("v"), 5002)?;
    open.write_all(b"word")?;
    let mut heard = [0; 4];
    open.read_exact(&mut heard)?;
    ensure!(heard == *b"word");
    let mut guest = guest.rebooted().context("the reboot")?;
    ensure!(open.read(&mut heard).unwrap_or(0) == 0, "a stream outlives its guest");
    load(&mut guest)?;
    half_closed_again(&mut guest, &files)?;
    let text = guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' || true")?;
    ensure!(text.is_empty(), "{text}");
    guest.power_off()?;
    ensure!(!files.join("v").exists(), "the socket is left behind");
    Ok(())
}

fn half_closed_again(guest: &mut Guest, files: &Scratch) -> Result<()> {
    echo(guest, 5003, 1)?;
    let mut stream = connect(&files.join("v"), 5003)?;
    stream.write_all(b"anew\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    ensure!(line == "anew\n", "{line}");
    Ok(())
}

#[test]
fn streams_go_both_ways_on_6_1() -> Result<()> {
    streams("debian-6.1-amd64")
}

#[test]
fn streams_go_both_ways_on_6_12() -> Result<()> {
    streams("debian-6.12-amd64")
}
