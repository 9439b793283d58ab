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
const LIMIT_SECONDS: u64 = 50 * 60;
/// Nested hosts of a tier, failures included: where so many fail, something else is wrong.
const MOST_HOSTS: usize = 4;
/// Boots of a tier that may have had a second try. More than that is not bad luck: it is a failure, whatever the tests say.
const MOST_RETRIES: usize = 5;

/// Runs `executables` there.
pub fn run(tier: Tier, place: Place, executables: &[Executable], filter: Option<&str>) -> Result<Tally> {
    if executables.is_empty() {
        return Ok(Tally::default());
    }
    let mut reader = Reader::default();
    let mut left = executables.to_vec();
    let mut failures = Failures::default();
    loop {
        let ended = run_once(tier, place, &left, filter, &mut reader)?;
        left.retain(|e| !ended.names.contains(&e.name));
        if ended.code != Some(host::HOST_FAILED) || place == Place::Here {
            // Nothing is left of a list that was run to its end.
            break;
        }
        let names: Vec<_> = left.iter().map(|e| e.name.as_str()).collect();
        match failures.next(&names) {
            Next::Again => {
                let what = format!(
                    "the nested host failed, which says nothing of the tests: again from {}",
                    names.first().unwrap_or(&"nothing")
                );
                println!("RETRY: {what}");
                reader.tally.retries.push(what);
            }
            Next::Without(name) => {
                println!("the nested host failed a second time in {name}");
                let why = "error: the nested host failed twice while it ran";
                reader.tally.fail(&name, why);
                left.retain(|e| e.name != name);
            }
            Next::End => {
                println!("the nested host failed again, and no other is started");
                break;
            }
        }
    }
    for executable in &left {
        let why = "error: it did not run to its end: the host failed, or the tier's time was over";
        reader.tally.fail(&executable.name, why);
    }
    if let Some(why) = too_many(&reader.tally) {
        reader.tally.fail("retries", &why);
    }
    Ok(reader.tally)
}

/// Says why the retries of a tier are a failure, if they are.
fn too_many(tally: &Tally) -> Option<String> {
    let retries = tally.retries.len();
    (retries > MOST_RETRIES).then(|| {
        format!("error: {retries} boots were tried a second time, and at most {MOST_RETRIES} of a tier may be; hint: look for what they have in common")
    })
}

/// Hosts that have failed, by the program that each of them was in.
#[derive(Default)]
struct Failures(Vec<String>);

/// What follows a host that failed.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// What is left goes to a new host, the program that was interrupted first.
    Again,
    /// So does the rest, but this program has had its second host.
    Without(String),
    /// No further host.
    End,
}

impl Failures {
    /// Programs run one after another: the first of those that are `left` is the one that the host failed in, and the only one
    /// that is run again.
    fn next(&mut self, left: &[&str]) -> Next {
        let Some(first) = left.first() else { return Next::End };
        let before = self.0.iter().any(|name| name == first);
        self.0.push((*first).to_owned());
        if self.0.len() >= MOST_HOSTS {
            return Next::End;
        }
        match before {
            true if left.len() > 1 => Next::Without((*first).to_owned()),
            true => Next::End,
            false => Next::Again,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_a_host_fails_in_is_run_once_more_and_no_other_loses_by_it() {
        let mut failures = Failures::default();
        assert_eq!(failures.next(&["a", "b", "c"]), Next::Again);
        assert_eq!(failures.next(&["b", "c"]), Next::Again, "another program's host");
        assert_eq!(failures.next(&["b", "c"]), Next::Without("b".to_owned()));
        assert_eq!(failures.next(&["c"]), Next::End, "hosts have an end");
    }

    #[test]
    fn retries_have_a_limit() {
        let mut tally = Tally {
            retries: vec!["a guest: lost".to_owned(); MOST_RETRIES],
            ..Tally::default()
        };
        assert_eq!(too_many(&tally), None);
        tally.retries.push("one more".to_owned());
        assert!(too_many(&tally).is_some_and(|why| why.contains("at most 5")));
    }

    #[test]
    fn last_program_fails_with_its_second_host() {
        let mut failures = Failures::default();
        assert_eq!(failures.next(&["a"]), Next::Again);
        assert_eq!(failures.next(&["a"]), Next::End);
        assert_eq!(Failures::default().next(&[]), Next::End);
    }
}
