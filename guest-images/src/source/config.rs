//! Fragments of a kernel's configuration, and whether the kernel's own rules left them as they were asked for.

use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// `CONFIG_X=value` and `# CONFIG_X is not set`; the last one of a name holds.
fn settings(text: &str) -> BTreeMap<&str, &str> {
    let unset = |line: &'_ str| line.starts_with("# CONFIG_") && line.ends_with(" is not set");
    let one = |line| match line {
        l if unset(l) => l.split(' ').nth(1).map(|name| (name, "n")),
        l if l.starts_with("CONFIG_") => l.split_once('='),
        _ => None,
    };
    text.lines().map(str::trim).filter_map(one).collect()
}

/// Fails when `config` is not what the fragments ask for.
pub fn check(fragments: &str, config: &str) -> Result<()> {
    let is = settings(config);
    let differs = settings(fragments).into_iter().filter_map(|(name, wanted)| {
        let got = is.get(name).copied().unwrap_or("n");
        (got != wanted).then(|| format!("{name} is {got}, expected {wanted}"))
    });
    let differs: Vec<_> = differs.collect();
    if !differs.is_empty() {
        bail!(
            "the configuration is not what was asked for: {}; hint: the option is unknown to this source, or depends on another \
             that is not set; nothing can be a module",
            differs.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_setting_that_did_not_hold_is_named() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x=y\"\n";
        let fine = "# why\nCONFIG_A=n\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=\"x=y\"\n# CONFIG_D is not set\nCONFIG_E=n\n";
        check(fine, config).unwrap();
        let error = check("CONFIG_A=m\nCONFIG_D=y\n# CONFIG_C is not set\n", config).unwrap_err();
        let error = error.to_string();
        for part in [
            "CONFIG_A is y, expected m",
            "CONFIG_D is n, expected y",
            "CONFIG_C is \"x=y\", expected n",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
