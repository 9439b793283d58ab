use super::{
    message::NO_TAG,
    server::Counts,
    tree::{FOLDER, LINK, REGULAR},
    *,
};
use crate::{
    BadLines,
    units::{Gpa, GpaRange},
    virtio::testing::{Buffer, Driver, conforms},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Mutex};
use virtio_bindings::{virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET, virtio_mmio::VIRTIO_MMIO_CONFIG};

mod hostile;

#[derive(Clone)]
enum Node {
    Folder,
    File(Vec<u8>),
    Link(Vec<u8>),
    Pipe,
}

/// Files in memory. A folder's device is 1, but for what is below `other`.
#[derive(Clone)]
struct Wood(BTreeMap<Vec<u8>, Node>);

impl Wood {
    fn new() -> Self {
        let nodes = [
            ("", Node::Folder),
            ("a", Node::Folder),
            ("a/b", Node::Folder),
            ("a/b/file", Node::File(b"content".to_vec())),
            ("a/out", Node::Link(b"../../etc/passwd".to_vec())),
            ("other", Node::Folder),
            ("other/file", Node::File(vec![7; 3 << 20])),
            ("pipe", Node::Pipe),
        ];
        Self(nodes.map(|(path, node)| (path.as_bytes().to_vec(), node)).into())
    }

    fn node(&self, path: &[u8]) -> Result<&Node, Errno> {
        let text = str::from_utf8(path).unwrap_or("?");
        assert!(
            path.is_empty() || text.split('/').all(|name| !matches!(name, "" | "." | "..")),
            "{text} is no path"
        );
        self.0.get(path).ok_or(Errno::NOENT)
    }

    fn children(&self, path: &[u8]) -> Vec<Entry> {
        let prefix = if path.is_empty() { vec![] } else { [path, b"/"].concat() };
        let below = self.0.keys().filter_map(|key| key.strip_prefix(&prefix[..]));
        let names = below.filter(|rest| !rest.is_empty() && !rest.contains(&b'/'));
        let names = [&b"."[..], b".."].into_iter().chain(names);
        let entry = |(n, name): (usize, &[u8])| Entry {
            name: name.to_vec(),
            inode: 100 + n as u64,
            kind: 8,
            next: n as u64 + 1,
        };
        names.enumerate().map(entry).collect()
    }
}

impl Tree for Wood {
    type Open = Vec<u8>;

    fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        let node = self.node(path)?;
        let position = self.0.keys().position(|key| key == path).unwrap() as u64;
        let (mode, size) = match node {
            Node::Folder => (FOLDER | 0o755, 0),
            Node::File(data) => (REGULAR | 0o644, data.len()),
            Node::Link(text) => (LINK | 0o777, text.len()),
            Node::Pipe => (0o010_644, 0),
        };
        Ok(Stat {
            device: if path.starts_with(b"other") { 2 } else { 1 },
            inode: 1 + position,
            mode,
            user: 1000,
            group: 100,
            links: 1,
            size: size as u64,
            block: 4096,
            blocks: 8,
            times: [(1, 2), (3, 4), (5, 6)],
            ..Stat::default()
        })
    }

    fn open(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        match self.node(path)? {
            Node::Folder | Node::File(_) => Ok(path.to_vec()),
            Node::Link(_) | Node::Pipe => Err(Errno::ACCES),
        }
    }

    fn stat_open(&self, open: &Vec<u8>) -> Result<Stat, Errno> {
        self.stat(open)
    }

    fn read(&self, open: &Vec<u8>, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let Node::File(data) = self.node(open)? else {
            return Err(Errno::ISDIR);
        };
        let rest = usize::try_from(offset).ok().and_then(|at| data.get(at..));
        let rest = rest.unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn entries(&self, open: &mut Vec<u8>, offset: u64, take: &mut dyn FnMut(&Entry) -> bool) -> Result<(), Errno> {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let all = self.children(open);
        let _ = all.iter().skip(skip).all(take);
        Ok(())
    }

    fn link(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        match self.node(path)? {
            Node::Link(text) => Ok(text.clone()),
            _ => Err(Errno::INVAL),
        }
    }

    fn space(&self, path: &[u8]) -> Result<Space, Errno> {
        self.node(path)?;
        Ok(Space {
            block: 4096,
            blocks: 10,
            free: 9,
            available: 8,
            files: 7,
            free_files: 6,
            name: 255,
        })
    }
}

