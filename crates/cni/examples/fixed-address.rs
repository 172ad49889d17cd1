//! A whole IPAM plugin: every container of the network gets the address that `ipam.address` names. Start from here to
//! write your own: protocol, versions, errors and exit codes are `cni::run`'s affair.
use std::process::ExitCode;

use cni::{AddResult, Attachment, Call, Code, Error, Ip, Plugin, Program, Route};

struct FixedAddress;

impl FixedAddress {
    /// `"ipam": {"type": "fixed-address", "address": "10.0.0.5/24", "gateway": "10.0.0.1", "routes": [...]}`
    fn result(&self, call: &Call<'_>) -> Result<AddResult, Error> {
        let ipam = call.keys().object("ipam")?;
        let address = ipam.network("address", "an address such as 10.0.0.5/24")?;
        let address = address.ok_or_else(|| ipam.refuse("address", "is missing"))?;
        let gateway = ipam.parsed("gateway", "an IP address")?;
        let routes = Route::read_list(&ipam, "routes")?;
        Ok(AddResult { ips: vec![Ip { interface: None, address, gateway }], routes, ..AddResult::default() })
    }
}

impl Plugin for FixedAddress {
    fn about(&self) -> &'static str {
        "gives the one address that the configuration names"
    }
    fn is_ipam(&self) -> bool {
        true
    }
    fn add(&self, call: &Call<'_>, _: &Attachment) -> Result<AddResult, Error> {
        self.result(call)
    }
    fn del(&self, _: &Call<'_>, _: &Attachment) -> Result<(), Error> {
        Ok(())
    }
    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
        let (expected, previous) = (self.result(call)?.ips[0].address, call.prev_result()?.unwrap_or_default());
        match previous.ips.iter().any(|ip| ip.address == expected) {
            true => Ok(()),
            false => Err(Error::new(Code::DIFFERS, format!("{}: has no address {expected}", attachment.container_id))),
        }
    }
    fn status(&self, call: &Call<'_>) -> Result<(), Error> {
        self.result(call).map(drop)
    }
    fn gc(&self, _: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }
}

static PROGRAM: Program = Program {
    name: "fixed-address",
    release: "1.0",
    plugins: &[("fixed-address", &FixedAddress)],
    commands: "",
    run: cni::RUN_NOTHING,
};

fn main() -> ExitCode {
    cni::run(&PROGRAM).into()
}
