//! Which package archive this machine uses, read from its own apt configuration.

use crate::process::output;
use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

/// Names the URI of a Debian archive on machines whose apt knows none.
pub const OVERRIDE: &str = "DAXVISOR_DEBIAN_ARCHIVE";
/// Debian's keys; the package of the same name has them on every Debian and Ubuntu.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Archive URIs of a Debian machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Where the suites are.
    pub main: String,
    /// Where the security suites are, if the machine has them configured.
    pub security: Option<String>,
    /// The suite this machine runs (`bookworm`); none on a machine that is not Debian.
    pub codename: Option<String>,
}

/// One index that apt would fetch.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    release: String,
    codename: String,
    uri: String,
}

const FORMAT: &str = "$(CREATED_BY)|$(COMPONENT)|$(RELEASE)|$(CODENAME)|$(REPO_URI)";

fn parse_targets(text: &str) -> Vec<Target> {
    let target = |line: &str| {
        let fields: Vec<_> = line.split('|').collect();
        let [created_by, component, release, codename, uri] = fields[..] else {
            return None;
        };
        let wanted = created_by == "Packages" && component == "main" && !uri.is_empty();
        // A field that apt does not know (no index fetched yet) stays as it was written.
        let codename = if codename.starts_with("$(") { release } else { codename };
        wanted.then(|| Target {
            release: release.to_owned(),
            codename: codename.to_owned(),
            uri: uri.to_owned(),
        })
    };
    text.lines().filter_map(target).collect()
}

fn parse_os_release(text: &str) -> BTreeMap<&str, &str> {
    let pairs = text.lines().filter_map(|l| l.split_once('='));
    pairs.map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect()
}

fn choose(targets: &[Target], codename: &str) -> Option<Archive> {
    let named = |wanted: &str| {
        targets
            .iter()
            .find(|t| t.release == wanted || t.codename == wanted)
            .map(|t| t.uri.clone())
    };
    let main = named(codename)?;
    Some(Archive {
        main,
        security: named(&format!("{codename}-security")),
        codename: Some(codename.to_owned()),
    })
}

impl Archive {
    /// Finds the archive.
    pub fn of_this_machine() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = parse_os_release(&text);
        let (id, codename) = (
            system.get("ID").copied().unwrap_or("unknown"),
            system.get("VERSION_CODENAME").copied(),
        );
        let debian = codename.filter(|_| id == "debian");
        if let Some(main) = env::var(OVERRIDE).ok().filter(|v| !v.is_empty()) {
            return Ok(Self {
                main,
                security: None,
                codename: debian.map(str::to_owned),
            });
        }
        let Some(codename) = debian else {
            bail!(
                "this machine runs '{id}', and the guest kernels are Debian packages; hint: set {OVERRIDE} to the URI of a Debian \
                 archive that it can reach, and install the package debian-archive-keyring"
            );
        };
        let targets = output(Command::new("apt-get").args(["indextargets", "--format", FORMAT]))?;
        choose(&parse_targets(&targets), codename).with_context(|| {
            format!("apt has no source for '{codename}' main; hint: see `apt-get indextargets`, or set {OVERRIDE} to a Debian archive")
        })
    }

    /// `sources.list` lines for a suite, and for those it builds upon.
    pub fn sources(&self, suite: &str) -> Result<String> {
        let base = suite.strip_suffix("-backports").unwrap_or(suite);
        let keys = if Path::new(KEYRING).exists() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let mut lines = vec![format!("deb {keys}{} {base} main", self.main)];
        // Unstable has no security suite: its fixes go straight in.
        if let Some(security) = self.security.as_ref().filter(|_| base != "sid") {
            lines.push(format!("deb {keys}{security} {base}-security main"));
        }
        if base != suite {
            lines.push(format!("deb {keys}{} {suite} main", self.main));
        }
        Ok(lines.join("\n") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "Packages|main|bookworm|bookworm|http://archive.test/debian/\n\
        DEP-11|main|bookworm|bookworm|http://archive.test/debian/\n\
        Packages|contrib|bookworm|bookworm|http://other.test/debian/\n\
        Packages|main|bookworm-updates|bookworm-updates|http://archive.test/debian/\n\
        Packages|main|oldstable-security|bookworm-security|http://archive.test/security/\n";

    #[test]
    fn the_machines_own_archive_is_found_under_either_name_of_a_suite() {
        let archive = choose(&parse_targets(TARGETS), "bookworm").unwrap();
        assert_eq!(archive.main, "http://archive.test/debian/");
        assert_eq!(archive.security.as_deref(), Some("http://archive.test/security/"));
        assert_eq!(choose(&parse_targets(TARGETS), "trixie"), None);
    }

    #[test]
    fn fields_that_apt_does_not_know_yet_are_no_names() {
        let targets = parse_targets("Packages|main|trixie|$(CODENAME)|http://archive.test/debian/\nnonsense\n");
        assert_eq!(
            targets,
            [Target {
                release: "trixie".into(),
                codename: "trixie".into(),
                uri: "http://archive.test/debian/".into()
            }]
        );
    }

    #[test]
    fn backports_bring_the_suite_they_stand_on() {
        let archive = choose(&parse_targets(TARGETS), "bookworm").unwrap();
        let suites = |suite| {
            let sources = archive.sources(suite).unwrap();
            sources
                .lines()
                .map(|l| l.rsplit(' ').nth(1).unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            suites("bookworm-backports"),
            ["bookworm", "bookworm-security", "bookworm-backports"]
        );
        assert_eq!(suites("sid"), ["sid"]);
    }

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let system = parse_os_release("ID=debian\nVERSION_CODENAME=\"bookworm\"\n");
        assert_eq!((system["ID"], system["VERSION_CODENAME"]), ("debian", "bookworm"));
    }
}
