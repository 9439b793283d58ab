//! docs/recipes/kubernetes.yaml: pods of an Indexed Job, each with a file system of its own, and what the Job's controller makes
//! of their ends.

use crate::{
    CASES, ERROR, NO_IMAGES, SUITE, Scratch, cases, list_at, merged, output, program, read, recipe, said, text_at,
    without_images, words, wrapper,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

/// Where the image of the recipe has its suites.
const SUITES: &str = "/suites";

/// Enters a root that has what this machine's has, and mounts of its own. Arguments: folder for the root, number of mounts,
/// (folder of this machine, its place in the root)..., then the command.
const ENTER: &str = r#"set -e
root=$1 mounts=$2
shift 2
mount -t tmpfs none "$root"
for file in /*; do
  if [ -L "$file" ]; then
    cp -P "$file" "$root$file"
  elif [ -d "$file" ]; then
    mkdir "$root$file"
    mount --rbind "$file" "$root$file"
  fi
done
while [ "$mounts" -gt 0 ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  shift 2
  mounts=$((mounts - 1))
done
exec chroot "$root" "$@"
"#;

/// What pods are made of.
struct Pods {
    files: Scratch,
    mounts: Vec<(PathBuf, String)>,
}

impl Pods {
    /// The mounts of a container: its image's suites, and a folder of this machine for each claim.
    fn new(pod: &Value, container: &Value) -> Result<Self> {
        let files = Scratch::new("kubernetes")?;
        program(&files.join("programs"), "daxvisor", &wrapper()?)?;
        fs::create_dir(files.join("root"))?;
        fs::create_dir(files.join("suites"))?;
        fs::write(files.join("suites/suite.toml"), SUITE)?;
        let mut mounts = vec![(files.join("suites"), SUITES.to_owned())];
        for mount in list_at(container, "volumeMounts")? {
            let (name, place) = (text_at(mount, "name")?, text_at(mount, "mountPath")?);
            let mut volumes = list_at(pod, "volumes")?.iter();
            let volume = volumes.find(|volume| volume["name"] == name);
            let volume = volume.with_context(|| format!("there is no volume '{name}'"))?;
            if volume["hostPath"].is_null() {
                text_at(&volume["persistentVolumeClaim"], "claimName")?;
                fs::create_dir(files.join(name))?;
                mounts.push((files.join(name), place.to_owned()));
            } else {
                // The root has this machine's devices.
                let device = &volume["hostPath"];
                ensure!(device["path"] == place && device["type"] == "CharDevice", "{volume}");
            }
        }
        Ok(Self { files, mounts })
    }

    /// The folder behind a path of pods.
    fn folder(&self, place: &str) -> Result<PathBuf> {
        let mount = self.mounts.iter().find(|(_, mount)| mount == place);
        Ok(mount
            .with_context(|| format!("nothing is mounted at {place}"))?
            .0
            .clone())
    }

    fn run(&self, command: &[String], variables: &[(&str, String)]) -> Result<Output> {
        let mut unshare = Command::new("unshare");
        without_images(&mut unshare, &self.files.join("programs"))?;
        unshare.envs(variables.iter().map(|(name, value)| (*name, value)));
        unshare.args(["--map-root-user", "--mount", "sh", "-c", ENTER, "sh"]);
        unshare.arg(self.files.join("root")).arg(self.mounts.len().to_string());
        for (folder, place) in &self.mounts {
            unshare.arg(folder).arg(place);
        }
        output(unshare.args(command))
    }
}

/// `$(NAME)` of a variable that there is becomes its value and `$$` a `$`, as Kubernetes has it; all else is the shell's.
fn expand(text: &str, variables: &[(&str, String)]) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        whole += before;
        let named = after.strip_prefix('(').and_then(|name| name.split_once(')'));
        let value = named.and_then(|(name, rest)| {
            let known = variables.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| (value, rest))
        });
        rest = match (value, after.strip_prefix('$')) {
            (Some((value, rest)), _) => {
                whole += value;
                rest
            }
            (None, escaped) => {
                whole.push('$');
                escaped.unwrap_or(after)
            }
        };
    }
    whole + rest
}

/// What becomes of an index whose pod ended so.
#[derive(Debug, PartialEq)]
enum Fate {
    Succeeded,
    Failed,
    StartedAgain,
}

fn fate(policy: &Value, container: &str, code: i32) -> Result<Fate> {
    if code == 0 {
        return Ok(Fate::Succeeded);
    }
    for rule in list_at(policy, "rules")? {
        let codes = &rule["onExitCodes"];
        ensure!(
            codes["operator"] == "In" && codes["containerName"] == container,
            "{rule}"
        );
        if list_at(codes, "values")?.contains(&code.into()) {
            ensure!(rule["action"] == "FailIndex", "{rule}");
            return Ok(Fate::Failed);
        }
    }
    Ok(Fate::StartedAgain)
}

#[test]
fn an_indexed_job_runs_a_shard_in_each_pod_and_the_command_of_the_comment_merges_them() -> Result<()> {
    let job = recipe("kubernetes.yaml")?;
    let (spec, pod) = (&job["spec"], &job["spec"]["template"]["spec"]);
    ensure!(
        spec["completionMode"] == "Indexed" && pod["restartPolicy"] == "Never",
        "{spec}"
    );
    let [container] = list_at(pod, "containers")? else {
        bail!("not one container: {pod}")
    };
    let pods = Pods::new(pod, container)?;
    let results = pods.folder("/results")?;
    let parts = spec["completions"].as_u64().context("no number of parts")?;
    let again = spec["backoffLimitPerIndex"]
        .as_u64()
        .context("no limit for each part")?;
    let mut found = Vec::new();
    for index in 0..parts {
        let variables = [("JOB_COMPLETION_INDEX", index.to_string())];
        let command = [list_at(container, "command")?, list_at(container, "args")?].concat();
        let command: Vec<_> = words(&command)?.iter().map(|word| expand(word, &variables)).collect();
        let folder = results.join(index.to_string());
        // Each of them goes on in the same folder: what ended in an error is tried again, and is there once.
        for _ in 0..=again {
            let done = pods.run(&command, &variables)?;
            let code = done.status.code().with_context(|| said(&done))?;
            let name = text_at(container, "name")?;
            let fate = fate(&spec["podFailurePolicy"], name, code)?;
            ensure!(
                (code, &fate) == (ERROR, &Fate::StartedAgain),
                "{fate:?}\n{}",
                said(&done)
            );
            ensure!(cases(&folder, NO_IMAGES)?.len() == 1, "{}", said(&done));
        }
        found.push(cases(&folder, NO_IMAGES)?);
    }
    ensure!(found.concat().len() == CASES, "{found:?}");
    // What there are results of is not run again.
    for code in [1, 2] {
        ensure!(fate(&spec["podFailurePolicy"], text_at(container, "name")?, code)? == Fate::Failed);
    }

    let text = read("kubernetes.yaml")?;
    let merge = text.lines().find_map(|line| line.strip_prefix("# Afterwards: "));
    let merge = ["sh", "-c", merge.context("the recipe merges nothing")?].map(str::to_owned);
    let done = pods.run(&merge, &[])?;
    ensure!(done.status.code() == Some(ERROR), "{}", said(&done));
    merged(&found, &results.join("all"), &results.join("page"), None, NO_IMAGES)
}

#[test]
fn variables_are_expanded_as_kubernetes_does() {
    let variables = [("N", "7".to_owned())];
    for (text, wanted) in [
        ("$(N)/8", "7/8"),
        ("$((N + 1))/8 $N", "$((N + 1))/8 $N"),
        ("$$(N) $(M) $", "$(N) $(M) $"),
    ] {
        assert_eq!(expand(text, &variables), wanted, "{text}");
    }
}
