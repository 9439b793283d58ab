use super::*;
use devices::virtio::net::config::Mac;
use std::{
    cell::RefCell,
    thread,
    time::{Duration, Instant},
};

const PLAN: NetPlan = NetPlan {
    mac: Mac([2, 0, 0, 0, 0, 1]),
    mtu: 1500,
};

fn port(link: &str, others: &mut BTreeMap<String, OwnedFd>) -> NetPort {
    let said = NetConfig {
        link: Some(link.to_owned()),
        ..NetConfig::default()
    };
    let (end, wire) = end_of(&said, others).unwrap();
    NetPort::new(PLAN, end, wire).unwrap()
}

impl NetPort {
    fn hold(&self) -> Hold {
        Hold(self.end.clone())
    }

    fn is_up(&self) -> bool {
        self.device.status().carrier
    }
}

/// Does as the loop does, until it is so.
fn until(ports: &[&NetPort], what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !what() {
        assert!(Instant::now() < deadline, "it never came to that");
        ports.iter().for_each(|port| port.attend());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The next frame; the device has no driver, and would lose it.
fn next(port: &NetPort) -> Option<Vec<u8>> {
    let mut buffer = vec![0; PLAN.max_frame() + 1];
    let len = port.hold().receive(&mut buffer)?;
    buffer.truncate(len);
    Some(buffer)
}

#[test]
fn two_devices_of_a_machine_are_each_others_other_end() {
    let mut others = BTreeMap::new();
    let (a, b) = (port("x", &mut others), port("x", &mut others));
    let (c, d) = (port("y", &mut others), port("y", &mut others));
    assert!(others.is_empty() && [&a, &b, &c, &d].iter().all(|port| port.is_up()));
    assert!(a.hold().send(&[1; 60]) && b.hold().send(&[2; 1518]) && c.hold().send(&[3; 14]));
    assert_eq!((next(&a), next(&b)), (Some(vec![2; 1518]), Some(vec![1; 60])));
    assert_eq!((next(&d), next(&d), next(&c)), (Some(vec![3; 14]), None, None));
    // A frame that is longer than any says so and is gone.
    assert!(a.hold().send(&[1; 4000]) && a.hold().send(&[4; 20]));
    assert_eq!(b.hold().receive(&mut [0; 100]), Some(4000));
    assert_eq!(next(&b), Some(vec![4; 20]));
}

#[test]
fn a_wire_that_nobody_reads_is_bounded_and_what_it_has_no_room_for_is_lost() {
    let mut others = BTreeMap::new();
    let (a, b) = (port("x", &mut others), port("x", &mut others));
    let sent = (0..100_000).take_while(|_| a.hold().send(&[7; 1500])).count();
    assert!((1..100_000).contains(&sent), "{sent} frames");
    let received = std::iter::from_fn(|| next(&b)).count();
    assert_eq!(received, sent);
    assert!(a.hold().send(&[7; 1500]));
}

#[test]
fn without_a_driver_what_comes_is_lost_and_counted() {
    let mut others = BTreeMap::new();
    let (a, b) = (port("x", &mut others), port("x", &mut others));
    for _ in 0..70 {
        assert!(a.hold().send(&[1; 20]));
    }
    until(&[&b], || b.device.status().received.dropped == 70);
}

#[test]
fn machines_meet_at_a_path_whoever_comes_first_and_meet_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    let text = path.to_str().unwrap();
    let mut others = BTreeMap::new();
    let first = port(text, &mut others);
    assert!(path.exists() && !first.is_up());
    assert!(!first.hold().send(&[1; 60]), "there is nobody");
    let second = port(text, &mut others);
    until(&[&first, &second], || first.is_up() && second.is_up());
    assert!(first.hold().send(&[1; 60]) && second.hold().send(&[2; 60]));
    assert_eq!((next(&first), next(&second)), (Some(vec![2; 60]), Some(vec![1; 60])));
    // A third one has no carrier, and disturbs nobody.
    let third = port(text, &mut others);
    for _ in 0..20 {
        [&first, &second, &third].iter().for_each(|port| port.attend());
        assert!(first.is_up() && second.is_up() && !third.is_up() && !third.hold().send(&[3; 60]));
    }
    assert!(first.hold().send(&[4; 60]));
    assert_eq!(next(&second), Some(vec![4; 60]));
    // The one that listened goes: the others find each other.
    drop(first);
    until(&[&second, &third], || !second.is_up());
    until(&[&second, &third], || second.is_up() && third.is_up());
    assert!(second.hold().send(&[5; 60]));
    assert_eq!(next(&third), Some(vec![5; 60]));
    drop((second, third));
    assert!(!path.exists());
}

#[test]
fn one_who_listens_and_does_not_greet_is_no_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    let door = Socket::listen_for(SocketType::SEQPACKET, "test", &path).unwrap();
    let port = port(path.to_str().unwrap(), &mut BTreeMap::new());
    let guest = door.accept().unwrap();
    port.attend();
    assert!(!port.is_up() && !port.hold().send(&[1; 60]));
    send(&guest, &[0; 60], SendFlags::NOSIGNAL).unwrap();
    port.attend();
    assert!(!port.is_up());
    // It is let go, and tried again.
    let guests = RefCell::new(Vec::new());
    until(&[&port], || {
        let guest = door.accept();
        let greeted = guest
            .as_ref()
            .is_some_and(|g| send(g, GREETING, SendFlags::NOSIGNAL).is_ok());
        guests.borrow_mut().extend(guest);
        greeted
    });
    until(&[&port], || port.is_up());
}

#[test]
fn what_stands_at_the_path_and_is_no_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "data").unwrap();
    let refused = |path: &Path| {
        let said = NetConfig {
            link: Some(path.to_str().unwrap().to_owned()),
            ..NetConfig::default()
        };
        end_of(&said, &mut BTreeMap::new()).err().unwrap().to_string()
    };
    assert!(refused(&path).contains("exists and is no socket; hint: "));
    assert!(refused(&dir.path().join("no/link")).contains("cannot listen on link socket"));
    // A socket of another type is somebody's.
    let _other = Socket::listen("test", &dir.path().join("stream")).unwrap();
    assert!(refused(&dir.path().join("stream")).contains("cannot connect to link"));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}
