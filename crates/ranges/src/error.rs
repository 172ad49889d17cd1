//! Errors of the configuration, and their CNI codes.

use std::io;
use std::path::{Path, PathBuf};

use cni::Code;

/// `operation object: cause`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key of the configuration, with its value, is wrong.
    #[error("{place}: {cause}")]
    Config {
        /// The key, with its value.
        place: String,
        /// The reason.
        cause: String,
    },
    /// A variable of the environment, with its value, is malformed.
    #[error("{place}: {cause}")]
    Variable {
        /// The variable, with its value.
        place: String,
        /// The reason.
        cause: String,
    },
    /// resolv.conf could not be read.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: an I/O error, with the operation and the file.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Config { .. } => Code::INVALID_NETWORK_CONFIG,
            Error::Variable { .. } => Code::INVALID_ENVIRONMENT,
            Error::Io { .. } => Code::IO_FAILURE,
        };
        Self::new(code, error.to_string())
    }
}