fn text(text: &[u8]) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Fid, offset, count.
fn piece(fid: u32, offset: u64, count: u32) -> Vec<u8> {
    [&fid.to_le_bytes()[..], &offset.to_le_bytes(), &count.to_le_bytes()].concat()
}

fn walk_to(fid: u32, to: u32, names: &[&[u8]]) -> Vec<u8> {
    let count = u16::try_from(names.len()).unwrap();
    let names = names.iter().flat_map(|name| text(name)).collect::<Vec<_>>();
    [words(&[fid, to]), count.to_le_bytes().to_vec(), names].concat()
}

/// A client with a session and the root as fid 0.
struct Session {
    server: Server<Wood>,
    counts: Arc<Counts>,
}

impl Session {
    fn fresh() -> Self {
        let counts: Arc<Counts> = Arc::default();
        Self {
            server: Server::new(Wood::new(), 4, counts.clone()),
            counts,
        }
    }

    fn new() -> Self {
        let mut session = Self::fresh();
        session.version(64 << 10);
        session.attach(0);
        session
    }

    fn with_room(&mut self, kind: u8, body: &[u8], room: usize) -> Result<Vec<u8>, u32> {
        let body = body.to_vec();
        let tag = 0x1234;
        let bytes = self.server.answer(&Request { kind, tag, body, room });
        assert!(bytes.len() <= room, "{} bytes for a room of {room}", bytes.len());
        let (header, rest) = bytes.split_at(HEADER);
        assert_eq!(header[..4], u32::try_from(bytes.len()).unwrap().to_le_bytes());
        assert_eq!(header[5..], tag.to_le_bytes());
        if header[4] == kind::ERROR + 1 {
            return Err(u32::from_le_bytes(rest.try_into().unwrap()));
        }
        assert_eq!(header[4], kind + 1);
        Ok(rest.to_vec())
    }

    fn ask(&mut self, kind: u8, body: &[u8]) -> Result<Vec<u8>, u32> {
        self.with_room(kind, body, 1 << 20)
    }

    fn version(&mut self, size: u32) -> Vec<u8> {
        let body = [&size.to_le_bytes()[..], &text(b"9P2000.L")].concat();
        self.ask(kind::VERSION, &body).unwrap()
    }

    fn attach(&mut self, fid: u32) -> Vec<u8> {
        let body = [words(&[fid, u32::MAX]), text(b"root"), text(b""), words(&[0])].concat();
        self.ask(kind::ATTACH, &body).unwrap()
    }

    fn walk(&mut self, to: u32, names: &[&[u8]]) -> Result<Vec<u8>, u32> {
        self.ask(kind::WALK, &walk_to(0, to, names))
    }

    fn open(&mut self, fid: u32, path: &[&[u8]]) -> Result<Vec<u8>, u32> {
        self.walk(fid, path)?;
        self.ask(kind::LOPEN, &words(&[fid, 0]))
    }
}

#[test]
fn a_version_is_agreed_on_and_ends_what_was_before() {
    let mut session = Session::fresh();
    assert_eq!(session.ask(kind::CLUNK, &words(&[0])), Err(Errno::INVAL.0));
    for (asked, got) in [
        (u32::MAX, MAX_MESSAGE),
        (MAX_MESSAGE, MAX_MESSAGE),
        (8192, 8192),
        (4096, 4096),
    ] {
        let expected = [&got.to_le_bytes()[..], &text(b"9P2000.L")].concat();
        assert_eq!(session.version(asked), expected);
    }
    session.attach(0);
    session.open(1, &[b"a", b"b", b"file"]).unwrap();
    assert_eq!((session.counts.status().fids, session.counts.status().open), (2, 1));
    session.version(8192);
    assert_eq!((session.counts.status().fids, session.counts.status().open), (0, 0));
    assert_eq!(session.ask(kind::CLUNK, &words(&[0])), Err(Errno::BADF.0));
    let small = [&4095_u32.to_le_bytes()[..], &text(b"9P2000.L")].concat();
    assert_eq!(session.ask(kind::VERSION, &small), Err(Errno::MSGSIZE.0));
    // Another dialect is no session.
    let other = [&8192_u32.to_le_bytes()[..], &text(b"9P2000.u")].concat();
    let unknown = [&8192_u32.to_le_bytes()[..], &text(b"unknown")].concat();
    assert_eq!(session.ask(kind::VERSION, &other), Ok(unknown));
    assert_eq!(session.ask(kind::CLUNK, &words(&[0])), Err(Errno::INVAL.0));
}

