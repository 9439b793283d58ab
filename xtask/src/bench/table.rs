//! Medians and ratios.

use super::record::{Failure, Log, Run, Scenario, Unpack, Vmm};
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

/// One figure of all programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    name: String,
    unit: Unit,
    medians: BTreeMap<Vmm, u64>,
    /// daxvisor's median divided by the other's: below 1 is better.
    ratios: BTreeMap<Vmm, f64>,
    /// How many runs a median is of.
    ended: BTreeMap<Vmm, usize>,
    /// How many runs exceeded a limit; they are part of no median.
    did_not_end: BTreeMap<Vmm, usize>,
    /// How many runs failed otherwise.
    failed: BTreeMap<Vmm, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Unit {
    Nanoseconds,
    Bytes,
    Count,
}

impl<'a> Report<'a> {
    /// Orders `runs` into rows.
    pub fn new(machine: &'a str, kernel: &'a str, runs: &'a [Run]) -> Self {
        let mut groups: BTreeMap<(&Scenario, &str), BTreeMap<Vmm, Vec<u64>>> = BTreeMap::new();
        for run in runs {
            for (name, value) in &run.figures {
                groups
                    .entry((&run.job.scenario, name))
                    .or_default()
                    .entry(run.job.vmm)
                    .or_default()
                    .push(*value);
            }
        }
        let rows = groups
            .into_iter()
            .map(|((scenario, name), values)| Row::new(scenario, name, values, runs));
        Self {
            machine,
            kernel,
            rows: rows.collect(),
            runs,
        }
    }
}

impl Row {
    fn new(scenario: &Scenario, name: &str, values: BTreeMap<Vmm, Vec<u64>>, runs: &[Run]) -> Self {
        let ended = values.iter().map(|(vmm, values)| (*vmm, values.len())).collect();
        let (mut did_not_end, mut failed) = (BTreeMap::new(), BTreeMap::new());
        for run in runs.iter().filter(|run| run.job.scenario == *scenario) {
            let counts = match run.failure {
                None => continue,
                Some(Failure::DidNotEnd(_)) => &mut did_not_end,
                Some(Failure::Failed(_)) => &mut failed,
            };
            *counts.entry(run.job.vmm).or_default() += 1;
        }
        let medians: BTreeMap<_, _> = values.into_iter().map(|(vmm, values)| (vmm, median(values))).collect();
        let ours = medians.get(&Vmm::Daxvisor).copied();
        let ratio = |(vmm, theirs): (&Vmm, &u64)| Some((*vmm, as_float(ours?) / as_float(*theirs)));
        let others = medians
            .iter()
            .filter(|(vmm, theirs)| **vmm != Vmm::Daxvisor && **theirs > 0);
        let unit = match name {
            n if n.starts_with("exec") => Unit::Nanoseconds,
            n if n.starts_with("memory") => Unit::Bytes,
            _ => Unit::Count,
        };
        Self {
            name: format!("{name}, {}", label(scenario)),
            unit,
            ratios: others.filter_map(ratio).collect(),
            medians,
            ended,
            did_not_end,
            failed,
        }
    }

    /// A program's cell: its median, or what became of it.
    fn cell(&self, vmm: Vmm) -> String {
        match self.medians.get(&vmm) {
            Some(median) => show(*median, self.unit),
            None if self.did_not_end.contains_key(&vmm) => "did not end".into(),
            None if self.failed.contains_key(&vmm) => "failed".into(),
            None => "-".into(),
        }
    }

    /// Runs that ended, by program that was tried: one number where all are equal.
    fn counts(&self) -> String {
        let tried = |vmm: &&Vmm| {
            let sets = [&self.ended, &self.did_not_end, &self.failed];
            sets.iter().any(|counts| counts.contains_key(vmm))
        };
        let of = |vmm| self.ended.get(vmm).copied().unwrap_or(0);
        let all: Vec<_> = Vmm::ALL.iter().filter(tried).map(of).collect();
        match all.split_first() {
            Some((first, rest)) if rest.iter().all(|n| n == first) => first.to_string(),
            _ => all.iter().map(usize::to_string).collect::<Vec<_>>().join("/"),
        }
    }
}

fn label(scenario: &Scenario) -> String {
    let log = |log: &Log| if *log == Log::Quiet { "quiet" } else { "full log" }.to_owned();
    match scenario {
        Scenario::Start { gib } => format!("{gib} GiB"),
        Scenario::Boot { log: l } | Scenario::Count { log: l } => log(l),
        Scenario::Unpack { kernel, how } => {
            let how = match how {
                Unpack::Vmlinux => "vmlinux",
                Unpack::Monitor => "bzImage unpacked by daxvisor",
                Unpack::Guest => "bzImage unpacked by the guest",
            };
            format!("{kernel} as {how}")
        }
    }
}

