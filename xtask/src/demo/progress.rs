//! Stages for people: a bar on a terminal, plain lines elsewhere. All of it on standard error.

use super::events::Stage;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

/// The demo's progress.
#[derive(Debug)]
pub struct Progress {
    /// None where there is no terminal.
    bar: Option<ProgressBar>,
    current: Option<(Stage, Instant)>,
    start: Instant,
}

impl Progress {
    /// Nothing done yet.
    pub fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(Stage::ALL.len() as u64), ProgressDrawTarget::stderr());
            // The template is ours and constant; indicatif's own look is the fallback.
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {wide_msg} {elapsed}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            bar,
            current: None,
            start: Instant::now(),
        }
    }

    /// The stage before is done, this one begins. A stage that began already goes on.
    pub fn begin(&mut self, stage: Stage) {
        if self.current.is_some_and(|(current, _)| current == stage) {
            return;
        }
        self.end();
        self.current = Some((stage, Instant::now()));
        match &self.bar {
            Some(bar) => bar.set_message(stage.title()),
            None => self.line(&format!(
                "[{:2}/{}] {} ...",
                stage.number(),
                Stage::ALL.len(),
                stage.title()
            )),
        }
    }

    fn end(&mut self) {
        let Some((stage, since)) = self.current.take() else {
            return;
        };
        let done = format!("[{:2}/{}] {}", stage.number(), Stage::ALL.len(), stage.title());
        self.line(&format!("{done}: {:.1} s", since.elapsed().as_secs_f64()));
        if let Some(bar) = &self.bar {
            bar.set_position(stage.number() as u64);
        }
    }

    /// What the stage is at.
    pub fn detail(&self, text: &str) {
        match (&self.bar, self.current) {
            (Some(bar), Some((stage, _))) => bar.set_message(format!("{}: {text}", stage.title())),
            _ => self.line(&format!("        {text}")),
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// The last stage is done; gives the time of all.
    pub fn finish(mut self) -> Duration {
        self.end();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.start.elapsed()
    }

    /// The current stage failed; names it.
    pub fn fail(self) -> &'static str {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.current.map_or("start", |(stage, _)| stage.title())
    }
}
