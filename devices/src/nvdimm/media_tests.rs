use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const GUEST: Mark = Mark {
    source: ErrorSource::Guest,
    state: ErrorState::Known,
};
const HOST: Mark = Mark {
    source: ErrorSource::Host,
    state: ErrorState::Latent,
};

/// Starts and ends of the runs.
fn runs(media: &MediaState, dpas: Range<u64>, state: ErrorState) -> Vec<(u64, u64)> {
    media.runs(dpas, state).iter().map(|run| (run.start, run.end)).collect()
}

fn list(state: &MediaState) -> Vec<(u64, u64, ErrorSource, ErrorState)> {
    state.ranges().map(|r| (r.dpa.0, r.len, r.source, r.state)).collect()
}

#[test]
fn ranges_are_whole_lines_and_neighbours_are_one() {
    let mut media = MediaState::default();
    media.mark(0x101..0x102, GUEST).unwrap();
    media.mark(0x140..0x180, GUEST).unwrap();
    media.mark(0x200..0x201, GUEST).unwrap();
    let (guest, known) = (ErrorSource::Guest, ErrorState::Known);
    assert_eq!(list(&media), [(0x100, 0x80, guest, known), (0x200, 0x40, guest, known)]);
    media.mark(0x180..0x200, GUEST).unwrap();
    assert_eq!(list(&media), [(0x100, 0x140, guest, known)]);
    media.clear(0x17f..0x181).unwrap();
    assert_eq!(list(&media), [(0x100, 0x40, guest, known), (0x1c0, 0x80, guest, known)]);
}

#[test]
fn marks_add_up_and_only_the_guests_are_taken_back() {
    let mut media = MediaState::default();
    media.mark(0..0x100, GUEST).unwrap();
    media.mark(0x80..0x180, HOST).unwrap();
    let expected = [
        (0, 0x80, ErrorSource::Guest, ErrorState::Known),
        (0x80, 0x80, ErrorSource::Host, ErrorState::Known),
        (0x100, 0x80, ErrorSource::Host, ErrorState::Latent),
    ];
    assert_eq!(list(&media), expected);
    media.take_back(0..0x1000, ErrorSource::Guest).unwrap();
    assert_eq!(list(&media), expected[1..]);
    assert_eq!(runs(&media, 0..0x1000, ErrorState::Known), [(0x80, 0x100)]);
    assert_eq!(runs(&media, 0x90..0x170, ErrorState::Latent), [(0x90, 0x170)]);
    media.discover(0..0x1000);
    assert_eq!(list(&media), [(0x80, 0x100, ErrorSource::Host, ErrorState::Known)]);
}

#[test]
fn only_changes_count() {
    let mut media = MediaState::default();
    media.clear(0..0x1000).unwrap();
    media.mark(0x40..0x40, GUEST).unwrap();
    assert_eq!(media.changes(), 0);
    media.mark(0..1, GUEST).unwrap();
    media.mark(0..1, GUEST).unwrap();
    media.discover(0..0x40);
    assert_eq!(media.changes(), 1);
    media.clear(0..1).unwrap();
    assert_eq!((media.changes(), media.is_empty()), (2, true));
}

#[test]
fn number_of_ranges_is_bounded_and_a_refused_change_changes_nothing() {
    let mut media = MediaState::default();
    for n in 0..MAX_RANGES as u64 - 1 {
        media.mark(n * 128..n * 128 + 64, GUEST).unwrap();
    }
    media.mark(1 << 30..(1 << 30) + 192, GUEST).unwrap();
    let before = media.clone();
    assert_eq!(media.mark(1 << 40..(1 << 40) + 1, GUEST), Err(MediaFull));
    let hole = (1 << 30) + 64..(1 << 30) + 128;
    assert_eq!(media.clear(hole.clone()), Err(MediaFull));
    assert_eq!((&media, media.changes()), (&before, before.changes()));
    // Closing a gap makes room for the hole.
    media.mark(64..128, GUEST).unwrap();
    media.clear(hole).unwrap();
    assert_eq!(media.ranges().count(), MAX_RANGES);
}

#[test]
fn found_error_is_known_even_when_there_is_no_room_for_a_range_more() {
    let mut media = MediaState::default();
    for n in 0..MAX_RANGES as u64 {
        media.mark(n * 256..n * 256 + 192, HOST).unwrap();
    }
    media.discover(64..128);
    assert_eq!(runs(&media, 0..1024, ErrorState::Known), [(0, 192)]);
    assert_eq!(media.ranges().count(), MAX_RANGES);
}

#[test]
fn extremes_of_the_address_space_are_survived() {
    let mut media = MediaState::default();
    media.mark(0..u64::MAX, HOST).unwrap();
    media.discover(u64::MAX - 1..u64::MAX);
    media.clear(1 << 63..u64::MAX).unwrap();
    assert_eq!(list(&media), [(0, 1 << 63, ErrorSource::Host, ErrorState::Latent)]);
}

