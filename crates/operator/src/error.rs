//! What can go wrong with a command, in words that an operator can act on.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// `operation object: cause`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong. Nothing was done.
    #[error("{cause}\n{}", usage.trim_end())]
    Usage {
        /// The word, and what is wrong with it.
        cause: String,
        /// How it is done.
        usage: &'static str,
    },
    /// A file or directory.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// There is a directory where a plugin is to be. Nothing was done.
    #[error("{}: it is a directory, and a plugin needs this name", .0.display())]
    InTheWay(PathBuf),
    /// Where predecessors are to be is a link, a file, or another file system. Nothing was done.
    #[error("{}: it is no directory of this file system, and predecessors are kept in it", .0.display())]
    Elsewhere(PathBuf),
    /// The files in that directory are a package's. Nothing was done.
    #[error("{}: installed by a package: apt remove {name}", path.display())]
    Packaged {
        /// The directory.
        path: PathBuf,
        /// The package, which is called as the program is.
        name: &'static str,
    },
    /// What was done could not be said.
    #[error("write to stdout: {0}")]
    Stdout(io::Error),
    /// Signals could not be waited for.
    #[error("wait for SIGTERM: {0}")]
    Signal(Errno),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// 2 where the command line is wrong, 1 for all else.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            _ => 1,
        }
    }
}
