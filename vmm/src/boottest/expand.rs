//! From suite files to cases: every scenario times its variants, parameters, kernels and repetitions. Pure but for [`load`].
//!
//! ```text
//! text --parse--> Suite --expand--> Scenario with values in it --plan--> Case (one guest)
//! ```

use super::{
    console,
    scenario::{Allow, ExpectedFailure, Requires, Scenario, Suite},
    steps::{self, ReadyStep},
    version,
};
use crate::config::VmConfig;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Value;

/// Most cases that one scenario may come to.
const MAX_CASES: usize = 1000;
/// Stands for a folder that the case has for itself while it runs.
pub const DIR: &str = "dir";
const TIMEOUT: Duration = Duration::from_secs(180);
const BOOT_TIMEOUT: Duration = Duration::from_secs(100);

/// Why suites cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// Not there.
    #[error("cannot read suite {0}; hint: a suite is a TOML file, or a folder of them")]
    Read(PathBuf, #[source] io::Error),
    /// A folder without suites.
    #[error("there is no suite in folder {0}; hint: suites are files named *.toml")]
    Empty(PathBuf),
    /// Not TOML, or not a suite; begins with line and column.
    #[error("suite {0}: {1}")]
    Parse(PathBuf, String),
    /// What it says makes no sense.
    #[error("suite {suite}, scenario '{scenario}': {problem}")]
    Scenario {
        /// Its file.
        suite: PathBuf,
        /// Its name.
        scenario: String,
        /// One sentence.
        problem: String,
    },
    /// Two files of one name.
    #[error("two suites are called '{0}'; hint: a suite is called by its file's name")]
    Twice(String),
}

/// A suite with its name and place.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The file's name without `.toml`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub suite: Suite,
}

/// A scenario with values in place of every `${name}`, for any kernel.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Name of the suite.
    pub suite: String,
    /// Name of the scenario.
    pub scenario: String,
    /// Variant and parameters, such as `[small,size=64M]`; empty: there are none.
    pub shape: String,
    /// Folder of the suite, for files that are pushed.
    pub folder: PathBuf,
    /// Words to filter by.
    pub tags: Vec<String>,
    /// Of the suite and of the scenario.
    pub requires: Vec<Requires>,
    /// Of the suite and of the scenario.
    pub allow: Vec<Allow>,
    /// As written.
    pub expected_failure: Vec<ExpectedFailure>,
    /// Without kernel.
    pub machine: VmConfig,
    /// Actions in order, loops unrolled.
    pub steps: Vec<ReadyStep>,
    /// For the whole.
    pub timeout: Duration,
    /// To the agent's hello.
    pub boot_timeout: Duration,
}

impl Ready {
    /// `suite/scenario[shape]`.
    pub fn name(&self) -> String {
        format!("{}/{}{}", self.suite, self.scenario, self.shape)
    }
}

/// Reads the suites: files, and all of a folder.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Loaded>, SuiteError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(|e| SuiteError::Read(path.clone(), e))?;
            let mut found: Vec<_> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|p| p.extension().is_some_and(|e| e == "toml"))
                .collect();
            found.sort();
            if found.is_empty() {
                return Err(SuiteError::Empty(path.clone()));
            }
            files.append(&mut found);
        } else {
            files.push(path.clone());
        }
    }
    let mut suites: Vec<Loaded> = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).map_err(|e| SuiteError::Read(path.clone(), e))?;
        let suite = parse(&text).map_err(|problem| SuiteError::Parse(path.clone(), problem))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if suites.iter().any(|s| s.name == name) {
            return Err(SuiteError::Twice(name));
        }
        suites.push(Loaded { name, path, suite });
    }
    Ok(suites)
}

/// Reads the text of a suite; the error begins with line and column.
pub fn parse(text: &str) -> Result<Suite, String> {
    crate::config::file::parse(text)
}

/// Every scenario of a suite in every shape. All that can be told without a guest is checked.
pub fn expand(loaded: &Loaded) -> Result<Vec<Ready>, Vec<SuiteError>> {
    let mut ready = Vec::new();
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for scenario in &loaded.suite.scenario {
        let mut problem = |problem: String| {
            errors.push(SuiteError::Scenario {
                suite: loaded.path.clone(),
                scenario: scenario.name.clone(),
                problem,
            });
        };
        if !is_name(&scenario.name) {
            problem("the name has other characters than letters, digits, '-', '_' and '.'".to_owned());
        } else if !seen.insert(&scenario.name) {
            problem("there is another scenario of that name".to_owned());
        }
        match shapes(scenario) {
            Err(e) => problem(e),
            Ok(shapes) => {
                for (shape, values, machine) in shapes {
                    match ready_one(loaded, scenario, &shape, &values, machine) {
                        Ok(one) => ready.push(one),
                        Err(e) if shape.is_empty() => problem(e),
                        Err(e) => problem(format!("{shape}: {e}")),
                    }
                }
            }
        }
    }
    if errors.is_empty() { Ok(ready) } else { Err(errors) }
}

pub(super) fn is_name(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.chars().all(fine)
}

pub(super) type Values = BTreeMap<String, Value>;

