//! The IPAM plugin static. The configuration or the runtime names the addresses. It stores nothing, so it has nothing
//! to release.
#![forbid(unsafe_code)]

mod addresses;

use cni::{AddResult, Attachment, Call, Code, Dns, Error, Ip, Plugin, Route};

use addresses::Given;

/// The plugin.
pub struct Static;

/// Returns true for a default route without a next hop. Addresses that the runtime names have no gateway. A route with
/// the scope of a link has none on purpose.
fn leads_nowhere(route: &Route, given: &[Given]) -> bool {
    let has_gateway = |its: &Given| its.gateway.is_some_and(|gateway| gateway.is_ipv4() == route.dst.addr().is_ipv4());
    route.dst.prefix_len() == 0 && route.gw.is_none() && route.scope.is_none() && !given.iter().any(has_gateway)
}

impl Plugin for Static {
    fn about(&self) -> &'static str {
        "gives addresses that the configuration or the runtime names"
    }

    fn is_ipam(&self) -> bool {
        true
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, Error> {
        let ipam = call.keys().object("ipam")?;
        let given = addresses::read(call, Some(attachment))?;
        let (routes, dns) = (Route::read_list(&ipam, "routes")?, Dns::read(&ipam, "dns")?);
        // Before anything is refused: a misspelt key can be the reason.
        call.remark_on_unread(&ipam, &[]);
        let given = given.judge(call.conf.version)?;
        Route::judge_list(&routes, &ipam, "routes")?;
        if given.is_empty() {
            let cause = "is not set, and the runtime names no address";
            return Err(Error::new(Code::INVALID_NETWORK_CONFIG, format!("ipam.addresses: {cause}")));
        }
        for route in routes.iter().filter(|route| leads_nowhere(route, &given)) {
            let dst = route.dst;
            call.warn(format_args!(
                "ADD: ipam.routes {dst}: no address has a gateway for it, so it leads to no router; write gw into the route"
            ));
        }
        let ip = |its: Given| Ip { interface: None, address: its.address, gateway: its.gateway };
        Ok(AddResult { interfaces: Vec::new(), ips: given.into_iter().map(ip).collect(), routes, dns })
    }

    fn del(&self, _: &Call<'_>, _: &Attachment) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
        let given = addresses::read(call, Some(attachment))?.judge(call.conf.version)?;
        let missing =
            || Error::new(Code::INVALID_NETWORK_CONFIG, "prevResult is missing: CHECK needs the result of ADD");
        let result = call.prev_result()?.ok_or_else(missing)?;
        for Given { place, address, gateway } in given {
            let differs = |cause: String| Err(Error::new(Code::DIFFERS, format!("{place} {address}: {cause}")));
            match result.ips.iter().find(|ip| ip.address == address) {
                None => return differs("is not in the result of ADD".to_owned()),
                Some(ip) if gateway.is_some() && ip.gateway != gateway => {
                    return differs("has another gateway in the result of ADD".to_owned());
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The runtime may name the addresses later, so none is needed.
    fn status(&self, call: &Call<'_>) -> Result<(), Error> {
        let ipam = call.keys().object("ipam")?;
        addresses::read(call, None)?.judge(call.conf.version)?;
        Route::judge_list(&Route::read_list(&ipam, "routes")?, &ipam, "routes")?;
        Dns::read(&ipam, "dns").map(drop)
    }

    fn gc(&self, _: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }
}
