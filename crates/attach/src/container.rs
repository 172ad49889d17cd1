//! The container's network namespace, and the care not to take the host's for it.

use cni::{Attachment, Call};
use linux::Netns;

use crate::error::{Error, Result};

/// The netns of an ADD or a CHECK. The host's own is refused, unless `CNI_NETNS_OVERRIDE` permits it. (code 8)
pub fn open(call: &Call<'_>, attachment: &Attachment) -> std::result::Result<Netns, cni::Error> {
    open_from_home(call, attachment).map(|(netns, _)| netns)
}

/// The same, and our own netns with it.
pub(crate) fn open_from_home(
    call: &Call<'_>,
    attachment: &Attachment,
) -> std::result::Result<(Netns, Netns), cni::Error> {
    let named = |error: linux::Error| {
        let error = cni::Error::from(Error::from(error));
        cni::Error { msg: format!("CNI_NETNS: {}", error.msg), ..error }
    };
    let netns = Netns::open(attachment.netns()?).map_err(named)?;
    let home = Netns::current().map_err(Error::from)?;
    match is_the_hosts(call, &netns, &home) {
        true => Err(Error::HostNetns(netns.path().to_owned()).into()),
        false => Ok((netns.from_home(&home).map_err(Error::from)?, home)),
    }
}

/// The netns of a DEL; `None` where there is none any more, or where it is the host's: nothing may be touched there.
pub fn open_if_there(call: &Call<'_>, attachment: &Attachment) -> Result<Option<Netns>> {
    let Some(path) = attachment.netns.as_deref() else { return Ok(None) };
    let netns = match Netns::open(path) {
        // A file that an unmounted netns has left behind is no netns either.
        Err(linux::Error::NetnsMissing { .. } | linux::Error::NotNetns { .. }) => return Ok(None),
        other => other?,
    };
    let home = Netns::current()?;
    if is_the_hosts(call, &netns, &home) {
        let path = path.display();
        call.warn(format_args!("DEL: CNI_NETNS {path} is the host's own network namespace: no link is touched there"));
        return Ok(None);
    }
    Ok(Some(netns.from_home(&home)?))
}

fn is_the_hosts(call: &Call<'_>, netns: &Netns, home: &Netns) -> bool {
    netns.id() == home.id() && !call.variables.overrides_netns()
}
