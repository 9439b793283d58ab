use super::*;
use devices::virtio::p9::Request;
use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A folder with `secret` beside it, and ways that would lead there.
fn shared() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir_all(at.join("share/sub/deep")).unwrap();
    fs::write(at.join("secret"), "secret").unwrap();
    fs::write(at.join("share/file"), "content").unwrap();
    fs::write(at.join("share/sub/deep/leaf"), "leaf").unwrap();
    symlink("../secret", at.join("share/out")).unwrap();
    symlink("/", at.join("share/root")).unwrap();
    symlink("sub", at.join("share/in")).unwrap();
    symlink("/proc/self/cwd", at.join("share/magic")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at.join("share/pipe"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    let folder = Folder::at(&at.join("share")).unwrap();
    (dir, folder)
}

fn content(folder: &Folder, path: &str) -> Result<Vec<u8>, Errno> {
    let open = folder.open(path.as_bytes())?;
    let mut buffer = [0; 64];
    let len = folder.read(&open, 0, &mut buffer)?;
    Ok(buffer[..len].to_vec())
}

fn names(folder: &Folder, open: &mut Opened, mut offset: u64, at_once: usize) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let (before, from) = (all.len(), offset);
        let mut take = |entry: &Entry| {
            if all.len() == before + at_once {
                return false;
            }
            all.push(String::from_utf8(entry.name.clone()).unwrap());
            offset = entry.next;
            true
        };
        folder.entries(open, from, &mut take).unwrap();
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn files_and_links_are_as_they_are() {
    let (dir, folder) = shared();
    assert_eq!(content(&folder, "file").unwrap(), b"content");
    assert_eq!(content(&folder, "sub/deep/leaf").unwrap(), b"leaf");
    assert_eq!(folder.link(b"out").unwrap(), b"../secret");
    assert_eq!(folder.link(b"file"), Err(Errno::INVAL));
    assert_eq!(folder.link(b"none"), Err(Errno::NOENT));
    let stat = folder.stat(b"file").unwrap();
    let meta = fs::metadata(dir.path().join("share/file")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((stat.inode, stat.device, stat.size), (meta.ino(), meta.dev(), 7));
    assert_eq!((stat.mode, stat.user), (meta.mode(), meta.uid()));
    assert_eq!(stat.times[1].0, meta.mtime().cast_unsigned());
    assert_eq!(folder.stat(b"out").unwrap().size, 9);
    let root = folder.stat(b"").unwrap();
    assert_eq!(root.inode, fs::metadata(dir.path().join("share")).unwrap().ino());
    let space = folder.space(b"sub").unwrap();
    assert!(space.block > 0 && space.blocks > 0 && space.name == 255, "{space:?}");
}

#[test]
fn nothing_leads_out() {
    let (_dir, folder) = shared();
    // The server makes no such paths. If it did, they would lead nowhere.
    for path in [
        "..",
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "/",
        "root/etc/passwd",
        "in/deep/leaf",
        "magic/x",
        "out/x",
        "file/..",
        "sub\0",
    ] {
        assert!(folder.stat(path.as_bytes()).is_err(), "{path:?}");
        assert!(folder.open(path.as_bytes()).is_err(), "{path:?}");
        assert!(folder.link(path.as_bytes()).is_err(), "{path:?}");
        assert!(folder.space(path.as_bytes()).is_err(), "{path:?}");
    }
    for link in ["out", "root", "in", "magic"] {
        assert_eq!(folder.open(link.as_bytes()).err(), Some(Errno::ACCES), "{link}");
    }
}

#[test]
fn pipes_sockets_and_devices_are_seen_and_not_opened() {
    let (dir, folder) = shared();
    let _listener = UnixListener::bind(dir.path().join("share/socket")).unwrap();
    for (name, kind) in [("pipe", 0o010_000), ("socket", 0o140_000)] {
        assert_eq!(folder.stat(name.as_bytes()).unwrap().mode & 0o170_000, kind);
        // An open pipe without a writer would wait for ever.
        assert_eq!(folder.open(name.as_bytes()).err(), Some(Errno::ACCES), "{name}");
    }
    let devices = Folder::at(Path::new("/dev")).unwrap();
    assert_eq!(devices.open(b"null").err(), Some(Errno::ACCES));
}

#[test]
fn a_folder_that_becomes_a_link_leads_nowhere() {
    let (dir, folder) = shared();
    let (here, there) = (dir.path().join("share/sub/deep"), dir.path().join("aside"));
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/leaf"), "secret").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::rename(&here, &there).unwrap();
                symlink("../../outside", &here).unwrap();
                fs::remove_file(&here).unwrap();
                fs::rename(&there, &here).unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = vec![];
        // The other thread may be kept waiting in the middle of a turn for all of many looks.
        while seen.len() < 20_000 || !seen.iter().any(Result::is_ok) && Instant::now() < deadline {
            seen.extend((0..1000).map(|_| content(&folder, "sub/deep/leaf")));
        }
        done.store(true, Ordering::Relaxed);
        assert!(seen.iter().any(Result::is_ok));
        for found in seen {
            match found {
                Ok(bytes) => assert_eq!(bytes, b"leaf"),
                // A link in the way, or nothing.
                Err(why) => assert!(matches!(why, Errno(40) | Errno::NOENT), "{why:?}"),
            }
        }
    });
}

