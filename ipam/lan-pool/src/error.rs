//! Errors of lan-pool, and their CNI codes.

use std::fmt;
use std::io;
use std::net::IpAddr;
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
    /// A range, a requested address or resolv.conf.
    #[error(transparent)]
    Ranges(#[from] ranges::Error),
    /// A file could not be read or written.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The kernel has refused something.
    #[error(transparent)]
    Kernel(#[from] linux::Error),
    /// A page of the journal is damaged.
    #[error("journal {}: {cause}", path.display())]
    Page {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: String,
    },
    /// Another call of the same owner still runs.
    #[error("journal {}: another call for {owner} still runs after {seconds} s", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
        /// The owner.
        owner: String,
        /// The time that was waited.
        seconds: u64,
    },
    /// The store gives no answer, so nothing is known.
    #[error("store: {cause}")]
    Away {
        /// The last error.
        cause: String,
    },
    /// The store has refused a request.
    #[error("store: {cause}")]
    Refused {
        /// The text of the store.
        cause: String,
    },
    /// No address is free.
    #[error("no free address in {set}: {capacity} addresses, {nodes}; {advice}")]
    Exhausted {
        /// The set.
        set: String,
        /// The number of its addresses.
        capacity: u128,
        /// The leases of each node.
        nodes: Nodes,
        /// The next step for the operator.
        advice: &'static str,
    },
    /// The requested address is leased.
    #[error("{place}: leased to {holder}")]
    Taken {
        /// The key that asks for the address.
        place: String,
        /// The holder.
        holder: String,
    },
    /// The owner has another address.
    #[error("{place}: {owner} already has {held} there; call DEL before you ask for another address")]
    Held {
        /// The key that asks for the address, and the set.
        place: String,
        /// The owner.
        owner: String,
        /// Its address.
        held: IpAddr,
    },
    /// CHECK: the store has no lease.
    #[error("{address}: no lease of {owner}{other}")]
    NoLease {
        /// The address of `prevResult`.
        address: IpAddr,
        /// The owner.
        owner: String,
        /// The other holder, if there is one.
        other: String,
    },
}

/// The number of leases of each node. The text lists them, the largest number first.
#[derive(Debug, Default)]
pub struct Nodes(pub Vec<(String, usize)>);

/// A message names at most so many nodes.
const NAMED: usize = 8;

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(nodes) = self;
        let total: usize = nodes.iter().map(|(_, leases)| leases).sum();
        write!(f, "{total} leases")?;
        let mut nodes: Vec<_> = nodes.iter().collect();
        nodes.sort_by(|(name, leases), (other, more)| more.cmp(leases).then(name.cmp(other)));
        let named: Vec<_> = nodes.iter().take(NAMED).map(|(name, leases)| format!("{leases} of {name}")).collect();
        if !named.is_empty() {
            write!(f, " ({}", named.join(", "))?;
            match nodes.len().saturating_sub(NAMED) {
                0 => write!(f, ")")?,
                more => write!(f, ", and of {more} more nodes)")?,
            }
        }
        Ok(())
    }
}

impl Error {
    /// For `map_err`: an I/O error, with the operation and the file.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    fn code(&self) -> Code {
        match self {
            Self::Config { .. } | Self::Held { .. } => Code::INVALID_NETWORK_CONFIG,
            Self::Ranges(_) => Code::INTERNAL,
            Self::Io { .. } | Self::Page { .. } => Code::IO_FAILURE,
            Self::Kernel(_) => Code::KERNEL,
            Self::Busy { .. } | Self::Away { .. } | Self::Refused { .. } => Code::TRY_AGAIN_LATER,
            Self::Exhausted { .. } | Self::Taken { .. } => Code::NO_ADDRESS,
            Self::NoLease { .. } => Code::DIFFERS,
        }
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Ranges(error) => error.into(),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_and_the_largest_comes_first() {
        let nodes = |numbers: &[(&str, usize)]| {
            Nodes(numbers.iter().map(|(name, leases)| ((*name).to_owned(), *leases)).collect()).to_string()
        };
        assert_eq!(nodes(&[]), "0 leases");
        assert_eq!(nodes(&[("b", 1), ("a", 1), ("c", 9)]), "11 leases (9 of c, 1 of a, 1 of b)");
        let many: Vec<_> = (0..10).map(|_| ("n", 1)).collect();
        assert!(nodes(&many).ends_with(", and of 2 more nodes)"), "{}", nodes(&many));
    }
}