#[test]
fn one_tree_is_attached_and_nobody_is_asked_who_he_is() {
    let mut session = Session::new();
    assert_eq!(session.attach(1)[0], 0x80);
    let attach = |fid: u32, auth: u32, name: &[u8]| [words(&[fid, auth]), text(b""), text(name), words(&[0])].concat();
    for (body, why) in [
        (attach(0, u32::MAX, b""), Errno::INVAL),
        (attach(2, 0, b""), Errno::INVAL),
        (attach(2, u32::MAX, b"/etc"), Errno::NOENT),
        (attach(u32::MAX, u32::MAX, b""), Errno::INVAL),
    ] {
        assert_eq!(session.ask(kind::ATTACH, &body), Err(why.0));
    }
    // No such request: authentication, and what 9P2000 had before.
    for kind in [0, 2, 102, 112, 114, 124, 126, 255] {
        let refused = session.ask(kind, &[0; 64]);
        assert_eq!(refused, Err(Errno::OPNOTSUPP.0), "{kind}");
    }
}

#[test]
fn a_walk_goes_as_far_as_names_lead() {
    let mut session = Session::new();
    let qids = session.walk(1, &[b"a", b"b", b"file"]).unwrap();
    assert_eq!((qids.len(), &qids[..2]), (2 + 3 * 13, &[3, 0][..]));
    assert_eq!((qids[2], qids[15], qids[28]), (0x80, 0x80, 0));
    assert!(qids[29] & 1 == 1, "a version is never 0");
    // Half of the way: how far it went, and no fid.
    let half = session.walk(2, &[b"a", b"none", b"file"]).unwrap();
    assert_eq!((half.len(), half[0]), (2 + 13, 1));
    assert_eq!(session.ask(kind::CLUNK, &words(&[2])), Err(Errno::BADF.0));
    assert_eq!(session.walk(2, &[b"none"]), Err(Errno::NOENT.0));
    // A copy, and a fid that becomes another.
    assert_eq!(session.walk(2, &[]), Ok(vec![0, 0]));
    session.ask(kind::WALK, &walk_to(2, 2, &[b"a"])).unwrap();
    let link = session.ask(kind::WALK, &walk_to(2, 3, &[b"out"])).unwrap();
    assert_eq!(link[2], 0x02);
    assert_eq!(session.walk(3, &[b"a"]), Err(Errno::INVAL.0), "the fid is in use");
    assert_eq!(
        session.ask(kind::WALK, &walk_to(9, 10, &[])),
        Err(Errno::BADF.0),
        "there is no such fid"
    );
    let many = [b"a".as_slice(); 17];
    assert_eq!(session.walk(10, &many), Err(Errno::INVAL.0));
}

#[test]
fn no_name_leads_out() {
    let mut session = Session::new();
    let root = session.attach(1);
    for names in [
        &[&b".."[..]][..],
        &[b"..", b"..", b".."],
        &[b"a", b"..", b".."],
        &[b"a", b"b", b"..", b"..", b".."],
    ] {
        let qids = session.walk(2, names).unwrap();
        assert_eq!(qids[qids.len() - 13..], root, "{names:?}");
        session.ask(kind::CLUNK, &words(&[2])).unwrap();
    }
    let long = [b'x'; 256];
    for (name, why) in [
        (&b""[..], Errno::NOENT),
        (b".", Errno::NOENT),
        (b"/", Errno::NOENT),
        (b"/etc", Errno::NOENT),
        (b"a/b", Errno::NOENT),
        (b"../x", Errno::NOENT),
        (b"a\0", Errno::NOENT),
        (&long, Errno::NAMETOOLONG),
    ] {
        assert_eq!(session.walk(2, &[name]), Err(why.0), "{name:?}");
    }
    // Nor does what is listed there: above the folder is the folder.
    session.open(2, &[]).unwrap();
    let data = session.ask(kind::READDIR, &piece(2, 1, 64 << 10)).unwrap();
    assert_eq!(data[4 + 22..][..4], *b"\x02\0..");
    assert_eq!(data[4 + 5..][..8], root[5..]);
}

