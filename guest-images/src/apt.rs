//! apt with private state: other suites than the machine's, nothing installed, nothing of the machine's lists touched.

use crate::{archive::Archive, process::output, store::sha256_file};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use vmm::images::PackageInfo;

/// apt for one suite.
pub struct Apt {
    suite: String,
    dir: PathBuf,
    archives: PathBuf,
}

/// A package file as apt names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// File name in the archives folder.
    pub file: String,
}

/// The upstream archive of a source package.
#[derive(Debug, Clone)]
pub struct Source {
    /// Debian's version.
    pub version: String,
    /// Where it is.
    pub path: PathBuf,
    /// Hash of the file.
    pub sha256: String,
}

/// A package file that is here.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Which.
    pub package: Package,
    /// Where.
    pub path: PathBuf,
    /// Hash of the file.
    pub sha256: String,
}

/// `'URI' name_version_arch.deb size hash`, as `--print-uris` prints; the file name quotes a version's colon as `%3a`.
fn parse_uri_line(line: &str) -> Option<Package> {
    let file = line.strip_prefix('\'')?.split_once("' ")?.1.split_whitespace().next()?;
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version) = (parts.next()?, parts.next()?);
    Some(Package {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        file: file.to_owned(),
    })
}

/// A field of a package's record.
fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
}

/// Names in a `Depends` field that satisfy `wanted`.
fn depends(record: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let all = field(record, "Depends").unwrap_or_default().split(',');
    let names = all.filter_map(|d| d.split_whitespace().next());
    names.filter(|n| wanted(n)).map(str::to_owned).collect()
}

