//! Reads the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use super::Error;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Sweep,
    Release,
    Import,
}

impl Command {
    pub(crate) fn named(word: &OsStr) -> Option<Self> {
        [Self::Sweep, Self::Release, Self::Import].into_iter().find(|command| word == command.name())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Release => "release",
            Self::Import => "import",
        }
    }

    pub(crate) fn usage(self) -> &'static str {
        match self {
            Self::Sweep => {
                "usage: lan-pool sweep [--conf FILE]...\n\
                 Frees the leases of containers of this node that are gone, and makes leases again that the store has lost.\n\
                 FILE is a network configuration with lan-pool. The default is all files in /etc/cni/net.d.\n"
            }
            Self::Release => {
                "usage: lan-pool release --node NODE [--conf FILE] [--kubeconfig FILE] [--interface IF] [--off]\n\
                 Frees the leases of a node that is gone. The Node object must not exist, or must have the taint\n\
                 node.kubernetes.io/out-of-service. With --off, you say yourself that the machine is off.\n\
                 Before a lease is freed, all machines on the LAN are asked for its address through the interface IF.\n\
                 The default is the master of the network. If a machine answers, the lease stays.\n\
                 The credentials need the verb release on lanaddresses. The default is $KUBECONFIG, or else\n\
                 /etc/kubernetes/admin.conf.\n"
            }
            Self::Import => {
                "usage: lan-pool import --from DIRECTORY [--conf FILE]\n\
                 Takes over the leases of one network of host-local, such as /var/lib/cni/networks/NETWORK, whose containers\n\
                 run. Changes nothing in DIRECTORY. FILE is the new network configuration with lan-pool.\n"
            }
        }
    }
}

/// The options after the command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) help: bool,
    pub(crate) off: bool,
    pub(crate) conf: Vec<PathBuf>,
    pub(crate) from: Option<PathBuf>,
    pub(crate) interface: Option<String>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) node: Option<String>,
}

impl Words {
    pub(crate) fn parse(command: Command, words: &[OsString]) -> Result<Self, Error> {
        let wrong = |error: lexopt::Error| Error::Usage(format!("{error}; see lan-pool {} --help", command.name()));
        let mut parser = Parser::from_args(words);
        let mut read = Self::default();
        while let Some(word) = parser.next().map_err(wrong)? {
            let option = match &word {
                Arg::Short('h') => "help".to_owned(),
                Arg::Long(name) => (*name).to_owned(),
                _ => return Err(wrong(word.unexpected())),
            };
            let unknown = word.unexpected();
            let mut value = || parser.value().map_err(wrong);
            let text = |value: OsString| value.string().map_err(wrong);
            match (command, option.as_str()) {
                (_, "help") => read.help = true,
                (_, "conf") => read.conf.push(value()?.into()),
                (Command::Import, "from") => read.from = Some(value()?.into()),
                (Command::Release, "node") => read.node = Some(text(value()?)?),
                (Command::Release, "interface") => read.interface = Some(text(value()?)?),
                (Command::Release, "kubeconfig") => read.kubeconfig = Some(value()?.into()),
                (Command::Release, "off") => read.off = true,
                _ => return Err(wrong(unknown)),
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: Command, words: &[&str]) -> Result<Words, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Words::parse(command, &words).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let words = parse(Command::Release, &["--node", "n", "--interface=eth0", "--off"]).unwrap();
        let expected = Words { node: Some("n".into()), interface: Some("eth0".into()), off: true, ..Words::default() };
        assert_eq!(words, expected);
    }

    #[test]
    fn an_option_of_another_command_is_refused() {
        let error = parse(Command::Sweep, &["--off"]).unwrap_err();
        assert_eq!(error, "invalid option '--off'; see lan-pool sweep --help");
        assert!(parse(Command::Import, &["--from"]).is_err());
    }
}
