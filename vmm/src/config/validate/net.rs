//! What is said of network devices.

use super::{VmConfig, virtio::virtio};
use crate::config::{ConfigError, NetConfig, NetWire};
use devices::virtio::net::{MAX_MTU, MIN_MTU, config::MAX_TAP_NAME};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(config: &VmConfig, problems: &mut Vec<ConfigError>) {
    let mut addresses = BTreeSet::new();
    let mut links: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, net) in config.net.iter().enumerate() {
        let id = config.net_name(index);
        check_one(&id, net, problems);
        let mac = config.net_mac(index);
        if !addresses.insert(mac) {
            let why = format!("has mac={mac}, as another device; hint: give each its own");
            problems.push(virtio(id, why));
        }
        if let Some(NetWire::Inner(name)) = net.wire() {
            *links.entry(name).or_default() += 1;
        }
    }
    for (name, ends) in links.into_iter().filter(|(_, ends)| *ends != 2) {
        let why = format!(
            "of network devices has {ends} ends: expected two; hint: a path, such as link=./{name}, leads to another machine"
        );
        problems.push(virtio(format!("link '{name}'"), why));
    }
}

fn check_one(id: &str, net: &NetConfig, problems: &mut Vec<ConfigError>) {
    let mut bad = |why: String| problems.push(virtio(id.to_owned(), why));
    match net.wire() {
        None => bad("has no wire, or two: expected either tap=NAME or link=NAME".to_owned()),
        Some(NetWire::Tap(name)) => {
            let plain = |c: char| c != '/' && !c.is_whitespace() && !c.is_control();
            if !(1..=MAX_TAP_NAME).contains(&name.len()) || !name.chars().all(plain) || name.contains('%') {
                bad(format!(
                    "has tap={name}: expected the name of an interface, 1 to {MAX_TAP_NAME} characters without blanks, '/' and '%'"
                ));
            }
        }
        Some(NetWire::Inner(name)) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if !(1..=32).contains(&name.len()) || !name.bytes().all(plain) {
                bad(format!(
                    "has link={name}: expected a name of 1 to 32 letters, digits, '-', '_' and '.', or a path with a '/' in it"
                ));
            }
        }
        Some(NetWire::Outer(_)) => {}
    }
    // Addresses by position are the same in every machine.
    let leaves = matches!(net.wire(), Some(NetWire::Tap(_) | NetWire::Outer(_)));
    match net.mac {
        None if leaves => bad(
            "leads out of the machine and has no address; hint: add one that no other machine there has, such as mac=02:64:61:78:01:00"
                .to_owned(),
        ),
        Some(mac) if !mac.is_unicast() => bad(format!(
            "has mac={mac}: expected the address of one device, whose first byte is even"
        )),
        _ => {}
    }
    if !(MIN_MTU..=MAX_MTU).contains(&net.mtu) {
        bad(format!("has mtu={}: expected {MIN_MTU} to {MAX_MTU}", net.mtu));
    }
}

#[cfg(test)]
mod tests {
    use super::super::virtio::tests::problems;

    #[test]
    fn each_problem_of_a_network_device_is_one_sentence() {
        for (text, why) in [
            ("mtu=1500", "net0 has no wire, or two"),
            ("tap=t,link=/l,mac=02:00:00:00:00:01", "net0 has no wire, or two"),
            ("tap=a-name-too-long-for-it,mac=02:00:00:00:00:01", "net0 has tap="),
            ("tap=a/b,mac=02:00:00:00:00:01", "net0 has tap=a/b"),
            ("tap=tap%d,mac=02:00:00:00:00:01", "net0 has tap=tap%d"),
            ("tap=tap0", "net0 leads out of the machine and has no address"),
            ("link=./l", "net0 leads out of the machine and has no address"),
            (
                "link=./l,mac=03:00:00:00:00:01",
                "net0 has mac=03:00:00:00:00:01: expected",
            ),
            (
                "link=./l,mac=00:00:00:00:00:00",
                "net0 has mac=00:00:00:00:00:00: expected",
            ),
            (
                "link=./l,mac=02:00:00:00:00:01,mtu=67",
                "net0 has mtu=67: expected 68 to 9216",
            ),
            ("link=./l,mac=02:00:00:00:00:01,mtu=9217", "net0 has mtu=9217"),
            ("link=a", "link 'a' of network devices has 1 ends: expected two"),
        ] {
            let found = problems(&[("net", text)]);
            assert!(matches!(&found[..], [one] if one.contains(why)), "{text}: {found:?}");
        }
        let spaces = problems(&[("net", "link=a b"), ("net", "link=a b")]);
        assert!(spaces.iter().all(|one| one.contains("has link=a b")), "{spaces:?}");
    }

    #[test]
    fn ends_and_addresses_are_counted() {
        let three = problems(&[("net", "link=a"), ("net", "link=a"), ("net", "link=a")]);
        assert!(matches!(&three[..], [one] if one.contains("has 3 ends")), "{three:?}");
        let same = "link=./l,mac=02:64:61:78:00:00";
        let twice = problems(&[("net", "link=a"), ("net", "link=a"), ("net", same)]);
        assert!(
            matches!(&twice[..], [one] if one.contains("net2 has mac=02:64:61:78:00:00, as another device")),
            "{twice:?}"
        );
        assert_eq!(problems(&[("net", "link=a"), ("net", "link=a,mtu=9000")]), [""; 0]);
    }
}
