//! Kernels that are compiled here: a package of kernel source, a small configuration, and patches put in or taken out.
//!
//! ```text
//! source package -> sources ─┐
//! build packages -> root ────┼-> objects of the plain kernel -> + patches: only what they touch is compiled again -> image
//! fragments ─────────────────┘
//! ```
//! Each arrow's result is in the store under a hash of what went in, the compiler's packages among it.

mod compile;
mod config;

pub use compile::Compiler;

use crate::{
    local::{self, FOLDER},
    recipe,
    store::write_atomically,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// `PACKAGE` or `PACKAGE=NAME`: a package of kernel source and what the image is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceName {
    /// The package.
    pub package: String,
    /// Name of the image.
    pub name: String,
}

impl FromStr for SourceName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (package, name) = text.split_once('=').unwrap_or((text, text));
        let known: Vec<_> = recipe::SOURCES.iter().map(|s| s.package).collect();
        if !known.contains(&package) {
            return Err(format!(
                "there is no kernel source '{package}'; expected one of: {}",
                known.join(", ")
            ));
        }
        if !local::is_name(name) {
            return Err(format!(
                "'{name}' is no name of an image: expected letters, digits, '-', '_', '.' and '+'"
            ));
        }
        if recipe::kernel_names().any(|(known, _)| known == name) {
            return Err(format!(
                "a kernel of the archive is called '{name}' already; hint: {package}=NAME gives another name"
            ));
        }
        Ok(Self {
            package: package.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A file that goes into a kernel, as it was when the kernel was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Part {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {} as text", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, text })
    }
}

/// A kernel to compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceKernel {
    /// Name of the image.
    pub name: String,
    /// Package with the source.
    pub package: String,
    /// Fragments of configuration on top of the small one, later ones over earlier ones.
    pub configs: Vec<Part>,
    /// Patches, in order.
    pub patches: Vec<Part>,
    /// The patches are in the source and are taken out, last first.
    pub reverse: bool,
}

impl SourceKernel {
    /// Reads the files that a kernel is asked for with.
    pub fn read(name: SourceName, configs: &[PathBuf], patches: &[PathBuf], reverse: bool) -> Result<Self> {
        let read = |paths: &[PathBuf]| paths.iter().map(|p| Part::read(p)).collect::<Result<Vec<_>>>();
        let patches = read(patches)?;
        if let Some(patch) = patches.iter().find(|p| !p.text.lines().any(|l| l.starts_with("+++ "))) {
            bail!("{} is no patch: it has no line that begins with '+++ '", patch.name);
        }
        Ok(Self {
            name: name.name,
            package: name.package,
            configs: read(configs)?,
            patches,
            reverse,
        })
    }
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(FOLDER).join(format!("{name}.json"))
}

/// Keeps what a kernel is made of in the images' folder.
pub fn keep(dir: &Path, source: &SourceKernel) -> Result<()> {
    fs::create_dir_all(dir.join(FOLDER))?;
    let text = serde_json::to_string_pretty(source)? + "\n";
    write_atomically(&file(dir, &source.name), text.as_bytes())?;
    // The name means this source from now on.
    local::forget_package(dir, &source.name);
    Ok(())
}

/// Forgets the source of a name; whether there was one.
pub fn forget(dir: &Path, name: &str) -> bool {
    fs::remove_file(file(dir, name)).is_ok()
}

/// The sources that are kept, in the order of their names.
pub fn kept(dir: &Path) -> Result<Vec<SourceKernel>> {
    let Ok(entries) = fs::read_dir(dir.join(FOLDER)) else {
        return Ok(vec![]);
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let text = fs::read_to_string(&path)?;
            let source: SourceKernel = serde_json::from_str(&text)
                .with_context(|| format!("{} is not of this version; hint: remove it", path.display()))?;
            found.push(source);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Kernels that are kept together with those that are asked for, which take the place of others of their name.
pub fn with(mut kept: Vec<SourceKernel>, asked: &[SourceKernel]) -> Vec<SourceKernel> {
    kept.retain(|k| asked.iter().all(|a| a.name != k.name));
    kept.extend(asked.iter().cloned());
    kept.sort_by(|a, b| a.name.cmp(&b.name));
    kept
}

/// Everything of these kernels that is known before anything is fetched.
pub fn stamp(sources: &[SourceKernel]) -> Result<String> {
    let recipe = (recipe::SOURCES, recipe::KERNEL_BUILD_PACKAGES, recipe::KERNEL_CONFIG);
    Ok(serde_json::to_string(sources)? + &format!("{recipe:?}{}", compile::SCRIPTS.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> SourceName {
        text.parse().unwrap()
    }

    #[test]
    fn sources_have_names() {
        assert_eq!(named("linux-source-6.1").name, "linux-source-6.1");
        assert_eq!(named("linux-source-6.1=mine").name, "mine");
        let error = |text: &str| text.parse::<SourceName>().unwrap_err();
        assert!(error("linux-source-1.0").contains("expected one of: linux-source-6.1"));
        assert!(error("linux-source-6.1=").contains("'' is no name"));
        assert!(error("linux-source-6.1=../x").contains("'../x' is no name"));
        assert!(error("linux-source-6.1=debian-6.1-amd64").contains("hint: linux-source-6.1=NAME"));
    }

    #[test]
    fn a_kernel_that_is_asked_for_takes_the_place_of_one_that_is_kept() {
        let kernel = |text: &str, reverse| SourceKernel::read(named(text), &[], &[], reverse).unwrap();
        let [a, b] = ["linux-source-6.1=a", "linux-source-6.1=b"];
        let all = with(vec![kernel(a, false), kernel(b, false)], &[kernel(a, true)]);
        assert_eq!(all, [kernel(a, true), kernel(b, false)]);
    }

    #[test]
    fn what_a_kernel_is_made_of_is_kept_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let patch = dir.path().join("a.patch");
        fs::write(&patch, "--- a/x\n+++ b/x\n").unwrap();
        let source = SourceKernel::read(named("linux-source-6.1=mine"), &[], std::slice::from_ref(&patch), true);
        let source = source.unwrap();
        keep(dir.path(), &source).unwrap();
        // The file itself may change or go.
        fs::write(&patch, "no patch").unwrap();
        assert_eq!(kept(dir.path()).unwrap(), [source]);
        let error = SourceKernel::read(named("linux-source-6.1"), &[], &[patch], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.patch is no patch: it has no line that begins with '+++ '"
        );
        local::forget(dir.path(), "mine").unwrap();
        assert_eq!(kept(dir.path()).unwrap(), []);
        assert!(local::forget(dir.path(), "mine").is_err());
    }
}
