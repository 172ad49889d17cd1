//! The step that sets the sysctls of all steps, while the link is down.

use super::{Known, Making, Step};
use crate::error::{Error, Result};

/// Plans the sysctls that every attachment with addresses needs.
#[derive(Default)]
pub(crate) struct Sysctls;

impl<'a> Step<'a> for Sysctls {
    fn plan(&mut self, known: &mut Known<'_>) -> Result<()> {
        if !known.leased.ips.is_empty() {
            // The kernel sends a gratuitous ARP for each address when the link comes up. So other machines learn the new MAC
            // at once.
            known.set("ipv4/conf", "arp_notify", "1");
        }
        if known.has_v6() {
            let mut wished = known.settings.iter().flat_map(|settings| settings.sysctls);
            if let Some((_, value)) = wished.find(|(key, value)| key.ends_with("/disable_ipv6") && value.trim() != "0")
            {
                let value = format!("net.ipv6.conf.IFNAME.disable_ipv6 {value:?}");
                let cause = "IPAM gives the interface an IPv6 address, which it then cannot have".to_owned();
                return Err(Error::Config { key: "sysctl", value, cause });
            }
            // Some runtimes disable IPv6 in new namespaces. An IPv6 address needs it. The reference plugins enable ::1
            // too, which some programs use.
            known.sysctls.push(("net/ipv6/conf/lo/disable_ipv6".to_owned(), "0"));
            known.set("ipv6/conf", "disable_ipv6", "0");
            known.set("ipv6/conf", "ndisc_notify", "1");
        }
        Ok(())
    }

    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        if making.sysctls.is_empty() {
            return Ok(());
        }
        let pairs: Vec<_> = making.sysctls.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        for error in linux::sysctl::write_all(&making.netns, &pairs).into_iter().filter_map(linux::Result::err) {
            (making.task.remark)(format_args!("{error}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{keys, leased};
    use super::*;

    #[test]
    fn the_sysctls_depend_on_the_address_families() {
        let mut result = leased();
        assert_eq!(
            keys::<Sysctls>(&result),
            [
                "net/ipv4/conf/eth0.5/arp_notify=1",
                "net/ipv6/conf/lo/disable_ipv6=0",
                "net/ipv6/conf/eth0.5/disable_ipv6=0",
                "net/ipv6/conf/eth0.5/ndisc_notify=1"
            ]
        );
        result.ips.swap_remove(0);
        assert_eq!(keys::<Sysctls>(&result).len(), 4, "an IPv4 address may be added later");
        result.ips = leased().ips[..1].to_vec();
        assert_eq!(keys::<Sysctls>(&result), ["net/ipv4/conf/eth0.5/arp_notify=1"]);
        result.ips.clear();
        assert_eq!(keys::<Sysctls>(&result), [""; 0], "without addresses nothing is written");
    }
}
