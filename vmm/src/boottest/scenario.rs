//! Suite files as they are written: one TOML file is a suite, its scenarios are tables.
//!
//! `machine` and `host` stay raw values here: `${name}` may stand in them for a parameter, and only [`super::expand`] knows its
//! value. Everything else has its type from the start, so that a mistake is told with its line.

use devices::units::TimeSpan;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};
use utoipa::ToSchema;

/// A suite: scenarios that belong together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suite {
    /// What the suite proves, one sentence.
    pub about: String,
    /// Machine of every scenario: keys of `daxvisor run --config`. A scenario's own machine replaces whole keys.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub machine: toml::Table,
    /// Requirements of every scenario, beside its own.
    #[serde(default)]
    pub requires: Requires,
    /// Console lines that are no failure, for every scenario.
    #[serde(default)]
    pub allow: Vec<Allow>,
    /// The scenarios.
    #[serde(default)]
    pub scenario: Vec<Scenario>,
}

/// One machine, what is done with it, and what has to come of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// Letters, digits, `-`, `_` and `.`; unique in the suite.
    pub name: String,
    /// What it proves, one sentence.
    #[serde(default)]
    pub about: String,
    /// Subjects of the kernel commits that it is about.
    #[serde(default)]
    pub commits: Vec<String>,
    /// Words to filter by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Machine: keys of `daxvisor run --config`, without `kernel`, `console` and sockets, which are the runner's.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub machine: toml::Table,
    /// Values by name: the scenario runs once for each combination, with `${name}` replaced in every text.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: BTreeMap<String, Vec<toml::Value>>,
    /// Machines in several shapes: the scenario runs once for each, times the parameters.
    #[serde(default)]
    pub variant: Vec<Variant>,
    /// What it needs; without it the scenario is skipped, with the reason.
    #[serde(default)]
    pub requires: Requires,
    /// For the whole scenario, from the start of the machine; 3min unless given.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub timeout: Option<TimeSpan>,
    /// From the start of the machine to the guest's agent; 100s unless given.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub boot_timeout: Option<TimeSpan>,
    /// What is done, in order.
    #[serde(default)]
    pub step: Vec<Step>,
    /// Console lines that are no failure.
    #[serde(default)]
    pub allow: Vec<Allow>,
    /// Kernels on which it is known not to pass.
    #[serde(default)]
    pub expected_failure: Vec<ExpectedFailure>,
}

/// One shape of a scenario's machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Variant {
    /// Letters, digits, `-`, `_` and `.`; unique in the scenario.
    pub name: String,
    /// Replaces whole keys of the scenario's machine.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub machine: toml::Table,
    /// Values for `${name}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub values: BTreeMap<String, toml::Value>,
}

/// What a scenario needs of kernel and guest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Requires {
    /// Comparisons of the kernel's version, all of which must hold, such as `>=5.10, <7`.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Modules that the kernel has, built in or in the guest's file system.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Files that exist in the guest once it is up.
    #[serde(default)]
    pub files: Vec<String>,
}

/// Console lines that would fail the scenario and do not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Allow {
    /// Name of the forbidden pattern that would match, such as `warning`.
    pub pattern: String,
    /// Regular expression that the line also matches.
    pub line: String,
    /// Why it is no failure.
    pub reason: String,
}

/// Kernels on which a scenario is known not to pass. That it passes there all the same is a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExpectedFailure {
    /// Comparisons of the kernel's version, or its label.
    pub kernel: String,
    /// Only this variant or these parameters: a piece of the case's name.
    #[serde(default)]
    pub case: Option<String>,
    /// What the failure's reason has to contain.
    #[serde(default)]
    pub contains: Option<String>,
    /// Why it is expected.
    pub reason: String,
}

