//! Neighbours that disturb: forged replies, and objects that change while they are listed.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

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
fn a_list_of_links_that_change_meanwhile_is_of_one_moment() {
    const LINKS: usize = 150;
    const ROUNDS: usize = 2;
    sandboxed(|| {
        let parent = nic();
        let here = Netns::current().unwrap();
        let mut rtnl = Rtnl::open().unwrap();
        let names: Vec<_> = (0..LINKS).map(|n| format!("mv{n}")).collect();
        for name in &names {
            rtnl.new_link(&macvlan(name, parent)).unwrap();
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // The kernel lists links in the order of their numbers, and takes several
            // datagrams for it. The oldest link is deleted and comes back as the youngest:
            // a list put together before and after has it twice.
            scope.spawn(|| {
                let _done = SetOnDrop(&done);
                let mut rtnl = Rtnl::open_in(&here).unwrap();
                for name in names.iter().cycle().take(LINKS * ROUNDS) {
                    let oldest = rtnl.link(name).unwrap().unwrap();
                    rtnl.del_link(oldest.ifindex).unwrap();
                    rtnl.new_link(&macvlan(name, parent)).unwrap();
                }
            });
            let mut complete = 0;
            while !done.load(Ordering::Relaxed) {
                let mut seen: Vec<_> = match rtnl.links() {
                    Err(error) if error.errno() == Some(Errno::EINTR) => continue,
                    links => links.unwrap().into_iter().map(|link| link.name).collect(),
                };
                seen.retain(|name| name.starts_with("mv"));
                seen.sort_unstable();
                let listed = seen.len();
                seen.dedup();
                assert_eq!(seen.len(), listed, "a link is listed twice");
                assert!((LINKS - 1..=LINKS).contains(&listed), "{listed}");
                complete += 1;
            }
            assert!(complete > 0);
        });
    });
}
