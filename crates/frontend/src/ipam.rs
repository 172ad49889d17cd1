//! Implements `attach::Ipam` with the IPAM plugin of a call.

use cni::{Attachment, Call, Error, Ipam, Leased};

/// The IPAM plugin for one attachment.
pub(crate) enum Asked<'a> {
    /// The plugin in `ipam.type`.
    Plugin(Ipam<'a>, &'a Attachment),
    /// The plugin cannot be called, because of this error.
    Unreachable(Error),
}

impl<'a> Asked<'a> {
    /// Finds the IPAM plugin. Returns `None` if the configuration names none.
    pub(crate) fn find(call: &Call<'a>, attachment: &'a Attachment) -> Result<Option<Self>, Error> {
        Ok(Ipam::find(call)?.map(|ipam| Self::Plugin(ipam, attachment)))
    }

    /// Finds the IPAM plugin for a DEL, which removes the link also if the plugin is missing, and then fails.
    pub(crate) fn find_for_del(call: &Call<'a>, attachment: &'a Attachment) -> Option<Self> {
        Self::find(call, attachment).unwrap_or_else(|error| Some(Self::Unreachable(error)))
    }

    fn ask<'s, T>(&'s self, ask: impl FnOnce(&'s Ipam<'a>, &'s Attachment) -> Result<T, Error>) -> Result<T, Error> {
        match self {
            Self::Plugin(ipam, attachment) => ask(ipam, attachment),
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

    fn check(&self) -> Result<(), Error> {
        self.ask(Ipam::check)
    }

    fn is_held(&self) -> Option<bool> {
        match self {
            Self::Plugin(ipam, attachment) if ipam.is_here() => Some(ipam.check(attachment).is_ok()),
            Self::Plugin(..) => None,
            Self::Unreachable(_) => Some(false),
        }
    }

    fn releases_from_its_address(&self) -> bool {
        matches!(self, Self::Plugin(ipam, _) if ipam.releases_from_its_address())
    }
}
