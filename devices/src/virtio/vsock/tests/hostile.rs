//! Whatever a guest sends, no connection holds more of it than there is room for, and none is left without an end.

use super::*;

fn packet() -> impl Strategy<Value = (Header, usize)> {
    let port = || prop_oneof![Just(80_u32), 0..3_u32, any::<u32>()];
    let op = prop_oneof![8 => 0..9_u16, 1 => any::<u16>()];
    let kind = prop_oneof![9 => Just(STREAM), 1 => any::<u16>()];
    let word = || prop_oneof![Just(0_u32), 0..100_000_u32, any::<u32>()];
    let len = prop_oneof![0..100_usize, 0..70_000_usize];
    (port(), port(), op, kind, 0..5_u32, word(), word(), len).prop_map(
        |(host, guest, op, kind, flags, room, passed, len)| {
            let header = Header {
                kind,
                flags,
                room,
                passed,
                ..Guest::header(Key { host, guest }, op)
            };
            (header, len)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_packets_are_survived(
        packets in prop::collection::vec((packet(), any::<bool>(), 0..3_u8), 0..60),
        takes in prop_oneof![Just(0_usize), 0..200_000_usize, Just(usize::MAX)],
    ) {
        let mut guest = Guest::with(8, 4096);
        let end = End::default();
        end.at().takes = takes;
        end.at().says.extend(vec![7; 10_000]);
        guest.doors.0.lock().unwrap().insert(80, end.clone());
        let at = guest.driver.buffer(70_000);
        let headers = guest.driver.buffer(HEADER);
        let mut sent = 0;
        for ((header, len), honest, event) in packets {
            let header = Header { len: u32::try_from(len).unwrap() + u32::from(!honest), ..header };
            guest.driver.put(headers, &header.bytes());
            guest.driver.offer(1, &[Buffer::Read(headers, HEADER), Buffer::Read(at, len)]);
            guest.driver.notify(1);
            guest.driver.used(1);
            sent += len;
            match event {
                0 => drop(guest.received()),
                1 => {
                    guest.device.connect(header.from_port, |_| end.stream());
                }
                _ => while guest.device.ready(Key { host: header.to_port, guest: header.from_port }, event == 2) == Progress::More {},
            }
            let state = lock(&guest.device.state);
            prop_assert!(state.connections.len() <= MAX_CONNECTIONS && state.resets.len() <= MAX_RESETS);
            prop_assert!(state.queue.len() <= state.connections.len() + 60);
            for connection in state.connections.values() {
                prop_assert!(connection.held() <= ROOM as usize + 32);
            }
        }
        prop_assert!(end.at().heard.len() <= sent + 60 * 32);
        guest.driver.set_status(0);
        prop_assert_eq!(guest.device.status().connections, 0);
    }

    #[test]
    fn any_bytes_in_chains_are_survived(
        chains in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)), 0..40),
    ) {
        let mut guest = Guest::with(4, 100);
        for (receive, bytes) in chains {
            let buffer = guest.driver.text(&bytes);
            guest.driver.offer(usize::from(!receive), &[buffer]);
            guest.driver.notify(u32::from(!receive));
            if guest.driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET != 0 {
                guest.driver.start(0);
            }
        }
    }
}
