//! Forged netlink replies, and addresses that change while they are listed.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ipnet::IpNet;
use linux::{Errno, Netns, Rtnl};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket};

use crate::sandbox::{macvlan, sandboxed, with_nic};

/// The port of the only route socket of a process in this namespace.
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
fn an_acknowledgement_from_another_process_is_ignored() {
    sandboxed(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let victim = only_port();
        let forger =
            socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
                .unwrap();
        // An acknowledgement of request number 1, which has not been sent yet.
        let mut forged = Vec::new();
        forged.extend(36_u32.to_ne_bytes());
        forged.extend(2_u16.to_ne_bytes());
        forged.extend(0x100_u16.to_ne_bytes());
        forged.extend([1_u32, victim].map(u32::to_ne_bytes).concat());
        forged.extend([0; 20]);
        let address = NetlinkAddr::new(victim, 0);
        let sent = sendto(forger.as_raw_fd(), &forged, &address, MsgFlags::empty()).unwrap();
        assert_eq!(sent, forged.len());

        let error = rtnl.new_link(&macvlan("eth0", 4711)).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
    });
}

/// Ends the loop of the reader also when the writer panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_list_of_addresses_that_change_meanwhile_is_consistent() {
    const ADDRESSES: u32 = 2000;
    with_nic(|rtnl, link| {
        let here = Netns::current().unwrap();
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
            // One address may be deleted and not yet added again.
            let all = ADDRESSES as usize;
            assert!((all - 1..=all).contains(&listed), "{listed}");
        };
        thread::scope(|scope| {
            // The kernel answers in several datagrams, and continues at a position in its list. The writer moves the
            // first address to the end, which changes the positions of all others. Without a check, a list would then
            // miss an address or have one twice.
            scope.spawn(|| {
                let _done = SetOnDrop(&done);
                let mut rtnl = Rtnl::open_in(&here).unwrap();
                for head in &ring {
                    rtnl.del_address(head).unwrap();
                    rtnl.new_address(link, head.address).unwrap();
                }
            });
            while !done.load(Ordering::Relaxed) {
                whole(rtnl);
            }
        });
        assert_eq!(rtnl.addresses(link).unwrap().len() as u32 - 1, ADDRESSES);
    });
}
