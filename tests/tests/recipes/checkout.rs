//! A fresh machine of a CI system, with the repository checked out: as much of it as recipes use.

use crate::{SUITE, output, program, without_images, wrapper};
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What recipes may ask of cargo. Compiling leaves this build of daxvisor where a release would be.
const CARGO: &str = r#"case "$*" in
"build --release --package vmm")
  mkdir -p target/release && cp "$(dirname "$0")/daxvisor" target/release/daxvisor ;;
"xtask images") ;;
*)
  echo "cargo $*: unexpected" >&2
  exit 64 ;;
esac"#;
/// The one thing that takes root: a device that is already as it should be.
const SUDO: &str = r#"[ "$*" = "chmod 666 /dev/kvm" ] || { echo "sudo $*: unexpected" >&2; exit 64; }"#;

/// The machine.
pub struct Checkout {
    /// Folder of the repository; it is where commands run.
    pub folder: PathBuf,
    programs: PathBuf,
}

impl Checkout {
    /// A machine called `name`, its files below `scratch`.
    pub fn new(scratch: &Path, name: &str) -> Result<Self> {
        let programs = scratch.join("programs");
        program(&programs, "daxvisor", &wrapper()?)?;
        program(&programs, "cargo", CARGO)?;
        program(&programs, "sudo", SUDO)?;
        let folder = scratch.join(name);
        fs::create_dir_all(folder.join("tests/suites"))?;
        fs::write(folder.join("tests/suites/suite.toml"), SUITE)?;
        Ok(Self { folder, programs })
    }

    /// Runs a script by bash with these options, as both systems do.
    pub fn bash(&self, options: &[&str], script: &str, variables: &[(&str, String)]) -> Result<Output> {
        let mut command = Command::new("bash");
        without_images(&mut command, &self.programs)?;
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        output(command.args(options).args(["-c", script]).current_dir(&self.folder))
    }
}
