//! The image in which ndctl's own tests run: its sources as a Debian package, compiled in a private root.
//!
//! ```text
//! source package, build packages -> build (a root of its own, no privileges) -> programs, libraries, test folder
//! run packages + that + conformance/guest -> overlay, appended to a kernel's initramfs
//! ```
//! Nothing of ndctl lies in this repository, and nothing of this is built unless it is asked for.

mod compile;
mod overlay;
mod recipe;

use crate::{
    apt::Apt,
    archive::Archive,
    recipe::TOOLS_SUITE,
    store::{Key, Store, write_atomically},
    tools::{self, Tools},
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use vmm::images::Manifest;

/// Where everything is in the guest.
pub const ROOT: &str = "/opt/conformance";
/// The record of what was built, in the images' folder.
const RECORD: &str = "conformance.json";

/// What there is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conformance {
    /// Version of ndctl.
    pub version: String,
    /// SHA-256 of its source archive.
    pub source: String,
    /// Files of its test folder, sorted.
    pub files: Vec<String>,
    /// Tests that its build registers: name and program.
    pub tests: BTreeMap<String, String>,
    /// initramfs by kernel, absolute.
    pub initramfs: BTreeMap<String, PathBuf>,
    /// The same with large programs.
    pub large: BTreeMap<String, PathBuf>,
}

/// Folders of the store that a record keeps alive.
pub fn record(dir: &Path) -> String {
    fs::read_to_string(dir.join(RECORD)).unwrap_or_default()
}

/// Builds what is missing for `kernels`, which have to be in `dir` already; `say` hears of stages that take time.
pub fn build(dir: &Path, kernels: &[String], say: &mut dyn FnMut(&str)) -> Result<Conformance> {
    let manifest = Manifest::load(dir)?;
    let dir = fs::canonicalize(dir)?;
    let store = Store::open(&dir, || {
        eprintln!("another build works in {}; waiting for it", dir.display())
    })?;
    let archive = Archive::of_this_machine()?;
    let apt = Apt::open(&dir, &archive, TOOLS_SUITE, false)?;
    let source = Apt::open_sources(&dir, &archive, recipe::SOURCE_SUITE, false)?.source(recipe::SOURCE)?;
    let built = compile::build(&store, &apt, &source, say)?;
    let tools = run_tools(&store, &apt)?;
    let overlay = overlay::build(&store, &tools, &built, say)?;
    let more = overlay::large(&store, &tools)?;
    let (mut initramfs, mut large) = (BTreeMap::new(), BTreeMap::new());
    for name in kernels {
        let base = &manifest.kernel(name)?.initramfs;
        initramfs.insert(name.clone(), dir.join(append(&store, base, &[&overlay])?));
        large.insert(name.clone(), dir.join(append(&store, base, &[&overlay, &more])?));
    }
    let conformance = Conformance {
        version: source.upstream().to_owned(),
        source: source.sha256.clone(),
        files: built.files()?,
        tests: built.tests()?,
        initramfs,
        large,
    };
    let text = serde_json::to_string_pretty(&(&conformance, &built.folder, &tools.root, (&overlay, &more)))? + "\n";
    write_atomically(&dir.join(RECORD), text.as_bytes())?;
    Ok(conformance)
}

fn run_tools(store: &Store, apt: &Apt) -> Result<Tools> {
    tools::unpack_set(
        store,
        apt,
        "conformance-tools",
        recipe::RUN_PACKAGES,
        recipe::RUN_WITHOUT,
    )
}

/// The kernel takes archives one after another, later files over earlier ones.
fn append(store: &Store, base: &Path, overlays: &[&Path]) -> Result<PathBuf> {
    let mut key = Key::new("conformance-initramfs");
    key.add(base.to_string_lossy().as_bytes());
    overlays.iter().for_each(|overlay| {
        key.add(overlay.to_string_lossy().as_bytes());
    });
    let folder = store.step("conformance-initramfs", &key, |out| {
        let mut all = fs::read(base).with_context(|| format!("cannot read {}", base.display()))?;
        for overlay in overlays {
            all.extend(fs::read(store.dir().join(overlay))?);
        }
        Ok(fs::write(out.join("initramfs.cpio"), all)?)
    })?;
    Ok(folder.join("initramfs.cpio"))
}
