//! Steps: from what a suite says to what is done, with the values of parameters and of what earlier steps saved.
//!
//! ```text
//! Step --Scope::unroll--> ReadyStep --ReadyStep::with--> ReadyStep as it is done
//!          when the suite is read         when what it needs of others is there
//! ```
//! A step that uses a saved value is made twice: when the suite is read, with [`PLACEHOLDER`], so that mistakes are told without a
//! guest, and when it is its turn.

use super::{
    expand::{DIR, Values, is_name, one_line, replace, substitute},
    expect::{Got, parse_number, quote},
    scenario::{Expect, Save, Step, TextExpect},
};
use crate::control::Request;
use regex::Regex;
use serde::Deserialize;
use serde_json_path::JsonPath;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Value;

/// Most steps that a case may come to, with `times` counted.
const MAX_STEPS: usize = 10_000;
const DEADLINE: Duration = Duration::from_secs(60);
/// What stands for a saved value while nobody knows it: a number, and an address of a page.
const PLACEHOLDER: &str = "4096";
/// Count of the loop that a step is in.
const TIME: &str = "time";

/// One step with its values.
#[derive(Debug, Clone)]
pub struct ReadyStep {
    /// For people.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// How long it may take.
    pub deadline: Duration,
    /// Again until the expectation holds.
    pub until: bool,
    /// Standard output is KTAP.
    pub ktap: bool,
    /// What has to come of it.
    pub expect: Expect,
    /// What later steps have of it.
    pub save: Vec<Save>,
    /// It has values that earlier steps save: what is here has [`PLACEHOLDER`] in their place.
    late: Option<Late>,
}

/// A step as it is written.
#[derive(Debug, Clone)]
struct Late {
    step: Step,
    values: Values,
    suite: PathBuf,
}

/// What steps have saved, by name.
pub type Saved = BTreeMap<String, String>;

/// What a step does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Shell script in the guest.
    Run(String),
    /// Read a file of the guest.
    File(String),
    /// Wait for a line of the console.
    Console(Regex),
    /// Ask the machine.
    Host(Box<Request>),
    /// Put a file into the guest.
    Push {
        /// Path in the guest.
        to: String,
        /// File on the host, or the content.
        from: Result<PathBuf, String>,
        /// Mode bits.
        mode: u32,
    },
}

impl ReadyStep {
    /// The same with what earlier steps have saved.
    pub fn with(&self, saved: &Saved) -> Result<Self, String> {
        match &self.late {
            None => Ok(self.clone()),
            Some(late) => make(&late.step, &late.values, saved, &late.suite),
        }
    }

    /// Takes what later steps have of this one.
    pub fn save(&self, got: &Got, saved: &mut Saved) -> Result<(), String> {
        for save in &self.save {
            let value =
                look_up(save, &got.stdout).map_err(|why| format!("{}: ${{{}}}: {why}", self.name, save.name))?;
            saved.insert(save.name.clone(), value);
        }
        Ok(())
    }
}

fn look_up(save: &Save, text: &str) -> Result<String, String> {
    if let Some(pattern) = &save.matches {
        let found = regex(pattern)?.captures(text);
        let found = found.ok_or_else(|| format!("'{pattern}' does not match {}", quote(text)))?;
        // The group is there: the suite was read.
        return Ok(found.get(1).map(|group| group.as_str().to_owned()).unwrap_or_default());
    }
    let Some(path) = &save.path else {
        return Ok(text.trim().to_owned());
    };
    let value = serde_json::from_str(text).map_err(|e| format!("stdout is no JSON ({e}): {}", quote(text)))?;
    let found = JsonPath::parse(path).map_err(|e| e.to_string())?.query(&value).all();
    match found.as_slice() {
        [one] => Ok(one.as_str().map_or_else(|| one.to_string(), str::to_owned)),
        many => Err(format!(
            "{path} has {} values, expected one: {}",
            many.len(),
            quote(text)
        )),
    }
}

/// Steps of a scenario while they are made.
pub(super) struct Scope {
    suite: PathBuf,
    /// Loops unrolled.
    pub(super) steps: Vec<ReadyStep>,
    saved: Saved,
}

impl Scope {
    /// No step, of the suite of that file.
    pub(super) fn new(suite: PathBuf) -> Self {
        Self {
            suite,
            steps: vec![],
            saved: Saved::new(),
        }
    }

    /// Adds a step, or the steps that are in it.
    pub(super) fn unroll(&mut self, step: &Step, values: &Values) -> Result<(), String> {
        let actions = [
            step.run.is_some(),
            step.file.is_some(),
            step.console.is_some(),
            step.host.is_some(),
            step.push.is_some(),
            !step.steps.is_empty(),
        ];
        let label = step.name.clone().unwrap_or_default();
        if actions.iter().filter(|a| **a).count() != 1 {
            return Err(format!(
                "step '{label}': exactly one of run, file, console, host, push and steps is needed"
            ));
        }
        if !step.steps.is_empty() {
            if !step.save.is_empty() {
                return Err(format!("step '{label}': save goes with each of its steps"));
            }
            for time in 1..=step.times.unwrap_or(1) {
                let mut values = values.clone();
                values.insert(TIME.to_owned(), Value::Integer(time.into()));
                for inner in &step.steps {
                    self.unroll(inner, &values)?;
                }
            }
            return Ok(());
        }
        if step.times.is_some() {
            return Err(format!("step '{label}': times goes with steps"));
        }
        if self.steps.len() >= MAX_STEPS {
            return Err(format!("it has more than {MAX_STEPS} steps"));
        }
        let mut ready = make(step, values, &self.saved, &self.suite)?;
        if self.uses_saved(step) {
            ready.late = Some(Late {
                step: step.clone(),
                values: values.clone(),
                suite: self.suite.clone(),
            });
        }
        for save in &step.save {
            check_save(save, values).map_err(|why| format!("step '{label}': save: {why}"))?;
            self.saved.insert(save.name.clone(), PLACEHOLDER.to_owned());
        }
        self.steps.push(ready);
        Ok(())
    }

