//! Kernel modules: which ones a list needs, and the order in which they load.

use crate::{recipe::Module, unpack};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The kernel's spelling: file names use dashes and underscores as they like.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Name of the module in a file such as `kernel/a/kvm-amd.ko.xz`.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (stem, packing) = file.split_once(".ko")?;
    matches!(packing, "" | ".xz" | ".gz" | ".zst").then(|| canonical(stem))
}

/// Modules of an unpacked kernel, `lib/modules/<release>` as its package has it (there is no `modules.dep` in it).
pub struct Available {
    root: PathBuf,
    files: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
}

fn walk(root: &Path, below: &str, found: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{below}/{}", name.to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else if let Some(name) = name_of(&path) {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Direct dependencies, from the module's `.modinfo` section (`depends=a,b`, a string among others).
fn direct_dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else {
        return Vec::new();
    };
    let rest = module.get(at + KEY.len()..).unwrap_or_default();
    let text = rest.split(|b| *b == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text)
        .split(',')
        .map(canonical)
        .collect::<Vec<_>>();
    names.into_iter().filter(|n| !n.is_empty()).collect()
}

impl Available {
    /// Looks through `lib/modules/<release>`.
    pub fn scan(root: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        walk(root, "kernel", &mut files).with_context(|| format!("cannot look through {}", root.display()))?;
        let builtin =
            fs::read_to_string(root.join("modules.builtin")).context("the kernel package has no modules.builtin")?;
        Ok(Self {
            root: root.to_owned(),
            files,
            builtin: builtin.lines().filter_map(name_of).collect(),
        })
    }

    /// Copies the wanted modules and all they depend on, unpacked, to the same places below `to`.
    pub fn copy_closure(&self, wanted: impl IntoIterator<Item = Module>, to: &Path) -> Result<()> {
        let mut todo = Vec::new();
        for module in wanted {
            let (Module::Needed(name) | Module::Wanted(name)) = module;
            let here = self.files.contains_key(name);
            if !here && !self.builtin.contains(name) && matches!(module, Module::Needed(_)) {
                bail!("this kernel has no module '{name}'");
            }
            todo.extend(here.then(|| name.to_owned()));
        }
        let mut done = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if !done.insert(name.clone()) || self.builtin.contains(&name) {
                continue;
            }
            let path = self
                .files
                .get(&name)
                .with_context(|| format!("module '{name}' is depended upon but missing"))?;
            let bytes = unpack::module(path, fs::read(self.root.join(path))?)
                .with_context(|| format!("cannot unpack {path}"))?;
            todo.extend(direct_dependencies(&bytes));
            let (plain, _) = path.split_once(".ko").unwrap_or((path, ""));
            let target = to.join(format!("{plain}.ko"));
            fs::create_dir_all(target.parent().context("a module without a folder")?)?;
            fs::write(target, bytes)?;
        }
        Ok(())
    }
}

/// `modules.dep` as depmod writes it.
pub struct Dependencies(BTreeMap<String, (String, Vec<String>)>);

impl Dependencies {
    /// Parses `path.ko: dependency.ko ...` lines.
    pub fn parse(text: &str) -> Self {
        let mut map = BTreeMap::new();
        for (path, needs) in text.lines().filter_map(|l| l.split_once(':')) {
            if let Some(name) = name_of(path) {
                map.insert(
                    name,
                    (path.to_owned(), needs.split_whitespace().filter_map(name_of).collect()),
                );
            }
        }
        Self(map)
    }

    /// Paths of the modules in `list` and all they need, each once and after what it needs. What is not a module
    /// (built in, or left out of the image) is passed over.
    pub fn load_order(&self, list: &[Module]) -> Vec<String> {
        let mut order = Vec::new();
        for Module::Needed(name) | Module::Wanted(name) in list {
            self.visit(name, &mut order, &mut BTreeSet::new());
        }
        order
    }

    fn visit(&self, name: &str, order: &mut Vec<String>, above: &mut BTreeSet<String>) {
        let Some((path, needs)) = self.0.get(name) else { return };
        // `above` ends a cycle, which depmod would have refused.
        if order.contains(path) || !above.insert(name.to_owned()) {
            return;
        }
        needs.iter().for_each(|need| self.visit(need, order, above));
        order.push(path.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Module::{Needed, Wanted};

    const DEP: &str = "kernel/kvm/kvm-amd.ko: kernel/kvm/kvm.ko kernel/ccp.ko kernel/irqbypass.ko\n\
        kernel/kvm/kvm.ko: kernel/irqbypass.ko\nkernel/ccp.ko:\nkernel/irqbypass.ko:\nkernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n";

    #[test]
    fn a_module_loads_after_what_it_needs_and_only_once() {
        let order = Dependencies::parse(DEP).load_order(&[Needed("kvm"), Needed("kvm_amd"), Wanted("nothing")]);
        assert_eq!(
            order,
            [
                "kernel/irqbypass.ko",
                "kernel/kvm/kvm.ko",
                "kernel/ccp.ko",
                "kernel/kvm/kvm-amd.ko"
            ]
        );
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(Dependencies::parse(DEP).load_order(&[Needed("a")]).len(), 2);
    }

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        let module = b"junk\0license=GPL\0depends=libnvdimm,crc-x\0name=y\0";
        assert_eq!(direct_dependencies(module), ["libnvdimm", "crc_x"]);
        assert!(direct_dependencies(b"\0depends=\0").is_empty());
    }

    #[test]
    fn closure_takes_dependencies_and_skips_what_is_built_in() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("kernel")).unwrap();
        fs::write(from.path().join("modules.builtin"), "kernel/dax.ko\n").unwrap();
        fs::write(from.path().join("kernel/nd-pmem.ko"), b"\0depends=libnvdimm,dax\0").unwrap();
        fs::write(from.path().join("kernel/libnvdimm.ko"), b"\0depends=\0").unwrap();
        let modules = Available::scan(from.path()).unwrap();
        modules
            .copy_closure([Needed("nd_pmem"), Needed("dax"), Wanted("gone")], to.path())
            .unwrap();
        assert_eq!(fs::read_dir(to.path().join("kernel")).unwrap().count(), 2);
        assert!(modules.copy_closure([Needed("gone")], to.path()).is_err());
    }
}
