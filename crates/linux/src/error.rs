//! The errors of this crate, with texts for operators.

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use nix::errno::Errno;

/// The result of a call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation. The text is `operation object: cause` in lower case, then the kernel's own explanation if it
/// gave one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused an operation.
    #[error("{operation}: {}{}", words(*.errno), Suffix(.ext_ack.as_deref()))]
    Kernel {
        /// The operation and its object.
        operation: String,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's own explanation, if it gave one. (`NLMSGERR_ATTR_MSG`)
        ext_ack: Option<String>,
    },

    /// The kernel's answer was lost. It is not known if the kernel has done the operation.
    #[error("{operation}: {}", words(*.errno))]
    NoAnswer {
        /// The operation and its object.
        operation: String,
        /// The reason why there is no answer.
        errno: Errno,
    },

    /// There is no file at the path.
    #[error("open network namespace \"{}\": no such file or directory", .path.display())]
    NetnsMissing {
        /// The path as it was given.
        path: PathBuf,
    },

    /// The file at the path is not a network namespace.
    #[error("open network namespace \"{}\": not a network namespace", .path.display())]
    NotNetns {
        /// The path as it was given.
        path: PathBuf,
    },

    /// No interface can have this name. It was refused before the kernel was asked.
    #[error("interface name {name:?}: {reason}")]
    InterfaceName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// A system call on a file failed.
    #[error("{operation}: {}", io_words(.source))]
    Io {
        /// The operation and the path.
        operation: String,
        /// The cause.
        source: io::Error,
    },

    /// There was no answer or no event in time.
    #[error("{operation}: timed out")]
    Timeout {
        /// The operation that waited.
        operation: String,
    },

    /// The kernel's reply cannot be decoded.
    #[error("{operation}: malformed reply from the kernel: {what}")]
    Malformed {
        /// The operation and its object.
        operation: String,
        /// The mistake in the reply.
        what: String,
    },

    /// This process cannot see everything that it must search.
    #[error("{cause}")]
    Blind {
        /// The reason.
        cause: String,
    },

    /// Duplicate address detection failed. (RFC 4862, section 5.4)
    #[error("use address {address}: {}", dad_words(*.removed))]
    DadFailed {
        /// The address.
        address: Ipv6Addr,
        /// The kernel no longer has the address. Otherwise it has the address with the flag `dadfailed`.
        removed: bool,
    },
}

/// Returns the kernel's error number of an I/O error, if it has one.
pub fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

impl Error {
    /// Returns the kernel's error number, if there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } | Self::NoAnswer { errno, .. } => Some(*errno),
            Self::Io { source, .. } => errno(source),
            _ => None,
        }
    }

    /// Replaces the text of the operation. The caller knows names where this crate knows only numbers:
    /// `error.during("create macvlan eth0 on ens3")`. Has no effect on an error without an operation.
    #[must_use]
    pub fn during(mut self, words: impl Into<String>) -> Self {
        match &mut self {
            Self::Kernel { operation, .. }
            | Self::NoAnswer { operation, .. }
            | Self::Io { operation, .. }
            | Self::Timeout { operation }
            | Self::Malformed { operation, .. } => *operation = words.into(),
            Self::NetnsMissing { .. }
            | Self::NotNetns { .. }
            | Self::InterfaceName { .. }
            | Self::Blind { .. }
            | Self::DadFailed { .. } => {}
        }
        self
    }

    pub(crate) fn kernel(operation: impl fmt::Display, errno: Errno) -> Self {
        Self::Kernel { operation: operation.to_string(), errno, ext_ack: None }
    }

    pub(crate) fn no_answer(operation: impl fmt::Display, errno: Errno) -> Self {
        Self::NoAnswer { operation: operation.to_string(), errno }
    }

    pub(crate) fn malformed(operation: impl fmt::Display, what: impl Into<String>) -> Self {
        Self::Malformed { operation: operation.to_string(), what: what.into() }
    }
}

/// The text of an error number, with a small first letter: "device or resource busy". "I/O error" keeps its capitals.
fn words(errno: Errno) -> String {
    let text = errno.desc();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            format!("{}{}", first.to_ascii_lowercase(), &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

fn io_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => words(Errno::from_raw(number)),
        None => error.to_string(),
    }
}

fn dad_words(removed: bool) -> &'static str {
    if removed {
        "the kernel removed it during duplicate address detection"
    } else {
        "duplicate address detection found another machine using it"
    }
}

/// `": text"`, or nothing.
struct Suffix<'a>(Option<&'a str>);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_kernel_follows_the_errno() {
        let error = Error::Kernel {
            operation: "add route 10.0.0.0/8".into(),
            errno: Errno::ENETUNREACH,
            ext_ack: Some("Nexthop has invalid gateway".into()),
        };
        assert_eq!(error.to_string(), "add route 10.0.0.0/8: network is unreachable: Nexthop has invalid gateway");
    }

    #[test]
    fn the_text_of_an_errno_begins_in_lower_case() {
        assert_eq!(words(Errno::EBUSY), "device or resource busy");
        assert_eq!(words(Errno::EIO), "I/O error");
        assert_eq!(words(Errno::ENOENT), "no such file or directory");
    }

    #[test]
    fn an_io_error_has_the_form_of_a_kernel_error() {
        let error = Error::Io {
            operation: "write /proc/sys/net/ipv4/ip_forward".into(),
            source: io::Error::from_raw_os_error(Errno::EROFS as i32),
        };
        assert_eq!(error.to_string(), "write /proc/sys/net/ipv4/ip_forward: read-only file system");
        assert_eq!(error.errno(), Some(Errno::EROFS));
    }

    #[test]
    fn a_caller_can_replace_the_operation() {
        let error =
            Error::Kernel { operation: "create macvlan eth0 on ifindex 2".into(), errno: Errno::EBUSY, ext_ack: None };
        assert_eq!(
            error.during("create macvlan eth0 on ens3").to_string(),
            "create macvlan eth0 on ens3: device or resource busy"
        );
    }
}
