//! Neighbours: creation, replacement, deletion.

use linux::Errno;

use crate::sandbox::{ip, mac, with_nic};

#[test]
fn a_permanent_neighbour_is_set_replaced_read_and_deleted() {
    with_nic(|rtnl, nic0| {
        for address in ["10.0.0.9", "fd00::9"] {
            let ip_address = address.parse().unwrap();
            assert_eq!(rtnl.permanent_neighbour(nic0, ip_address).unwrap(), None);
            for its in ["02:00:00:00:00:09", "02:00:00:00:00:0a"] {
                rtnl.set_neighbour(nic0, ip_address, mac(its)).unwrap();
                assert_eq!(rtnl.permanent_neighbour(nic0, ip_address).unwrap(), Some(mac(its)));
                assert_eq!(
                    ip(&format!("neigh show to {address}")).trim(),
                    format!("{address} dev nic0 lladdr {its} PERMANENT")
                );
            }
            rtnl.del_neighbour(nic0, ip_address).unwrap();
            assert_eq!(rtnl.permanent_neighbour(nic0, ip_address).unwrap(), None);
            assert_eq!(rtnl.del_neighbour(nic0, ip_address).unwrap_err().errno(), Some(Errno::ENOENT));
        }
    });
}

#[test]
fn a_neighbour_that_is_not_permanent_does_not_count() {
    with_nic(|rtnl, nic0| {
        ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev nic0 nud stale");
        assert_eq!(rtnl.permanent_neighbour(nic0, "10.0.0.9".parse().unwrap()).unwrap(), None);
    });
}
