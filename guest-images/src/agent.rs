//! The static programs of the images, built by cargo with flags of their own: the agent, and what guests' tests run.

use crate::process::output;
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The host's own target: glibc can be linked statically as it is, no further toolchain is needed.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// ELF program header type of an interpreter: a static program has none.
const PT_INTERP: u32 = 3;

fn workspace() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("this crate lies in no workspace")?;
    if !root.join("Cargo.toml").is_file() {
        bail!(
            "the sources are no longer in {}; hint: build this program again where they are",
            root.display()
        );
    }
    Ok(root.to_owned())
}

/// Programs made here that go into an image.
#[derive(Debug)]
pub struct Programs {
    /// First process and command server.
    pub agent: Vec<u8>,
    /// Touches memory and says what came of it.
    pub memprobe: Vec<u8>,
}

/// Builds them (quick when nothing changed).
pub fn build() -> Result<Programs> {
    Ok(Programs {
        agent: build_one("daxvisor-agent", "daxvisor-agent")?,
        memprobe: build_one("daxvisor-memprobe", "memprobe")?,
    })
}

fn build_one(package: &str, name: &str) -> Result<Vec<u8>> {
    let root = workspace()?;
    let target_dir = root.join("target/agent");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&root).args([
        "build",
        "--quiet",
        "--package",
        package,
        "--profile",
        "agent",
        "--target",
        TARGET,
    ]);
    cargo
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR");
    output(&mut cargo).with_context(|| {
        format!("cannot build {package}; hint: it is linked statically, which needs the package libc6-dev")
    })?;
    let program = target_dir.join(TARGET).join("agent").join(name);
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    if !is_static(&bytes)? {
        bail!("{} is not static: a guest has no libraries for it", program.display());
    }
    Ok(bytes)
}

/// Whether a 64-bit ELF program needs no interpreter.
fn is_static(elf: &[u8]) -> Result<bool> {
    let cut = "the program's ELF header is cut short";
    let half = |at: usize| {
        elf.get(at..at + 2)
            .map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))
            .context(cut)
    };
    let table = elf.get(32..40).context(cut)?;
    let table = usize::try_from(u64::from_le_bytes(table.try_into()?))?;
    let (size, count) = (half(54)?, half(56)?);
    for n in 0..count {
        let at = table + n * size;
        let kind = elf.get(at..at + 4).context(cut)?;
        if u32::from_le_bytes(kind.try_into()?) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let this = fs::read(env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this).unwrap());
        assert!(is_static(b"\x7fELF").is_err());
    }
}
