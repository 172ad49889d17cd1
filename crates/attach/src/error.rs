//! What can go wrong with an attachment, and the one place that gives it a CNI code.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use cni::Code;
use linux::Errno;

/// The result of everything here that is not yet an answer to the runtime.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the objects that it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel layer failed.
    #[error("{0}")]
    Linux(#[from] linux::Error),
    /// The kernel refused, and we know more than it said.
    #[error("{error}: {why}")]
    Explained {
        /// What the kernel said.
        error: linux::Error,
        /// The cause, and what to do.
        why: String,
    },
    /// A key of the configuration has a value that cannot be.
    #[error("{key} {value}: {cause}")]
    Config {
        /// The key's path.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        cause: String,
    },
    /// IPAM or a guard says no.
    #[error("{0}")]
    Other(#[from] cni::Error),
    /// There is no CNI_NETNS.
    #[error("CNI_NETNS is not set")]
    NetnsUnset,
    /// CNI_NETNS cannot be opened.
    #[error("CNI_NETNS: {0}")]
    Netns(linux::Error),
    /// CNI_NETNS is where the plugin itself runs.
    #[error("CNI_NETNS {}: it is the host's own network namespace", .0.display())]
    HostNetns(PathBuf),
    /// The container has such an interface already: perhaps a live one of this very attachment.
    #[error(
        "CNI_IFNAME \"{ifname}\": the container already has an interface of this name ({what}); it is left as it is"
    )]
    NameTaken {
        /// The name.
        ifname: String,
        /// What is there.
        what: String,
    },
    /// The link appeared and went away again.
    #[error("{0}: it was deleted during the ADD")]
    LinkGone(String),
    /// An IPv6 address never became usable.
    #[error("wait for duplicate address detection of {addresses} on {ifname}: not over after {after:?}")]
    Tentative {
        /// The addresses.
        addresses: String,
        /// Their interface.
        ifname: String,
        /// How long was waited.
        after: Duration,
    },
    /// An IPv6 address is taken.
    #[error(
        "assign {address} to {ifname}: another machine on the LAN has this address (duplicate address detection, RFC 4862)"
    )]
    Duplicate {
        /// The address.
        address: Ipv6Addr,
        /// Its interface.
        ifname: String,
    },
    /// CHECK: there is no such link.
    #[error("CNI_IFNAME \"{ifname}\": the container has no such interface")]
    NoLink {
        /// The name.
        ifname: String,
    },
    /// CHECK: it is there, and different.
    #[error("{ifname}: {what}")]
    Differs {
        /// The interface.
        ifname: String,
        /// What was expected and what is there.
        what: String,
    },
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Self::Linux(error) | Self::Netns(error) | Self::Explained { error, .. } => kernel_code(error),
            Self::Other(error) => error.code,
            Self::NetnsUnset => Code::INVALID_ENVIRONMENT,
            Self::Config { .. } | Self::NameTaken { .. } => Code::INVALID_NETWORK_CONFIG,
            Self::HostNetns(_) => Code::INVALID_NETNS,
            Self::Tentative { .. } => Code::TRY_AGAIN_LATER,
            Self::LinkGone(_) | Self::Duplicate { .. } => Code::KERNEL,
            Self::NoLink { .. } => Code::UNKNOWN_CONTAINER,
            Self::Differs { .. } => Code::DIFFERS,
        }
    }
}

fn kernel_code(error: &linux::Error) -> Code {
    match error {
        linux::Error::NetnsMissing { .. } | linux::Error::NotNetns { .. } => Code::INVALID_NETNS,
        linux::Error::Io { .. } => Code::IO_FAILURE,
        linux::Error::Timeout { .. } => Code::TRY_AGAIN_LATER,
        linux::Error::InterfaceName { .. } => Code::INVALID_NETWORK_CONFIG,
        _ => match error.errno() {
            Some(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Code::TRY_AGAIN_LATER,
            _ => Code::KERNEL,
        },
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        if let Error::Other(error) = error {
            return error;
        }
        Self::new(error.code(), error.to_string())
    }
}

/// That it is gone already is as good as done.
pub(crate) fn unless_gone(outcome: linux::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if is_gone(&error) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Whether the kernel says that the object is gone already.
pub(crate) fn is_gone(error: &linux::Error) -> bool {
    matches!(error.errno(), Some(Errno::ENODEV | Errno::ENXIO | Errno::EADDRNOTAVAIL | Errno::ESRCH))
}
