//! The archive that goes behind a kernel's own initramfs: everything below [`super::ROOT`], and libraries.

use super::{
    ROOT,
    compile::Built,
    recipe::{ALIASES, LARGE_PROGRAMS, OWN_FILES, PRIVATE_LIBRARIES, PROGRAMS},
};
use crate::{
    cpio::Tree,
    libraries,
    store::{Key, Store},
    tools::Tools,
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::BufWriter,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const FILE: &str = "overlay.cpio";
/// Folders of the build whose libraries others load.
const OWN_LIBRARIES: &[&str] = &["build/ndctl/lib", "build/daxctl/lib", "build/cxl/lib"];

fn name(path: &Path) -> Result<&str> {
    let name = path.file_name().and_then(|n| n.to_str());
    name.with_context(|| format!("{} has no plain name", path.display()))
}

/// Builds the archive; its path is relative to the images' folder.
pub fn build(store: &Store, tools: &Tools, built: &Built, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let mut key = Key::new("conformance-overlay");
    key.add(tools.root.to_string_lossy().as_bytes())
        .add(built.folder.to_string_lossy().as_bytes())
        .add(format!("{PROGRAMS:?}{ALIASES:?}{OWN_FILES:?}"));
    archive(store, "conformance-overlay", &key, |tree| {
        say("the conformance image");
        add_programs(tree, tools, PROGRAMS)?;
        for (alias, program) in ALIASES {
            tree.link(&format!("{ROOT}/bin/{alias}"), program)?;
        }
        tree.link("usr/bin/bash", &format!("{ROOT}/bin/bash"))?;
        add_built(tree, tools, built)?;
        OWN_FILES
            .iter()
            .try_for_each(|own| tree.file(&format!("{ROOT}/{}", own.path), own.mode, own.text))
    })
}

/// Builds the archive of large programs, which stands behind the other.
pub fn large(store: &Store, tools: &Tools) -> Result<PathBuf> {
    let mut key = Key::new("conformance-large");
    key.add(tools.root.to_string_lossy().as_bytes())
        .add(format!("{LARGE_PROGRAMS:?}"));
    archive(store, "conformance-large", &key, |tree| {
        add_programs(tree, tools, LARGE_PROGRAMS)
    })
}

fn archive(store: &Store, name: &str, key: &Key, fill: impl FnOnce(&mut Tree) -> Result<()>) -> Result<PathBuf> {
    let folder = store.step(name, key, |out| {
        let mut tree = Tree::default();
        fill(&mut tree)?;
        let mut file = BufWriter::new(File::create(out.join(FILE))?);
        tree.write(&mut file)?;
        file.into_inner().context("cannot write the overlay")?.sync_all()?;
        Ok(())
    })?;
    Ok(folder.join(FILE))
}

/// Libraries of a program; those of the build, in `own`, travel with it.
fn add_libraries(tree: &mut Tree, tools: &Tools, program: &Path, own: &[PathBuf]) -> Result<()> {
    let private = PRIVATE_LIBRARIES.iter().map(|p| tools.root.join(p));
    let folders: Vec<_> = own.iter().cloned().chain(private).collect();
    for library in libraries::closure_with(&tools.root, &folders, program)? {
        let file = name(&library)?;
        let to = if file.starts_with("ld-linux") {
            format!("usr/lib64/{file}")
        } else {
            format!("usr/lib/x86_64-linux-gnu/{file}")
        };
        if !own.iter().any(|o| library.starts_with(o)) && !tree.contains(&to) {
            tree.file(&to, 0o755, fs::read(&library)?)?;
        }
    }
    Ok(())
}

/// In a folder of their own: the image's busybox keeps its places, PATH decides.
fn add_programs(tree: &mut Tree, tools: &Tools, programs: &[&str]) -> Result<()> {
    for program in programs {
        let real = fs::canonicalize(libraries::program(&tools.root, program)?)?;
        let bytes = fs::read(&real).with_context(|| format!("cannot read {}", real.display()))?;
        let script = bytes.starts_with(b"#!");
        tree.file(&format!("{ROOT}/bin/{program}"), 0o755, bytes)?;
        if !script {
            add_libraries(tree, tools, &real, &[])?;
        }
    }
    Ok(())
}

/// The build keeps its shape: its programs find their libraries relative to themselves.
fn add_built(tree: &mut Tree, tools: &Tools, built: &Built) -> Result<()> {
    let own: Vec<_> = OWN_LIBRARIES.iter().map(|l| built.folder.join(l)).collect();
    tree.copy(&built.folder.join("test"), &format!("{ROOT}/test"))?;
    tree.copy(&built.folder.join("build"), &format!("{ROOT}/build"))?;
    for folder in ["build/ndctl", "build/daxctl", "build/cxl", "build/test"] {
        for entry in fs::read_dir(built.folder.join(folder))? {
            let path = entry?.path();
            let data = fs::metadata(&path)?;
            if data.is_file() && data.permissions().mode() & 0o100 != 0 && fs::read(&path)?.starts_with(b"\x7fELF") {
                add_libraries(tree, tools, &path, &own)?;
            }
        }
    }
    Ok(())
}
