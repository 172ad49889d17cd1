//! Opens the container's network namespace, and refuses that of the host.

use linux::Netns;

use crate::Task;
use crate::error::{Error, Result};

/// Opens the namespace of an ADD or a CHECK. Returns it with the home namespace.
pub(crate) fn open(task: &Task<'_>) -> Result<(Netns, Netns)> {
    let path = task.attachment.netns.ok_or(Error::NetnsUnset)?;
    let netns = Netns::open(path).map_err(Error::Netns)?;
    let home = Netns::current()?;
    match is_the_hosts(task, &netns, &home) {
        true => Err(Error::HostNetns(netns.path().to_owned())),
        false => Ok((netns.from_home(&home)?, home)),
    }
}

/// Opens the namespace of a DEL. Returns `None` if there is none, or if it is refused, because nothing may be changed
/// there.
pub(crate) fn open_if_there(task: &Task<'_>) -> Result<Option<Netns>> {
    let Some(path) = task.attachment.netns else { return Ok(None) };
    let netns = match Netns::open(path) {
        // If a namespace was unmounted, its empty file is still there.
        Err(linux::Error::NetnsMissing { .. } | linux::Error::NotNetns { .. }) => return Ok(None),
        other => other?,
    };
    let home = Netns::current()?;
    if is_the_hosts(task, &netns, &home) {
        let path = path.display();
        (task.remark)(format_args!(
            "CNI_NETNS \"{path}\" is the host's own network namespace: no interface is changed there"
        ));
        return Ok(None);
    }
    Ok(Some(netns.from_home(&home)?))
}

fn is_the_hosts(task: &Task<'_>, netns: &Netns, home: &Netns) -> bool {
    netns.id() == home.id() && !task.attachment.may_be_home
}
