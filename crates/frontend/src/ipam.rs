//! Implements `attach::Ipam` with the IPAM plugin of a call.

use std::net::IpAddr;

use attach::Supply;
use cni::{Attachment, Call, Conflict, Error, Ipam, Leased, Network};

/// The IPAM plugin for one attachment.
pub(crate) enum Asked<'a> {
    /// The plugin in `ipam.type`.
    Plugin(Ipam<'a>, &'a Attachment, Call<'a>),
    /// The plugin cannot be called, because of this error.
    Unreachable(Error),
}

impl<'a> Asked<'a> {
    /// Finds the IPAM plugin. Returns `None` if the configuration names none.
    pub(crate) fn find(call: &Call<'a>, attachment: &'a Attachment) -> Result<Option<Self>, Error> {
        Ok(Ipam::find(call)?.map(|ipam| Self::Plugin(ipam, attachment, *call)))
    }

    /// Finds the IPAM plugin for a DEL, which removes the link also if the plugin is missing, and then fails.
    pub(crate) fn find_for_del(call: &Call<'a>, attachment: &'a Attachment) -> Option<Self> {
        Self::find(call, attachment).unwrap_or_else(|error| Some(Self::Unreachable(error)))
    }

    fn ask<'s, T>(&'s self, ask: impl FnOnce(&'s Ipam<'a>, &'s Attachment) -> Result<T, Error>) -> Result<T, Error> {
        match self {
            Self::Plugin(ipam, attachment, _) => ask(ipam, attachment),
            Self::Unreachable(error) => Err(error.clone()),
        }
    }
}

impl attach::Ipam for Asked<'_> {
    fn add(&self) -> Result<Leased<'_>, Error> {
        self.ask(Ipam::add)
    }

    fn del(&self) -> Result<(), Error> {
        self.ask(Ipam::del)
    }

    fn reject(&self, conflicts: &[Conflict]) -> Result<(), Error> {
        match conflicts {
            [] => self.ask(Ipam::del),
            conflicts => self.ask(|ipam, attachment| ipam.reject(attachment, conflicts)),
        }
    }

    fn supply(&self, address: IpAddr) -> Supply {
        let Self::Plugin(ipam, attachment, call) = self else { return Supply::Unknown };
        match ipam.name() {
            "static" => Supply::Fixed,
            "host-local" | "lan-pool" if requests(call, attachment).unwrap_or_default().contains(&address) => {
                Supply::Fixed
            }
            "host-local" | "lan-pool" => Supply::Others,
            _ => Supply::Unknown,
        }
    }

    fn may_set_up(&self) -> bool {
        matches!(self, Self::Plugin(ipam, ..) if !ipam.is_here() && !matches!(ipam.name(), "host-local" | "lan-pool" | "static"))
    }

    fn check(&self) -> Result<(), Error> {
        self.ask(Ipam::check)
    }

    fn is_held(&self) -> Option<bool> {
        match self {
            Self::Plugin(ipam, attachment, _) if ipam.is_here() => Some(ipam.check(attachment).is_ok()),
            Self::Plugin(..) => None,
            Self::Unreachable(_) => Some(false),
        }
    }

    fn releases_from_its_address(&self) -> bool {
        matches!(self, Self::Plugin(ipam, ..) if ipam.releases_from_its_address())
    }
}

/// Returns the addresses that the runtime asks for. IPAM has read them before, and refuses wrong ones.
fn requests(call: &Call<'_>, attachment: &Attachment) -> Result<Vec<IpAddr>, Error> {
    let keys = call.keys();
    let mut texts = keys.object("args")?.object("cni")?.texts("ips")?;
    texts.extend(keys.object("runtimeConfig")?.texts("ips")?);
    texts.extend(attachment.args()?.get("IP").map(str::to_owned));
    let parse = |text: &String| text.parse().ok().or_else(|| Some(text.parse::<Network>().ok()?.0.addr()));
    Ok(texts.iter().filter_map(parse).map(|address: IpAddr| address.to_canonical()).collect())
}
