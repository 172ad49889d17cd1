//! Forged netlink replies, and objects that change while they are listed.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ipnet::IpNet;
use linux::{Errno, Netns, Rtnl};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket};

use crate::sandbox::{macvlan, nic, sandboxed};

/// The port of the only user's route socket in this namespace.
fn only_port() -> u32 {
    let table = fs::read_to_string("/proc/thread-self/net/netlink").expect("netlink table");
    let mut ports: Vec<u32> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (protocol, port) = (fields.next()?, fields.next()?);
            (protocol == "0" && port != "0").then(|| port.parse().ok())?
        })
        .collect();
    assert_eq!(ports.len(), 1, "{table}");
    ports.remove(0)
}

#[test]
fn an_acknowledgement_that_another_process_forged_is_not_believed() {
    sandboxed(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let victim = only_port();
        let forger =
            socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
                .unwrap();
        // "Your request number 1 went well", before it was even made.
        let mut forged = Vec::new();
        forged.extend(36_u32.to_ne_bytes());
        forged.extend(2_u16.to_ne_bytes());
        forged.extend(0x100_u16.to_ne_bytes());
        forged.extend(1_u32.to_ne_bytes());
        forged.extend(victim.to_ne_bytes());
        forged.extend([0; 20]);
        let address = NetlinkAddr::new(victim, 0);
        let sent = sendto(forger.as_raw_fd(), &forged, &address, MsgFlags::empty()).unwrap();
        assert_eq!(sent, forged.len());

        let error = rtnl.new_link(&macvlan("eth0", 4711)).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
    });
}

/// Ends the reading also when the disturber panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_list_of_addresses_that_change_meanwhile_is_of_one_moment() {
    const ADDRESSES: u32 = 2000;
    sandboxed(|| {
        let link = nic();
        let here = Netns::current().unwrap();
        let mut rtnl = Rtnl::open().unwrap();
        for n in 0..ADDRESSES {
            let address = Ipv4Addr::from(0x0a01_0000 + n);
            rtnl.new_address(link, IpNet::new(address.into(), 32).unwrap()).unwrap();
        }
        let mut ring = rtnl.addresses(link).unwrap();
        ring.retain(|address| address.address.addr().is_ipv4());
        let done = AtomicBool::new(false);
        let whole = |rtnl: &mut Rtnl| {
            let mut list: Vec<_> = match rtnl.addresses(link) {
                Err(error) if error.errno() == Some(Errno::EINTR) => return,
                list => list.unwrap().into_iter().map(|a| a.address).collect(),
            };
            list.retain(|net| net.addr().is_ipv4());
            let listed = list.len();
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), listed, "an address is listed twice");
            // One may be on its way from the head to the end.
            let all = ADDRESSES as usize;
            assert!((all - 1..=all).contains(&listed), "{listed}");
        };
        thread::scope(|scope| {
            // The kernel goes by position in its list, and takes several datagrams for it.
            // Each time the address at the head moves to the end, all others move up: a
            // list put together before and after lacks one of them, or has one twice.
            scope.spawn(|| {
                let _done = SetOnDrop(&done);
                let mut rtnl = Rtnl::open_in(&here).unwrap();
                for head in &ring {
                    rtnl.del_address(head).unwrap();
                    rtnl.new_address(link, head.address).unwrap();
                }
            });
            while !done.load(Ordering::Relaxed) {
                whole(&mut rtnl);
            }
        });
        assert_eq!(rtnl.addresses(link).unwrap().len() as u32 - 1, ADDRESSES);
    });
}
