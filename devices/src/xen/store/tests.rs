//! The store as a guest's driver talks to it, over rings in a page of bytes.

use super::{super::Area, *};
use crate::units::Gpa;
use proptest::prelude::*;
use std::ops::Range;

/// A page, and nothing else of a machine.
struct Page(Vec<u8>);

impl Host for Page {
    fn discard(&mut self, _: Range<u64>) {}
    fn provide(&mut self, _: Range<u64>) -> bool {
        false
    }
    fn show_frame(&mut self, _: u64) -> bool {
        false
    }
    fn hide_frame(&mut self, _: u64) {}
    fn load(&self, at: Gpa, to: &mut [u8]) {
        let at = usize::try_from(at.0).unwrap();
        to.copy_from_slice(&self.0[at..at + to.len()]);
    }
    fn store(&mut self, at: Gpa, from: &[u8]) {
        let at = usize::try_from(at.0).unwrap();
        self.0[at..at + from.len()].copy_from_slice(from);
    }
    fn clear_bit(&mut self, _: Gpa, _: u32) -> bool {
        false
    }
    fn place_shared_info(&mut self, _: Option<u64>) -> bool {
        false
    }
    fn place_vcpu_info(&mut self, _: u32, _: Option<Gpa>) -> bool {
        false
    }
    fn place_area(&mut self, _: u32, _: Area, _: Option<Gpa>) -> bool {
        false
    }
    fn set_timer_port(&mut self, _: u32, _: u32) -> bool {
        false
    }
    fn set_upcall_vector(&mut self, _: u8) -> bool {
        false
    }
    fn set_own_vector(&mut self, _: u32, _: u8) -> bool {
        false
    }
    fn interrupt(&mut self, _: u32, _: u8) {}
    fn apic_id(&self, _: u32) -> Option<u32> {
        None
    }
    fn raise(&mut self, _: u32, _: u32) {}
    fn route_ipi(&mut self, _: u32, _: Option<u32>) {}
    fn print(&mut self, _: &[u8]) -> usize {
        0
    }
}

/// The guest's driver.
struct Driver {
    store: Store,
    page: Page,
    came: Vec<u8>,
    requests: u32,
}

impl Driver {
    fn new() -> Self {
        Self {
            store: Store::new(0, "guest", 2, 1 << 20, 1 << 19),
            page: Page(vec![0; 4096]),
            came: vec![],
            requests: 0,
        }
    }

    fn index(&self, n: usize) -> u32 {
        u32::from_le_bytes(self.page.0[2048 + 4 * n..2052 + 4 * n].try_into().unwrap())
    }

    fn set_index(&mut self, n: usize, to: u32) {
        self.page.0[2048 + 4 * n..2052 + 4 * n].copy_from_slice(&to.to_le_bytes());
    }