    fn uses_saved(&self, step: &Step) -> bool {
        // As text, wherever in the step it may be.
        let text = serde_json::to_string(step).unwrap_or_default();
        self.saved.keys().any(|name| text.contains(&format!("${{{name}}}")))
    }
}

fn check_save(save: &Save, values: &Values) -> Result<(), String> {
    let Save { name, matches, path } = save;
    if !is_name(name) {
        return Err(format!(
            "'{name}' has other characters than letters, digits, '-', '_' and '.'"
        ));
    }
    if values.contains_key(name) || [DIR, TIME].contains(&name.as_str()) {
        return Err(format!("'{name}' is a value already; hint: another name"));
    }
    if matches.is_some() && path.is_some() {
        return Err(format!(
            "'{name}' has both matches and path, expected one of them or none"
        ));
    }
    if let Some(pattern) = matches {
        let groups = regex(pattern)?.captures_len() - 1;
        if groups != 1 {
            return Err(format!(
                "'{pattern}' has {groups} groups, expected one; hint: (?:...) groups without saving"
            ));
        }
    }
    if let Some(path) = path {
        JsonPath::parse(path).map_err(|e| format!("'{path}' is no JSONPath: {e}"))?;
    }
    Ok(())
}

/// A step of one action, with its values.
fn make(step: &Step, values: &Values, saved: &Saved, suite: &Path) -> Result<ReadyStep, String> {
    let label = step.name.clone().unwrap_or_default();
    // In texts they are as they were saved; alone they are numbers, if they can be.
    let with = |to: fn(&String) -> Value| {
        let saved = saved.iter().map(|(name, text)| (name.clone(), to(text)));
        values.clone().into_iter().chain(saved).collect::<Values>()
    };
    let numbers = with(|text| parse_number(text).map_or_else(|| Value::String(text.clone()), Value::Integer));
    let values = &with(|text| Value::String(text.clone()));
    let text = |text: &String| replace(text, values);
    let (action, what) = if let Some(script) = &step.run {
        let script = text(script)?;
        (Action::Run(script.clone()), script)
    } else if let Some(path) = &step.file {
        let path = text(path)?;
        (Action::File(path.clone()), format!("read {path}"))
    } else if let Some(pattern) = &step.console {
        let pattern = text(pattern)?;
        (Action::Console(regex(&pattern)?), format!("console has {pattern}"))
    } else if let Some(request) = &step.host {
        let request = substitute(request.clone(), &numbers)?;
        let what = format!("host: {}", serde_json::to_string(&request).unwrap_or_default());
        let request = Request::deserialize(request).map_err(|e| format!("step '{label}': host: {}", one_line(&e)))?;
        (Action::Host(Box::new(request)), what)
    } else if let Some(push) = &step.push {
        let to = text(&push.to)?;
        let from = match (&push.from, &push.content) {
            (Some(path), None) => Ok(suite.parent().unwrap_or(Path::new("")).join(path)),
            (None, Some(content)) => Err(text(content)?),
            _ => return Err(format!("step '{label}': push needs one of from and content")),
        };
        let mode = if push.executable { 0o755 } else { 0o644 };
        (
            Action::Push {
                to: to.clone(),
                from,
                mode,
            },
            format!("push {to}"),
        )
    } else {
        return Err(format!("step '{label}' does nothing"));
    };
    let first = what
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .unwrap_or_default()
        .to_owned();
    let name = match &step.name {
        Some(name) => replace(name, values)?,
        None => first.chars().take(80).collect(),
    };
    Ok(ReadyStep {
        name,
        action,
        deadline: step.deadline.map_or(DEADLINE, |d| d.0),
        until: step.until,
        ktap: step.ktap,
        expect: expectation(&step.expect, values, &numbers)?,
        save: step.save.clone(),
        late: None,
    })
}

fn expectation(expect: &Expect, values: &Values, numbers: &Values) -> Result<Expect, String> {
    let mut expect = expect.clone();
    for text in [&mut expect.stdout, &mut expect.stderr] {
        let TextExpect {
            equals,
            contains,
            lacks,
            matches,
            ..
        } = text;
        for text in equals.iter_mut().chain(contains).chain(lacks).chain(matches.iter_mut()) {
            *text = replace(text, values)?;
        }
        matches.iter().try_for_each(|m| regex(m).map(drop))?;
    }
    for json in &mut expect.json {
        json.path = replace(&json.path, values)?;
        JsonPath::parse(&json.path).map_err(|e| format!("'{}' is no JSONPath: {e}", json.path))?;
        if let Some(pattern) = &json.matches {
            regex(&replace(pattern, values)?)?;
            json.matches = Some(replace(pattern, values)?);
        }
        json.equals = json.equals.take().map(|v| substitute(v, numbers)).transpose()?;
    }
    Ok(expect)
}

/// A regular expression whose `^` and `$` are ends of lines.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(pattern)
        .multi_line(true)
        .build()
        .map_err(|e| format!("'{pattern}' is no regular expression: {}", one_line(&e)))
}
