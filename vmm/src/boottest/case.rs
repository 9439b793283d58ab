//! One case from its configuration to its result, with its files.

use super::{
    console::{self, BadLine, Forbidden, Severity},
    expand::{DIR, Ready},
    guest::{Guest, Launch},
    kernel::Kernel,
    ktap::{self, Status, Subtest},
    oops::{self, Oops},
    scenario::Requires,
    steps::Saved,
    svg,
    verdict::{self, CaseResult, StepResult, Trouble},
    version,
};
use crate::{
    config::{self, ModuleConfig, VmConfig},
    layout::map::Report,
};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

/// Warnings of the kernel are for the console; the rest of its log would cost half of the boot.
const CMDLINE: &str = "loglevel=5";
/// What a real Xen gets beside the memory of its first domain.
const HYPERVISOR_MEMORY: u64 = 1 << 30;
/// Behind the deadlines of the case.
const LATER: Duration = Duration::from_secs(60);
/// Modules and files are looked for in one go.
const LOOK_FOR: Duration = Duration::from_secs(60);

/// A scenario in one shape on one kernel, once.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is done.
    pub ready: Arc<Ready>,
    /// On what.
    pub kernel: Arc<Kernel>,
    /// Which repetition, from 1; 0: there is only one.
    pub time: u32,
}

/// What the plan of a machine yields for the artifacts.
pub struct Prepared {
    /// Its guest physical map.
    pub report: Report,
    /// ACPI tables by signature.
    pub tables: Vec<(String, Vec<u8>)>,
}

/// Plans a machine without building it; an error is a sentence.
pub type Prepare = dyn Fn(VmConfig) -> Result<Prepared, String> + Sync;

/// What all cases share.
pub struct Context<'a> {
    /// This program.
    pub program: PathBuf,
    /// Folder of the results.
    pub out: PathBuf,
    /// See [`Prepare`].
    pub prepare: &'a Prepare,
    /// Set when the user wants to stop.
    pub stop: &'a AtomicBool,
}

impl Case {
    /// `suite/scenario[shape]@kernel`, with `#n` when it is repeated.
    pub fn id(&self) -> String {
        let time = if self.time == 0 {
            String::new()
        } else {
            format!("#{}", self.time)
        };
        format!("{}@{}{time}", self.ready.name(), self.kernel.label)
    }

    /// Folder of its files, relative to the results.
    pub fn folder(&self) -> String {
        let time = if self.time == 0 {
            String::new()
        } else {
            format!("#{}", self.time)
        };
        let shape = self.ready.shape.replace('/', "_");
        format!(
            "{}/{}/{}{shape}{time}",
            self.kernel.label, self.ready.suite, self.ready.scenario
        )
    }

    /// vCPUs and bytes of memory that it takes from the host.
    pub fn weight(&self) -> (u64, u64) {
        let machine = &self.ready.machine;
        let nvdimms = machine
            .nvdimm
            .iter()
            .filter_map(|n| n.size)
            .fold(0, |sum: u64, s| sum.saturating_add(s.0));
        let hypervisor = self.kernel.hypervisor.as_ref().map_or(0, |_| HYPERVISOR_MEMORY);
        (
            machine.cpus.count.into(),
            machine
                .ram()
                .0
                .saturating_add(nvdimms)
                .saturating_add(256 << 20)
                .saturating_add(hypervisor),
        )
    }

    /// The machine, with its files in `dir`.
    pub fn config(&self, dir: &Path) -> Result<VmConfig, String> {
        let mut config = self.ready.machine.clone();
        let own = config.cmdline.take().unwrap_or_default();
        let cmdline = Some(format!("{CMDLINE} {own}").trim_end().to_owned());
        match &self.kernel.hypervisor {
            Some(hypervisor) => self.put_under(hypervisor, cmdline, &mut config)?,
            None => {
                config.kernel = Some(self.kernel.kernel.clone());
                config.initrd = self.kernel.initrd.clone();
                config.cmdline = cmdline;
            }
        }
        let text = config::file::print(&config).map_err(|e| e.to_string())?;
        let text = text.replace(&format!("${{{DIR}}}"), &dir.display().to_string());
        toml::from_str(&text).map_err(|e: toml::de::Error| e.message().to_owned())
    }

    /// The machine is a real Xen's, and the scenario's is its first domain: with as much memory, of a machine that has more.
    fn put_under(&self, hypervisor: &Path, cmdline: Option<String>, config: &mut VmConfig) -> Result<(), String> {
        if !config.numa.is_empty() {
            return Err(
                "a machine with `numa` has no place under a hypervisor, which divides all of its memory; hint: leave `numa` out, or test this \
                 scenario on the kernel alone"
                    .to_owned(),
            );
        }
        let ram = config.ram();
        config.memory.size = Some(ByteSize(ram.0.saturating_add(HYPERVISOR_MEMORY)));
        config.limits.target.get_or_insert(ram);
        // The real one takes its place.
        config.xen = None;
        config.kernel = Some(hypervisor.to_owned());
        let file = self.kernel.kernel.clone();
        config.module = vec![ModuleConfig { file, cmdline }];
        let initrd = self.kernel.initrd.iter().cloned();
        config
            .module
            .extend(initrd.map(|file| ModuleConfig { file, cmdline: None }));
        Ok(())
    }