/// Whether a package holds a part of one particular kernel (`linux-base-7.2.13+deb14-amd64`, but not `linux-base`).
fn is_part_of_a_kernel(name: &str) -> bool {
    let parts = ["linux-image-", "linux-modules-", "linux-binary-", "linux-base-"];
    parts
        .iter()
        .filter_map(|p| name.strip_prefix(p))
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl Apt {
    /// Prepares apt for `suite` below `dir`; indexes are fetched once, and again when `refresh`.
    pub fn open(dir: &Path, archive: &Archive, suite: &str, refresh: bool) -> Result<Self> {
        Self::open_as(dir, suite, suite, &archive.sources(suite)?, refresh)
    }

    /// The same for the source packages of `suite`.
    pub fn open_sources(dir: &Path, archive: &Archive, suite: &str, refresh: bool) -> Result<Self> {
        let lines = archive.sources(suite)?;
        let lines: String = lines
            .lines()
            .map(|l| l.replacen("deb ", "deb-src ", 1) + "\n")
            .collect();
        Self::open_as(dir, &format!("{suite}-source"), suite, &lines, refresh)
    }

    fn open_as(dir: &Path, folder: &str, suite: &str, sources: &str, refresh: bool) -> Result<Self> {
        let apt = Self {
            suite: suite.to_owned(),
            dir: dir.join("apt").join(folder),
            archives: dir.join("apt/archives"),
        };
        for folder in ["lists/partial", "cache/archives/partial", "state", "empty"] {
            fs::create_dir_all(apt.dir.join(folder))?;
        }
        fs::create_dir_all(&apt.archives)?;
        fs::write(apt.dir.join("status"), "")?;
        let (list, stamp) = (apt.dir.join("sources.list"), apt.dir.join("fetched"));
        let same = fs::read_to_string(&list).is_ok_and(|old| old == sources);
        if refresh || !same || !stamp.exists() {
            fs::write(&list, sources)?;
            let _ = fs::remove_file(&stamp);
            output(apt.command("apt-get").args(["-qq", "update"]))
                .with_context(|| format!("cannot fetch the package index of '{suite}'"))?;
            fs::write(stamp, "")?;
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut set = |key: &str, value: &Path| {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        };
        set("Dir::Etc::SourceList", &self.dir.join("sources.list"));
        for key in ["Dir::Etc::SourceParts", "Dir::Etc::PreferencesParts"] {
            set(key, &self.dir.join("empty"));
        }
        set("Dir::Etc::Preferences", Path::new("/dev/null"));
        set("Dir::State", &self.dir.join("state"));
        set("Dir::State::Lists", &self.dir.join("lists"));
        // Empty: a closure of dependencies is then complete, whatever this machine has installed.
        set("Dir::State::status", &self.dir.join("status"));
        set("Dir::Cache", &self.dir.join("cache"));
        // The folders are the user's: apt must not drop to its own user to write them, nor lock the machine's state.
        command.args([
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "Debug::NoLocking=1",
            "-o",
            "APT::Architecture=amd64",
        ]);
        // Descriptions for software centres are many megabytes that nobody here reads.
        command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        if self.suite.ends_with("-backports") {
            // Backports are not taken unless asked for; asking for an ordinary suite would shut out its security fixes.
            command.arg("-o").arg(format!("APT::Default-Release={}", self.suite));
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// The record of the version of `package` that this suite would install, if it has the package.
    pub fn show(&self, package: &str) -> Option<String> {
        let mut command = self.command("apt-cache");
        let text = output(command.args(["show", "--no-all-versions", package])).ok()?;
        (!text.trim().is_empty()).then_some(text)
    }

    /// Version of `package` here.
    pub fn version(&self, package: &str) -> Option<String> {
        field(&self.show(package)?, "Version").map(str::to_owned)
    }

    /// Packages with all they depend on, except those whose file name starts with one of `without`.
    pub fn closure(&self, packages: &[&str], without: &[&str]) -> Result<Vec<Package>> {
        let mut command = self.command("apt-get");
        command
            .args([
                "-qq",
                "--print-uris",
                "--no-install-recommends",
                "-t",
                &self.suite,
                "install",
            ])
            .args(packages);
        let text = output(&mut command)
            .with_context(|| format!("cannot resolve {} in '{}'", packages.join(" "), self.suite))?;
        let found = text.lines().filter_map(parse_uri_line);
        Ok(found
            .filter(|p| !without.iter().any(|w| p.file.starts_with(w)))
            .collect())
    }

    /// The packages that hold the kernel a metapackage names: the image and, where they are split off, its parts.
    pub fn kernel(&self, metapackage: &str) -> Result<Vec<Package>> {
        let record = self
            .show(metapackage)
            .with_context(|| format!("'{}' has no package {metapackage}", self.suite))?;
        let mut names = depends(&record, |n| n.starts_with("linux-image-"));
        let mut seen = 0;
        while let Some(name) = names.get(seen) {
            let record = self
                .show(name)
                .with_context(|| format!("'{}' has no package {name}", self.suite))?;
            seen += 1;
            let parts = depends(&record, is_part_of_a_kernel)
                .into_iter()
                .filter(|n| !names.contains(n))
                .collect::<Vec<_>>();
            names.extend(parts);
        }
        if names.is_empty() {
            bail!("{metapackage} of '{}' names no kernel", self.suite);
        }
        self.alone(&names)
    }

    /// Packages of these names, without what they depend on.
    pub fn alone(&self, names: &[impl AsRef<std::ffi::OsStr>]) -> Result<Vec<Package>> {
        let mut command = self.command("apt-get");
        command
            .args(["-qq", "--print-uris", "-t", &self.suite, "download"])
            .args(names);
        Ok(output(&mut command)?.lines().filter_map(parse_uri_line).collect())
    }

    /// The upstream archive of source package `name`, without what the distribution changed; apt checks it against the
    /// signed index.
    pub fn source(&self, name: &str) -> Result<Source> {
        let record = output(self.command("apt-cache").args(["showsrc", "--only-source", name]))?;
        let version = field(&record, "Version")
            .with_context(|| format!("'{}' has no source package {name}", self.suite))?
            .to_owned();
        let file = original(&record).with_context(|| format!("source package {name} has no upstream archive"))?;
        let path = self.archives.join(file);
        if !path.exists() {
            let scratch = tempfile::tempdir_in(&self.dir)?;
            let mut command = self.command("apt-get");
            command
                .args(["-qq", "source", "--download-only", "--tar-only"])
                .arg(format!("{name}={version}"));
            output(command.current_dir(scratch.path()))
                .with_context(|| format!("cannot download source package {name} {version} from '{}'", self.suite))?;
            fs::rename(scratch.path().join(file), &path).with_context(|| format!("apt did not download {file}"))?;
        }
        Ok(Source {
            version,
            sha256: sha256_file(&path)?,
            path,
        })
    }

    /// Downloads what is not here yet; apt checks it against the signed index.
    pub fn fetch(&self, packages: &[Package]) -> Result<Vec<Fetched>> {
        let missing: Vec<_> = packages
            .iter()
            .filter(|p| !self.archives.join(&p.file).exists())
            .collect();
        if !missing.is_empty() {
            let scratch = tempfile::tempdir_in(&self.dir)?;
            let mut command = self.command("apt-get");
            command
                .args(["-qq", "download"])
                .args(missing.iter().map(|p| format!("{}={}", p.name, p.version)));
            output(command.current_dir(scratch.path()))
                .with_context(|| format!("cannot download from '{}'", self.suite))?;
            for package in missing {
                fs::rename(scratch.path().join(&package.file), self.archives.join(&package.file))
                    .with_context(|| format!("apt did not download {}", package.file))?;
            }
        }
        let fetched = |package: &Package| {
            let path = self.archives.join(&package.file);
            Ok(Fetched {
                package: package.clone(),
                sha256: sha256_file(&path)?,
                path,
            })
        };
        packages.iter().map(fetched).collect()
    }
}

/// Name of the upstream archive in a source package's record: a line `hash size name_version.orig.tar.xz`.
fn original(record: &str) -> Option<&str> {
    let names = record
        .lines()
        .filter_map(|l| l.strip_prefix(' ')?.split_whitespace().nth(2));
    names
        .into_iter()
        .find(|n| n.contains(".orig.tar.") && !n.ends_with(".asc") && !n.contains('/'))
}

impl Source {
    /// Upstream's version.
    pub fn upstream(&self) -> &str {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, v)| v);
        version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
    }

    /// Unpacks into `folder`, without the archive's own top folder.
    pub fn unpack(&self, folder: &Path) -> Result<()> {
        let mut command = Command::new("tar");
        command.args(["--extract", "--strip-components=1", "--no-same-owner", "--directory"]);
        output(command.arg(folder).arg("--file").arg(&self.path)).map(drop)
    }
}

impl Fetched {
    /// Unpacks into `root`.
    pub fn unpack(&self, root: &Path) -> Result<()> {
        output(Command::new("dpkg").arg("-x").arg(&self.path).arg(root)).map(drop)
    }

    /// What the manifest says of it; `root` is where it was unpacked.
    pub fn info(&self, root: &Path) -> PackageInfo {
        let copyright = format!("usr/share/doc/{}/copyright", self.package.name);
        let text = fs::read(root.join(&copyright)).unwrap_or_default();
        let licence =
            licence(&String::from_utf8_lossy(&text)).unwrap_or_else(|| format!("see {copyright} in the package"));
        PackageInfo {
            version: self.package.version.clone(),
            sha256: self.sha256.clone(),
            licence,
        }
    }
}

/// Licences a machine-readable copyright file names, once each.
fn licence(copyright: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in copyright
        .lines()
        .filter_map(|l| l.strip_prefix("License:"))
        .map(str::trim)
    {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_uri_names_the_package_even_with_an_epoch() {
        let line = "'http://archive.test/q.deb' qemu-system-x86_1%3a10.0.2+ds-2~bpo12+1_amd64.deb 10176912 MD5Sum:0";
        let package = parse_uri_line(line).unwrap();
        assert_eq!(
            (package.name.as_str(), package.version.as_str()),
            ("qemu-system-x86", "1:10.0.2+ds-2~bpo12+1")
        );
        assert_eq!(parse_uri_line("Reading package lists..."), None);
    }

    #[test]
    fn a_metapackage_names_its_kernel() {
        let record =
            "Package: linux-image-amd64\nVersion: 6.1.9-1\nDepends: base, linux-image-6.1.0-5-amd64 (= 6.1.9-1)\n";
        assert_eq!(
            depends(record, |n| n.starts_with("linux-image-")),
            ["linux-image-6.1.0-5-amd64"]
        );
        assert_eq!(field(record, "Version"), Some("6.1.9-1"));
    }

    #[test]
    fn parts_of_a_kernel_carry_its_version() {
        assert!(
            is_part_of_a_kernel("linux-modules-7.2.13+deb14-amd64") && is_part_of_a_kernel("linux-image-6.1.0-5-amd64")
        );
        assert!(
            !is_part_of_a_kernel("linux-base")
                && !is_part_of_a_kernel("linux-base-amd64")
                && !is_part_of_a_kernel("kmod")
        );
    }

    #[test]
    fn a_source_record_names_the_upstream_archive() {
        let record =
            "Package: x\nVersion: 1:81-2\nFiles:\n 0 1 x_81-2.dsc\n 0 2 x_81.orig.tar.gz\n 0 2 x_81.orig.tar.gz.asc\n";
        assert_eq!(original(record), Some("x_81.orig.tar.gz"));
        assert_eq!(original("Files:\n 0 2 ../x.orig.tar.gz\n"), None);
        let source = Source {
            version: "1:81~rc1-2".to_owned(),
            path: PathBuf::new(),
            sha256: String::new(),
        };
        assert_eq!(source.upstream(), "81~rc1");
    }

    #[test]
    fn licences_are_named_once_each() {
        let text = "Format: x\nLicense: GPL-2\nFiles: *\nLicense: LGPL-2.1\nLicense: GPL-2\n";
        assert_eq!(licence(text).as_deref(), Some("GPL-2; LGPL-2.1"));
        assert_eq!(licence("free text"), None);
    }
}
