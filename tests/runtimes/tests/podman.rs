//! podman 4 with CNI, on the network of `conf-examples/podman.conflist`.

use e2e::lab::NIC;
use e2e::patience::await_that;
use e2e::runtime::{PAGE, Podman};
use e2e::traffic::{assert_reaches, await_silence, get};
use e2e::{Lab, cases};
use runtimes::{example, recipe};
use serde_json::Value;

/// podman, on that network, of which the neighbour is the router; none where this machine cannot run it, which the
/// table at the end of all tests says.
fn start(lab: &Lab) -> Option<Podman<'_>> {
    if let Some(why) = Podman::why_not() {
        e2e::needs::note(why);
        return None;
    }
    let path = recipe::path("podman.conflist");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let list: Value = serde_json::from_str(&text).expect("JSON");
    lab.neighbour.add_address(lab.neighbour.nic, "192.168.10.1/24".parse().expect("a prefix"));
    Some(Podman::with_network(lab, &example::settle(lab, list)))
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

cases! {
    #[reference(passes)]
    fn a_container_is_reached_from_the_lan_and_leaves_nothing(lab) {
        let before = lab.host.links();
        let Some(podman) = start(lab) else { return };
        podman.serve("web", &[]).done();
        let said = podman.run(&["inspect", "--format", "{{.NetworkSettings.Networks.lan.IPAddress}}", "web"]);
        assert_eq!(said.done().trim(), "192.168.10.200");
        assert_eq!(get(&lab.neighbour, ip("192.168.10.200")), PAGE);
        let netns = podman.netns("web");
        assert_eq!(netns.link("eth0").parent, Some(lab.host.link(NIC).ifindex));
        assert_reaches(&netns, ip("192.168.10.1"));
        drop(netns);

        podman.run(&["rm", "--force", "--time", "0", "web"]).done();
        assert_eq!(lab.leases(), [""; 0]);
        assert_eq!(podman.remains(), [""; 0]);
        await_silence(&lab.neighbour, ip("192.168.10.200"));
        await_that("the host's links are as before", || lab.host.links() == before);
    }

    /// The container that comes back has what it had, as often as it comes back.
    #[reference(passes)]
    fn an_address_and_a_mac_that_were_asked_for_are_there_after_a_restart_too(lab) {
        let Some(podman) = start(lab) else { return };
        podman.serve("web", &["--ip", "192.168.10.222", "--mac-address", "02:00:5e:10:00:07"]).done();
        for restarted in [false, true] {
            if restarted {
                podman.run(&["restart", "--time", "0", "web"]).done();
            }
            let netns = podman.netns("web");
            assert_eq!(netns.address_texts("eth0"), ["192.168.10.222/24"]);
            assert_eq!(netns.link("eth0").mac, "02:00:5e:10:00:07");
            assert_eq!(get(&lab.neighbour, ip("192.168.10.222")), PAGE);
            assert_eq!(lab.leases(), ["192.168.10.222"]);
        }
        podman.run(&["rm", "--force", "--time", "0", "web"]).done();
        assert_eq!(lab.leases(), [""; 0]);
    }
}
