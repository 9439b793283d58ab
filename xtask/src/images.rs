//! `cargo xtask images`.

use anyhow::Result;
use clap::Args as ClapArgs;
use guest_images::{LocalPackage, Options, SourceKernel, SourceName, build, kernel_names};
use std::{path::PathBuf, time::Instant};
use vmm::images::Manifest;

/// Where to, and which kernels.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Folder of the images [default: $DAXVISOR_IMAGES, else daxvisor/images in the user's cache].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Guest kernel to fetch besides those already there, repeatable [default: the default set].
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// Debian package of a kernel, such as one that `make bindeb-pkg` made, to make an image of; it is kept, repeatable.
    #[arg(long = "kernel-deb", value_name = "FILE[=NAME]")]
    packages: Vec<LocalPackage>,
    /// Kernel source to compile a small kernel of, everything built in; it is kept, as packages are.
    #[arg(long, value_name = "PACKAGE[=NAME]")]
    kernel_source: Option<SourceName>,
    /// Fragment of configuration for the --kernel-source, repeatable.
    #[arg(long = "config", value_name = "FILE", requires = "kernel_source")]
    configs: Vec<PathBuf>,
    /// Patch for the --kernel-source, repeatable, in order.
    #[arg(long = "patch", value_name = "FILE", requires = "kernel_source")]
    patches: Vec<PathBuf>,
    /// Take the patches out of the source, the last one first, instead of putting them in.
    #[arg(long, requires = "patches")]
    reverse: bool,
    /// Forget the image of a --kernel-deb or --kernel-source, repeatable.
    #[arg(long, value_name = "NAME")]
    forget: Vec<String>,
    /// List the kernels that can be fetched.
    #[arg(long)]
    list: bool,
    /// Ask the archive for newer packages.
    #[arg(long)]
    refresh: bool,
    /// Remove results of earlier builds. Guests that still run on them may miss their files.
    #[arg(long)]
    prune: bool,
}

/// Brings the images up to date, `kernels` among them; `say` hears of each stage that takes time.
pub fn ensure(kernels: &[String], say: &mut dyn FnMut(&str)) -> Result<Manifest> {
    let options = Options {
        dir: vmm::images::default_dir(),
        kernels: kernels.to_vec(),
        ..Options::default()
    };
    build(&options, &mut |stage: &str| say(stage))
}

/// Brings the images up to date, these kernels among them; stages are lines on standard output.
pub fn ensure_sources(sources: Vec<SourceKernel>) -> Result<()> {
    let options = Options {
        dir: vmm::images::default_dir(),
        sources,
        ..Options::default()
    };
    build(&options, &mut |stage: &str| println!("images: {stage}")).map(drop)
}

/// The default set; stages are lines on standard output.
pub fn build_default() -> Result<()> {
    ensure(&[], &mut |stage| println!("images: {stage}")).map(drop)
}

/// The kernel to compile.
fn source(args: &Args) -> Result<Option<SourceKernel>> {
    let name = args.kernel_source.clone();
    name.map(|name| SourceKernel::read(name, &args.configs, &args.patches, args.reverse))
        .transpose()
}

/// Runs the verb: progress on standard error, one line per image on standard output.
pub fn run(args: &Args) -> Result<()> {
    if args.list {
        kernel_names().for_each(|(name, default)| println!("{name}{}", if default { " (default)" } else { "" }));
        return Ok(());
    }
    let dir = args.dir.clone().unwrap_or_else(vmm::images::default_dir);
    let start = Instant::now();
    let mut say = |stage: &str| eprintln!("[{:6.1} s] {stage}", start.elapsed().as_secs_f64());
    let options = Options {
        dir: dir.clone(),
        kernels: args.kernels.clone(),
        packages: args.packages.clone(),
        sources: source(args)?.into_iter().collect(),
        forget: args.forget.clone(),
        refresh: args.refresh,
        prune: args.prune,
    };
    let manifest = build(&options, &mut say)?;
    for (name, kernel) in &manifest.kernels {
        println!("{name}: Linux {}", kernel.release);
    }
    if let Some(host) = &manifest.host {
        let qemu = host.qemu.as_ref().map_or_else(
            || "qemu-system-x86_64 in PATH".to_owned(),
            |q| q.program.display().to_string(),
        );
        println!("nested host: Linux {}, {qemu}", host.release);
    }
    eprintln!(
        "images are in {} ({:.1} s)",
        dir.display(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
