//! The plugins `ipvlan` and `ipvlan-l2`: put a container on the parent's LAN with the parent's MAC. This crate has the
//! keys that only ipvlan has, and the guard of the parent's mode. The rest is in [`frontend`].
#![forbid(unsafe_code)]

mod guard;

use attach::Guard;
use cni::{Attachment, Call, Code, Error};
use frontend::{Choice, Kind, SubInterface};
use linux::{IpvlanFlag, IpvlanMode, LinkKind};

/// The plugin `ipvlan`.
pub static PLUGIN: SubInterface<Ipvlan> = SubInterface(Ipvlan { modes: IpvlanMode::ALL });

/// The plugin `ipvlan-l2`, which refuses all other modes.
pub static PLUGIN_L2: SubInterface<Ipvlan> = SubInterface(Ipvlan { modes: &[IpvlanMode::L2] });

/// Implements [`Kind`] for ipvlan.
pub struct Ipvlan {
    modes: &'static [IpvlanMode],
}

impl Kind for Ipvlan {
    fn name(&self) -> &'static str {
        "ipvlan"
    }

    fn about(&self) -> &'static str {
        match self.modes {
            [IpvlanMode::L2] => "as ipvlan, with mode l2 only",
            _ => "puts a container on the host's LAN with the host's MAC",
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