#[test]
fn files_are_read_and_not_written() {
    let mut session = Session::new();
    let opened = session.open(1, &[b"a", b"b", b"file"]).unwrap();
    assert_eq!(opened.len(), 17);
    let read = |offset, count| piece(1, offset, count);
    assert_eq!(session.ask(kind::READ, &read(0, 100)).unwrap(), b"\x07\0\0\0content");
    assert_eq!(session.ask(kind::READ, &read(3, 2)).unwrap(), b"\x02\0\0\0te");
    assert_eq!(session.ask(kind::READ, &read(7, 2)).unwrap(), [0; 4]);
    assert_eq!(session.ask(kind::READ, &read(u64::MAX, u32::MAX)).unwrap(), [0; 4]);
    assert_eq!(session.counts.status().bytes, 9);
    assert_eq!(
        session.ask(kind::LOPEN, &words(&[1, 0])),
        Err(Errno::INVAL.0),
        "it is open"
    );
    session.walk(2, &[b"a", b"b", b"file"]).unwrap();
    for flags in [1, 2, 3, 0o1000, 0o100, 0o2001] {
        assert_eq!(
            session.ask(kind::LOPEN, &words(&[2, flags])),
            Err(Errno::ROFS.0),
            "{flags:o}"
        );
    }
    assert_eq!(session.ask(kind::READ, &piece(2, 0, 1)), Err(Errno::BADF.0), "not open");
    for kind in [14, 16, 18, 20, 26, 32, 70, 72, 74, 76, 118] {
        assert_eq!(session.ask(kind, &[0; 64]), Err(Errno::ROFS.0), "{kind}");
    }
    // A fid that was to be removed is gone, the file is not.
    assert_eq!(session.ask(kind::REMOVE, &words(&[2])), Err(Errno::ROFS.0));
    assert_eq!(session.ask(kind::CLUNK, &words(&[2])), Err(Errno::BADF.0));
    session.walk(2, &[b"a", b"b", b"file"]).unwrap();
}

#[test]
fn pieces_are_no_longer_than_what_there_is_room_for() {
    let mut session = Session::new();
    session.open(1, &[b"other", b"file"]).unwrap();
    let all = session.ask(kind::READ, &piece(1, 0, u32::MAX)).unwrap();
    assert_eq!(all.len(), (64 << 10) - HEADER);
    let some = session.with_room(kind::READ, &piece(1, 0, u32::MAX), 100).unwrap();
    assert_eq!(some.len(), 100 - HEADER);
    let none = session.with_room(kind::READ, &piece(1, 0, 9), REFUSAL).unwrap();
    assert_eq!(none, [0; 4]);
    let attributes = session.with_room(kind::GETATTR, &words(&[1, 0, 0]), 100);
    assert_eq!(attributes, Err(Errno::MSGSIZE.0));
}

#[test]
fn folders_are_read_from_any_entry_on() {
    let mut session = Session::new();
    session.open(1, &[]).unwrap();
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        let data = session.ask(kind::READDIR, &piece(1, offset, 60)).unwrap();
        let (len, mut rest) = data.split_at(4);
        assert_eq!(len, u32::try_from(rest.len()).unwrap().to_le_bytes());
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            offset = u64::from_le_bytes(rest[13..21].try_into().unwrap());
            let len = usize::from(rest[22]);
            names.push(String::from_utf8(rest[24..24 + len].to_vec()).unwrap());
            rest = &rest[24 + len..];
        }
    }
    assert_eq!(names, [".", "..", "a", "other", "pipe"]);
    let short = session.ask(kind::READDIR, &piece(1, 0, 24));
    assert_eq!(short, Err(Errno::INVAL.0), "no room for an entry is not the end");
    assert_eq!(session.ask(kind::READ, &piece(1, 0, 1)), Err(Errno::ISDIR.0));
    session.open(2, &[b"a", b"b", b"file"]).unwrap();
    assert_eq!(session.ask(kind::READDIR, &piece(2, 0, 99)), Err(Errno::NOTDIR.0));
    assert_eq!(session.ask(kind::READDIR, &piece(0, 0, 99)), Err(Errno::BADF.0));
}

