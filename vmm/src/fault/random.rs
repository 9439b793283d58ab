//! Bad lines at random, the same ones for the same seed.

use devices::{
    nvdimm::media::LINE,
    units::{Gpa, GpaRange},
};
use std::collections::BTreeSet;

/// `count` different lines of `memory`, each as likely as any other, in address order; none: they are more than half of all lines
/// that there are.
pub fn lines_at_random(memory: &[GpaRange], count: u32, seed: u64) -> Option<Vec<GpaRange>> {
    let lines = |range: &GpaRange| range.len / LINE;
    let total: u64 = memory.iter().map(lines).sum();
    if u64::from(count) > total / 2 {
        return None;
    }
    let mut state = seed;
    let mut chosen = BTreeSet::new();
    while chosen.len() < count as usize {
        chosen.insert(next(&mut state) % total);
    }
    let line = |mut number: u64| {
        let within = memory.iter().find(|range| {
            let here = number < lines(range);
            number -= if here { 0 } else { lines(range) };
            here
        })?;
        Some(GpaRange::new(Gpa(within.start.0 + number * LINE), LINE))
    };
    let mut all: Vec<GpaRange> = chosen.into_iter().filter_map(line).collect();
    all.sort_unstable();
    Some(all)
}

/// A number (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_different_within_memory_and_the_same_for_a_seed() {
        let memory = [
            GpaRange::new(Gpa(0x10_0000), 0x1000),
            GpaRange::new(Gpa(0x1_0000_0000), 0x3000),
        ];
        let lines = lines_at_random(&memory, 128, 1).unwrap();
        assert_eq!(lines.len(), 128);
        assert!(lines.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        let within = |line: &GpaRange| {
            memory.iter().any(|range| range.contains(line.start))
                && line.start.0.is_multiple_of(LINE)
                && line.len == LINE
        };
        assert!(lines.iter().all(within));
        assert!(
            memory
                .iter()
                .all(|range| lines.iter().any(|line| range.contains(line.start)))
        );
        assert_eq!(lines_at_random(&memory, 128, 1), Some(lines.clone()));
        assert_ne!(lines_at_random(&memory, 128, 2), Some(lines));
        assert_eq!(lines_at_random(&memory, 129, 1), None);
        assert_eq!(lines_at_random(&[], 1, 1), None);
    }

    /// The reference implementation's first numbers for this seed.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| next(&mut state)).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
