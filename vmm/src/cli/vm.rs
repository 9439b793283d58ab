//! The flags of a virtual machine as clap sees them: texts, made from the one table in [`flags`].

use crate::config::{ConfigError, VmConfig, file, flags, profile};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const CONFIG: &str = "config";
const PROFILE: &str = "profile";

/// A virtual machine as the command line tells of it: a file, and the texts of flags by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmArgs {
    file: Option<PathBuf>,
    profile: Option<String>,
    texts: BTreeMap<&'static str, Vec<String>>,
}

impl VmArgs {
    /// The file of `--config`.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The configuration: the file or profile, and the flags over it.
    pub fn config(&self) -> Result<VmConfig, Vec<ConfigError>> {
        let mut config = match (&self.file, &self.profile) {
            (Some(path), _) => file::load(path).map_err(|e| vec![e])?,
            (None, Some(name)) => profile::load(name).map_err(|e| vec![e])?,
            (None, None) => VmConfig::default(),
        };
        flags::apply(&mut config, |flag| self.texts.get(flag).map_or(&[], Vec::as_slice))?;
        Ok(config)
    }
}

impl FromArgMatches for VmArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>(CONFIG).cloned();
        self.profile = matches.get_one::<String>(PROFILE).cloned();
        for flag in flags::FLAGS {
            let texts = matches.get_many::<String>(flag.name).unwrap_or_default();
            self.texts.insert(flag.name, texts.cloned().collect());
        }
        Ok(())
    }
}

impl Args for VmArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Read the machine from this TOML file; flags override it");
        let profiles: Vec<_> = profile::PROFILES
            .iter()
            .map(|p| format!("{}, {}", p.name, p.about))
            .collect();
        let profile = Arg::new(PROFILE)
            .long(PROFILE)
            .value_name("NAME")
            .conflicts_with(CONFIG)
            .help(format!(
                "Start from a machine that comes with the program ({}); flags override it",
                profiles.join("; ")
            ));
        let command = command.next_help_heading("Machine").arg(file).arg(profile);
        let command = flags::FLAGS.iter().fold(command, |command, flag| {
            let action = if flag.repeatable {
                ArgAction::Append
            } else {
                ArgAction::Set
            };
            let arg = Arg::new(flag.name)
                .long(flag.name)
                .value_name(flag.value)
                .help(flag.help)
                .action(action);
            // Values such as -avx512f, or a kernel command line, begin as they like.
            command.arg(arg.allow_hyphen_values(true))
        });
        command.next_help_heading("Run")
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