#[test]
fn attributes_links_and_space_are_told() {
    let mut session = Session::new();
    session.walk(1, &[b"a", b"out"]).unwrap();
    let stat = session.ask(kind::GETATTR, &words(&[1, u32::MAX, u32::MAX])).unwrap();
    assert_eq!(stat.len(), 153);
    assert_eq!(stat[..8], 0x7ff_u64.to_le_bytes());
    assert_eq!(stat[8], 0x02);
    assert_eq!(stat[21..33], words(&[LINK | 0o777, 1000, 100]));
    assert_eq!(stat[49..57], 16_u64.to_le_bytes());
    assert_eq!(stat[89..97], 3_u64.to_le_bytes(), "seconds of the last change");
    let link = session.ask(kind::READLINK, &words(&[1])).unwrap();
    assert_eq!(link, text(b"../../etc/passwd"), "as it is: it is the guest's to follow");
    assert_eq!(session.ask(kind::LOPEN, &words(&[1, 0])), Err(Errno::ACCES.0));
    assert_eq!(session.ask(kind::READLINK, &words(&[0])), Err(Errno::INVAL.0));
    let space = session.ask(kind::STATFS, &words(&[0])).unwrap();
    assert_eq!((space.len(), &space[4..8]), (60, &4096_u32.to_le_bytes()[..]));
    // What cannot be opened can be looked at.
    session.walk(2, &[b"pipe"]).unwrap();
    let pipe = session.ask(kind::GETATTR, &words(&[2, 0, 0])).unwrap();
    assert_eq!(pipe[21..25], 0o010_644_u32.to_le_bytes());
    assert_eq!(session.ask(kind::LOPEN, &words(&[2, 0])), Err(Errno::ACCES.0));
}

#[test]
fn locks_are_had_and_nothing_has_to_be_written_back() {
    let mut session = Session::new();
    session.open(1, &[b"a", b"b", b"file"]).unwrap();
    let lock = [
        &words(&[1])[..],
        &[0],
        &words(&[0]),
        &[0; 16],
        &words(&[77]),
        &text(b"guest"),
    ]
    .concat();
    assert_eq!(session.ask(kind::LOCK, &lock), Ok(vec![0]));
    let asked = [&words(&[1])[..], &[1], &[5; 16], &words(&[77]), &text(b"guest")].concat();
    let answer = session.ask(kind::GETLOCK, &asked).unwrap();
    assert_eq!(answer, [&[2][..], &[5; 16], &words(&[77]), &text(b"guest")].concat());
    assert_eq!(session.ask(kind::FSYNC, &words(&[1, 0])), Ok(vec![]));
    assert_eq!(session.ask(kind::FLUSH, &[1, 0]), Ok(vec![]));
    for kind in [kind::LOCK, kind::FSYNC, kind::CLUNK] {
        assert_eq!(session.ask(kind, &words(&[9, 0])), Err(Errno::BADF.0));
    }
}

#[test]
fn other_file_systems_in_the_share_have_files_of_their_own() {
    let mut session = Session::new();
    let number = |qids: &[u8]| u64::from_le_bytes(qids[qids.len() - 8..].try_into().unwrap());
    let here = session.walk(1, &[b"a"]).unwrap();
    let there = session.walk(2, &[b"other"]).unwrap();
    assert_eq!(number(&here), 2);
    assert!(number(&there) > 100, "{}", number(&there));
}

#[test]
fn open_files_and_fids_are_counted() {
    let mut session = Session::new();
    for fid in 1..=4 {
        session.open(fid, &[b"a", b"b", b"file"]).unwrap();
    }
    assert_eq!(session.open(5, &[b"a"]), Err(Errno::MFILE.0));
    session.ask(kind::CLUNK, &words(&[1])).unwrap();
    session.ask(kind::LOPEN, &words(&[5, 0])).unwrap();
    let status = session.counts.status();
    assert_eq!((status.fids, status.open, status.refused), (5, 4, 1));
}

