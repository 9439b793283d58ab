//! The kernels of the `kernel` tier: one source as it is, with a patch, and without one that it has.

use crate::{images, workspace};
use anyhow::Result;
use guest_images::{SourceKernel, SourceName};
use guest_tests::small;
use std::path::PathBuf;

/// Package of the source.
const SOURCE: &str = "linux-source-6.1";

/// Name, patch and whether it is taken out.
const KERNELS: [(&str, Option<&str>, bool); 3] = [
    (small::PLAIN, None, false),
    (small::FORGETS, Some("mem-limit-forgets-devices.patch"), false),
    (small::REFUSES, Some("mem-limits-boot-alone.patch"), true),
];

/// Fetches the kernel of a suite that moves on. Where that cannot be, the tests that boot it fail, and no others.
pub fn fetch_newest() {
    let name = guest_tests::NEWEST;
    let done = images::ensure(&[name.to_owned()], &mut |stage| println!("images: {stage}"));
    if let Err(e) = done {
        println!(
            "images: {name} cannot be had, and the tests that boot it will fail: {e:#}; hint: when its suite has moved on to another series, \
             raise it in guest-images/src/recipe.rs"
        );
    }
}

/// Compiles what is not there yet.
pub fn ensure() -> Result<()> {
    let sources = KERNELS.iter().map(|(name, patch, reverse)| {
        let folder = workspace::root().join("guest-images/kernel/patches");
        let patches: Vec<PathBuf> = patch.iter().map(|p| folder.join(p)).collect();
        let name = SourceName {
            package: SOURCE.to_owned(),
            name: (*name).to_owned(),
        };
        SourceKernel::read(name, &[], &patches, *reverse)
    });
    images::ensure_sources(sources.collect::<Result<_>>()?)
}
