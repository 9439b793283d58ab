//! `cargo xtask poison-matrix`: what Linux makes of bad memory, as the tests of it have seen it in this run.
//!
//! ```text
//! tests/src/matrix.rs: rows, what is promised --> tests/tests/linux/poison*.rs --> lines `CELL: {..}` --> docs/poison-matrix.md
//! ```

use crate::{
    host,
    test::{self, Tally},
    workspace,
};
use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use serde::Deserialize;
use std::{collections::BTreeMap, fs, process::ExitCode};

/// The page.
const PAGE: &str = "docs/poison-matrix.md";
/// In the names of all tests that tell of cells.
const FILTER: &str = "poison";

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Where guests run
    #[arg(long, value_enum, default_value_t)]
    host: host::Choice,
}

/// What one test has seen, once.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Cell {
    /// Number of the row, and how many rows there are.
    row: usize,
    rows: usize,
    memory: String,
    state: String,
    consumer: String,
    kernel: String,
    /// All kernels, which are the columns.
    kernels: Vec<String>,
    outcome: String,
    expected: String,
}

/// Cells by row and column. Of a cell that was seen several times what was not expected counts.
#[derive(Debug, Default)]
struct Matrix {
    rows: usize,
    kernels: Vec<String>,
    cells: BTreeMap<(usize, usize), Cell>,
}

impl Matrix {
    fn read(lines: &[String]) -> Result<Self> {
        let mut matrix = Self::default();
        for line in lines {
            let cell: Cell = serde_json::from_str(line).with_context(|| format!("this is no cell: {line}"))?;
            if matrix.kernels.is_empty() {
                (matrix.rows, matrix.kernels) = (cell.rows, cell.kernels.clone());
            }
            let column = matrix.kernels.iter().position(|kernel| *kernel == cell.kernel);
            let column = column.with_context(|| format!("a kernel that is no column: {line}"))?;
            let old = matrix.cells.get(&(cell.row, column));
            if old.is_none_or(|old| old.outcome == old.expected) {
                matrix.cells.insert((cell.row, column), cell);
            }
        }
        Ok(matrix)
    }

    /// What keeps this from being the promised matrix: cells that nobody has seen, and those that are otherwise.
    fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        if self.cells.is_empty() {
            problems.push("no cell was seen".to_owned());
        }
        for row in 0..self.rows {
            for (column, kernel) in self.kernels.iter().enumerate() {
                match self.cells.get(&(row, column)) {
                    None => problems.push(format!("row {row} on {kernel} was not seen")),
                    Some(cell) if cell.outcome != cell.expected => problems.push(format!(
                        "{}, {}, on {kernel}: {}, expected {}",
                        cell.memory, cell.consumer, cell.outcome, cell.expected
                    )),
                    Some(_) => {}
                }
            }
        }
        problems
    }

    fn page(&self) -> String {
        let mut text = format!(
            "# The matrix of bad memory\n\nWhat Linux makes of lines that are bad: written by `cargo xtask poison-matrix` from what guests did \
             in its run. [poison.md](poison.md) has\nthe terms. Processors have AMD's name. The tests are `tests/tests/linux/poison*.rs`, \
             and fail where a cell is not what `tests/src/matrix.rs` promises.\n\n\
             | memory | the error is | who meets it | {} |\n|---|---|---|{}\n",
            self.kernels.join(" | "),
            "---|".repeat(self.kernels.len())
        );
        for row in 0..self.rows {
            let cells: Vec<_> = (0..self.kernels.len())
                .filter_map(|column| self.cells.get(&(row, column)))
                .collect();
            let Some(first) = cells.first() else { continue };
            let outcomes: Vec<_> = cells.iter().map(|cell| cell.outcome.as_str()).collect();
            text += &format!(
                "| {} | {} | {} | {} |\n",
                first.memory,
                first.state,
                first.consumer,
                outcomes.join(" | ")
            );
        }
        text
    }
}

/// A whole run of the Linux tier has seen every cell; else the tier has failed.
pub fn check(tally: &mut Tally) -> Result<()> {
    let problems = Matrix::read(&tally.cells)?.problems();
    if !problems.is_empty() {
        tally.fail("poison matrix", &format!("error: {}", problems.join("\nerror: ")));
    }
    Ok(())
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let tally = test::linux(FILTER, args.host)?;
    let matrix = Matrix::read(&tally.cells)?;
    let problems = matrix.problems();
    for problem in &problems {
        println!("FAILED: {problem}");
    }
    if tally.failed > 0 {
        bail!("{} tests failed; hint: {PAGE} is as it was", tally.failed);
    }
    ensure!(
        problems.is_empty(),
        "the matrix is not whole; hint: {PAGE} is as it was"
    );
    let path = workspace::root().join(PAGE);
    fs::write(&path, matrix.page()).with_context(|| format!("cannot write {PAGE}"))?;
    println!("{PAGE}: {} cells of {} tests", matrix.cells.len(), tally.passed);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(row: usize, kernel: &str, outcome: &str) -> String {
        format!(
            r#"{{"row": {row}, "rows": 2, "memory": "RAM", "state": "latent", "consumer": "row {row}", "kernel": "{kernel}",
                "kernels": ["a", "b"], "outcome": "{outcome}", "expected": "killed"}}"#
        )
    }

    #[test]
    fn cells_that_are_missing_or_otherwise_are_told() {
        let whole: Vec<_> = [(0, "a"), (0, "b"), (1, "b"), (1, "a")]
            .map(|(row, kernel)| cell(row, kernel, "killed"))
            .into();
        assert_eq!(Matrix::read(&whole).unwrap().problems(), Vec::<String>::new());
        assert_eq!(
            Matrix::read(&whole[..3]).unwrap().problems(),
            ["row 1 on a was not seen"]
        );
        assert_eq!(Matrix::read(&[]).unwrap().problems(), ["no cell was seen"]);
        // Seen twice, and once otherwise.
        let odd = [cell(0, "a", "fine")];
        for lines in [[&whole[..], &odd].concat(), [&odd, &whole[..]].concat()] {
            let problems = Matrix::read(&lines).unwrap().problems();
            assert_eq!(problems, ["RAM, row 0, on a: fine, expected killed"]);
        }
        assert!(Matrix::read(&[cell(0, "c", "killed")]).is_err());
    }

    #[test]
    fn page_has_a_row_for_each() {
        let lines: Vec<_> = [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
            .map(|(row, kernel)| cell(row, kernel, "killed"))
            .into();
        let page = Matrix::read(&lines).unwrap().page();
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            rows,
            [
                "| memory | the error is | who meets it | a | b |",
                "|---|---|---|---|---|",
                "| RAM | latent | row 0 | killed | killed |",
                "| RAM | latent | row 1 | killed | killed |"
            ]
        );
    }
}
