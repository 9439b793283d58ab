//! The whole build, in order.

use crate::{
    agent::{self, Programs},
    apt::{Apt, Fetched},
    archive::Archive,
    hypervisor,
    initramfs::{self, Role},
    kernel::{self, Kernel},
    local::{self, LocalPackage},
    qemu, recipe,
    source::{self, SourceKernel},
    store::{FOLDER, Key, Store, hex, write_atomically},
    tools::{self, Sets},
};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use vmm::images::{HostImage, HypervisorImage, Hypervisors, KernelImage, Manifest};

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The images' folder.
    pub dir: PathBuf,
    /// Guest kernels by name; empty: the default set. Kernels already there are kept.
    pub kernels: Vec<String>,
    /// Kernel packages to keep, and to make images of.
    pub packages: Vec<LocalPackage>,
    /// Kernels to compile, and to keep compiled.
    pub sources: Vec<SourceKernel>,
    /// Images of such packages and sources that are not wanted any more.
    pub forget: Vec<String>,
    /// Ask the archive for newer packages.
    pub refresh: bool,
    /// Remove results of earlier builds that nothing refers to any more.
    pub prune: bool,
}

/// The key of the last complete build, next to the manifest.
const FINGERPRINT: &str = "manifest.key";

struct Builder<'a> {
    store: Store,
    archive: Archive,
    refresh: bool,
    programs: Programs,
    say: &'a mut dyn FnMut(&str),
    manifest: Manifest,
    kernels: BTreeMap<&'static str, Kernel>,
}

fn recipe_of(name: &str) -> Result<&'static recipe::Kernel> {
    recipe::KERNELS.iter().find(|k| k.name == name).with_context(|| {
        let known: Vec<_> = recipe::KERNELS.iter().map(|k| k.name).collect();
        format!("there is no kernel '{name}'; expected one of: {}", known.join(", "))
    })
}