    /// What is known of it before it was run.
    pub fn blank(&self) -> CaseResult {
        CaseResult {
            id: self.id(),
            suite: self.ready.suite.clone(),
            scenario: format!("{}{}", self.ready.scenario, self.ready.shape),
            kernel: self.kernel.label.clone(),
            release: self.kernel.release.clone(),
            verdict: verdict::Verdict::Error,
            reason: "it has no result: the run that had it did not come to its end".to_owned(),
            expected: None,
            earlier: vec![],
            bad_line: None,
            oops: None,
            steps: vec![],
            subtests: vec![],
            seconds: 0.0,
            boot_seconds: None,
            guest_boot_seconds: None,
            folder: self.folder(),
        }
    }

    /// Runs it; none when the user stopped it.
    pub fn run(&self, context: &Context<'_>) -> Option<CaseResult> {
        let begun = Instant::now();
        let mut result = self.blank();
        let mut lines = Vec::new();
        let trouble = self.attempt(context, &mut result, &mut lines).err();
        let bad = Forbidden::new(&self.ready.allow)
            .ok()
            .and_then(|f| f.first(lines.iter().map(String::as_str)));
        let oops = bad.as_ref().map(|(bad, _)| self.explain(bad, &lines));
        result.seconds = begun.elapsed().as_secs_f64();
        let (verdict, reason) = verdict::decide(trouble.as_ref(), bad.as_ref(), oops.as_ref())?;
        let release = result.release.clone().unwrap_or_default();
        let name = self.ready.name();
        let kernel = (self.kernel.label.as_str(), release.as_str());
        let (verdict, reason, expected) = verdict::settle(verdict, reason, &self.ready.expected_failure, &name, kernel);
        result.verdict = verdict;
        result.reason = reason;
        result.expected = expected;
        result.bad_line = bad.map(|(bad, _): (BadLine, Severity)| bad);
        result.oops = oops;
        Some(result)
    }

    fn explain(&self, bad: &BadLine, lines: &[String]) -> Oops {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let map = (!self.kernel.map.is_empty()).then(|| self.kernel.map.moved(&lines.join("\n")));
        oops::extract(&lines, bad.index, map.as_ref())
    }

    /// Boots, does the steps, turns off. The console's lines, and those that only the kernel's log has, go to `lines`.
    fn attempt(&self, context: &Context<'_>, result: &mut CaseResult, lines: &mut Vec<String>) -> Result<(), Trouble> {
        if let Some(problem) = &self.kernel.problem {
            return Err(Trouble::Broken(problem.clone()));
        }
        if let Some(release) = &self.kernel.release {
            self.wants_release(release)?;
        }
        let folder = context.out.join(&result.folder);
        // What a run before left there is not of this one.
        let _ = fs::remove_dir_all(&folder);
        make_folder(&folder)?;
        let private = tempfile::Builder::new().prefix("dxt").tempdir();
        let private = private.map_err(|e| Trouble::Broken(format!("cannot make a temporary folder: {e}")))?;
        let config = self.config(private.path()).map_err(Trouble::Broken)?;
        let path = self.write_files(context, &folder, &config)?;
        let launch = Launch {
            program: &context.program,
            config: &path,
            folder: &folder,
            sockets: private.path(),
            limit: self.ready.timeout + LATER,
        };
        let forbidden = Forbidden::new(&self.ready.allow).map_err(Trouble::Broken)?;
        let mut guest = Guest::start(&launch, forbidden, self.ready.timeout, context.stop)?;
        let begun = Instant::now();
        let done = self.drive(&mut guest, &private.path().join("agent"), begun, result);
        let log = if done == Err(Trouble::Interrupted) {
            None
        } else {
            guest.dmesg()
        };
        let off = if done.is_ok() { guest.power_off() } else { Ok(()) };
        let disk = guest.disk_trouble();
        *lines = guest.end();
        if let Some(log) = log {
            write(&folder, "dmesg.log", log.as_bytes())?;
            // Warnings reach the console as well, unless the scenario made it quiet.
            let new = console::beyond(&log, lines);
            lines.extend(new);
        }
        match disk {
            Some(why) => Err(Trouble::Broken(why)),
            None => done.and(off),
        }
    }

    fn wants_release(&self, release: &str) -> Result<(), Trouble> {
        for wanted in self.ready.requires.iter().filter_map(|r| r.kernel.as_deref()) {
            if !version::satisfies(release, wanted).map_err(Trouble::Broken)? {
                return Err(Trouble::Unmet(format!(
                    "it needs a kernel {wanted}; this one is {release}"
                )));
            }
        }
        Ok(())
    }

