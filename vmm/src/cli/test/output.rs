//! What a run prints and leaves: progress, the table, report files.

use crate::boottest::{
    case::{Case, Results},
    report::{self, Files},
    schedule::Observer,
    verdict::CaseResult,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Reports to write.
#[derive(Debug, Clone, Args)]
pub(super) struct Reports {
    /// Write JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write all results as JSON, besides results.json in the folder of results
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print TAP on standard output instead of the table
    #[arg(long)]
    tap: bool,
    /// Write a page, index.html, into this folder
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
}

impl Reports {
    /// Folders that are written to.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let parent = |file: &PathBuf| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let files = self.junit.iter().chain(&self.json).map(parent);
        let mut folders: Vec<_> = files.collect();
        if let Some(html) = &self.html {
            // It has to be there to be shared.
            let _ = fs::create_dir_all(html);
            folders.push(html.clone());
        }
        folders
    }

    /// Writes and prints everything; an error is a sentence. `homes` are the folders of results by case, where they are not all
    /// in `out`.
    pub(super) fn write(
        &self,
        results: &[CaseResult],
        out: &Path,
        homes: &BTreeMap<String, PathBuf>,
    ) -> Result<(), String> {
        let text = match self.tap {
            true => report::tap(results),
            false => report::summary(results, out),
        };
        // A reader that has gone does not change the verdict.
        let _ = io::stdout().lock().write_all(text.as_bytes());
        let json = serde_json::to_vec_pretty(&Results::new(results.to_vec())).map_err(|e| e.to_string())?;
        write(&out.join("results.json"), &json)?;
        if let Some(path) = &self.json {
            write(path, &json)?;
        }
        if let Some(path) = &self.junit {
            let xml = report::junit(results).map_err(|e| format!("cannot make JUnit XML: {e}"))?;
            write(path, xml.as_bytes())?;
        }
        if let Some(folder) = &self.html {
            fs::create_dir_all(folder).map_err(|e| format!("cannot make folder {}: {e}", folder.display()))?;
            let files = results
                .iter()
                .map(|r| (r.id.clone(), files(homes.get(&r.id).map_or(out, PathBuf::as_path), r)));
            let page = report::page(results, &files.collect());
            write(&folder.join("index.html"), page.as_bytes())?;
        }
        Ok(())
    }
}

fn files(out: &Path, result: &CaseResult) -> Files {
    let folder = out.join(&result.folder);
    let text = |name| String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap_or_default()).into_owned();
    Files {
        console: text("console.log"),
        map: text("memory-map.svg"),
        config: text("config.toml"),
    }
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// A bar on a terminal, plain lines elsewhere, on standard error.
pub(super) struct Progress {
    total: usize,
    done: AtomicUsize,
    running: Mutex<Vec<String>>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For `total` cases, `done` of which have a result already.
    pub(super) fn new(total: usize, done: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(u64::try_from(total).ok(), ProgressDrawTarget::stderr());
            // A constant template; the default one is as good.
            if let Ok(style) = ProgressStyle::with_template("[{pos}/{len}] {elapsed} {bar:24} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_position(u64::try_from(done).unwrap_or(0));
            bar
        });
        if done > 0 {
            eprintln!("{done} of {total} cases have a result already");
        }
        Self {
            total,
            done: AtomicUsize::new(done),
            running: Mutex::default(),
            bar,
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(io::stderr().lock(), "{text}");
            }
        }
    }

    fn running(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut running);
        if let Some(bar) = &self.bar {
            bar.set_message(running.join(", "));
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn started(&self, case: &Case) {
        self.running(|all| all.push(case.id()));
    }

    fn finished(&self, result: &CaseResult) {
        let n = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        self.running(|all| all.retain(|id| *id != result.id));
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        let reason = if result.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", result.reason)
        };
        let total = self.total;
        let width = total.to_string().len();
        self.line(&format!(
            "[{n:width$}/{total}] {:7} {:6.1} s  {}{reason}",
            result.word(),
            result.seconds,
            result.id
        ));
    }
}