    /// Writes bytes into the ring, as much as fits at a time, and lets the store take them.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (consumed, produced) = (self.index(0), self.index(1));
            let room = 1024 - (produced - consumed);
            let (now, rest) = bytes.split_at(bytes.len().min(room as usize));
            for (at, byte) in (produced..).zip(now) {
                self.page.0[at as usize % 1024] = *byte;
            }
            self.set_index(1, produced + u32::try_from(now.len()).unwrap());
            bytes = rest;
            self.store.attend(&mut self.page);
            self.read();
        }
    }

    /// Takes what the store has written, until nothing comes any more.
    fn read(&mut self) {
        loop {
            let (consumed, produced) = (self.index(2), self.index(3));
            if consumed == produced {
                return;
            }
            self.came
                .extend((consumed..produced).map(|at| self.page.0[1024 + at as usize % 1024]));
            self.set_index(2, produced);
            self.store.attend(&mut self.page);
        }
    }

    fn messages(&mut self) -> Vec<Message> {
        let mut all = vec![];
        while let Ok(Some((message, len))) = Message::parse(&self.came) {
            self.came.drain(..len);
            all.push(message);
        }
        all
    }

    /// Asks, and gives the reply and the events around it.
    fn ask(&mut self, kind: u32, transaction: u32, payload: &[u8]) -> (Result<String, String>, Vec<String>) {
        self.requests += 1;
        let message = Message {
            kind,
            request: self.requests,
            transaction,
            payload: payload.to_vec(),
        };
        self.write(&message.bytes());
        let show = |message: &Message| String::from_utf8_lossy(&message.payload).replace('\0', "|");
        let (mut reply, mut events) = (None, vec![]);
        for message in self.messages() {
            match message.kind {
                kind::EVENT => events.push(show(&message)),
                kind::ERROR => reply = Some(Err(show(&message))),
                other => {
                    assert_eq!(
                        (other, message.request, message.transaction),
                        (kind, self.requests, transaction)
                    );
                    reply = Some(Ok(show(&message)));
                }
            }
        }
        (reply.expect("a reply to each request"), events)
    }

    fn said(&mut self, kind: u32, payload: &str) -> String {
        match self.ask(kind, 0, payload.replace('|', "\0").as_bytes()).0 {
            Ok(text) | Err(text) => text,
        }
    }
}

#[test]
fn a_guest_finds_its_limits_and_writes_where_it_may() {
    let mut guest = Driver::new();
    assert_eq!(guest.said(kind::READ, "memory/target|"), "524288");
    assert_eq!(guest.said(kind::READ, "/local/domain/1/memory/static-max|"), "1048576");
    assert_eq!(guest.said(kind::DIRECTORY, "memory|"), "static-max|target|");
    assert_eq!(guest.said(kind::READ, "cpu/1/availability|"), "online");
    assert_eq!(guest.said(kind::READ, "memory/other|"), "ENOENT|");
    assert_eq!(guest.said(kind::WRITE, "memory/target|1"), "EACCES|");
    assert_eq!(guest.said(kind::WRITE, "/tool|1"), "EACCES|");
    assert_eq!(guest.said(kind::WRITE, "control/feature-poweroff|1"), "OK|");
    assert_eq!(guest.said(kind::READ, "control/feature-poweroff|"), "1");
    assert_eq!(guest.said(kind::GET_PERMISSIONS, "control/feature-poweroff|"), "n1|b1|");
    assert_eq!(guest.said(kind::WRITE, "data/a/b/c|x"), "OK|");
    assert_eq!(guest.said(kind::DIRECTORY, "data/a|"), "b|");
    assert_eq!(guest.said(kind::REMOVE, "data/a|"), "OK|");
    assert_eq!(
        (guest.said(kind::READ, "data/a/b|"), guest.said(kind::REMOVE, "data/a|")),
        ("ENOENT|".into(), "OK|".into())
    );
    assert_eq!(guest.said(kind::GET_DOMAIN_PATH, "1|"), "/local/domain/1|");
    for (kind, bad) in [
        (kind::READ, "memory/target"),
        (kind::READ, "|"),
        (kind::READ, "memory//target|"),
        (kind::READ, "memory/|"),
        (kind::READ, "mem ory|"),
        (kind::WRITE, "control"),
        (kind::REMOVE, "/|"),
        (kind::SET_PERMISSIONS, "control/shutdown|x1|"),
        (kind::TRANSACTION_END, "X|"),
    ] {
        assert_eq!(guest.said(kind, bad), "EINVAL|", "{bad}");
    }
    assert_eq!(guest.said(77, "a|"), "ENOSYS|");
}

