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

pub(super) fn run(args: &MergeArgs) -> Result<ExitCode, Failure> {
    let mut results: Vec<CaseResult> = Vec::new();
    let mut homes = BTreeMap::new();
    for folder in &args.folders {
        let found = schedule::journal(folder)
            .map_err(|e| usage(format!("cannot read the results in {}: {e}", folder.display())))?;
        let folder = folder
            .canonicalize()
            .map_err(|e| usage(format!("cannot use folder {}: {e}", folder.display())))?;
        for mut result in found {
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
            results.push(result);
        }
    }
    results.sort_by(|a, b| a.id.cmp(&b.id));
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