/// Names of the shapes, their values, and what their variant changes of the machine.
fn shapes(scenario: &Scenario) -> Result<Vec<(String, Values, toml::Table)>, String> {
    let plain = (Vec::new(), Values::new(), toml::Table::new());
    let mut shapes = vec![plain];
    if !scenario.variant.is_empty() {
        let mut names = BTreeSet::new();
        shapes.clear();
        for variant in &scenario.variant {
            if !is_name(&variant.name) || !names.insert(&variant.name) {
                return Err(format!(
                    "variant '{}' has no name of its own, of letters, digits, '-', '_' and '.'",
                    variant.name
                ));
            }
            shapes.push((
                vec![variant.name.clone()],
                variant.values.clone(),
                variant.machine.clone(),
            ));
        }
    }
    for (name, choices) in &scenario.parameters {
        if choices.is_empty() {
            return Err(format!("parameter '{name}' has no value"));
        }
        if shapes.len().saturating_mul(choices.len()) > MAX_CASES {
            return Err(format!("its parameters make more than {MAX_CASES} cases"));
        }
        let with = |(words, values, machine): &(Vec<String>, Values, toml::Table)| {
            let one = |choice: &Value| {
                let (mut words, mut values) = (words.clone(), values.clone());
                words.push(format!("{name}={}", plain_text(choice)));
                values.insert(name.clone(), choice.clone());
                (words, values, machine.clone())
            };
            choices.iter().map(one).collect::<Vec<_>>()
        };
        shapes = shapes.iter().flat_map(with).collect();
    }
    let name = |words: Vec<String>| {
        if words.is_empty() {
            String::new()
        } else {
            format!("[{}]", words.join(","))
        }
    };
    Ok(shapes
        .into_iter()
        .map(|(words, values, machine)| (name(words), values, machine))
        .collect())
}

fn ready_one(
    loaded: &Loaded,
    scenario: &Scenario,
    shape: &str,
    values: &Values,
    variant: toml::Table,
) -> Result<Ready, String> {
    let mut machine = loaded.suite.machine.clone();
    machine.extend(scenario.machine.clone());
    machine.extend(variant);
    for key in ["kernel", "initrd", "console", "agent-socket", "api-socket"] {
        if machine.contains_key(key) {
            return Err(format!(
                "machine.{key} is the runner's; hint: kernels are given with --kernel"
            ));
        }
    }
    let machine = substitute(Value::Table(machine), values)?;
    let mut machine: VmConfig = VmConfig::deserialize(machine).map_err(|e| format!("machine: {}", one_line(&e)))?;
    let folder = loaded.path.parent().unwrap_or(Path::new("")).to_owned();
    for share in &mut machine.share {
        // As what is pushed: beside the suite, wherever it is run.
        if !share.path.starts_with(format!("${{{DIR}}}")) {
            share.path = folder.join(&share.path);
        }
    }
    machine.validate().map_err(|errors| {
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        format!("machine: {}", texts.join("; "))
    })?;
    let mut scope = steps::Scope::new(loaded.path.clone());
    for step in &scenario.step {
        scope.unroll(step, values)?;
    }
    let steps = scope.steps;
    if steps.is_empty() {
        return Err("it has no step; hint: a step such as { run = \"true\" } shows that the guest is up".to_owned());
    }
    let requires = vec![loaded.suite.requires.clone(), scenario.requires.clone()];
    for wanted in requires.iter().filter_map(|r| r.kernel.as_deref()) {
        version::satisfies("0", wanted)?;
    }
    let allow: Vec<_> = loaded.suite.allow.iter().chain(&scenario.allow).cloned().collect();
    console::Forbidden::new(&allow)?;
    if let Some(bare) = scenario.expected_failure.iter().find(|e| e.reason.trim().is_empty()) {
        return Err(format!("the expected failure on '{}' has no reason", bare.kernel));
    }
    Ok(Ready {
        suite: loaded.name.clone(),
        scenario: scenario.name.clone(),
        shape: shape.to_owned(),
        folder,
        tags: scenario.tags.clone(),
        requires,
        allow,
        expected_failure: scenario.expected_failure.clone(),
        machine,
        steps,
        timeout: scenario.timeout.map_or(TIMEOUT, |t| t.0),
        boot_timeout: scenario.boot_timeout.map_or(BOOT_TIMEOUT, |t| t.0),
    })
}

/// Puts values in place of every `${name}` in every text. A text that is nothing else becomes the value, with its type.
pub(super) fn substitute(value: Value, values: &Values) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => match text.strip_prefix("${").and_then(|t| t.strip_suffix('}')) {
            Some(name) if values.contains_key(name) => values[name].clone(),
            _ => Value::String(replace(&text, values)?),
        },
        Value::Array(items) => items
            .into_iter()
            .map(|v| substitute(v, values))
            .collect::<Result<_, _>>()
            .map(Value::Array)?,
        Value::Table(table) => {
            let pairs = table.into_iter().map(|(k, v)| Ok((k, substitute(v, values)?)));
            Value::Table(pairs.collect::<Result<_, String>>()?)
        }
        other => other,
    })
}

/// Puts values in place of every `${name}`; shell variables of other names stay, and so does [`DIR`].
pub(super) fn replace(text: &str, values: &Values) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out += before;
        match after.split_once('}') {
            Some((name, tail)) if values.contains_key(name) => {
                out += &plain_text(&values[name]);
                rest = tail;
            }
            _ => {
                out += "${";
                rest = after;
            }
        }
    }
    Ok(out + rest)
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
