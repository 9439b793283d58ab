//! Kernel packages that did not come from an archive, such as those of `make bindeb-pkg`: each is an image of its own, kept and
//! built again with the others.

use crate::{
    apt::{Fetched, Package},
    process::output,
    recipe, source,
    store::sha256_file,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

/// Where the packages are kept, below the images' folder.
pub const FOLDER: &str = "local";

/// `FILE` or `FILE=NAME`: a package and what its image is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPackage {
    /// The package file.
    pub path: PathBuf,
    /// Name of the image.
    pub name: String,
}

impl FromStr for LocalPackage {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, name) = match text.rsplit_once('=') {
            Some((path, name)) if !name.contains('/') => (path, Some(name)),
            _ => (text, None),
        };
        let file = Path::new(path).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let own = file.strip_suffix(".deb").unwrap_or(file).split('_').next();
        let name = name.or(own).unwrap_or_default().to_owned();
        if path.is_empty() || !is_name(&name) {
            return Err(format!(
                "'{text}' is no kernel package: expected FILE or FILE=NAME, a name of letters, digits, '-', '_', '.' and '+'"
            ));
        }
        if recipe::kernel_names().any(|(known, _)| known == name) {
            return Err(format!(
                "'{text}': a kernel of the archive is called '{name}' already; hint: FILE=NAME gives another name"
            ));
        }
        Ok(Self {
            path: path.into(),
            name,
        })
    }
}

/// Whether an image can be called so.
pub fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(fine)
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(FOLDER).join(format!("{name}.deb"))
}

/// Keeps a package in the images' folder.
pub fn keep(dir: &Path, package: &LocalPackage) -> Result<()> {
    let fields = output(
        Command::new("dpkg-deb")
            .args(["--field"])
            .arg(&package.path)
            .arg("Architecture"),
    )
    .with_context(|| format!("{} is no package file", package.path.display()))?;
    ensure!(
        fields.trim() == "amd64",
        "{} is for {}, expected amd64",
        package.path.display(),
        fields.trim()
    );
    let to = file(dir, &package.name);
    fs::create_dir_all(dir.join(FOLDER))?;
    // It appears whole or not at all.
    let part = to.with_extension("part");
    fs::copy(&package.path, &part).with_context(|| format!("cannot copy {}", package.path.display()))?;
    fs::rename(part, to)?;
    // The name means this package from now on.
    source::forget(dir, &package.name);
    Ok(())
}

/// Forgets the package of a name, if there is one.
pub fn forget_package(dir: &Path, name: &str) -> bool {
    fs::remove_file(file(dir, name)).is_ok()
}

/// Forgets what an image of this name is made of: a package, or a source.
pub fn forget(dir: &Path, name: &str) -> Result<()> {
    if !forget_package(dir, name) && !source::forget(dir, name) {
        let packages = kept(dir)?.into_iter().map(|p| p.name);
        let names: Vec<_> = packages.chain(source::kept(dir)?.into_iter().map(|s| s.name)).collect();
        bail!(
            "there is no image of one's own called '{name}'; there are: {}",
            names.join(", ")
        );
    }
    Ok(())
}

/// The packages that are kept, in the order of their names.
pub fn kept(dir: &Path) -> Result<Vec<LocalPackage>> {
    let Ok(entries) = fs::read_dir(dir.join(FOLDER)) else {
        return Ok(vec![]);
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let (Some("deb"), Some(name)) = (
            path.extension().and_then(|e| e.to_str()),
            path.file_stem().and_then(|n| n.to_str()),
        ) {
            let name = name.to_owned();
            found.push(LocalPackage { path, name });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl LocalPackage {
    /// What tells one version of the file from another, cheaply.
    pub fn stamp(&self) -> Result<String> {
        let facts = fs::metadata(&self.path).with_context(|| format!("cannot look at {}", self.path.display()))?;
        Ok(format!("{} {} {:?}", self.name, facts.len(), facts.modified()?))
    }

    /// The package as if it had been fetched.
    pub fn fetched(&self) -> Result<Fetched> {
        let field = |name: &str| output(Command::new("dpkg-deb").arg("--field").arg(&self.path).arg(name));
        let trimmed = |text: String| text.trim().to_owned();
        Ok(Fetched {
            package: Package {
                name: trimmed(field("Package")?),
                version: trimmed(field("Version")?),
                file: format!("{}.deb", self.name),
            },
            sha256: sha256_file(&self.path)?,
            path: self.path.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_names() {
        let name = |text: &str| text.parse::<LocalPackage>().map(|p| (p.path, p.name)).unwrap();
        assert_eq!(
            name("/k/linux-image-6.12.0-mine_6.12.0-3_amd64.deb"),
            (
                "/k/linux-image-6.12.0-mine_6.12.0-3_amd64.deb".into(),
                "linux-image-6.12.0-mine".into()
            )
        );
        assert_eq!(name("a=b/k.deb=mine"), ("a=b/k.deb".into(), "mine".into()));
        for bad in ["", "=x", "k.deb=", "k.deb=.x", "k.deb=a b"] {
            assert!(bad.parse::<LocalPackage>().is_err(), "{bad}");
        }
        let taken = "k.deb=debian-6.1-amd64".parse::<LocalPackage>().unwrap_err();
        assert!(taken.contains("hint: FILE=NAME"), "{taken}");
    }

    #[test]
    fn what_is_no_package_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.deb");
        fs::write(&path, "no package").unwrap();
        let package = LocalPackage { path, name: "x".into() };
        let error = keep(dir.path(), &package).unwrap_err();
        assert!(error.to_string().contains("is no package file"), "{error}");
        assert_eq!(kept(dir.path()).unwrap(), []);
        assert!(forget(dir.path(), "x").is_err());
    }
}