impl Builder<'_> {
    fn apt(&self, suite: &str) -> Result<Apt> {
        Apt::open(self.store.dir(), &self.archive, suite, self.refresh)
    }

    fn record(&mut self, packages: &[Fetched], root: &Path) {
        for package in packages {
            let name = format!("{} {}", package.package.name, package.package.version);
            self.manifest.packages.insert(name, package.info(root));
        }
    }

    /// The first suite that still has the wanted series.
    fn find_kernel(&self, wanted: &recipe::Kernel) -> Result<Apt> {
        let mut tried = Vec::new();
        for suite in wanted.suites {
            match self.apt(suite) {
                Ok(apt) => match apt.version(wanted.package) {
                    Some(version) if version.starts_with(wanted.version) => return Ok(apt),
                    version => tried.push(format!("'{suite}' has {}", version.as_deref().unwrap_or("none"))),
                },
                Err(e) => tried.push(format!("'{suite}': {e:#}")),
            }
        }
        bail!(
            "no suite offers {} {}x: {}",
            wanted.package,
            wanted.version,
            tried.join("; ")
        )
    }

    fn kernel(&mut self, wanted: &'static recipe::Kernel) -> Result<()> {
        if !self.kernels.contains_key(wanted.name) {
            (self.say)(&format!("kernel {}", wanted.name));
            let apt = self.find_kernel(wanted)?;
            let kernel = kernel::build(&self.store, &apt, wanted.name, wanted.package)?;
            let root = self.store.dir().join(&kernel.folder);
            self.record(&kernel.packages, &root);
            self.kernels.insert(wanted.name, kernel);
        }
        Ok(())
    }

    fn guest(&mut self, wanted: &'static recipe::Kernel, tools: &Sets) -> Result<()> {
        self.kernel(wanted)?;
        let image = self.image(&self.kernels[wanted.name], tools)?;
        self.manifest.kernels.insert(wanted.name.to_owned(), image);
        Ok(())
    }

    fn image(&self, kernel: &Kernel, tools: &Sets) -> Result<KernelImage> {
        Ok(KernelImage {
            release: kernel.release.clone(),
            bzimage: kernel.folder.join("bzImage"),
            vmlinux: kernel.folder.join("vmlinux"),
            initramfs: initramfs::build(&self.store, Role::Guest, kernel, tools, &self.programs)?,
        })
    }

    fn local(&mut self, package: &LocalPackage, tools: &Sets) -> Result<()> {
        (self.say)(&format!("kernel {}", package.name));
        let kernel = kernel::build_local(&self.store, &package.name, package.fetched()?)?;
        self.own(&package.name, &kernel, tools)
    }

    fn compiled(&mut self, source: &SourceKernel, tools: &Sets) -> Result<()> {
        (self.say)(&format!("kernel {}", source.name));
        let compiler = source::Compiler::new(&self.store, &self.archive, self.refresh)?;
        let kernel = compiler.build(source, self.say)?;
        self.own(&source.name, &kernel, tools)
    }

    fn own(&mut self, name: &str, kernel: &Kernel, tools: &Sets) -> Result<()> {
        let root = self.store.dir().join(&kernel.folder);
        self.record(&kernel.packages, &root);
        let image = self.image(kernel, tools)?;
        self.manifest.kernels.insert(name.to_owned(), image);
        Ok(())
    }

    /// Fetches the hypervisors and writes their list.
    fn hypervisors(&mut self) -> Result<()> {
        let mut list = Hypervisors::default();
        for wanted in recipe::HYPERVISORS {
            (self.say)(&format!("hypervisor {}", wanted.name));
            let mut failed = Vec::new();
            let built = wanted.suites.iter().find_map(|suite| {
                let built = self
                    .apt(suite)
                    .and_then(|apt| hypervisor::build(&self.store, &apt, wanted));
                built.map_err(|e| failed.push(format!("'{suite}': {e:#}"))).ok()
            });
            let Some(built) = built else {
                bail!("no suite offers {}: {}", wanted.package, failed.join("; "));
            };
            for package in &built.packages {
                let name = format!("{} {}", package.package.name, package.package.version);
                list.packages.insert(name, package.info(&built.root));
            }
            let (version, image) = (built.version, built.image);
            list.hypervisors
                .insert(wanted.name.to_owned(), HypervisorImage { version, image });
        }
        let text = serde_json::to_string_pretty(&list)? + "\n";
        write_atomically(&self.store.dir().join(vmm::images::HYPERVISORS), text.as_bytes())
    }

    fn host(&mut self, tools: &Sets) -> Result<()> {
        let mut failed = Vec::new();
        for name in recipe::HOST_KERNELS {
            match self.kernel(recipe_of(name)?) {
                Ok(()) => return self.host_with(name, tools),
                Err(e) => failed.push(format!("{e:#}")),
            }
        }
        bail!("no kernel for the nested host: {}", failed.join("; "))
    }

    fn host_with(&mut self, name: &str, tools: &Sets) -> Result<()> {
        (self.say)("nested host");
        let kernel = &self.kernels[name];
        let initramfs = initramfs::build(&self.store, Role::Host, kernel, tools, &self.programs)?;
        let (release, vmlinux) = (kernel.release.clone(), kernel.folder.join("vmlinux"));
        let qemu = qemu::build(&self.store, &self.archive, self.refresh)?;
        self.record(&qemu.packages, &qemu.root);
        self.manifest.host = Some(HostImage {
            release,
            vmlinux,
            initramfs,
            qemu: qemu.image,
        });
        Ok(())
    }

    /// Writes the manifest, and what a later build compares itself with. Returns the manifest's text.
    fn write(&self, fingerprint: &str) -> Result<String> {
        let dir = self.store.dir();
        let text = serde_json::to_string_pretty(&self.manifest)? + "\n";
        write_atomically(&dir.join(vmm::images::MANIFEST), text.as_bytes())?;
        write_atomically(&dir.join(FINGERPRINT), fingerprint.as_bytes())?;
        Ok(text)
    }
}

/// Everything that decides what a build gives, short of newer packages in the archive.
fn fingerprint(
    archive: &Archive,
    kernels: &[&recipe::Kernel],
    packages: &[LocalPackage],
    sources: &[SourceKernel],
    programs: &Programs,
) -> Result<String> {
    let mut key = Key::new("build");
    key.add(format!("{archive:?}{kernels:?}{:?}", recipe::HYPERVISORS))
        .add(&programs.agent)
        .add(&programs.memprobe);
    for package in packages {
        key.add(package.stamp()?);
    }
    if !sources.is_empty() {
        key.add(source::stamp(sources)?);
    }
    key.add(format!(
        "{:?}",
        (
            recipe::GUEST_BOOT,
            recipe::GUEST_ON_DEMAND,
            recipe::HOST_BOOT,
            recipe::HOST_KERNELS
        )
    ));
    key.add(format!(
        "{:?}",
        (
            recipe::TOOLS_PACKAGES,
            recipe::TOOLS_WITHOUT,
            recipe::PROGRAMS,
            recipe::CONFIGURATION,
            recipe::NEWER_SUITE,
            recipe::NEWER_PACKAGES,
            recipe::NEWER_PROGRAMS
        )
    ));
    Ok(key.text())
}

