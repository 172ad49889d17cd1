//! The step that lets the link keep its IPv6 addresses when it is set down. IPv4 addresses always stay.
//! (`keep_addr_on_down`, Documentation/networking/ip-sysctl.rst)

use super::{Known, Step};
use crate::error::Result;

#[derive(Default)]
pub(crate) struct KeepAddresses;

impl Step<'_> for KeepAddresses {
    fn plan(&mut self, known: &mut Known<'_>) -> Result<()> {
        if known.has_v6() {
            known.set("ipv6/conf", "keep_addr_on_down", "1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{keys, leased};
    use super::*;

    #[test]
    fn the_sysctl_is_written_only_with_ipv6() {
        let mut result = leased();
        assert_eq!(keys::<KeepAddresses>(&result), ["net/ipv6/conf/eth0.5/keep_addr_on_down=1"]);
        result.ips.truncate(1);
        assert_eq!(keys::<KeepAddresses>(&result), [""; 0]);
    }
}
