//! The keys that every kind of sub-interface has.

use cni::{AddResult, Call, Dns, Error};

/// Keys as typed: null, "" and 0 mean not set.
#[derive(Debug)]
pub struct Keys {
    /// `master`: a name or an alternative name of the parent; none means the interface of the default route.
    pub master: Option<String>,
    /// `mtu` in bytes; none means the parent's.
    pub mtu: Option<u32>,
    /// `linkInContainer`: the parent is in the container's netns.
    pub link_in_container: bool,
    /// `dns`: goes into the result in place of the IPAM plugin's where it says anything.
    pub dns: Dns,
}

impl Keys {
    /// Reads them.
    pub fn read(call: &Call<'_>) -> Result<Self, Error> {
        let keys = call.keys();
        let master = keys.text("master")?;
        if let Some(cause) = master.and_then(cni::env::why_no_name_of_interface) {
            return Err(keys.refuse("master", cause));
        }
        Ok(Self {
            master: master.map(str::to_owned),
            mtu: keys.non_zero("mtu")?,
            link_in_container: keys.flag("linkInContainer")?,
            dns: Dns::read(keys, "dns")?,
        })
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
}
