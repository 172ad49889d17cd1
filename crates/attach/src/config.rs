//! The keys that every kind of sub-interface has.

use cni::config::Object;
use cni::{Call, Dns, Error};
use serde::Deserialize;

/// Keys as typed: null, "" and 0 mean not set.
#[derive(Debug, Default, Deserialize)]
pub struct Keys {
    /// `master`: the parent; none means the interface of the default route.
    #[serde(default, deserialize_with = "cni::wire::non_empty")]
    pub master: Option<String>,
    /// `mtu` in bytes; none means the parent's.
    #[serde(default, deserialize_with = "cni::wire::non_zero")]
    pub mtu: Option<u32>,
    /// `linkInContainer`: the parent is in the container's netns.
    #[serde(default, rename = "linkInContainer", deserialize_with = "cni::wire::nullable")]
    pub link_in_container: bool,
    #[serde(default, deserialize_with = "cni::wire::nullable")]
    dns: Object<Dns>,
}

impl Keys {
    /// Reads them.
    pub fn read(call: &Call<'_>) -> Result<Self, Error> {
        let keys: Self = call.decode()?;
        match keys.master.as_deref().and_then(cni::env::refuse_ifname) {
            Some(cause) => Err(Error::config("master", format_args!("\"{}\"", keys.master.unwrap_or_default()), cause)),
            None => Ok(keys),
        }
    }

    /// `dns`: goes into the result in place of the IPAM plugin's where it says anything.
    pub fn dns(&self) -> &Dns {
        &self.dns.0
    }
}
