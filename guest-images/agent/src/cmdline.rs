//! What the kernel command line asks of the agent.

use std::path::PathBuf;

/// Options found in `/proc/cmdline`; unknown ones belong to the kernel or to modules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// `daxvisor.host=1`: become the nested host, with the real host's files as root.
    pub host: bool,
    /// `daxvisor.share=TAG:/abs/path`, repeatable: writable 9p shares over the root, in order.
    pub shares: Vec<Share>,
    /// `daxvisor.share_cache=MODE`: 9p cache mode of the writable shares; none: `mmap`.
    pub share_cache: Option<String>,
    /// `daxvisor.shell`: a shell on the console next to the command server.
    pub shell: bool,
    /// `module.parameter=value` words, in order, with dashes of the module's name turned to underscores.
    module_parameters: Vec<(String, String)>,
    /// Words in our name that could not be understood.
    pub problems: Vec<String>,
}

/// One writable 9p share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// 9p mount tag.
    pub tag: String,
    /// Where it belongs, an absolute path of the host.
    pub path: PathBuf,
}

/// Splits a kernel command line at blanks, keeping `"quoted words"` whole, as the kernel does.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.trim_end_matches('\n').chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is always a last word").push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// Undoes `%20`-style escapes (a path may hold blanks, a command line word may not).
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn share(value: &str) -> Option<Share> {
    let (tag, path) = value.split_once(':')?;
    let path = PathBuf::from(unescape(path)?);
    (!tag.is_empty() && path.is_absolute()).then(|| Share {
        tag: tag.to_owned(),
        path,
    })
}

impl Options {
    /// Reads a kernel command line; never fails, what is odd lands in `problems`.
    pub fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for word in words(line) {
            if word == "--" {
                break;
            }
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            match key {
                "daxvisor.host" => options.host = value != "0",
                "daxvisor.shell" => options.shell = value != "0",
                "daxvisor.share_cache" => options.share_cache = Some(value.to_owned()),
                "daxvisor.share" => match share(value) {
                    Some(share) => options.shares.push(share),
                    None => options
                        .problems
                        .push(format!("'{word}' on the command line is no TAG:/absolute/path")),
                },
                _ if key.starts_with("daxvisor.") => options
                    .problems
                    .push(format!("unknown option '{word}' on the command line")),
                _ => {
                    if let Some((module, _)) = key.split_once('.') {
                        let parameter = word.get(module.len() + 1..).unwrap_or_default();
                        options
                            .module_parameters
                            .push((module.replace('-', "_"), parameter.to_owned()));
                    }
                }
            }
        }
        options
    }

    /// Parameters for a module: the kernel applies `module.parameter` words itself only to what is built in.
    pub fn parameters_of(&self, module: &str) -> String {
        let mine = self
            .module_parameters
            .iter()
            .filter(|(name, _)| name == module)
            .map(|(_, p)| p.as_str());
        mine.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_their_order_and_may_hold_blanks() {
        let options =
            Options::parse("console=ttyS0 daxvisor.host=1 daxvisor.share=a:/srv/x%20y daxvisor.share=b:/t:u\n");
        assert!(options.host && !options.shell && options.problems.is_empty());
        let paths: Vec<_> = options
            .shares
            .iter()
            .map(|s| (s.tag.as_str(), s.path.to_str().unwrap()))
            .collect();
        assert_eq!(paths, [("a", "/srv/x y"), ("b", "/t:u")]);
    }

    #[test]
    fn what_is_not_understood_is_a_problem_and_nothing_more() {
        let options = Options::parse(
            "daxvisor.share=nothing daxvisor.share=t:relative daxvisor.share=t:/%zz daxvisor.colour=red quiet",
        );
        assert!(options.shares.is_empty());
        assert_eq!(options.problems.len(), 4);
    }

    #[test]
    fn modules_get_their_parameters_from_the_command_line() {
        let options = Options::parse("kvm-amd.nested=0 nfit.a=1 nfit.b=\"x y\" -- nfit.c=1");
        assert_eq!(options.parameters_of("kvm_amd"), "nested=0");
        assert_eq!(options.parameters_of("nfit"), "a=1 b=x y");
        assert_eq!(options.parameters_of("ext4"), "");
    }
}
