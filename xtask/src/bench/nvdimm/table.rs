//! Medians and ratios of both programs.

use super::{Run, Vmm};
use crate::bench::table::{as_float, median};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// All that is told of a bench.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    machine: &'a str,
    kernel: &'a str,
    rows: Vec<Row>,
    runs: &'a [Run],
}

/// One figure of both programs.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    medians: BTreeMap<Vmm, u64>,
    /// daxvisor's median divided by QEMU's: below 1 is better.
    ratio: Option<f64>,
    /// How many runs a median is of.
    runs: BTreeMap<Vmm, usize>,
}

impl<'a> Report<'a> {
    /// Orders `runs` into rows.
    pub fn new(machine: &'a str, kernel: &'a str, runs: &'a [Run]) -> Self {
        let mut rows: BTreeMap<&str, BTreeMap<Vmm, Vec<u64>>> = BTreeMap::new();
        for run in runs {
            for (name, value) in &run.figures {
                rows.entry(name).or_default().entry(run.vmm).or_default().push(*value);
            }
        }
        let row = |(name, values): (&str, BTreeMap<Vmm, Vec<u64>>)| {
            let runs = values.iter().map(|(vmm, values)| (*vmm, values.len())).collect();
            let medians: BTreeMap<_, _> = values.into_iter().map(|(vmm, values)| (vmm, median(values))).collect();
            let of = |vmm| medians.get(&vmm).map(|value: &u64| as_float(*value));
            let ratio = of(Vmm::Daxvisor).zip(of(Vmm::Qemu)).map(|(ours, theirs)| ours / theirs);
            Row {
                name: name.to_owned(),
                ratio: ratio.filter(|ratio| ratio.is_finite()),
                medians,
                runs,
            }
        };
        Self {
            machine,
            kernel,
            rows: rows.into_iter().map(row).collect(),
            runs,
        }
    }
}

fn show(name: &str, value: u64) -> String {
    match value {
        n if name.contains("exits") => n.to_string(),
        ns if ns < 1_000_000 => format!("{:.1} us", as_float(ns) / 1e3),
        ns => format!("{:.1} ms", as_float(ns) / 1e6),
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Medians on: {}; guest {}. Ratio: daxvisor / QEMU.\n",
            self.machine, self.kernel
        )?;
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$} {:>12} {:>12} {:>8}  runs",
            "",
            Vmm::Daxvisor,
            Vmm::Qemu,
            "/QEMU"
        )?;
        for row in &self.rows {
            let cell = |vmm| {
                row.medians
                    .get(&vmm)
                    .map_or("-".to_owned(), |value| show(&row.name, *value))
            };
            let ratio = row.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
            let runs = |vmm| row.runs.get(&vmm).copied().unwrap_or(0);
            writeln!(
                f,
                "{:width$} {:>12} {:>12} {ratio:>8}  {}/{}",
                row.name,
                cell(Vmm::Daxvisor),
                cell(Vmm::Qemu),
                runs(Vmm::Daxvisor),
                runs(Vmm::Qemu)
            )?;
        }
        for run in self.runs {
            if let Some(failure) = &run.failure {
                writeln!(f, "round {}, {}, failed: {failure}", run.round, run.vmm)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(vmm: Vmm, figures: &[(&str, u64)], failure: Option<&str>) -> Run {
        Run {
            round: 1,
            vmm,
            figures: figures
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn rows_have_medians_and_ratios_and_failures_are_told() {
        let runs = [
            run(
                Vmm::Daxvisor,
                &[("label area read", 2_000_000), ("user exits", 0)],
                None,
            ),
            run(
                Vmm::Daxvisor,
                &[("label area read", 4_000_000), ("user exits", 0)],
                None,
            ),
            run(
                Vmm::Qemu,
                &[("label area read", 4_000_000), ("user exits", 0)],
                Some("it hung"),
            ),
        ];
        let report = Report::new("a machine", "a kernel", &runs);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["medians"]["daxvisor"], 2_000_000);
        assert_eq!(json["rows"][0]["ratio"], 0.5);
        assert_eq!(
            json["rows"][1]["ratio"],
            serde_json::Value::Null,
            "nothing divided by nothing"
        );
        let text = report.to_string();
        assert!(
            text.contains("label area read       2.0 ms       4.0 ms    0.500  2/1"),
            "{text}"
        );
        assert!(text.contains("round 1, QEMU, failed: it hung"), "{text}");
    }
}
