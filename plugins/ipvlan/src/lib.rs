//! The ipvlan plugin: a container on the parent's LAN under the parent's own MAC. Everything but the keys that only
//! ipvlan has, and the guard of the parent's mode, is in [`frontend`].
#![forbid(unsafe_code)]

mod guard;

use attach::Guard;
use cni::{Attachment, Call, Code, Error};
use frontend::{Choice, Kind, SubInterface};
use linux::{IpvlanFlag, IpvlanMode, LinkKind};

/// The plugin.
pub static PLUGIN: SubInterface<Ipvlan> = SubInterface(Ipvlan { modes: IpvlanMode::ALL });

/// The plugin under its second name, for nodes on which no container may choose another mode.
pub static PLUGIN_L2: SubInterface<Ipvlan> = SubInterface(Ipvlan { modes: &[IpvlanMode::L2] });

/// The kind.
pub struct Ipvlan {
    modes: &'static [IpvlanMode],
}

impl Kind for Ipvlan {
    fn name(&self) -> &'static str {
        "ipvlan"
    }

    fn about(&self) -> &'static str {
        match self.modes {
            [IpvlanMode::L2] => "ipvlan in mode l2 and in no other",
            _ => "puts a container on the host's LAN under the host's own MAC",
        }
    }

    fn chains(&self) -> bool {
        true
    }

    fn choose(&self, call: &Call<'_>, _: Option<&Attachment>) -> Result<Choice, Error> {
        let keys = call.keys();
        let unsupported = |key: &str, text: &str, known: Vec<&str>| {
            let cause = format!("{key} \"{text}\": {} knows {}", call.plugin, known.join(", "));
            Error::new(Code::UNSUPPORTED_FIELD, cause)
        };
        let mode = match keys.text("mode")? {
            None => IpvlanMode::L2,
            Some(text) => self
                .modes
                .iter()
                .copied()
                .find(|mode| mode.as_str() == text)
                .ok_or_else(|| unsupported("mode", text, self.modes.iter().map(|mode| mode.as_str()).collect()))?,
        };
        let flag = match keys.text("flag")? {
            None => IpvlanFlag::Bridge,
            Some(text) => text
                .parse()
                .map_err(|_| unsupported("flag", text, IpvlanFlag::ALL.iter().map(|flag| flag.as_str()).collect()))?,
        };
        Ok(Choice { link: LinkKind::Ipvlan { mode, flag }, mac: None })
    }

    fn guard(&self) -> Option<&dyn Guard> {
        Some(&guard::OneMode)
    }
}