/// One thing to do: exactly one of `run`, `file`, `console`, `host`, `push` and `steps`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// Shown instead of the action.
    #[serde(default)]
    pub name: Option<String>,
    /// Shell script in the guest.
    #[serde(default)]
    pub run: Option<String>,
    /// File of the guest, such as a sysfs attribute: its content is `stdout`.
    #[serde(default)]
    pub file: Option<String>,
    /// Regular expression that a line of the console matches, now or within the deadline.
    #[serde(default)]
    pub console: Option<String>,
    /// Request to the running machine, as `daxvisor ctl` has it: its answer is `stdout`, as JSON.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub host: Option<toml::Value>,
    /// File to put into the guest.
    #[serde(default)]
    pub push: Option<Push>,
    /// Steps to do `times` times.
    #[serde(default)]
    #[schema(no_recursion)]
    pub steps: Vec<Step>,
    /// How often `steps` are done; once unless given.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long it may take; 60s unless given.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub deadline: Option<TimeSpan>,
    /// Do it again until the expectation holds or the deadline passes.
    #[serde(default)]
    pub until: bool,
    /// Standard output is KTAP: each of its tests is one of ours.
    #[serde(default)]
    pub ktap: bool,
    /// What has to come of it.
    #[serde(default)]
    pub expect: Expect,
    /// What later steps have of it, once its expectation holds, as `${name}`.
    #[serde(default)]
    pub save: Vec<Save>,
}

/// A value for later steps: standard output less blanks at its ends, or a piece of it. Where it is the whole of a value, in a request
/// to the machine or in JSON, a number is a number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Save {
    /// Letters, digits, `-`, `_` and `.`; no parameter's name.
    pub name: String,
    /// Regular expression with one group, which is the value.
    #[serde(default)]
    pub matches: Option<String>,
    /// JSONPath of the one value.
    #[serde(default)]
    pub path: Option<String>,
}

/// A file to put into the guest: `content`, or a file beside the suite.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Push {
    /// Where to, in the guest.
    pub to: String,
    /// File on the host, relative to the suite's folder.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub from: Option<PathBuf>,
    /// Its content.
    #[serde(default)]
    pub content: Option<String>,
    /// Whether it is a program.
    #[serde(default)]
    pub executable: bool,
}

/// What has to come of a step. Nothing given: exit status 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expect {
    /// Exit status of `run`; 0 unless given.
    #[serde(default)]
    pub status: Option<i32>,
    /// Any exit status of `run` but 0, or a refusal of anything else, with its reason as `stderr`.
    #[serde(default)]
    pub fails: bool,
    /// Standard output, a file's content, or an answer.
    #[serde(default)]
    pub stdout: TextExpect,
    /// Standard error of `run`, or why something was refused.
    #[serde(default)]
    pub stderr: TextExpect,
    /// Values in standard output read as JSON; no output is an empty list.
    #[serde(default)]
    pub json: Vec<JsonExpect>,
}

/// What a text has to be, less blanks at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TextExpect {
    /// The whole of it.
    #[serde(default)]
    pub equals: Option<String>,
    /// Texts in it.
    #[serde(default)]
    pub contains: Vec<String>,
    /// Texts not in it.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Regular expressions that match somewhere; `^` and `$` are ends of lines.
    #[serde(default)]
    pub matches: Vec<String>,
    /// It is a number, decimal or 0x hexadecimal, and not below this.
    #[serde(default)]
    pub at_least: Option<i64>,
    /// It is a number and not above this.
    #[serde(default)]
    pub at_most: Option<i64>,
}

/// What a place in JSON has to hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct JsonExpect {
    /// JSONPath (RFC 9535), such as `$[0].size`.
    pub path: String,
    /// Every value there is this; there is at least one.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub equals: Option<toml::Value>,
    /// How many values there are.
    #[serde(default)]
    pub count: Option<usize>,
    /// Every value, as text, matches this regular expression; there is at least one.
    #[serde(default)]
    pub matches: Option<String>,
    /// Every value is a number and not below this.
    #[serde(default)]
    pub at_least: Option<i64>,
    /// Every value is a number and not above this.
    #[serde(default)]
    pub at_most: Option<i64>,
}
