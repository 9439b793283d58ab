//! Whatever a guest says is answered, within its room, and never from outside of the tree.

use super::*;

/// A body that is likely to be one: small fids, names that exist, and anything.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just(b"a".to_vec()),
        Just(b"b".to_vec()),
        Just(b"file".to_vec()),
        Just(b"out".to_vec()),
        Just(b"pipe".to_vec()),
        Just(b"..".to_vec()),
        Just(b"/".to_vec()),
        prop::collection::vec(any::<u8>(), 0..300),
    ];
    let names = prop::collection::vec(name, 0..18);
    let walk = (0..4_u32, 0..4_u32, names).prop_map(|(fid, to, names)| {
        let names: Vec<_> = names.iter().map(|name| &name[..]).collect();
        walk_to(fid, to, &names)
    });
    let read = (0..4_u32, prop_oneof![0..9_u64, any::<u64>()], any::<u32>()).prop_map(|(fid, at, n)| piece(fid, at, n));
    let open = (0..4_u32, prop_oneof![Just(0_u32), any::<u32>()]).prop_map(|(fid, flags)| words(&[fid, flags]));
    let begin = (any::<u32>(), any::<bool>()).prop_map(|(size, good)| {
        let version: &[u8] = if good { b"9P2000.L" } else { b"9P" };
        [&size.to_le_bytes()[..], &text(version)].concat()
    });
    let attach = (0..4_u32).prop_map(|fid| [words(&[fid, u32::MAX]), text(b""), text(b""), words(&[0])].concat());
    prop_oneof![
        walk,
        read,
        open,
        begin,
        attach,
        prop::collection::vec(any::<u8>(), 0..64),
    ]
}

fn asked() -> impl Strategy<Value = (u8, Vec<u8>, usize)> {
    let kinds = prop::sample::select(vec![
        kind::VERSION,
        kind::ATTACH,
        kind::WALK,
        kind::WALK,
        kind::LOPEN,
        kind::READ,
        kind::READDIR,
        kind::GETATTR,
        kind::STATFS,
        kind::READLINK,
        kind::GETLOCK,
        kind::CLUNK,
        kind::REMOVE,
    ]);
    let kind = prop_oneof![4 => kinds, 1 => any::<u8>()];
    let room = prop_oneof![Just(1 << 20), REFUSAL..300_usize];
    (kind, body(), room)
}

proptest! {
    #[test]
    fn any_requests_are_answered(requests in prop::collection::vec(asked(), 0..60)) {
        let mut session = Session::new();
        for (kind, body, room) in &requests {
            // Asserts the form of each answer, and the tree that of each path.
            let _ = session.with_room(*kind, body, *room);
            let status = session.counts.status();
            prop_assert!(status.open <= 4 && status.fids <= 8);
        }
        prop_assert_eq!(session.counts.status().requests, 2 + requests.len() as u64);
        // A client that starts anew finds all as it was.
        session.version(8192);
        session.attach(0);
        session.open(1, &[b"a", b"b", b"file"]).unwrap();
        prop_assert_eq!(session.ask(kind::READ, &piece(1, 0, 100)).unwrap(), b"\x07\0\0\0content");
    }

    #[test]
    fn any_bytes_in_a_chain_are_survived(
        requests in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), any::<bool>(), 0..100_usize),
            0..40,
        ),
    ) {
        let mut driver = Driver::up(at_once(), 0);
        for (bytes, framed, room) in requests {
            let request = match framed {
                true => message(bytes.first().copied().unwrap_or(0), 7, &bytes),
                false => bytes,
            };
            let buffer = driver.text(&request);
            let at = driver.buffer(room.max(1));
            driver.offer(0, &[buffer, Buffer::Write(at, room)]);
            driver.notify(0);
            for (_, len) in driver.used(0) {
                prop_assert!(len <= room && len >= REFUSAL);
            }
            if driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET != 0 {
                driver.start(0);
            }
        }
    }
}
