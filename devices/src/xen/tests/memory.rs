//! The reservation, and pages that are Xen's.

use super::*;

#[test]
fn memory_given_back_leaves_the_host_in_runs_and_comes_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.current(), 1024);
    assert_eq!(bench.reserve(DECREASE, &[12, 11, 10, 500, 13], 0), 5);
    assert_eq!(bench.host.discarded, [10..14, 500..501]);
    assert_eq!(bench.current(), 1019);
    assert_eq!(bench.reserve(DECREASE, &[20, 11, 21], 0), 1, "page 11 is not there");
    assert_eq!(bench.reserve(POPULATE, &[11, 12, 12], 0), 2, "page 12 is there");
    assert_eq!(bench.current(), 1020);
    assert_eq!(bench.reserve(DECREASE, &[512], 9), 1);
    assert_eq!(
        bench.reserve(DECREASE, &[0], 10),
        0,
        "the extent is larger than a guest's may be"
    );
    assert_eq!(bench.current(), 508);
}

#[test]
fn memory_beyond_the_boot_map_ends_at_the_maximum_and_not_a_page_later() {
    let mut bench = Bench::new();
    let first = 4 * SECTION;
    let pages: Vec<_> = (first..first + 1025).collect();
    assert_eq!(bench.reserve(POPULATE, &pages, 0), 1024);
    let provided = (bench.host.provided.len(), bench.host.provided.first());
    assert_eq!(provided, (1, Some(&(first..first + SECTION))));
    assert_eq!(bench.current(), 2048);
    assert_eq!(bench.reserve(POPULATE, &[first + 1024], 0), 0);
    assert_eq!(bench.reserve(DECREASE, &[3], 0), 1);
    assert_eq!(bench.reserve(POPULATE, &[first + 1024], 0), 1);
    assert_eq!(bench.reserve(POPULATE, &[3], 0), 0);
    bench.host.full = true;
    assert_eq!(bench.reserve(DECREASE, &[4], 0), 1);
    assert_eq!(bench.reserve(POPULATE, &[9 * SECTION], 0), 0, "the host has no place");
    assert_eq!(bench.reserve(POPULATE, &[(1 << 40) - 1, 1 << 40], 0), 0);
}

#[test]
fn a_refusal_is_told_with_its_numbers_once() {
    let mut bench = Bench::new();
    let first = 4 * SECTION;
    let pages: Vec<_> = (first..first + 1030).collect();
    let told = |bench: &mut Bench, pages: &[u64]| {
        for (n, page) in (0..).zip(pages) {
            bench.guest.put(0x2000 + 8 * n, page);
        }
        bench.guest.put(0x1000, &[0x2000, pages.len() as u64]);
        bench.guest.put(0x1010, &[0u32, 0]);
        bench.guest.put(0x1018, &u64::from(DOMID_SELF));
        bench.answer(hypercall::MEMORY_OP, &[POPULATE, 0x1000]).refused
    };
    let refused = |asked| {
        Some(Refused {
            asked,
            current: MAXIMUM,
            maximum: MAXIMUM,
        })
    };
    assert_eq!(told(&mut bench, &pages[..1000]), None);
    assert_eq!(told(&mut bench, &pages[1000..]), refused(6));
    assert_eq!(told(&mut bench, &pages[1024..]), None, "as before");
    assert_eq!(bench.reserve(DECREASE, &[5], 0), 1);
    assert_eq!(
        told(&mut bench, &[5, first + 1029]).map(|refused| refused.asked),
        None,
        "it has as much as before"
    );
}

#[test]
fn an_extent_is_taken_whole_or_not_at_all() {
    let mut bench = Bench::new();
    let first = 4 * SECTION;
    assert_eq!(bench.reserve(POPULATE, &[first], 9), 1);
    assert_eq!(bench.reserve(POPULATE, &[first + 512], 9), 1);
    assert_eq!(bench.reserve(POPULATE, &[first + 1024], 0), 0);
    assert_eq!(bench.reserve(DECREASE, &[first + 1], 0), 1);
    assert_eq!(bench.reserve(DECREASE, &[first], 9), 0, "one of its pages is not there");
    assert_eq!(bench.current(), 2047);
}

