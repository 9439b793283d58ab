//! docs/poison-matrix.md has what the table promises, row by row.

use guest_tests::matrix::{KERNELS, ROWS};
use std::fs;

#[test]
fn page_is_what_is_promised() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/poison-matrix.md");
    let page = fs::read_to_string(path).expect("docs/poison-matrix.md, which `cargo xtask poison-matrix` writes");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
    let head = format!("| memory | the error is | who meets it | {} |", KERNELS.join(" | "));
    let mut promised = vec![head, "|---|---|---|---|---|".to_owned()];
    promised.extend(ROWS.iter().map(|row| {
        let [first, second] = row.outcomes;
        format!(
            "| {} | {} | {} | {first} | {second} |",
            row.memory, row.state, row.consumer
        )
    }));
    assert_eq!(rows, promised, "hint: run `cargo xtask poison-matrix`");
}

#[test]
fn rows_have_names_of_their_own() {
    let mut ids: Vec<_> = ROWS.iter().map(|row| row.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ROWS.len());
}