    /// Everything between the machine's start and its end.
    fn drive(
        &self,
        guest: &mut Guest<'_>,
        agent: &Path,
        begun: Instant,
        result: &mut CaseResult,
    ) -> Result<(), Trouble> {
        let (release, uptime) = guest.hello(agent, self.ready.boot_timeout)?;
        result.boot_seconds = Some(begun.elapsed().as_secs_f64());
        result.guest_boot_seconds = Some(uptime.as_secs_f64());
        self.wants_release(&release)?;
        result.release = Some(release);
        self.wants_of_guest(guest)?;
        let mut saved = Saved::new();
        for step in &self.ready.steps {
            let step_begun = Instant::now();
            let step = &step.with(&saved).map_err(Trouble::Failed)?;
            let done = guest.do_step(step).and_then(|got| {
                let done = step.save(&got, &mut saved);
                done.map(|()| got).map_err(Trouble::Failed)
            });
            let mut ok = done.is_ok();
            let mut failed = None;
            if let (true, Ok(got)) = (step.ktap, &done) {
                match ktap::parse(&got.stdout) {
                    Ok(tests) => {
                        failed = failure(&step.name, &tests);
                        result.subtests.extend(tests);
                    }
                    Err(why) => failed = Some(format!("{}: KTAP: {why}", step.name)),
                }
                ok = failed.is_none();
            }
            result.steps.push(StepResult {
                name: step.name.clone(),
                seconds: step_begun.elapsed().as_secs_f64(),
                ok,
            });
            done?;
            failed.map_or(Ok(()), |why| Err(Trouble::Failed(why)))?;
        }
        Ok(())
    }

    fn wants_of_guest(&self, guest: &mut Guest<'_>) -> Result<(), Trouble> {
        let all: Vec<&Requires> = self.ready.requires.iter().collect();
        // The guest's modprobe has no dry run. Names of files may have either sign.
        let modules = all.iter().flat_map(|r| &r.modules).map(|m| {
            let name: String = m.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
            let pattern = name.replace(['-', '_'], "[-_]");
            format!(
                "grep -qE '(^|/){pattern}[.]ko' /lib/modules/$(uname -r)/modules.dep /lib/modules/$(uname -r)/modules.builtin \
                 || [ -d /sys/module/{name} ] || echo 'it needs module {name}'\n"
            )
        });
        let files = all.iter().flat_map(|r| &r.files).map(|f| {
            let file = f.replace('\'', "");
            format!("[ -e '{file}' ] || echo 'it needs {file}'\n")
        });
        let script: String = modules.chain(files).collect();
        if script.is_empty() {
            return Ok(());
        }
        let got = guest.exec(&["sh", "-c", &script], LOOK_FOR)?;
        match got.stdout.lines().next() {
            Some(missing) => Err(Trouble::Unmet(format!("{missing}, which the guest has not"))),
            None => Ok(()),
        }
    }

    /// Configuration, plan and tables of the machine.
    fn write_files(&self, context: &Context<'_>, folder: &Path, config: &VmConfig) -> Result<PathBuf, Trouble> {
        let text = config::file::print(config).map_err(|e| Trouble::Broken(e.to_string()))?;
        write(folder, "config.toml", text.as_bytes())?;
        let path = folder.join("config.toml");
        let script = format!(
            "#!/bin/sh\n# The machine of {}\ncd \"$(dirname \"$0\")\" && exec daxvisor run --config config.toml \"$@\"\n",
            self.id()
        );
        write(folder, "reproduce.sh", script.as_bytes())?;
        let prepared = (context.prepare)(config.clone()).map_err(Trouble::Broken)?;
        let map = serde_json::to_vec_pretty(&prepared.report).map_err(|e| Trouble::Broken(e.to_string()))?;
        write(folder, "memory-map.json", &map)?;
        write(folder, "memory-map.svg", svg::map(&prepared.report).as_bytes())?;
        let tables = folder.join("acpi");
        make_folder(&tables)?;
        for (signature, bytes) in &prepared.tables {
            write(&tables, &format!("{}.dat", signature.to_lowercase()), bytes)?;
        }
        Ok(path)
    }
}

/// What is wrong with sub-tests, if anything is.
fn failure(step: &str, tests: &[Subtest]) -> Option<String> {
    let failed: Vec<_> = tests.iter().filter(|t| t.status == Status::Fail).collect();
    let first = failed.first()?;
    let detail = if first.detail.is_empty() {
        String::new()
    } else {
        format!(" ({})", first.detail)
    };
    Some(format!(
        "{step}: {} of {} sub-tests failed, first {}{detail}",
        failed.len(),
        tests.len(),
        first.name
    ))
}

fn make_folder(path: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(path).map_err(|e| Trouble::Broken(format!("cannot make folder {}: {e}", path.display())))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
    let path = folder.join(name);
    fs::write(&path, bytes).map_err(|e| Trouble::Broken(format!("cannot write {}: {e}", path.display())))
}

/// All results of a run, as `results.json` has them, and before that the cases of it and of its shards, as [`schedule::PLAN`] has them.
///
/// [`schedule::PLAN`]: super::schedule::PLAN
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Results {
    /// Of daxvisor.
    pub version: String,
    /// In the order of the cases.
    pub results: Vec<CaseResult>,
}

impl Results {
    /// Those of this version.
    pub fn new(results: Vec<CaseResult>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { version, results }
    }
}
