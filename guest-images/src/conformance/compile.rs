//! Compiles ndctl and its test programs in a root of unpacked packages, with the user's own privileges.

use super::recipe::{BUILD_OPTIONS, BUILD_PACKAGES, PRELOAD, SUBSTITUTIONS};
use crate::{
    apt::{Apt, Source},
    process::output,
    root,
    store::{Key, Store},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Programs, libraries and the test folder.
pub struct Built {
    /// Absolute: `build/` and `test/` below it, and the list of tests.
    pub folder: PathBuf,
}

/// Folders that hold programs and libraries after the build.
const KEPT: &[&str] = &["ndctl", "ndctl/lib", "daxctl", "daxctl/lib", "cxl", "cxl/lib", "test"];
/// The list of tests as the build system has it.
const TESTS: &str = "tests.json";

impl Built {
    /// Files of the test folder.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut names = fs::read_dir(self.folder.join("test"))?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Names of the registered tests with the program each starts: a file of the test folder, or one that was built.
    pub fn tests(&self) -> Result<BTreeMap<String, String>> {
        #[derive(serde::Deserialize)]
        struct Test {
            name: String,
            cmd: Vec<String>,
        }
        let text = fs::read_to_string(self.folder.join(TESTS))?;
        let tests: Vec<Test> = serde_json::from_str(&text).context("cannot read meson's list of tests")?;
        let program = |test: &Test| {
            let path = test.cmd.first().map(Path::new).and_then(Path::file_name);
            path.map(|p| p.to_string_lossy().into_owned())
                .with_context(|| format!("test {} starts nothing", test.name))
        };
        tests.iter().map(|t| Ok((t.name.clone(), program(t)?))).collect()
    }
}

/// Builds, or finds what an earlier run built.
pub fn build(store: &Store, apt: &Apt, source: &Source, say: &mut dyn FnMut(&str)) -> Result<Built> {
    let packages = apt.fetch(&apt.closure(BUILD_PACKAGES, &[])?)?;
    let mut key = Key::new("conformance-ndctl");
    packages.iter().for_each(|p| {
        key.add(&p.sha256);
    });
    key.add(&source.sha256)
        .add(format!("{BUILD_OPTIONS:?}{SUBSTITUTIONS:?}"))
        .add(PRELOAD)
        .add(SCRIPT);
    let folder = store.step("conformance-ndctl", &key, |out| {
        say(&format!("ndctl {} from its source package", source.version));
        let scratch = store.scratch()?;
        let root = scratch.path();
        root::unpack(&packages, root)?;
        let work = root.join("work");
        fs::create_dir_all(work.join("source"))?;
        source.unpack(&work.join("source"))?;
        SUBSTITUTIONS
            .iter()
            .try_for_each(|s| substitute(&work.join("source"), s))?;
        fs::write(work.join("preload.c"), PRELOAD)?;
        compile(root, source.upstream())?;
        keep(&work, out)
    })?;
    Ok(Built {
        folder: store.dir().join(folder),
    })
}

fn substitute(source: &Path, what: &super::recipe::Substitution) -> Result<()> {
    let path = source.join(what.file);
    let text = fs::read_to_string(&path).with_context(|| format!("the source package has no {}", what.file))?;
    if !text.contains(what.from) {
        bail!(
            "{} of the source package does not contain '{}'; hint: the recipe is for another version",
            what.file,
            what.from
        );
    }
    Ok(fs::write(path, text.replace(what.from, what.to))?)
}

/// Runs in the root. The compiler is named because its usual alias is made by a maintainer script, which never ran.
const SCRIPT: &str = r#"set -e
export PATH=/usr/sbin:/usr/bin LC_ALL=C HOME=/tmp CC=gcc
cd /work/source
meson setup /work/build "$@"
ninja -C /work/build
meson introspect --tests /work/build > /work/tests.json
gcc -shared -fPIC -O2 -Wall -Werror -o /work/build/test/preload.so /work/preload.c -ldl
"#;

/// Another user namespace makes this user root of the new root; only `/dev` is the machine's.
fn compile(root: &Path, version: &str) -> Result<()> {
    fs::write(root.join("work/build.sh"), SCRIPT)?;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount --rbind /dev \"$0/dev\" && root=\"$0\" && exec chroot \"$root\" /bin/sh /work/build.sh \"$@\"");
    command
        .arg(root)
        .arg(format!("-Dversion-tag={version}"))
        .args(BUILD_OPTIONS);
    output(&mut command).map(drop).context(
        "cannot compile ndctl; hint: this needs user namespaces, or root (`unshare --map-root-user true` tells)",
    )
}

fn keep(work: &Path, out: &Path) -> Result<()> {
    output(
        Command::new("cp")
            .arg("-a")
            .arg(work.join("source/test"))
            .arg(out.join("test")),
    )?;
    output(
        Command::new("cp")
            .arg("-a")
            .arg(work.join("source/COPYING"))
            .arg(work.join("source/LICENSES"))
            .arg(out),
    )?;
    for folder in KEPT {
        let to = out.join("build").join(folder);
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(work.join("build").join(folder))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            output(Command::new("cp").arg("-a").arg(entry.path()).arg(&to))?;
        }
    }
    fs::copy(
        work.join("source/ndctl/monitor.conf"),
        out.join("build/ndctl/monitor.conf"),
    )?;
    fs::copy(work.join(TESTS), out.join(TESTS))?;
    Ok(())
}