/// The middle one; the lower of two.
pub(super) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^53")]
pub(super) fn as_float(value: u64) -> f64 {
    value as f64
}

fn show(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds => format!("{:.1} ms", as_float(value) / 1e6),
        Unit::Bytes => format!("{:.1} MiB", as_float(value) / 1_048_576.0),
        Unit::Count => value.to_string(),
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Medians on: {}; guest {}. Ratio: daxvisor / other.\n",
            self.machine, self.kernel
        )?;
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        write!(f, "{:width$}", "")?;
        for vmm in Vmm::ALL {
            write!(f, " {vmm:>13}")?;
        }
        writeln!(f, " {:>8} {:>8} {:>5}", "/microvm", "/q35", "ended")?;
        for row in &self.rows {
            write!(f, "{:width$}", row.name)?;
            for vmm in Vmm::ALL {
                write!(f, " {:>13}", row.cell(vmm))?;
            }
            for vmm in [Vmm::QemuMicrovm, Vmm::QemuQ35] {
                write!(
                    f,
                    " {:>8}",
                    row.ratios.get(&vmm).map_or("-".into(), |r| format!("{r:.3}"))
                )?;
            }
            writeln!(f, " {:>5}", row.counts())?;
        }
        for run in self.runs.iter().filter(|run| run.failure.is_some()) {
            let then = if run.job.attempt == 1 {
                "tried once more"
            } else {
                "given up, in later rounds too"
            };
            writeln!(
                f,
                "no figure: round {}, {}, {} ({then}): {}",
                run.job.round,
                run.job.vmm,
                label(&run.job.scenario),
                run.failure.as_ref().map(Failure::to_string).unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::Job;

    fn run(round: u32, vmm: Vmm, value: Option<u64>) -> Run {
        let figures = value.map(|v| ("exec to init".to_owned(), v)).into_iter().collect();
        Run {
            job: Job {
                round,
                vmm,
                scenario: Scenario::Boot { log: Log::Quiet },
                attempt: 1,
            },
            figures,
            failure: value
                .is_none()
                .then(|| Failure::DidNotEnd("not there after 4s".to_owned())),
        }
    }

    #[test]
    fn medians_and_ratios_are_of_the_runs_that_ended_and_the_others_are_told() {
        let mut runs = vec![run(1, Vmm::QemuQ35, None)];
        for (round, factor) in [(1, 3), (2, 1), (3, 2)] {
            runs.push(run(round, Vmm::Daxvisor, Some(factor * 1_000_000)));
            runs.push(run(round, Vmm::QemuMicrovm, Some(factor * 4_000_000)));
        }
        let report = Report::new("a machine", "a kernel", &runs);
        assert_eq!(report.rows[0].medians[&Vmm::Daxvisor], 2_000_000);
        assert_eq!(report.rows[0].ratios[&Vmm::QemuMicrovm], 0.25);
        let text = report.to_string();
        assert!(
            text.contains("exec to init, quiet        2.0 ms        8.0 ms   did not end    0.250        - 3/3/0"),
            "{text}"
        );
        assert!(
            text.contains("no figure: round 1, QEMU q35, quiet (tried once more): did not end: not there after 4s"),
            "{text}"
        );
        let json = serde_json::to_value(&report).unwrap();
        let row = &json["rows"][0];
        assert_eq!(row["did-not-end"], serde_json::json!({ "qemu-q35": 1 }));
        assert_eq!(row["medians"].get("qemu-q35"), None);
    }

    #[test]
    fn a_hang_is_no_part_of_the_median_of_the_runs_that_ended() {
        let runs = [
            run(1, Vmm::QemuQ35, None),
            run(1, Vmm::QemuQ35, Some(5_000_000)),
            run(1, Vmm::Daxvisor, Some(1_000_000)),
            run(1, Vmm::QemuMicrovm, Some(2_000_000)),
        ];
        let report = Report::new("a machine", "a kernel", &runs);
        let row = &report.rows[0];
        assert_eq!((row.medians[&Vmm::QemuQ35], row.ended[&Vmm::QemuQ35]), (5_000_000, 1));
        assert_eq!(row.did_not_end[&Vmm::QemuQ35], 1);
        assert_eq!(row.counts(), "1");
    }
}
