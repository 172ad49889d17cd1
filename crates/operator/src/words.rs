//! Reads the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::Error;

/// The default directory, in which containerd, CRI-O and the Kubernetes packages look for plugins.
const DIRECTORY: &str = "/opt/cni/bin";

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Install,
    Uninstall,
}

impl Command {
    pub(crate) fn named(word: &OsStr) -> Option<Self> {
        [Self::Install, Self::Uninstall].into_iter().find(|command| word == command.name())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Uninstall => "uninstall",
        }
    }

    pub(crate) fn usage(self) -> &'static str {
        match self {
            Self::Install => {
                "usage: underlay install [--to DIRECTORY] [--wait]\n\
                 Installs all plugins into DIRECTORY. The default is /opt/cni/bin.\n\
                 Other plugins with the same names are kept in DIRECTORY/.underlay-previous.\n\
                 With --wait, the command then sleeps until SIGTERM, for a Kubernetes DaemonSet.\n"
            }
            Self::Uninstall => {
                "usage: underlay uninstall [--from DIRECTORY] [--wait]\n\
                 Removes the plugins from DIRECTORY, and puts back the files that they replaced.\n\
                 The default is /opt/cni/bin.\n\
                 With --wait, the command then sleeps until SIGTERM, for a Kubernetes DaemonSet.\n"
            }
        }
    }

    /// Returns the option for the directory.
    fn option(self) -> &'static str {
        match self {
            Self::Install => "--to",
            Self::Uninstall => "--from",
        }
    }
}

/// The options after the command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) directory: PathBuf,
    pub(crate) wait: bool,
    pub(crate) help: bool,
}

impl Words {
    pub(crate) fn parse(command: Command, words: &[OsString]) -> Result<Self, Error> {
        let usage = |cause: String| Error::Usage { cause, usage: command.usage() };
        let mut parsed = Self { directory: DIRECTORY.into(), wait: false, help: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--wait") => parsed.wait = true,
                Some("--help" | "-h") => parsed.help = true,
                Some(option) if option == command.option() => {
                    let directory = words.next().filter(|directory| !directory.is_empty());
                    parsed.directory =
                        directory.ok_or_else(|| usage(format!("{option} needs a directory after it")))?.into();
                }
                _ => return Err(usage(format!("unexpected argument \"{}\"", word.to_string_lossy()))),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Words, String> {
        let command = Command::named(OsStr::new(words[0])).expect("a command");
        let words: Vec<OsString> = words[1..].iter().map(OsString::from).collect();
        Words::parse(command, &words).map_err(|error| error.to_string())
    }

    fn words(directory: &str, wait: bool) -> Words {
        Words { directory: directory.into(), wait, help: false }
    }

    #[test]
    fn each_command_has_its_own_option_for_the_directory() {
        assert_eq!(parse(&["install"]), Ok(words("/opt/cni/bin", false)));
        assert_eq!(parse(&["install", "--to", "/a"]), Ok(words("/a", false)));
        assert_eq!(parse(&["uninstall", "--wait", "--from", "/a"]), Ok(words("/a", true)));
    }

    #[test]
    fn a_word_that_is_not_known_is_named_and_usage_shown() {
        let refused = |words: &[&str]| parse(words).expect_err("refused");
        assert!(
            refused(&["install", "--from", "/a"])
                .starts_with("unexpected argument \"--from\"\nusage: underlay install")
        );
        assert!(refused(&["install", "/a"]).starts_with("unexpected argument \"/a\"\n"));
        assert!(refused(&["uninstall", "--from"]).starts_with("--from needs a directory after it\nusage: underlay un"));
        assert!(refused(&["install", "--to", ""]).starts_with("--to needs a directory after it\n"));
    }

    #[test]
    fn other_words_are_no_commands_of_ours() {
        for word in ["", "--help", "Install", "leases"] {
            assert_eq!(Command::named(OsStr::new(word)), None, "{word}");
        }
    }
}