#[test]
fn the_host_tells_a_guest_that_watches_of_a_new_target() {
    let mut guest = Driver::new();
    let (reply, events) = guest.ask(kind::WATCH, 0, b"memory/target\0tok\0");
    assert_eq!(
        (reply, events),
        (Ok("OK|".into()), vec!["memory/target|tok|".to_owned()])
    );
    assert_eq!(guest.said(kind::WATCH, "memory/target|tok|"), "EEXIST|");
    assert!(guest.store.set("memory/target", "1234", &mut guest.page));
    guest.read();
    let events = guest.messages();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].kind, &events[0].payload[..]),
        (kind::EVENT, &b"memory/target\0tok\0"[..])
    );
    assert_eq!(guest.said(kind::READ, "memory/target|"), "1234");
    assert_eq!(guest.said(kind::UNWATCH, "memory/target|tok|"), "OK|");
    assert_eq!(guest.said(kind::UNWATCH, "memory/target|tok|"), "ENOENT|");
    assert!(!guest.store.set("memory/target", "5", &mut guest.page));
}

#[test]
fn watches_see_what_is_below_and_what_goes_with_what_is_above() {
    let mut guest = Driver::new();
    for (path, token) in [("data", "d"), ("data/a/b", "ab"), ("@releaseDomain", "r")] {
        assert_eq!(guest.said(kind::WATCH, &format!("{path}|{token}|")), "OK|");
    }
    let mut events = |kind, payload: &[u8]| guest.ask(kind, 0, payload).1;
    assert_eq!(
        events(kind::WRITE, b"data/a/b/c\0x"),
        ["data/a/b/c|d|", "data/a/b/c|ab|"]
    );
    assert_eq!(events(kind::WRITE, b"data/a-b\0x"), ["data/a-b|d|"]);
    assert_eq!(events(kind::REMOVE, b"data/a\0"), ["data/a|d|", "data/a/b|ab|"]);
    assert_eq!(events(kind::READ, b"data/a-b\0"), Vec::<String>::new());
}

#[test]
fn a_transaction_is_whole_or_not_and_fails_when_something_changed() {
    let mut guest = Driver::new();
    assert_eq!(guest.said(kind::WATCH, "data|w|"), "OK|");
    let begin = |guest: &mut Driver| {
        guest
            .said(kind::TRANSACTION_START, "|")
            .trim_end_matches('|')
            .parse::<u32>()
            .unwrap()
    };
    let first = begin(&mut guest);
    assert_eq!(
        guest.ask(kind::WRITE, first, b"data/x\x001"),
        (Ok("OK|".into()), vec![])
    );
    assert_eq!(guest.ask(kind::READ, first, b"data/x\0").0, Ok("1".into()));
    assert_eq!(guest.said(kind::READ, "data/x|"), "ENOENT|");
    let (reply, events) = guest.ask(kind::TRANSACTION_END, first, b"T\0");
    assert_eq!((reply, events), (Ok("OK|".into()), vec!["data/x|w|".to_owned()]));
    assert_eq!(guest.said(kind::READ, "data/x|"), "1");
    assert_eq!(guest.ask(kind::READ, first, b"data/x\0").0, Err("ENOENT|".into()));

    let second = begin(&mut guest);
    assert_eq!(guest.ask(kind::WRITE, second, b"data/x\x002").0, Ok("OK|".into()));
    guest.said(kind::WRITE, "data/y|3");
    assert_eq!(
        guest.ask(kind::TRANSACTION_END, second, b"T\0").0,
        Err("EAGAIN|".into())
    );
    let third = begin(&mut guest);
    assert_eq!(guest.ask(kind::REMOVE, third, b"data/x\0").0, Ok("OK|".into()));
    assert_eq!(guest.ask(kind::TRANSACTION_END, third, b"F\0").0, Ok("OK|".into()));
    assert_eq!(guest.said(kind::READ, "data/x|"), "1");
    for _ in 0..10 {
        begin(&mut guest);
    }
    assert_eq!(guest.said(kind::TRANSACTION_START, "|"), "EDQUOT|");
    assert_eq!(guest.said(kind::RESET_WATCHES, "|"), "OK|");
    begin(&mut guest);
}

