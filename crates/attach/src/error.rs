//! The errors of an attachment, and their CNI codes.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use cni::Code;
use linux::Errno;

use crate::lan::{self, Found};

/// The result of a call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error, with its objects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the crate `linux`.
    #[error("{0}")]
    Linux(#[from] linux::Error),
    /// The kernel refused, and its reason was found out.
    #[error("{error}: {why}")]
    Explained {
        /// The kernel's error.
        error: linux::Error,
        /// The reason, and what to do.
        why: String,
    },
    /// The host cannot have a route to an address of the container.
    #[error("add the host's route to {address}: {cause}")]
    HostRoute {
        /// The address.
        address: IpAddr,
        /// The reason.
        cause: String,
    },
    /// Another release has written the record of this attachment.
    #[error("read {}: another release of Underlay has written this record", .0.display())]
    OtherRecord(PathBuf),
    /// A key of the configuration has a wrong value.
    #[error("{key} {value}: {cause}")]
    Config {
        /// The key's path.
        key: &'static str,
        /// Its value, in quotes if it is a text, or `is not set`.
        value: String,
        /// The mistake in the value.
        cause: String,
    },
    /// An error of IPAM or of a guard.
    #[error("{0}")]
    Other(#[from] cni::Error),
    /// CNI_NETNS is not set.
    #[error("CNI_NETNS is not set")]
    NetnsUnset,
    /// CNI_NETNS cannot be opened.
    #[error("CNI_NETNS: {0}")]
    Netns(linux::Error),
    /// CNI_NETNS is the home namespace.
    #[error("CNI_NETNS \"{}\": it is the host's own network namespace", .0.display())]
    HostNetns(PathBuf),
    /// The container already has an interface with this name. It may be in use.
    #[error(
        "CNI_IFNAME \"{ifname}\": the container already has an interface of this name ({what}); it is left as it is"
    )]
    NameTaken {
        /// The name.
        ifname: String,
        /// A description of the interface.
        what: String,
    },
    /// The link was deleted during the ADD.
    #[error("{0}: it was deleted during the ADD")]
    LinkGone(String),
    /// No router has advertised a network in time.
    #[error("{ifname}: no router advertised an address within {within:?}")]
    NoAdvertisement {
        /// The interface.
        ifname: String,
        /// The time that was waited.
        within: Duration,
    },
    /// Duplicate address detection has not finished in time.
    #[error("wait for duplicate address detection of {addresses} on {ifname}: not finished after {after:?}")]
    Tentative {
        /// The addresses.
        addresses: String,
        /// Their interface.
        ifname: String,
        /// The time that was waited.
        after: Duration,
    },
    /// Another machine has the IPv6 address.
    #[error(
        "assign {address} to {ifname}: another machine on the LAN has this address \
         (duplicate address detection, RFC 4862)"
    )]
    Duplicate {
        /// The address.
        address: Ipv6Addr,
        /// Its interface.
        ifname: String,
    },
    /// Other machines have leased addresses, and IPAM can give others.
    #[error("{}", lan::describe(.0))]
    Conflict(Vec<Found>),
    /// Another machine has an address that was asked for.
    #[error("assign {} to {ifname} on parent {parent}: {}", lan::list(found), lan::describe(found))]
    InUse {
        /// The address, with its holder.
        found: Vec<Found>,
        /// The interface.
        ifname: String,
        /// The parent.
        parent: String,
    },
    /// Other machines have all addresses that were tried.
    #[error(
        "assign an address to {ifname} on parent {parent}: all {} addresses that were tried are in use: {}",
        found.len(),
        lan::describe(found)
    )]
    AllInUse {
        /// The addresses, with their holders.
        found: Vec<Found>,
        /// The interface.
        ifname: String,
        /// The parent.
        parent: String,
    },
    /// A gateway does not answer.
    #[error(
        "ask {gateways} from {ifname} on {place}: no answer within {within:?}; {heard}; likely causes: a wrong VLAN or \
         cable, a switch port that allows only one MAC (port security), a wrong subnet or gateway in ipam"
    )]
    SilentGateway {
        /// The gateways.
        gateways: String,
        /// The interface.
        ifname: String,
        /// The time that was waited.
        within: Duration,
        /// The parent, and the VLAN if there is one.
        place: String,
        /// The other machines that were heard.
        heard: String,
    },
    /// CHECK found no such interface.
    #[error("CNI_IFNAME \"{ifname}\": the container has no such interface")]
    NoLink {
        /// The name.
        ifname: String,
    },
    /// CHECK found a difference.
    #[error("{ifname}: {what}")]
    Differs {
        /// The interface.
        ifname: String,
        /// The difference.
        what: String,
    },
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Self::Linux(error) | Self::Netns(error) | Self::Explained { error, .. } => kernel_code(error),
            Self::Other(error) => error.code,
            Self::NetnsUnset => Code::INVALID_ENVIRONMENT,
            Self::Config { .. } | Self::NameTaken { .. } | Self::HostRoute { .. } => Code::INVALID_NETWORK_CONFIG,
            Self::HostNetns(_) => Code::INVALID_NETNS,
            Self::OtherRecord(_) => Code::IO_FAILURE,
            Self::Tentative { .. } | Self::NoAdvertisement { .. } => Code::TRY_AGAIN_LATER,
            Self::LinkGone(_) | Self::Duplicate { .. } => Code::KERNEL,
            Self::Conflict(_) | Self::InUse { .. } => Code::ADDRESS_IN_USE,
            Self::AllInUse { .. } => Code::NO_ADDRESS,
            Self::SilentGateway { .. } => Code::GATEWAY_SILENT,
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

/// Turns the error for a missing object into success.
pub(crate) fn unless_gone(outcome: linux::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if is_gone(&error) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Returns true if the kernel's error says that the object does not exist.
pub(crate) fn is_gone(error: &linux::Error) -> bool {
    matches!(error.errno(), Some(Errno::ENODEV | Errno::ENXIO | Errno::EADDRNOTAVAIL | Errno::ESRCH))
}
