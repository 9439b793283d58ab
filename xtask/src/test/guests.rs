//! Tiers whose tests run guests: their programs run one after another, here or all in one nested host.

use super::{
    Tally, Tier,
    executables::Executable,
    output::Reader,
    runner::{self, List},
};
use crate::{
    host::{self, Place},
    process, workspace,
};
use anyhow::{Context, Result};
use std::{env, fs, io};

/// Most that a whole tier may take; each test has shorter deadlines of its own.
const LIMIT_SECONDS: u64 = 25 * 60;

/// Runs `executables` there.
pub fn run(tier: Tier, place: Place, executables: &[Executable], filter: Option<&str>) -> Result<Tally> {
    if executables.is_empty() {
        return Ok(Tally::default());
    }
    let mut reader = Reader::default();
    let mut left = executables.to_vec();
    for attempt in 1.. {
        let ended = run_once(tier, place, &left, filter, &mut reader)?;
        left.retain(|e| !ended.names.contains(&e.name));
        if ended.code != Some(host::HOST_FAILED) || place == Place::Here {
            // Nothing is left of a list that was run to its end.
            break;
        }
        let names: Vec<_> = left.iter().map(|e| e.name.as_str()).collect();
        if attempt == 2 {
            println!("the nested host failed a second time");
            break;
        }
        println!(
            "RETRY: the nested host failed, which says nothing of the tests: again from {}",
            names.join(", ")
        );
    }
    for executable in &left {
        let why = "error: it did not run to its end: the host failed, or the tier's time was over";
        reader.tally.fail(&executable.name, why);
    }
    Ok(reader.tally)
}

/// How a list ended.
struct Ended {
    /// Programs that ran to their end, whatever the result.
    names: Vec<String>,
    code: Option<i32>,
}

fn run_once(
    tier: Tier,
    place: Place,
    executables: &[Executable],
    filter: Option<&str>,
    reader: &mut Reader,
) -> Result<Ended> {
    let scratch = workspace::scratch(tier.name())?;
    let list = List {
        executables: executables.to_vec(),
        filter: filter.map(str::to_owned),
        limit_seconds: LIMIT_SECONDS,
        serial: tier == Tier::Nested,
    };
    let path = scratch.join("tests.json");
    fs::write(&path, serde_json::to_vec(&list)?).with_context(|| format!("cannot write {}", path.display()))?;
    let own = env::current_exe().context("cannot find this program")?;
    // Tests may write to cargo's folder for that; the sources are read-only in the nested host.
    let writable = workspace::target().join("tmp");
    fs::create_dir_all(&writable).with_context(|| format!("cannot make folder {}", writable.display()))?;
    let daxvisor = workspace::daxvisor(false);
    let mut command = host::command(place, &daxvisor, &[&writable], LIMIT_SECONDS + 60, &own);
    command.arg("run-tests").arg(&path).current_dir(&scratch);
    command
        .env("DAXVISOR_BIN", &daxvisor)
        .env("INSTA_UPDATE", "no")
        .env_remove("DAXVISOR_BLESS");
    let mut names = Vec::new();
    // Counts of a program that the host took down with it are not of a whole run.
    let mut one = Reader::default();
    let status = process::listen(&mut command, &mut io::stdout(), |line| match runner::ended(line) {
        None => one.line(line),
        Some((name, success)) => {
            one.ended(name, success, 0);
            reader.tally.add(std::mem::take(&mut one).tally);
            names.push(name.to_owned());
        }
    })?;
    Ok(Ended {
        names,
        code: status.code(),
    })
}