#[test]
fn a_driver_has_the_tag_and_its_answers() {
    let mut driver = Driver::up(at_once(), 0);
    let mut space = [0xff; 9];
    crate::BusDevice::read(&driver.mmio, VIRTIO_MMIO_CONFIG.into(), &mut space);
    assert_eq!(space[..7], *b"\x05\0tools");
    let body = [&8192_u32.to_le_bytes()[..], &text(b"9P2000.L")].concat();
    let (at, len) = exchange(&mut driver, &message(kind::VERSION, NO_TAG, &body), 100);
    assert_eq!(len, HEADER + body.len());
    assert_eq!(
        driver.bytes(at, len),
        message(kind::VERSION + 1, NO_TAG, &body),
        "what was asked for is agreed on"
    );
}

#[test]
fn a_request_that_is_none_stops_the_queue_or_is_refused() {
    // Too short for a header; no room for a refusal.
    for (request, room) in [(vec![0; 6], 100), (message(kind::CLUNK, 1, &[0; 4]), 10)] {
        let mut driver = Driver::up(at_once(), 0);
        let buffer = driver.text(&request);
        let at = driver.buffer(room);
        driver.offer(0, &[buffer, Buffer::Write(at, room)]);
        driver.notify(0);
        assert_ne!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
        assert_eq!(driver.used(0), []);
    }
    let sized = |size: u32| [&size.to_le_bytes()[..], &[kind::CLUNK, 1, 0, 0, 0, 0, 0]].concat();
    let long = message(kind::WALK, 1, &vec![0; MAX_REQUEST + 1]);
    for (request, why) in [
        (sized(0), Errno::INVAL),
        (sized(6), Errno::INVAL),
        (sized(12), Errno::INVAL),
        (sized(u32::MAX), Errno::INVAL),
        (long, Errno::MSGSIZE),
        (message(kind::WRITE, 1, &vec![0; MAX_REQUEST + 1]), Errno::INVAL),
    ] {
        let mut driver = Driver::up(at_once(), 0);
        let (at, len) = exchange(&mut driver, &request, 100);
        let refusal = message(kind::ERROR + 1, 1, &why.0.to_le_bytes());
        assert_eq!(driver.bytes(at, len), refusal, "{why:?}");
    }
}

#[test]
fn a_request_in_bad_memory_fails() {
    let lines = BadLines::default();
    let mut driver = Driver::up_with(at_once(), 0, &lines);
    let Buffer::Read(request, _) = driver.text(&message(kind::CLUNK, 1, &[0; 4])) else {
        unreachable!("it is one to be read");
    };
    lines.set([GpaRange::new(Gpa(request / 64 * 64), 64)]);
    let at = driver.buffer(100);
    driver.offer(0, &[Buffer::Read(request, 11), Buffer::Write(at + 64, 36)]);
    driver.notify(0);
    assert_eq!(driver.used(0), [(0, REFUSAL)]);
    let refusal = message(kind::ERROR + 1, NO_TAG, &Errno::IO.0.to_le_bytes());
    assert_eq!(driver.bytes(at + 64, REFUSAL), refusal);
}

fn message(kind: u8, tag: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).unwrap();
    [&len.to_le_bytes()[..], &[kind], &tag.to_le_bytes(), body].concat()
}

/// A device whose server answers on the spot.
fn at_once() -> Arc<P9> {
    let server = Mutex::new(Server::new(Wood::new(), 4, Arc::default()));
    let submit = move |order: P9Order| {
        let mut server = server.lock().unwrap();
        order.run(|request| Reply {
            data: server.answer(&request),
            last: None,
        });
    };
    P9::tagged("tools", Box::new(submit))
}

conforms!(at_once);

/// Offers a request in two buffers, with room in two as well; where its answer is and how long.
fn exchange(driver: &mut Driver, request: &[u8], room: usize) -> (u64, usize) {
    let (first, second) = request.split_at(HEADER);
    let chain = [driver.text(first), driver.text(second)];
    let at = driver.buffer(room);
    let [first, second] = chain;
    driver.offer(
        0,
        &[first, second, Buffer::Write(at, 9), Buffer::Write(at + 9, room - 9)],
    );
    driver.notify(0);
    let used = driver.used(0);
    assert_eq!(used.len(), 1);
    (at, used[0].1)
}
