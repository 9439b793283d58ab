//! Guests that call as they please.

use super::*;

use proptest::prelude::*;

/// One random operation on memory.
#[derive(Debug, Clone)]
enum Step {
    Give(Vec<u64>, u32),
    Take(Vec<u64>, u32),
    Place(u32, u64, u64),
    Unplace(u64),
    Move(u32, u64),
}

fn a_page() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..1040,
        8 => 4 * SECTION..4 * SECTION + 1500,
        1 => (0u64..8).prop_map(|section| section * SECTION),
        1 => any::<u64>(),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let list = || proptest::collection::vec(a_page(), 1..40);
    let order = || prop_oneof![6 => Just(0u32), 2 => 0u32..10, 1 => any::<u32>()];
    prop_oneof![
        6 => (list(), order()).prop_map(|(pages, order)| Step::Give(pages, order)),
        6 => (list(), order()).prop_map(|(pages, order)| Step::Take(pages, order)),
        2 => (0u32..6, 0u64..70, a_page()).prop_map(|(space, index, page)| Step::Place(space, index, page)),
        1 => a_page().prop_map(Step::Unplace),
        1 => (0u32..3, a_page()).prop_map(|(vcpu, page)| Step::Move(vcpu, page)),
    ]
}

proptest! {
    // 20 replays of 500 operations: 10,000 of them, and the memory is counted anew after each.
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn memory_adds_up_after_every_operation(steps in proptest::collection::vec(a_step(), 500)) {
        let mut bench = Bench::new();
        for step in steps {
            let result = match step {
                Step::Give(pages, order) => bench.reserve(DECREASE, &pages, order),
                Step::Take(pages, order) => bench.reserve(POPULATE, &pages, order),
                Step::Place(space, index, page) => bench.add(space, index, page),
                Step::Unplace(page) => {
                    bench.guest.put(0x1000, &[u64::from(DOMID_SELF), page]);
                    bench.call(hypercall::MEMORY_OP, &[15, 0x1000])
                }
                Step::Move(vcpu, page) => {
                    bench.guest.put(0x100, &[page, 0]);
                    bench.call(hypercall::VCPU_OP, &[10, vcpu.into(), 0x100])
                }
            };
            prop_assert!(result >= -95);
            let memory = bench.domain.reservation();
            prop_assert_eq!(memory.audit(), Ok(()));
            prop_assert_eq!(memory.current() + memory.ballooned(), MAXIMUM);
            // What Xen keeps is not the domain's memory.
            prop_assert!(bench.host.shared_info.is_none_or(|page| !memory.has(page)));
            prop_assert!(bench.host.frames.iter().all(|page| !memory.has(*page)));
        }
    }

    #[test]
    fn any_call_is_survived(calls in proptest::collection::vec((0u64..56, any::<[u64; 6]>(), 0u64..40, any::<bool>()), 1..60), noise in proptest::collection::vec(any::<u8>(), 4096)) {
        let mut bench = Bench::new();
        bench.guest.write(0, &noise).unwrap();
        for (number, mut args, small, low) in calls {
            if low {
                args[0] = small;
                args[1] %= 0x1000;
                args[2] %= 4;
            }
            let answer = bench.answer(number, &args);
            prop_assert!(answer.result >= -95);
        }
    }
}
