//! A machine of a terabyte: what it costs is what its guest touched.

use guest_tests::{
    facts,
    payload::{Guest, MAPPED, Program, SCRATCH, Script},
};

const GIB: u64 = 1 << 30;
const SIZE: u64 = 1 << 40;
/// Where the program has its page tables, and the bits of their entries.
const TABLES: u64 = 0x130_0000;
const LARGE: u64 = 0b1000_0011;
const TABLE: u64 = 0b11;
/// What one touched place may cost: a huge page of the host, and the page tables on the way to it.
const PLACE: u64 = (2 << 20) + (12 << 10);
/// What the machine itself may cost.
const MACHINE: u64 = 48 << 20;

/// Writes a word at `places` addresses all over RAM, the last of them near its end, each mapped by a directory of its own.
fn touching(places: u64) -> Script {
    let (second, directory) = (SCRATCH, |place: u64| SCRATCH + 0x1000 * place);
    let mut script = Script::new().store(TABLES + 8, 8, second | TABLE);
    // Below each multiple of the distance, and outside the gap below 4 GiB.
    let places = (1..=places).map(|place| (place, place * (SIZE / places) - 3 * GIB));
    // The program's own tables reach 16 GiB.
    for (place, at) in places.clone().filter(|(_, at)| *at >= MAPPED) {
        let entry = match at / GIB {
            gib @ 0..512 => TABLES + 0x1000 + 8 * gib,
            gib => second + 8 * (gib - 512),
        };
        script = script.store(entry, 8, directory(place) | TABLE);
        script = script.store(directory(place) + 8 * ((at % GIB) >> 21), 8, (at & !0x1f_ffff) | LARGE);
    }
    script = script.tables();
    for (place, at) in places {
        script = script.store(at, 8, place);
    }
    script.say("on").spin()
}

/// Resident bytes of the monitor when its guest has touched so many places.
fn resident(places: u64) -> u64 {
    let guest = Guest::new(&Program::new(touching(places))).flag("memory", "1T");
    let mut running = guest.start();
    running.wait_for("on");
    facts::resident(running.id().into(), "VmRSS").expect("the monitor's memory")
}

#[test]
fn a_terabyte_costs_what_was_touched_of_it() {
    let (few, many) = (resident(8), resident(256));
    assert!(few <= MACHINE + 8 * PLACE, "{few} bytes for 8 places");
    assert!(many <= MACHINE + 256 * PLACE, "{many} bytes for 256 places");
    // The places were touched, each on a page of its own.
    assert!(many >= few + 248 * 4096, "{few} bytes for 8 places, {many} for 256");
}
