//! Fetches, configures, patches and compiles.

use super::{Part, SourceKernel, config};
use crate::{
    apt::{Apt, Fetched},
    archive::Archive,
    kernel::{Kernel, Modules},
    process::output,
    recipe,
    root::{self, Run},
    store::{Key, Store},
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// Every script begins so. The kernel says who built it and when: the same from the same.
const ENVIRONMENT: &str = "set -e
export PATH=/usr/sbin:/usr/bin LC_ALL=C HOME=/tmp
export KBUILD_BUILD_TIMESTAMP=1970-01-01 KBUILD_BUILD_USER=daxvisor KBUILD_BUILD_HOST=daxvisor
cd /work/source
make='make --silent O=/work/build ARCH=x86_64'
";
const CONFIGURE: &str = "$make KCONFIG_ALLCONFIG=/work/fragments allnoconfig\n";
const COMPILE: &str = "$make --jobs=\"$1\" bzImage\n";
/// `--force` asks nothing, and does not guess that a patch that does not fit is meant the other way round.
const PATCH: &str = "for patch; do
  [ \"$patch\" != --reverse ] || { reverse=--reverse; continue; }
  patch --force --strip=1 $reverse --input=\"/work/patches/$patch\" 1>&2 || { echo \"$patch does not fit\" 1>&2; exit 1; }
done
";
/// For keys.
pub const SCRIPTS: [&str; 4] = [ENVIRONMENT, CONFIGURE, COMPILE, PATCH];

/// What is taken from a build, and what it is called then.
const KEPT: &[(&str, &str)] = &[
    ("arch/x86/boot/bzImage", "bzImage"),
    ("System.map", "System.map"),
    (".config", "config"),
    ("include/config/kernel.release", "release"),
];

/// Sources as they were unpacked.
struct Sources {
    package: Fetched,
    /// Absolute: `tree/` and the package's copyright file.
    folder: PathBuf,
}

/// What compiles kernels.
pub struct Compiler<'a> {
    store: &'a Store,
    archive: &'a Archive,
    refresh: bool,
    /// Absolute.
    root: PathBuf,
}

impl<'a> Compiler<'a> {
    /// Fetches the compiler and unpacks it.
    pub fn new(store: &'a Store, archive: &'a Archive, refresh: bool) -> Result<Self> {
        let apt = Apt::open(store.dir(), archive, recipe::TOOLS_SUITE, refresh)?;
        let packages = apt.fetch(&apt.closure(recipe::KERNEL_BUILD_PACKAGES, &[])?)?;
        let mut key = Key::new("kernel-compiler");
        packages.iter().for_each(|p| {
            key.add(&p.sha256);
        });
        let root = store.step("kernel-compiler", &key, |out| root::unpack(&packages, out))?;
        Ok(Self {
            store,
            archive,
            refresh,
            root: store.dir().join(root),
        })
    }

    fn sources(&self, package: &str) -> Result<Sources> {
        let known = recipe::SOURCES.iter().find(|s| s.package == package);
        let suite = known
            .with_context(|| format!("there is no kernel source '{package}'"))?
            .suite;
        let apt = Apt::open(self.store.dir(), self.archive, suite, self.refresh)?;
        let fetched = apt.fetch(&apt.alone(&[package])?)?.into_iter().next();
        let fetched = fetched.with_context(|| format!("'{suite}' has no package {package}"))?;
        let mut key = Key::new("kernel-source");
        key.add(&fetched.sha256);
        let folder = self.store.step(package, &key, |out| {
            let scratch = self.store.scratch()?;
            fetched.unpack(scratch.path())?;
            let tree = out.join("tree");
            fs::create_dir(&tree)?;
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--strip-components=1", "--no-same-owner", "--file"]);
            tar.arg(scratch.path().join(format!("usr/src/{package}.tar.xz")));
            output(tar.arg("--directory").arg(&tree))?;
            copy_doc(scratch.path(), out, package)
        })?;
        Ok(Sources {
            package: fetched,
            folder: self.store.dir().join(folder),
        })
    }

    /// Runs a script on a source tree and a folder of objects.
    fn run(&self, work: &Path, tree: &Path, objects: &Path, script: &str, arguments: &[String]) -> Result<()> {
        for folder in ["source", "build"] {
            fs::create_dir_all(work.join(folder))?;
        }
        let folders = [("source", tree.to_owned()), ("build", objects.to_owned())];
        let run = Run {
            root: &self.root,
            work,
            folders: &folders,
        };
        run.script(&format!("{ENVIRONMENT}{script}"), arguments).map(drop)
    }

    /// Objects of the unpatched kernel; absolute.
    fn objects(&self, sources: &Sources, fragments: &str, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let mut key = Key::new("kernel-objects");
        key.add(sources.folder.to_string_lossy().as_bytes())
            .add(self.root.to_string_lossy().as_bytes())
            .add(fragments)
            .add(SCRIPTS.concat());
        let tree = sources.folder.join("tree");
        let folder = self.store.step("kernel-objects", &key, |out| {
            let package = &sources.package.package;
            say(&format!("compiling {} {}", package.name, package.version));
            let work = self.store.scratch()?;
            fs::write(work.path().join("fragments"), fragments)?;
            self.run(work.path(), &tree, out, CONFIGURE, &[])?;
            config::check(fragments, &fs::read_to_string(out.join(".config"))?)?;
            self.run(work.path(), &tree, out, COMPILE, &[jobs()])
        })?;
        Ok(self.store.dir().join(folder))
    }

    /// Puts patches into copies of the sources and the objects, and compiles what they touch.
    fn patched(&self, sources: &Sources, objects: &Path, kernel: &SourceKernel, work: &Path) -> Result<PathBuf> {
        let (tree, build) = (work.join("tree"), work.join("objects"));
        // Links: patch replaces the files it changes, and never writes into them.
        let mut links = Command::new("cp");
        output(links.args(["-a", "--link"]).arg(sources.folder.join("tree")).arg(&tree))?;
        output(Command::new("cp").arg("-a").arg(objects).arg(&build))?;
        let names = write_patches(&kernel.patches, &work.join("patches"))?;
        let names = if kernel.reverse {
            std::iter::once("--reverse".to_owned())
                .chain(names.into_iter().rev())
                .collect()
        } else {
            names
        };
        self.run(work, &tree, &build, PATCH, &names)?;
        self.run(work, &tree, &build, COMPILE, &[jobs()])?;
        Ok(build)
    }

    /// Compiles a kernel, or finds what an earlier run compiled.
    pub fn build(&self, kernel: &SourceKernel, say: &mut dyn FnMut(&str)) -> Result<Kernel> {
        let sources = self.sources(&kernel.package)?;
        let fragments = fragments(&kernel.configs);
        let mut key = Key::new("kernel-compiled");
        key.add(&sources.package.sha256)
            .add(self.root.to_string_lossy().as_bytes())
            .add(&fragments)
            .add(SCRIPTS.concat())
            .add(format!("{:?}{}", kernel.patches, kernel.reverse));
        let folder = self.store.step(&kernel.name, &key, |out| {
            let objects = self.objects(&sources, &fragments, say)?;
            let work = self.store.scratch()?;
            let build = if kernel.patches.is_empty() {
                objects
            } else {
                say("compiling what the patches touch");
                self.patched(&sources, &objects, kernel, work.path())?
            };
            keep(&build, out)?;
            copy_doc(&sources.folder, out, &kernel.package)
        })?;
        let release = fs::read_to_string(self.store.dir().join(&folder).join("release"))?;
        Ok(Kernel {
            release: release.trim().to_owned(),
            folder,
            packages: vec![sources.package],
            modules: Modules::Least,
        })
    }
}

fn jobs() -> String {
    thread::available_parallelism().map_or(1, Into::into).to_string()
}

/// The small configuration and those on top of it.
fn fragments(configs: &[Part]) -> String {
    let texts = configs.iter().map(|c| c.text.as_str());
    let all: Vec<_> = std::iter::once(recipe::KERNEL_CONFIG).chain(texts).collect();
    all.join("\n")
}

/// Patches under names that begin with their number; gives the names.
fn write_patches(patches: &[Part], folder: &Path) -> Result<Vec<String>> {
    fs::create_dir(folder)?;
    let write = |(n, patch): (usize, &Part)| {
        let name = format!("{:04}-{}", n + 1, patch.name);
        fs::write(folder.join(&name), &patch.text)?;
        Ok(name)
    };
    patches.iter().enumerate().map(write).collect()
}

/// The licence file stays with what it is about.
fn copy_doc(from: &Path, to: &Path, package: &str) -> Result<()> {
    let doc = Path::new("usr/share/doc").join(package);
    fs::create_dir_all(to.join(&doc))?;
    let file = doc.join("copyright");
    fs::copy(from.join(&file), to.join(&file)).with_context(|| format!("{package} has no copyright file"))?;
    Ok(())
}

/// Takes from a build what an image needs, in the shape of an unpacked package's kernel without modules.
fn keep(build: &Path, out: &Path) -> Result<()> {
    for (from, to) in KEPT {
        fs::copy(build.join(from), out.join(to)).with_context(|| format!("the build made no {from}"))?;
    }
    let image = fs::read(out.join("bzImage"))?;
    let vmlinux = vmm::boot::unpack::unpack(&image).context("cannot unpack the kernel")?;
    fs::write(out.join("vmlinux"), vmlinux)?;
    let modules = out.join("modules");
    fs::create_dir_all(modules.join("kernel"))?;
    for index in ["modules.builtin", "modules.builtin.modinfo"] {
        fs::copy(build.join(index), modules.join(index)).with_context(|| format!("the build made no {index}"))?;
    }
    Ok(fs::write(modules.join("modules.order"), "")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_stand_behind_the_small_configuration() {
        let part = Part {
            name: "x".into(),
            text: "CONFIG_X=y\n".into(),
        };
        let all = fragments(&[part]);
        assert!(all.starts_with(recipe::KERNEL_CONFIG) && all.ends_with("CONFIG_X=y\n"));
    }

    #[test]
    fn patches_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let part = |name: &str| Part {
            name: name.into(),
            text: name.into(),
        };
        let names = write_patches(&[part("b"), part("a")], &dir.path().join("patches")).unwrap();
        assert_eq!(names, ["0001-b", "0002-a"]);
        assert_eq!(fs::read_to_string(dir.path().join("patches/0002-a")).unwrap(), "a");
    }
}