fn range(dpa: u64, len: u64) -> BadRange {
    BadRange {
        dpa: Dpa(dpa),
        len,
        source: ErrorSource::Host,
        state: ErrorState::Known,
    }
}

#[test]
fn nonsense_is_not_read_as_a_state() {
    let good = MediaState::try_from(vec![range(0, 64), range(64, 64), range(256, 128)]).unwrap();
    assert_eq!(Vec::from(good), [range(0, 128), range(256, 128)]);
    for bad in [
        vec![range(1, 64)],
        vec![range(0, 63)],
        vec![range(0, 0)],
        vec![range(64, 64), range(0, 64)],
        vec![range(0, 128), range(64, 64)],
        vec![range(u64::MAX - 63, 64)],
        (0..=MAX_RANGES as u64).map(|n| range(n * 128, 64)).collect(),
    ] {
        let text = bad.last().unwrap();
        let error = MediaState::try_from(bad.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("{:#x}", text.dpa.0)), "{error}");
    }
}

#[derive(Debug, Clone)]
enum Change {
    Mark(Mark),
    Clear,
    TakeBack(ErrorSource),
    Discover,
}

fn marks() -> impl Strategy<Value = Mark> {
    let source = prop::sample::select(vec![ErrorSource::Guest, ErrorSource::Host, ErrorSource::Backing]);
    let state = prop::sample::select(vec![ErrorState::Latent, ErrorState::Known]);
    (source, state).prop_map(|(source, state)| Mark { source, state })
}

fn changes() -> impl Strategy<Value = Vec<(u64, u64, Change)>> {
    let change = prop_oneof![
        4 => marks().prop_map(Change::Mark),
        1 => Just(Change::Clear),
        1 => marks().prop_map(|m| Change::TakeBack(m.source)),
        1 => Just(Change::Discover),
    ];
    prop::collection::vec((0u64..2000, 0u64..600, change), 0..40)
}

/// The same, a line at a time.
fn line_by_line(changes: &[(u64, u64, Change)]) -> BTreeMap<u64, Mark> {
    let mut bad = BTreeMap::new();
    for (start, len, change) in changes {
        let lines = if *len == 0 {
            0..0
        } else {
            start / LINE..(start + len).div_ceil(LINE)
        };
        for line in lines {
            let old = bad.remove(&line);
            let new = match change {
                Change::Mark(mark) => Some(old.map_or(*mark, |o: Mark| o.and(*mark))),
                Change::Clear => None,
                Change::TakeBack(source) => old.filter(|o| o.source != *source),
                Change::Discover => old.map(|o| Mark::known(o.source)),
            };
            bad.extend(new.map(|mark| (line, mark)));
        }
    }
    bad
}

proptest! {
    #[test]
    fn ranges_are_what_their_lines_are(changes in changes()) {
        let mut media = MediaState::default();
        for (start, len, change) in &changes {
            let dpas = *start..start + len;
            match change {
                Change::Mark(mark) => media.mark(dpas, *mark),
                Change::Clear => media.clear(dpas),
                Change::TakeBack(source) => media.take_back(dpas, *source),
                Change::Discover => {
                    media.discover(dpas);
                    Ok(())
                }
            }.unwrap();
        }
        let lines = line_by_line(&changes);
        let mut found = BTreeMap::new();
        let mut last: Option<BadRange> = None;
        for range in media.ranges() {
            if let Some(last) = last {
                prop_assert!(last.dpa.0 + last.len <= range.dpa.0);
                let same = (last.source, last.state) == (range.source, range.state);
                prop_assert!(!same || last.dpa.0 + last.len < range.dpa.0, "neighbours are not one");
            }
            last = Some(range);
            for line in range.dpa.0 / LINE..(range.dpa.0 + range.len) / LINE {
                found.insert(line, Mark { source: range.source, state: range.state });
            }
        }
        prop_assert_eq!(&found, &lines);
        for state in [ErrorState::Latent, ErrorState::Known] {
            let runs = media.runs(128..1920, state);
            let in_runs = |line: u64| runs.iter().any(|run| run.contains(&(line * LINE)));
            for line in 2..30 {
                prop_assert_eq!(in_runs(line), lines.get(&line).is_some_and(|m| m.state >= state));
            }
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
        let again = MediaState::try_from(Vec::from(media.clone())).unwrap();
        prop_assert_eq!(again, media);
    }

    #[test]
    fn order_of_marks_does_not_matter(all in prop::collection::vec((0u64..2000, 1u64..600, marks()), 0..12), turn in any::<prop::sample::Index>()) {
        let mark = |order: &[(u64, u64, Mark)]| {
            let mut media = MediaState::default();
            for (start, len, mark) in order {
                media.mark(*start..start + len, *mark).unwrap();
            }
            media
        };
        let mut other = all.clone();
        other.reverse();
        if !other.is_empty() {
            let by = turn.index(other.len());
            other.rotate_left(by);
        }
        prop_assert_eq!(mark(&all), mark(&other));
    }
}
