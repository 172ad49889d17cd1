//! The keys that every kind of sub-interface has.

use cni::config::Object;
use cni::{AddResult, Call, Dns, Error};
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

    /// Without a `master`, the plugin before this one in a chain may have made it: its one interface.
    pub(crate) fn take_master(&mut self, previous: &AddResult) -> Result<(), Error> {
        if self.master.is_some() || previous.interfaces.is_empty() {
            return Ok(());
        }
        let [interface] = previous.interfaces.as_slice() else {
            let names =
                previous.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ");
            let cause = format!("and prevResult has more than one interface to take in its place: {names}");
            return Err(Error::config("master", "is not set", cause));
        };
        self.master = Some(interface.name.clone());
        Ok(())
    }

    /// `dns`: goes into the result in place of the IPAM plugin's where it says anything.
    pub fn dns(&self) -> &Dns {
        &self.dns.0
    }
}
