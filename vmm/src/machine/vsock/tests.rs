use super::*;
use std::{fs, os::unix::net::UnixListener, time::Duration};

fn port(dir: &Path) -> VsockPort {
    let said = VsockConfig {
        cid: 42,
        socket: dir.join("v"),
    };
    open(&said).unwrap()
}

#[test]
fn what_a_client_wants_is_one_line() {
    for (line, port) in [
        (&b"CONNECT 5000\n"[..], Some(5000)),
        (b"CONNECT 4294967295\n", Some(u32::MAX)),
        (b"CONNECT 4294967296\n", None),
        (b"CONNECT 5000", None),
        (b"CONNECT\n", None),
        (b"CONNECT -1\n", None),
        (b"connect 5\n", None),
        (b"GET / HTTP/1.1\n", None),
        (b"CONNECT \xff\n", None),
        (b"\n", None),
    ] {
        assert_eq!(wanted_port(line), port, "{line:?}");
    }
}

#[test]
fn a_client_that_cannot_be_served_sees_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let port = port(dir.path());
    for said in [
        "CONNECT 5\n",
        "what?\n",
        "a line that is longer than any that is understood",
        "",
        "CONN",
    ] {
        let mut client = UnixStream::connect(dir.path().join("v")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(said.as_bytes()).unwrap();
        if !said.contains(['\n', ' ']) {
            client.shutdown(Shutdown::Write).unwrap();
        }
        // To the door, then to the client.
        port.attend();
        port.attend();
        assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0, "{said}");
        assert_eq!(port.waiting.lock().unwrap().clients.len(), 0);
    }
}

#[test]
fn clients_that_say_nothing_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let port = port(dir.path());
    let clients: Vec<_> = (0..MAX_WAITING + 10)
        .map(|_| {
            let client = UnixStream::connect(dir.path().join("v")).unwrap();
            port.attend();
            client
        })
        .collect();
    assert_eq!(port.waiting.lock().unwrap().clients.len(), MAX_WAITING);
    drop(clients);
    for _ in 0..4 {
        port.attend();
    }
    assert_eq!(port.waiting.lock().unwrap().clients.len(), 0);
}

#[test]
fn ports_of_the_host_are_sockets_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let port = port(dir.path());
    let mut ports = Ports {
        path: port.path.clone(),
        watch: port.watch.clone(),
    };
    let key = Key { host: 80, guest: 1 };
    assert!(ports.connect(key).is_none());
    let listener = UnixListener::bind(dir.path().join("v_80")).unwrap();
    let mut stream = ports.connect(key).unwrap();
    let (mut program, _) = listener.accept().unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(stream.write(b"hello").unwrap(), 5);
    stream.finish();
    let mut heard = String::new();
    program.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
    program.write_all(b"yes").unwrap();
    let mut buffer = [0; 8];
    assert_eq!((stream.read(&mut buffer).unwrap(), &buffer[..3]), (3, &b"yes"[..]));
    // A file that is no socket is nobody.
    fs::write(dir.path().join("v_81"), "").unwrap();
    assert!(ports.connect(Key { host: 81, guest: 1 }).is_none());
}

#[test]
fn the_socket_goes_with_the_device_and_takes_nobodys_place() {
    let dir = tempfile::tempdir().unwrap();
    let first = port(dir.path());
    let said = VsockConfig {
        cid: 3,
        socket: dir.path().join("v"),
    };
    assert!(matches!(
        open(&said).err(),
        Some(VsockError::Socket(SocketError::InUse("vsock", _)))
    ));
    drop(first);
    assert!(!dir.path().join("v").exists());
    fs::write(dir.path().join("v"), "data").unwrap();
    assert!(matches!(
        open(&said).err(),
        Some(VsockError::Socket(SocketError::Exists(..)))
    ));
    assert_eq!(fs::read(dir.path().join("v")).unwrap(), b"data");
}
