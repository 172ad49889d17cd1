//! podman 4 with CNI and the network of `conf-examples/podman.conflist`.

use e2e::lab::NIC;
use e2e::patience::await_that;
use e2e::runtime::{PAGE, Podman};
use e2e::traffic::{assert_reaches, await_silence, get};
use e2e::{Lab, cases};
use runtimes::{example, recipe};

/// podman on that network, with the neighbour as the router. None if this machine cannot run podman: the table after
/// all tests then shows the reason.
fn start(lab: &Lab) -> Option<Podman<'_>> {
    if let Some(why) = Podman::why_not() {
        e2e::needs::note(why);
        return None;
    }
    lab.neighbour.add_address(lab.neighbour.nic, "192.168.50.1/24".parse().expect("a prefix"));
    Some(Podman::with_network(lab, &example::settle(lab, recipe::list("podman.conflist"))))
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

cases! {
    #[reference(passes)]
    fn the_lan_reaches_a_container_and_its_end_leaves_nothing(lab) {
        let before = lab.host.links();
        let Some(podman) = start(lab) else { return };
        podman.serve("web", &[]).done();
        let said = podman.run(&["inspect", "--format", "{{.NetworkSettings.Networks.lan.IPAddress}}", "web"]);
        assert_eq!(said.done().trim(), "192.168.50.200");
        assert_eq!(get(&lab.neighbour, ip("192.168.50.200")), PAGE);
        let netns = podman.netns("web");
        assert_eq!(netns.link("eth0").parent, Some(lab.host.link(NIC).ifindex));
        assert_reaches(&netns, ip("192.168.50.1"));
        drop(netns);

        podman.run(&["rm", "--force", "--time", "0", "web"]).done();
        assert_eq!(lab.leases(), [""; 0]);
        assert_eq!(podman.remains(), [""; 0]);
        await_silence(&lab.neighbour, ip("192.168.50.200"));
        await_that("the host's links are as before", || lab.host.links() == before);
    }

    #[reference(passes)]
    fn a_requested_address_and_a_requested_mac_survive_a_restart(lab) {
        let Some(podman) = start(lab) else { return };
        podman.serve("web", &["--ip", "192.168.50.222", "--mac-address", "02:00:5e:10:00:07"]).done();
        for restarted in [false, true] {
            if restarted {
                podman.run(&["restart", "--time", "0", "web"]).done();
            }
            let netns = podman.netns("web");
            assert_eq!(netns.address_texts("eth0"), ["192.168.50.222/24"]);
            assert_eq!(netns.link("eth0").mac, "02:00:5e:10:00:07");
            assert_eq!(get(&lab.neighbour, ip("192.168.50.222")), PAGE);
            assert_eq!(lab.leases(), ["192.168.50.222"]);
        }
        podman.run(&["rm", "--force", "--time", "0", "web"]).done();
        assert_eq!(lab.leases(), [""; 0]);
    }
}
