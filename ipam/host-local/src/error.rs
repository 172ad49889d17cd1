//! Errors of host-local, and their CNI codes.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni::Code;

use crate::kept::Kept;

/// `operation object: cause`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A key of the configuration, with its value, is wrong.
    #[error("{place}: {cause}")]
    Config { place: String, cause: String },
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("lock {}: still held by another process after {seconds} s", path.display())]
    Locked { path: PathBuf, seconds: u64 },
    #[error(
        "lock {}: {source}: without flock(2) two containers could get one address, \
         so choose an ipam.dataDir on another file system", path.display()
    )]
    NoLocks { path: PathBuf, source: io::Error },
    #[error("lock {}: another process holds it, and no thread can be started to wait for it: {source}", path.display())]
    NoThread { path: PathBuf, source: io::Error },
    #[error("{place}: leased to {holder}")]
    Taken { place: String, holder: String },
    #[error("{place}: {owner} already has {held} there; call DEL before you ask for another address")]
    Held { place: String, owner: String, held: IpAddr },
    #[error(
        "no free address in {set}: {capacity} addresses, {leases} leases, {reclaimed} reclaimed{}{kept}",
        oldest.as_ref().map(|oldest| format!(", the oldest {oldest}")).unwrap_or_default()
    )]
    Exhausted {
        set: String,
        capacity: u128,
        leases: u128,
        /// Stale leases that this call has freed.
        reclaimed: usize,
        kept: KeptList,
        /// The address and the owner of the lease that was made first.
        oldest: Option<String>,
    },
    #[error("{owner} has no lease in {}", directory.display())]
    NoLease { owner: String, directory: PathBuf },
    #[error("{owner}: {cause}")]
    Differs { owner: String, cause: String },
    /// An ADD would fail.
    #[error("{0}")]
    Unavailable(Box<Error>),
    /// Several errors: the work continued after each. Never empty.
    #[error("{}", joined(.0))]
    Several(Vec<Error>),
    /// A failed ADD, some of whose leases could not be released.
    #[error("{error}")]
    NotUndone { error: Box<Error>, left: Vec<Error> },
}

/// The kept addresses of a set. The text is the end of [`Error::Exhausted`], empty for an empty list.
#[derive(Debug)]
pub(crate) struct KeptList(pub(crate) Vec<Kept>);

/// A message names at most so many kept addresses.
const NAMED: usize = 5;

impl fmt::Display for KeptList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kept) = self;
        if kept.is_empty() {
            return Ok(());
        }
        let name = |Kept { ip, mac, seconds }: &Kept| {
            let mac = mac.map(|mac| format!(" ({mac})")).unwrap_or_default();
            format!("{ip}{mac} for {seconds} s")
        };
        let named: Vec<_> = kept.iter().take(NAMED).map(name).collect();
        write!(f, ", {} kept because another machine on the LAN has the address: {}", kept.len(), named.join(", "))?;
        match kept.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Error {
    /// For `map_err`: an I/O error, with what was done to which file.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    fn code(&self) -> Code {
        match self {
            Self::Config { .. } | Self::Held { .. } => Code::INVALID_NETWORK_CONFIG,
            Self::Io { .. } | Self::NoLocks { .. } => Code::IO_FAILURE,
            Self::Locked { .. } | Self::NoThread { .. } => Code::TRY_AGAIN_LATER,
            Self::Taken { .. } | Self::Exhausted { .. } => Code::NO_ADDRESS,
            Self::NoLease { .. } => Code::UNKNOWN_CONTAINER,
            Self::Differs { .. } => Code::DIFFERS,
            Self::Unavailable(_) => Code::PLUGIN_NOT_AVAILABLE,
            Self::Several(errors) => errors.first().map_or(Code::IO_FAILURE, Self::code),
            Self::NotUndone { error, .. } => error.code(),
        }
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let answer = Self::new(error.code(), error.to_string());
        match error {
            Error::NotUndone { left, .. } => left.iter().fold(answer, |answer, left| answer.with_detail(left)),
            _ => answer,
        }
    }
}

/// Returns `Ok` if the list is empty.
pub(crate) fn all_well(errors: Vec<Error>) -> Result<(), Error> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::Several(errors)),
    }
}

fn joined(errors: &[Error]) -> String {
    errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(path: &str) -> Error {
        Error::io("remove", Path::new(path))(linux::Errno::EROFS.into())
    }

    #[test]
    fn what_was_not_undone_is_in_the_details_and_changes_no_code() {
        let full = Error::Exhausted {
            set: "ipam.subnet".into(),
            capacity: 1,
            leases: 1,
            reclaimed: 0,
            kept: KeptList(Vec::new()),
            oldest: None,
        };
        let answer = cni::Error::from(Error::NotUndone { error: Box::new(full), left: vec![io("/a"), io("/b")] });
        assert_eq!(answer.code, Code::NO_ADDRESS);
        assert_eq!(answer.msg, "no free address in ipam.subnet: 1 addresses, 1 leases, 0 reclaimed");
        let left = "remove /a: Read-only file system (os error 30); remove /b: Read-only file system (os error 30)";
        assert_eq!(answer.details, left);
    }

    #[test]
    fn a_lock_that_stays_held_may_be_free_later() {
        let answer = cni::Error::from(Error::Locked { path: "/lan/lock".into(), seconds: 60 });
        assert_eq!(answer.code, Code::TRY_AGAIN_LATER);
        assert_eq!(answer.msg, "lock /lan/lock: still held by another process after 60 s");
    }

    #[test]
    fn nothing_wrong_is_no_error_and_all_that_was_is_named() {
        all_well(Vec::new()).unwrap();
        let answer = cni::Error::from(all_well(vec![io("/a"), io("/b")]).unwrap_err());
        assert_eq!(answer.code, Code::IO_FAILURE);
        assert!(answer.msg.contains("remove /a: ") && answer.msg.contains("; remove /b: "), "{}", answer.msg);
    }
}
