//! `daxvisor test merge`: the results of several folders as one.

use super::{
    super::{ExitCode, Failure},
    output::Reports,
    usage,
};
use crate::boottest::{
    schedule,
    verdict::{CaseResult, exit_code},
};
use clap::Args;
use std::{collections::BTreeMap, fs, path::PathBuf};

#[derive(Args)]
pub(super) struct MergeArgs {
    /// Folders of results: what --out of the runs says
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Folder for results.json of all of them
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    reports: Reports,
    /// End with 125 instead of 3, for `git bisect run`
    #[arg(long)]
    bisect: bool,
}

/// Results in the order of the plan, the folder that each is in, and those that no folder has as errors.
struct Merged {
    results: Vec<CaseResult>,
    homes: BTreeMap<String, PathBuf>,
}

fn merge(folders: &[PathBuf]) -> Result<Merged, Failure> {
    let (mut plan, mut found) = (Vec::<CaseResult>::new(), BTreeMap::new());
    let mut homes: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in folders {
        let bad = |e| usage(format!("cannot read the results in {}: {e}", folder.display()));
        let folder = folder.canonicalize().map_err(bad)?;
        for case in schedule::plan(&folder).map_err(bad)? {
            if plan.iter().all(|known| known.id != case.id) {
                plan.push(case);
            }
        }
        for mut result in schedule::journal(&folder).map_err(bad)? {
            if let Some(home) = homes.insert(result.id.clone(), folder.clone()) {
                let hint = "hint: merge the shards of one run";
                return Err(usage(format!(
                    "{} is in {} and in {}; {hint}",
                    result.id,
                    home.display(),
                    folder.display()
                )));
            }
            result.folder = folder.join(&result.folder).display().to_string();
            found.insert(result.id.clone(), result);
        }
    }
    let results = plan.into_iter().map(|blank| found.remove(&blank.id).unwrap_or(blank));
    Ok(Merged {
        results: results.collect(),
        homes,
    })
}

pub(super) fn run(args: &MergeArgs) -> Result<ExitCode, Failure> {
    let Merged { results, homes } = merge(&args.folders)?;
    fs::create_dir_all(&args.out).map_err(|e| usage(format!("cannot make folder {}: {e}", args.out.display())))?;
    let infrastructure = |why: String| {
        Failure::new(
            ExitCode::PassedOn(if args.bisect { 125 } else { 3 }),
            anyhow::anyhow!(why),
        )
    };
    args.reports
        .write(&results, &args.out, &homes)
        .map_err(infrastructure)?;
    Ok(ExitCode::PassedOn(exit_code(&results, args.bisect)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boottest::{
        case::Results,
        verdict::{Verdict, tests::result},
    };

    /// A folder with the journal of some cases out of three.
    fn shard(results: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let blank = |id| result(id, Verdict::Error);
        let plan = Results::new(["s/c@k", "s/a@k", "s/b@k"].map(blank).to_vec());
        fs::write(dir.path().join(schedule::PLAN), serde_json::to_vec(&plan).unwrap()).unwrap();
        let line = |id: &&str| serde_json::to_string(&result(id, Verdict::Pass)).unwrap() + "\n";
        let journal: String = results.iter().map(line).collect();
        fs::write(dir.path().join(schedule::JOURNAL), journal).unwrap();
        dir
    }

    #[test]
    fn a_shard_that_is_missing_is_missed() {
        let (one, two) = (shard(&["s/a@k"]), shard(&["s/c@k"]));
        let merged = merge(&[one.path().to_owned(), two.path().to_owned()]).unwrap();
        let all: Vec<_> = merged.results.iter().map(|r| (r.id.as_str(), r.verdict)).collect();
        assert_eq!(
            all,
            [
                ("s/c@k", Verdict::Pass),
                ("s/a@k", Verdict::Pass),
                ("s/b@k", Verdict::Error)
            ]
        );
        assert_eq!(exit_code(&merged.results, false), 3);
        assert!(merged.results[0].folder.starts_with(two.path().to_str().unwrap()));
    }

    #[test]
    fn one_case_in_two_folders_is_a_mistake() {
        let (one, two) = (shard(&["s/a@k"]), shard(&["s/a@k"]));
        let refused = merge(&[one.path().to_owned(), two.path().to_owned()]);
        assert!(refused.is_err_and(|e| e.sentence().contains("s/a@k is in ")));
    }
}