#[test]
fn large_messages_come_through_small_rings() {
    let mut guest = Driver::new();
    let value = "v".repeat(2000);
    assert_eq!(guest.said(kind::WRITE, &format!("data/large|{value}")), "OK|");
    assert_eq!(guest.said(kind::READ, "data/large|"), value);
    assert_eq!(
        guest.said(kind::WRITE, &format!("data/large|{}", "v".repeat(2049))),
        "ENOSPC|"
    );
    for n in 0..990 {
        assert_eq!(guest.said(kind::MAKE, &format!("data/n{n}|")), "OK|");
    }
    assert_eq!(guest.said(kind::DIRECTORY, "data|"), "E2BIG|");
    assert_eq!(
        guest.said(kind::MAKE, &format!("data/{}x|", "d/".repeat(20))),
        "EDQUOT|"
    );
    assert_eq!(guest.said(kind::REMOVE, "data|"), "OK|");
}

#[test]
fn a_guest_that_does_not_read_is_not_served() {
    let mut guest = Driver::new();
    for n in 0..20 {
        let message = Message {
            kind: kind::WATCH,
            request: 1,
            transaction: 0,
            payload: format!("data\0{n}\0").into_bytes(),
        };
        let bytes = message.bytes();
        guest.write(&bytes);
    }
    for _ in 0..2000 {
        guest.store.tell(&[Change {
            path: format!("{HOME}/data"),
            whole: false,
        }]);
    }
    assert!(guest.store.waiting.len() < MAX_WAITING + MAX_PAYLOAD);
    let produced = guest.index(1);
    guest.page.0[..16].fill(0);
    guest.set_index(1, produced + 16);
    guest.store.attend(&mut guest.page);
    assert_eq!(guest.index(0), produced, "the request stays in the ring");
    guest.read();
    assert_eq!(guest.index(0), produced + 16);
}

proptest! {
    #[test]
    fn any_bytes_in_the_page_are_survived(pages in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1100), any::<[u32; 4]>(), 0u32..1025), 1..20)) {
        let mut guest = Driver::new();
        for (bytes, indices, len) in pages {
            guest.page.0[..1100].copy_from_slice(&bytes);
            for (n, index) in indices.into_iter().enumerate() {
                guest.set_index(n, index);
            }
            // Half of the time the ring has something in it.
            if len % 2 == 0 {
                guest.set_index(1, indices[0].wrapping_add(len));
                guest.set_index(3, indices[2]);
            }
            guest.store.attend(&mut guest.page);
            prop_assert!(guest.store.waiting.len() < MAX_WAITING + (1 << 20));
            prop_assert!(guest.store.partial.len() < wire::HEADER + MAX_PAYLOAD);
        }
    }

    #[test]
    fn the_store_keeps_what_it_is_told(steps in proptest::collection::vec((0usize..5, 0usize..6, any::<u8>()), 1..60)) {
        const PATHS: [&str; 6] = ["data/a", "data/a/b", "data/a/b/c", "data/a-b", "data/b", "data/b/a"];
        let mut guest = Driver::new();
        let mut model = BTreeMap::<String, String>::new();
        for (step, path, value) in steps {
            let path = PATHS[path];
            match step {
                0 | 1 => {
                    prop_assert_eq!(guest.said(kind::WRITE, &format!("{path}|{value}")), "OK|");
                    let mut above = path;
                    while let Some((before, _)) = above.rsplit_once('/').filter(|(before, _)| *before != "data") {
                        model.entry(before.to_owned()).or_default();
                        above = before;
                    }
                    model.insert(path.to_owned(), value.to_string());
                }
                2 => {
                    guest.said(kind::REMOVE, &format!("{path}|"));
                    model.retain(|other, _| other != path && !other.starts_with(&format!("{path}/")));
                }
                _ => {
                    let expected = model.get(path).cloned().unwrap_or_else(|| "ENOENT|".to_owned());
                    prop_assert_eq!(guest.said(kind::READ, &format!("{path}|")), expected);
                }
            }
        }
    }
}