/// The manifest of an earlier build with this fingerprint, when all its files are there.
fn complete(dir: &Path, fingerprint: &str) -> Option<Manifest> {
    let same = fs::read_to_string(dir.join(FINGERPRINT)).is_ok_and(|old| old == fingerprint);
    let manifest = Manifest::load(dir).ok().filter(|_| same)?;
    let kernels = manifest
        .kernels
        .values()
        .flat_map(|k| [&k.bzimage, &k.vmlinux, &k.initramfs]);
    let host = manifest.host.iter().flat_map(|h| {
        [
            Some(&h.vmlinux),
            Some(&h.initramfs),
            h.qemu.as_ref().map(|q| &q.program),
        ]
    });
    let all = kernels.chain(host.flatten()).all(|p| p.exists());
    let hypervisors = Hypervisors::load(dir).ok()?;
    let all = all && hypervisors.hypervisors.values().all(|h| h.image.exists());
    all.then_some(manifest)
}

/// Kernels to build: those asked for (else the default ones) and those an earlier build was asked for.
fn chosen(options: &Options) -> Result<Vec<&'static recipe::Kernel>> {
    let mut names: BTreeSet<String> = options.kernels.iter().cloned().collect();
    if names.is_empty() {
        names.extend(recipe::KERNELS.iter().filter(|k| k.default).map(|k| k.name.to_owned()));
    }
    if let Ok(before) = Manifest::load(&options.dir) {
        names.extend(before.kernels.into_keys().filter(|n| recipe_of(n).is_ok()));
    }
    names.iter().map(|name| recipe_of(name)).collect()
}

/// Builds what is missing and writes the manifest; `say` hears one line per stage that is worked on.
pub fn build(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Manifest> {
    fs::create_dir_all(&options.dir).with_context(|| format!("cannot create {}", options.dir.display()))?;
    let dir = fs::canonicalize(&options.dir)?;
    let store = Store::open(&dir, || {
        eprintln!("another build works in {}; waiting for it", dir.display())
    })?;
    let kernels = chosen(options)?;
    options.forget.iter().try_for_each(|name| local::forget(&dir, name))?;
    options
        .packages
        .iter()
        .try_for_each(|package| local::keep(&dir, package))?;
    let sources = source::with(source::kept(&dir)?, &options.sources);
    let mut packages = local::kept(&dir)?;
    packages.retain(|p| options.sources.iter().all(|s| s.name != p.name));
    let (archive, programs) = (Archive::of_this_machine()?, agent::build()?);
    let fingerprint = fingerprint(&archive, &kernels, &packages, &sources, &programs)?;
    if let Some(manifest) = complete(&dir, &fingerprint).filter(|_| !options.refresh && !options.prune) {
        return Ok(manifest);
    }
    say(&format!("guest agent {}", &hex(&Sha256::digest(&programs.agent))[..12]));
    let mut builder = Builder {
        store,
        archive,
        refresh: options.refresh,
        programs,
        say,
        manifest: Manifest::default(),
        kernels: BTreeMap::new(),
    };
    (builder.say)("tools");
    let tools = Sets {
        plain: tools::unpack(&builder.store, &builder.apt(recipe::TOOLS_SUITE)?)?,
        newer: tools::unpack_newer(&builder.store, &builder.apt(recipe::NEWER_SUITE)?)?,
    };
    for set in [&tools.plain, &tools.newer] {
        builder.record(&set.packages, &set.root);
    }
    for kernel in kernels {
        builder.guest(kernel, &tools)?;
    }
    for package in &packages {
        builder.local(package, &tools)?;
    }
    for source in &sources {
        builder.compiled(source, &tools)?;
    }
    builder.host(&tools)?;
    builder.hypervisors()?;
    // Only now: one that cannot be compiled must not stand in the way of every later build.
    options.sources.iter().try_for_each(|s| source::keep(&dir, s))?;
    let text = builder.write(&fingerprint)?;
    if options.prune {
        let hypervisors = fs::read_to_string(dir.join(vmm::images::HYPERVISORS)).unwrap_or_default();
        let text = text + &crate::conformance::record(&dir) + &hypervisors;
        let removed = builder.store.prune(|name| {
            text.contains(name) || [&tools.plain, &tools.newer].iter().any(|set| set.root.ends_with(name))
        })?;
        (builder.say)(&format!("removed {removed} results of earlier builds"));
    }
    Manifest::load(&dir).with_context(|| {
        format!(
            "the manifest just written to {} cannot be read",
            dir.join(FOLDER).display()
        )
    })
}
