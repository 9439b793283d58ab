//! A shell on the console, for people.

use crate::{command::BASE_ENV, reaper::Reaper};
use std::{
    fs::OpenOptions,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Runs one shell to its end. `cttyhack` finds the terminal behind `/dev/console`, which gives job control and Ctrl-C.
pub fn once(reaper: &Reaper) {
    let Ok(console) = OpenOptions::new().read(true).write(true).open("/dev/console") else {
        return;
    };
    let (Ok(out), Ok(err)) = (console.try_clone(), console.try_clone()) else {
        return;
    };
    let mut command = Command::new("setsid");
    command
        .args(["cttyhack", "/bin/sh", "-l"])
        .envs(BASE_ENV.iter().copied())
        .current_dir("/");
    command
        .stdin(Stdio::from(console))
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err));
    if let Ok(child) = reaper.spawn(&mut command) {
        child.wait();
    }
}

/// A new shell whenever the last one ended.
pub fn for_ever(reaper: &Reaper) -> ! {
    loop {
        once(reaper);
        thread::sleep(Duration::from_secs(1));
    }
}
