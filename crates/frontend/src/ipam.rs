//! The IPAM plugin of a call, as the attach crate asks it.

use cni::{Attachment, Call, Error, Ipam, Leased};

/// IPAM for one attachment.
pub(crate) enum Asked<'a> {
    /// The plugin that the configuration names.
    Plugin(Ipam<'a>, &'a Attachment),
    /// One that cannot be called, for this reason.
    Unreachable(Error),
}

impl<'a> Asked<'a> {
    /// The IPAM plugin that the configuration names; none where it names none.
    pub(crate) fn find(call: &Call<'a>, attachment: &'a Attachment) -> Result<Option<Self>, Error> {
        Ok(Ipam::find(call)?.map(|ipam| Self::Plugin(ipam, attachment)))
    }

    /// The same for a DEL, which detaches the container first and fails afterwards.
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
