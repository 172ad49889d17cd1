//! The keys of the configuration that every kind of sub-interface has.

use cni::{AddResult, Call, Dns, Error};

/// The values of the keys. `null`, `""` and 0 mean that a key is not set.
#[derive(Debug)]
pub struct Keys {
    /// `master`: the name or an alternative name of the parent. `None` is the interface of the default route.
    pub master: Option<String>,
    /// `mtu` in bytes. `None` is the parent's MTU.
    pub mtu: Option<u32>,
    /// `linkInContainer`: true if the parent is in the container's network namespace.
    pub link_in_container: bool,
    /// `dns`: replaces that of IPAM in the result, unless it is empty.
    pub dns: Dns,
}

impl Keys {
    /// Reads the keys of a call.
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

    /// If `master` is not set and an earlier plugin of a chain has created one interface, takes that as `master`.
    pub(crate) fn take_master(&mut self, previous: &AddResult) -> Result<(), Error> {
        if self.master.is_some() || previous.interfaces.is_empty() {
            return Ok(());
        }
        let [interface] = previous.interfaces.as_slice() else {
            let names =
                previous.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ");
            let cause = format!("prevResult has several interfaces, {names}; set master to one of them");
            return Err(Error::config("master", "is not set", cause));
        };
        self.master = Some(interface.name.clone());
        Ok(())
    }
}