#[test]
fn lists_of_any_length_and_anywhere_are_a_bounded_amount_of_work() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.reserve_at(DECREASE, 0x2000, u64::MAX, 0),
        1,
        "page 0 is not there a second time"
    );
    assert_eq!(bench.reserve_at(DECREASE, u64::MAX - 3, 9, 0), 0);
    assert_eq!(bench.reserve_at(POPULATE, 0xffff_f000, u64::MAX, 9), 0);
    assert_eq!(bench.reserve_at(DECREASE, 0x2000, u64::MAX, u32::MAX), 0);
    assert_eq!(bench.call(hypercall::MEMORY_OP, &[DECREASE, u64::MAX]), -14);
    assert_eq!(bench.current(), 1023);
}

#[test]
fn the_shared_page_takes_the_place_of_a_page_and_vcpus_are_in_it_until_they_move() {
    let mut bench = Bench::new();
    assert_eq!(bench.add(0, 0, 16), 0);
    assert_eq!((bench.host.shared_info, bench.current()), (Some(16), 1023));
    assert_eq!(bench.host.vcpu_info, BTreeMap::from([(0, 0x1_0000), (1, 0x1_0040)]));
    assert_eq!(bench.reserve(DECREASE, &[16], 0), 0, "it is not the domain's memory");
    assert_eq!(bench.reserve(POPULATE, &[16], 0), 0);
    bench.guest.put(0x100, &[20u64, 0x40]);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 1, 0x100]), 0);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 1, 0x100]), -22, "once");
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 2, 0x100]), -2);
    assert_eq!(bench.host.vcpu_info[&1], 20 * PAGE + 0x40);
    bench.guest.put(0x100, &[16u64, 0]);
    assert_eq!(
        bench.call(hypercall::VCPU_OP, &[10, 0, 0x100]),
        -22,
        "that page is not the domain's"
    );

    // It moves with what it holds.
    bench.host.store(Gpa(16 * PAGE + 8), &[7]);
    assert_eq!(bench.add(0, 0, 17), 0);
    assert_eq!(bench.host.bytes.get(&(17 * PAGE + 8)), Some(&7));
    assert_eq!((bench.host.shared_info, bench.current()), (Some(17), 1022));
    assert_eq!(bench.host.vcpu_info[&1], 20 * PAGE + 0x40);
    assert_eq!(bench.reserve(POPULATE, &[16], 0), 1);
    bench.guest.put(0x1000, &[u64::from(DOMID_SELF), 17]);
    assert_eq!(bench.call(hypercall::MEMORY_OP, &[15, 0x1000]), 0);
    assert_eq!(bench.call(hypercall::MEMORY_OP, &[15, 0x1000]), -2);
    assert_eq!((bench.host.shared_info, bench.host.vcpu_info.len()), (None, 1));
}

#[test]
fn frames_of_the_grant_table_are_where_the_guest_wants_them() {
    let mut bench = Bench::new();
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 0, 0, 0]);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[6, 0x100, 1]), 0);
    assert_eq!((bench.guest.word(0x104), bench.guest.word(0x108)), (1, MAX_FRAMES));
    let far = 7 * SECTION;
    assert_eq!(
        (bench.add(1, 2, far), bench.add(1, 0, 30), bench.add(1, 64, 31)),
        (0, 0, -22)
    );
    assert_eq!(bench.host.frames, BTreeSet::from([far]));
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[6, 0x100, 1]), 0);
    assert_eq!(bench.guest.word(0x104), 3);
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 3, 0, 0]);
    bench.guest.put(0x110, &0x200u64);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[2, 0x100, 1]), 0);
    let told = [0x200, 0x208, 0x210].map(|at| bench.guest.long(at));
    assert_eq!(told, [30, u64::MAX, far]);
    bench.guest.put(0x110, &u64::MAX);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[2, 0x100, 1]), -14);
    bench.guest.put(0x100, &2u32);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[8, 0x100, 1]), -22);
    assert_eq!(
        bench.call(hypercall::GRANT_TABLE_OP, &[8, 0x100, 1]),
        0,
        "it was told version 1"
    );
    assert_eq!(bench.current(), 1023);
}
