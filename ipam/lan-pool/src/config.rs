//! The keys of lan-pool. DEL and GC read only [`Place`], so that a wrong edit of the ranges cannot prevent a DEL.

use std::path::PathBuf;

use cni::{Attachment, Call, Object};
use ranges::Ranges;

use crate::store::kubernetes;

/// The directory of the journals.
const DATA_DIR: &str = "/var/lib/cni/lan-pool";

/// The default of `conflictDelay`, in seconds.
const CONFLICT_DELAY: u32 = 600;

/// The longest name of a LAN: a label of the names of its leases. (RFC 1123)
const MAX_LAN: usize = 63;

/// Where the leases of a LAN are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `lan`: the name of the LAN.
    pub(crate) lan: String,
    /// `node`: the name of this node, if the credentials do not say it.
    pub(crate) node: Option<String>,
    /// `dataDir`: the directory of the journals.
    pub(crate) data_dir: PathBuf,
    /// `conflictDelay`: the seconds for which an address that another machine has is not leased.
    pub(crate) conflict_delay: u32,
    /// `store.kubernetes`.
    pub(crate) kubernetes: kubernetes::Access,
}

impl Place {
    /// Reads the keys of `ipam`.
    ///
    /// # Errors
    ///
    /// The first wrong or missing key, with its value.
    pub(crate) fn read(ipam: &Object<'_>) -> Result<Self, cni::Error> {
        let lan = ipam.text("lan")?.ok_or_else(|| {
            ipam.refuse(
                "lan",
                "is missing: all nodes of one LAN must name it, because an address is leased once on each LAN",
            )
        })?;
        if !is_label(lan) {
            return Err(ipam.refuse("lan", "is not a name of small letters, digits and hyphens"));
        }
        let store = ipam.object("store")?;
        let kubernetes = store.object("kubernetes")?;
        if !kubernetes.is_set() {
            return Err(store.refuse("kubernetes", "is missing; it is the only store"));
        }
        let access = kubernetes::Access {
            kubeconfig: kubernetes.text("kubeconfig")?.map(PathBuf::from),
            context: kubernetes.text("context")?.map(str::to_owned),
        };
        if access.kubeconfig.is_none() {
            return Err(kubernetes.refuse("kubeconfig", "is missing; kubeadm has /etc/kubernetes/kubelet.conf"));
        }
        Ok(Self {
            lan: lan.to_owned(),
            node: ipam.text("node")?.map(str::to_owned),
            data_dir: ipam.text("dataDir")?.unwrap_or(DATA_DIR).into(),
            conflict_delay: ipam.number("conflictDelay")?.unwrap_or(CONFLICT_DELAY),
            kubernetes: access,
        })
    }

    /// Reads them from a call.
    ///
    /// # Errors
    ///
    /// As [`Place::read`].
    pub(crate) fn of(call: &Call<'_>) -> Result<Self, cni::Error> {
        Self::read(&call.keys().object("ipam")?)
    }
}

/// Reads everything, for ADD, CHECK and STATUS.
pub(crate) fn read(call: &Call<'_>, attachment: Option<&Attachment>) -> Result<(Place, Ranges), cni::Error> {
    let (ranges, place) = Ranges::read(call, attachment, Place::read)?;
    Ok((place, ranges))
}

fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = text.bytes().all(|byte| is_plain(byte) || byte == b'-');
    let edges = text.bytes().next().is_some_and(is_plain) && text.bytes().last().is_some_and(is_plain);
    inner && edges && text.len() <= MAX_LAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lan_is_a_label() {
        for good in ["office", "a", "0", "rack-7"] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
