//! The errors of a command, with texts for operators.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The error of a command. The text is `operation object: cause`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong. Nothing was changed.
    #[error("{cause}\n{}", usage.trim_end())]
    Usage {
        /// The word, and the mistake in it.
        cause: String,
        /// The usage of the command.
        usage: &'static str,
    },
    /// A system call on a file or directory failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation.
        operation: &'static str,
        /// Its object.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
    /// A directory has the name of a plugin. Nothing was changed.
    #[error("{}: it is a directory, and a plugin needs this name; move it away", .0.display())]
    InTheWay(PathBuf),
    /// `.underlay-previous` is a link, a file, or another file system. Nothing was changed.
    #[error("{}: it must be a directory on the same file system, because replaced files are kept in it", .0.display())]
    Elsewhere(PathBuf),
    /// The files in the directory belong to a Debian package. Nothing was changed.
    #[error("{}: the plugins there belong to a Debian package; run apt remove {name}", path.display())]
    Packaged {
        /// The directory.
        path: PathBuf,
        /// The name of the package, which is that of the program.
        name: &'static str,
    },
    /// The output could not be written.
    #[error("write to stdout: {0}")]
    Stdout(io::Error),
    /// Waiting for signals failed.
    #[error("wait for SIGTERM: {0}")]
    Signal(Errno),
}

impl Error {
    /// Returns a function for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// Returns 2 if the command line is wrong, otherwise 1.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            _ => 1,
        }
    }
}