#[test]
fn large_folders_are_read_in_pieces_of_any_size() {
    let (dir, folder) = shared();
    let many = dir.path().join("share/many");
    fs::create_dir(&many).unwrap();
    for n in 0..5000 {
        fs::write(many.join(format!("a-name-of-some-length-{n}")), "").unwrap();
    }
    let mut expected: Vec<_> = fs::read_dir(&many)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .chain([".".to_owned(), "..".to_owned()])
        .collect();
    expected.sort();
    let mut open = folder.open(b"many").unwrap();
    for at_once in [usize::MAX, 7, 100] {
        // Again from the start, each time from where the last one ended.
        let mut all = names(&folder, &mut open, 0, at_once);
        all.sort();
        assert_eq!(all.len(), 5002);
        assert_eq!(all, expected);
    }
    assert!(folder.entries(&mut open, u64::MAX, &mut |_| true).is_err());
    let mut file = folder.open(b"file").unwrap();
    assert_eq!(folder.entries(&mut file, 0, &mut |_| true), Err(Errno::NOTDIR));
    assert_eq!(folder.read(&open, 0, &mut [0; 8]), Err(Errno::ISDIR));
}

#[test]
fn a_file_that_is_replaced_is_another_and_the_open_one_stays() {
    let (dir, folder) = shared();
    let open = folder.open(b"file").unwrap();
    let before = folder.stat(b"file").unwrap();
    let new = dir.path().join("share/new");
    fs::write(&new, "other content").unwrap();
    fs::rename(&new, dir.path().join("share/file")).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(folder.read(&open, 0, &mut buffer), Ok(7));
    assert_eq!(buffer[..7], *b"content");
    assert_eq!(folder.stat_open(&open).unwrap().inode, before.inode);
    assert_ne!(folder.stat(b"file").unwrap().inode, before.inode);
    assert_eq!(content(&folder, "file").unwrap(), b"other content");
}

#[test]
fn a_session_over_real_files() {
    let (_dir, folder) = shared();
    let mut server = Server::new(folder, 8, Arc::default());
    let mut ask = |kind: u8, body: &[u8]| {
        let body = body.to_vec();
        server.answer(&Request {
            kind,
            tag: 1,
            body,
            room: 8192,
        })
    };
    ask(100, b"\0\x20\0\0\x08\x009P2000.L");
    ask(104, b"\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0");
    let walked = ask(110, b"\0\0\0\0\x01\0\0\0\x03\0\x03\0sub\x04\0deep\x04\0leaf");
    assert_eq!((walked[4], walked[7]), (111, 3));
    ask(12, b"\x01\0\0\0\0\0\0\0");
    let read = ask(116, b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0");
    assert_eq!(read, b"\x0f\0\0\0\x75\x01\0\x04\0\0\0leaf");
}

#[test]
fn what_is_no_folder_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for name in ["file", "none"] {
        let error = Folder::at(&dir.path().join(name)).err().unwrap();
        assert!(matches!(error, ShareError::Open(..)), "{error}");
    }
}

#[test]
fn shares_leave_descriptors_for_others() {
    let one = most_open(1);
    assert!((1..=4096).contains(&one));
    assert!(most_open(15) <= one);
}
