//! Machines that have a name: `--profile NAME` stands for a configuration file that comes with the program.

use super::{ConfigError, VmConfig, file};

/// A named machine.
#[derive(Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// What it is, for the help.
    pub about: &'static str,
    text: &'static str,
}

/// Every profile.
pub const PROFILES: &[Profile] = &[Profile {
    name: "nfit-test",
    about: "two NVDIMM buses in the shape of the kernel's nfit_test, for ndctl's own tests",
    text: include_str!("profile/nfit-test.toml"),
}];

/// The configuration of the profile called `name`. Flags change it as they change a file's.
pub fn load(name: &str) -> Result<VmConfig, ConfigError> {
    let profile = PROFILES.iter().find(|p| p.name == name).ok_or_else(|| {
        let known: Vec<_> = PROFILES.iter().map(|p| p.name).collect();
        ConfigError::Profile {
            name: name.to_owned(),
            known: known.join(", "),
        }
    })?;
    file::parse(profile.text).map_err(|problem| ConfigError::ParseFile(format!("profile {name}").into(), problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_a_valid_machine() {
        for profile in PROFILES {
            let mut config = load(profile.name).unwrap();
            config.kernel = Some("/boot/vmlinuz".into());
            config.validate().unwrap();
        }
    }

    #[test]
    fn unknown_profiles_are_told_what_there_is() {
        let said = load("nfit").unwrap_err().to_string();
        assert!(said.contains("'nfit'") && said.contains("nfit-test"), "{said}");
    }
}
