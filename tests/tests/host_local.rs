//! host-local by itself: each key, and its files. The files are the same as those of the reference, byte for byte.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use e2e::lab::Families;
use e2e::mounts;
use e2e::{Binaries, Call, Container, Lab, Plugin, cases, with};
use serde_json::{Value, json};

/// The configuration of the old form, with these keys in `ipam`.
fn old_form(lab: &Lab, keys: Value) -> Value {
    let mut conf = lab.conf_with(keys);
    conf["ipam"]["type"] = json!("host-local");
    conf["ipam"]["dataDir"] = json!(lab.data_dir());
    conf
}

fn add(lab: &Lab, container: &Container, conf: &Value) -> Value {
    lab.host_local().add(container, "eth0", conf).run().result()
}

fn del(lab: &Lab, container: &Container, conf: &Value) {
    lab.host_local().del(container, "eth0", conf).run().done();
}

/// The addresses of a result.
fn ips(result: &Value) -> Vec<&str> {
    let ips = result["ips"].as_array().expect("a list");
    ips.iter().map(|ip| ip["address"].as_str().expect("an address")).collect()
}

/// The addresses that an ADD of a new container gets.
fn next(lab: &Lab, conf: &Value) -> String {
    ips(&add(lab, &lab.container(), conf)).join(" ")
}

fn read(lab: &Lab, name: &str) -> String {
    fs::read_to_string(lab.lease_file(name)).unwrap_or_else(|e| panic!("read {name}: {e}"))
}

/// The reference's program in this Lab.
fn theirs(lab: &Lab) -> Plugin<'_> {
    let bin = Binaries::Reference.directory(&lab.path(""));
    Plugin::new(&lab.host, bin.join("host-local")).search(bin)
}

/// Makes a call with the lease directory on a file system of `inodes` files. Returns its outcome and the lease files.
fn run_with_inodes(lab: &Lab, call: &Call<'_>, inodes: u32) -> (e2e::Outcome, Vec<String>) {
    let directory = lab.data_dir();
    fs::create_dir_all(&directory).expect("make a directory");
    lab.host.run(|| {
        mounts::own();
        mounts::file_system("tmpfs", &directory, &format!("nr_inodes={inodes}"));
        let outcome = call.run_here();
        // Only this thread sees the mount.
        let entries = fs::read_dir(directory.join("lan")).map(|entries| {
            let names = entries.map(|entry| entry.expect("read a directory").file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect()
        });
        (outcome, entries.unwrap_or_default())
    })
}

cases! {
    /// Two networks of one directory had a common range, or the name of a network was changed. Then two containers got
    /// one address, without a message.
    #[reference(fails: "no remark")]
    fn an_address_that_another_network_has_leased_is_a_remark_that_names_it(lab) {
        let plugin = lab.host_local();
        let conf = |name: &str| {
            with(lab.conf_with(lab.ipam(Families::V4)), "name", json!(name))
        };
        let first = plugin.add(&lab.container(), "eth0", &conf("earlier")).run();
        let second = plugin.add(&lab.container(), "eth0", &conf("later")).run();
        assert_eq!(first.result()["ips"], second.result()["ips"]);
        let said = "192.168.50.100 is leased in the network \"earlier\" too";
        assert!(first.stderr.is_empty() && second.stderr.contains(said), "no remark: {}", second.text());
        // Forty such networks must not fill the log.
        for number in 0..4 {
            plugin.add(&lab.container(), "eth0", &conf(&format!("other-{number}"))).run().result();
        }
        let last = plugin.add(&lab.container(), "eth0", &conf("last")).run();
        assert_eq!(last.stderr.lines().count(), 3, "{}", last.text());
    }

    #[reference(passes)]
    fn a_lease_is_a_file_with_its_owner_in_it(lab) {
        let container = lab.container();
        let result = add(lab, &container, &lab.conf_with(lab.ipam(Families::Dual)));
        assert_eq!(ips(&result), ["192.168.50.100/24", "fd50::100/64"]);
        assert_eq!(read(lab, "192.168.50.100"), "container-1\r\neth0");
        assert_eq!(read(lab, "fd50::100"), "container-1\r\neth0");
        assert_eq!(read(lab, "last_reserved_ip.0"), "192.168.50.100");
        assert_eq!(read(lab, "last_reserved_ip.1"), "fd50::100");
        let names = ["192.168.50.100", "fd50::100", "last_reserved_ip.0", "last_reserved_ip.1", "lock"];
        assert_eq!(lab.lease_files(), names);
    }

    #[reference(passes)]
    fn only_the_owner_can_write_the_files(lab) {
        add(lab, &lab.container(), &lab.conf());
        for name in lab.lease_files() {
            let mode = fs::metadata(lab.lease_file(&name)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o022, 0, "{name} has mode {mode:o}");
        }
    }

    #[reference(passes)]
    fn del_leaves_only_the_last_address(lab) {
        let container = lab.container();
        add(lab, &container, &lab.conf());
        del(lab, &container, &lab.conf());
        assert_eq!(lab.lease_files(), ["last_reserved_ip.0", "lock"]);
        assert_eq!(read(lab, "last_reserved_ip.0"), "192.168.50.100");
    }

    #[reference(passes)]
    fn del_removes_only_the_leases_of_its_owner(lab) {
        let (first, second) = (lab.container(), lab.container());
        let conf = lab.conf();
        for (container, ifname) in [(&first, "eth0"), (&first, "eth1"), (&second, "eth0")] {
            lab.host_local().add(container, ifname, &conf).run().result();
        }
        lab.host_local().del(&first, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), ["192.168.50.101", "192.168.50.102"]);
        lab.host_local().del(&first, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), ["192.168.50.101", "192.168.50.102"]);
    }

    #[reference(passes)]
    fn ipv6_addresses_are_written_in_their_shortest_form(lab) {
        let conf = lab.conf_over(json!([[{"subnet": "FD50:0:0::/64", "rangeStart": "fd50:0000::0:0001:0:0abc"}]]));
        assert_eq!(next(lab, &conf), "fd50::1:0:abc/64");
        assert_eq!(read(lab, "fd50::1:0:abc"), "container-1\r\neth0");
    }

    /// An address that has just become free is leased last, because caches still have the old MAC.
    #[reference(passes)]
    fn addresses_are_leased_in_rotation(lab) {
        let conf = lab.conf_of("192.168.50.100", "192.168.50.102");
        for expected in ["100", "101", "102", "100", "101"] {
            let container = lab.container();
            assert_eq!(ips(&add(lab, &container, &conf)), [format!("192.168.50.{expected}/24")]);
            del(lab, &container, &conf);
        }
    }

    #[reference(passes)]
    fn a_leased_address_is_passed_over(lab) {
        let conf = lab.conf_of("192.168.50.100", "192.168.50.102");
        lab.write_lease("192.168.50.100", "other\r\neth0");
        lab.write_lease("192.168.50.102", "other\r\neth0");
        assert_eq!(next(lab, &conf), "192.168.50.101/24");
    }

    #[reference(fails: "another code")]
    fn the_error_of_a_full_range_names_it(lab) {
        let conf = lab.conf_of("192.168.50.100", "192.168.50.101");
        let containers = [lab.container(), lab.container()];
        for container in &containers {
            add(lab, container, &conf);
        }
        lab.host_local().refuses(lab, &conf, 101, &["192.168.50.100", "192.168.50.101"]);
    }

    #[reference(passes)]
    fn the_ranges_of_a_set_are_used_one_after_the_other(lab) {
        let conf = lab.conf_over(json!([[
            {"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.100", "rangeEnd": "192.168.50.100"},
            {"subnet": "10.7.0.0/16", "rangeStart": "10.7.8.9", "rangeEnd": "10.7.8.9", "gateway": "10.7.0.254"},
        ]]));
        assert_eq!(next(lab, &conf), "192.168.50.100/24");
        let result = add(lab, &lab.container(), &conf);
        assert_eq!(result["ips"], json!([{"address": "10.7.8.9/16", "gateway": "10.7.0.254"}]));
        assert!(!lab.lease_file("last_reserved_ip.1").exists(), "a set has one last address");
    }

    #[reference(passes)]
    fn if_one_set_is_full_no_set_gives_an_address(lab) {
        let conf = lab.conf_over(json!([
            [{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.100"}],
            [{"subnet": "10.7.0.0/16", "rangeStart": "10.7.8.9", "rangeEnd": "10.7.8.9"}],
        ]));
        let container = lab.container();
        assert_eq!(ips(&add(lab, &container, &conf)), ["192.168.50.100/24", "10.7.8.9/16"]);
        assert!(!lab.host_local().add(&lab.container(), "eth0", &conf).run().status.success());
        assert_eq!(lab.leases(), ["10.7.8.9", "192.168.50.100"]);
    }

    #[reference(passes)]
    fn the_old_form_of_the_keys_is_one_range(lab) {
        let conf = old_form(lab, json!({
            "subnet": "192.168.50.0/24", "rangeStart": "192.168.50.100", "rangeEnd": "192.168.50.110",
            "gateway": "192.168.50.254",
        }));
        let result = add(lab, &lab.container(), &conf);
        assert_eq!(result["ips"], json!([{"address": "192.168.50.100/24", "gateway": "192.168.50.254"}]));
    }

    #[reference(passes)]
    fn the_default_gateway_is_the_first_address_and_it_is_never_leased(lab) {
        let conf = lab.conf_over(json!([[{"subnet": "192.168.50.0/30"}]]));
        let container = lab.container();
        let result = add(lab, &container, &conf);
        assert_eq!(result["ips"], json!([{"address": "192.168.50.2/30", "gateway": "192.168.50.1"}]));
        assert!(!lab.host_local().add(&lab.container(), "eth0", &conf).run().status.success());
        assert_eq!(lab.leases(), ["192.168.50.2"]);
    }

    #[reference(passes)]
    fn a_gateway_inside_the_range_is_passed_over(lab) {
        let conf = lab.conf_over(json!([[{
            "subnet": "192.168.50.0/24", "gateway": "192.168.50.101",
            "rangeStart": "192.168.50.100", "rangeEnd": "192.168.50.102",
        }]]));
        assert_eq!([next(lab, &conf), next(lab, &conf)], ["192.168.50.100/24", "192.168.50.102/24"]);
    }

    #[reference(passes)]
    fn routes_are_in_the_result(lab) {
        let mut conf = lab.conf();
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "10.20.0.0/16", "gw": "192.168.50.254"}]);
        conf["ipam"]["routes"] = routes.clone();
        assert_eq!(add(lab, &lab.container(), &conf)["routes"], routes);
    }

    #[reference(passes)]
    fn the_resolver_configuration_is_in_the_result(lab) {
        let file = lab.path("resolv.conf");
        fs::write(&file, "# by hand\nnameserver 192.168.50.1\nnameserver fd50::1\nsearch a.example b.example\n\
            domain lan.example\noptions ndots:2 edns0\n").expect("write a file");
        let mut conf = lab.conf();
        conf["ipam"]["resolvConf"] = json!(file);
        assert_eq!(add(lab, &lab.container(), &conf)["dns"], json!({
            "nameservers": ["192.168.50.1", "fd50::1"],
            "search": ["a.example", "b.example"],
            "domain": "lan.example",
            "options": ["ndots:2", "edns0"],
        }));
    }

    #[reference(fails: "another code")]
    fn a_resolver_configuration_that_is_missing_is_named_and_leases_nothing(lab) {
        let file = lab.path("no-such-file");
        let mut conf = lab.conf();
        conf["ipam"]["resolvConf"] = json!(file);
        lab.host_local().refuses(lab, &conf, 5, &[&file.to_string_lossy()]);
    }

    #[reference(passes)]
    fn an_address_can_be_requested_in_three_places(lab) {
        let conf = lab.conf();
        let container = lab.container();
        let call = lab.host_local().add(&container, "eth0", &conf).args("IP=192.168.50.111");
        assert_eq!(ips(&call.run().result()), ["192.168.50.111/24"]);
        let mut conf = lab.conf();
        conf["args"] = json!({"cni": {"ips": ["192.168.50.112"]}});
        assert_eq!(next(lab, &conf), "192.168.50.112/24");
        let conf = with(lab.conf(), "runtimeConfig", json!({"ips": ["192.168.50.113"]}));
        assert_eq!(next(lab, &conf), "192.168.50.113/24");
    }

    /// podman passes on the text of its user.
    #[reference(passes)]
    fn a_requested_address_may_have_a_prefix_length(lab) {
        let conf = with(lab.conf(), "runtimeConfig", json!({"ips": ["192.168.50.113/24"]}));
        assert_eq!(next(lab, &conf), "192.168.50.113/24");
    }

    #[reference(passes)]
    fn with_dual_stack_one_address_can_be_requested_and_the_other_not(lab) {
        let mut conf = lab.conf_with(lab.ipam(Families::Dual));
        conf["runtimeConfig"] = json!({"ips": ["fd50::123"]});
        assert_eq!(next(lab, &conf), "192.168.50.100/24 fd50::123/64");
    }

    #[reference(fails: "something was changed")]
    fn an_address_outside_every_range_is_refused(lab) {
        let conf = with(lab.conf(), "runtimeConfig", json!({"ips": ["192.168.50.99"]}));
        lab.host_local().refuses(lab, &conf, 7, &["runtimeConfig.ips", "192.168.50.99"]);
    }

    #[reference(fails: "another code")]
    fn an_address_that_is_none_is_refused(lab) {
        let conf = with(lab.conf(), "runtimeConfig", json!({"ips": ["nonsense"]}));
        lab.host_local().refuses(lab, &conf, 7, &["runtimeConfig.ips", "nonsense"]);
        let call = lab.host_local().add(&lab.container(), "eth0", &lab.conf()).args("IP=nonsense");
        lab.unchanged(&[], || call.run()).fails(4, &["CNI_ARGS", "IP", "nonsense"]);
    }

    /// 192.168.050.0/24 was taken for 192.168.50.0/24, while 192.168.050.1 was refused.
    #[reference(fails: "another code")]
    fn leading_zeros_are_refused_with_a_prefix_length_as_without(lab) {
        let subnet = lab.conf_over(json!([[{"subnet": "192.168.050.0/24"}]]));
        lab.host_local().refuses(lab, &subnet, 7, &["ipam.ranges[0][0].subnet", "192.168.050.0/24"]);
        let mut conf = lab.conf();
        conf["runtimeConfig"] = json!({"ips": ["192.168.050.113/24"]});
        lab.host_local().refuses(lab, &conf, 7, &["runtimeConfig.ips[0]", "192.168.050.113/24"]);
        let call = lab.host_local().add(&lab.container(), "eth0", &lab.conf()).args("IP=192.168.050.113/24");
        lab.unchanged(&[], || call.run()).fails(4, &["CNI_ARGS IP", "192.168.050.113/24"]);
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "010.20.0.0/16"}]);
        lab.host_local().refuses(lab, &conf, 7, &["ipam.routes[0].dst", "010.20.0.0/16"]);
    }

    /// It was ignored, and the container got an address that its user had not requested.
    #[reference(fails: "another code")]
    fn an_empty_text_among_the_requested_addresses_is_refused(lab) {
        let conf = with(lab.conf(), "runtimeConfig", json!({"ips": ["192.168.50.113", ""]}));
        lab.host_local().refuses(lab, &conf, 7, &["runtimeConfig.ips[1] \"\": is not an IP address"]);
    }

    #[reference(fails: "another code")]
    fn a_requested_address_that_is_leased_is_refused_with_its_owner(lab) {
        let conf = with(lab.conf(), "runtimeConfig", json!({"ips": ["192.168.50.100"]}));
        let container = lab.container();
        add(lab, &container, &conf);
        lab.host_local().refuses(lab, &conf, 101, &["192.168.50.100", "container-1"]);
    }

    #[reference(fails: "another code")]
    fn the_gateway_cannot_be_requested(lab) {
        let mut conf = lab.conf_over(json!([[{"subnet": "192.168.50.0/24", "gateway": "192.168.50.101"}]]));
        conf["runtimeConfig"] = json!({"ips": ["192.168.50.101"]});
        let call = lab.host_local().add(&lab.container(), "eth0", &conf);
        let error = lab.unchanged(&[], || call.run()).error();
        assert!(error.msg.contains("192.168.50.101"), "{error:?}");
        assert_eq!(error.code, 7, "another code: {error:?}");
    }

    #[reference(passes)]
    fn the_runtimes_ranges_come_before_the_configurations(lab) {
        let mut conf = lab.conf();
        conf["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.7.0.0/16", "rangeStart": "10.7.8.9"}]]});
        assert_eq!(next(lab, &conf), "10.7.8.9/16 192.168.50.100/24");
        assert_eq!(read(lab, "last_reserved_ip.0"), "10.7.8.9");
    }

    #[reference(fails: "another code")]
    fn ranges_that_make_no_sense_are_refused(lab) {
        let one = |range: Value| lab.conf_over(json!([[range]]));
        let subnet = "192.168.50.0/24";
        let cases = [
            (json!({"subnet": "nonsense"}), "nonsense"),
            (json!({"subnet": "192.168.50.0/33"}), "192.168.50.0/33"),
            (json!({"subnet": "192.168.50.7/24"}), "192.168.50.7/24"),
            (json!({"subnet": "192.168.50.0/31"}), "192.168.50.0/31"),
            (json!({"subnet": "192.168.50.0/32"}), "192.168.50.0/32"),
            (json!({"subnet": "fd50::/127"}), "fd50::/127"),
            (json!({"subnet": subnet, "rangeStart": "192.168.51.1"}), "192.168.51.1"),
            (json!({"subnet": subnet, "rangeEnd": "192.168.49.1"}), "192.168.49.1"),
            (json!({"subnet": subnet, "rangeStart": "192.168.50.9", "rangeEnd": "192.168.50.8"}), "192.168.50.9"),
            (json!({"subnet": subnet, "rangeStart": "nonsense"}), "nonsense"),
            (json!({"subnet": subnet, "gateway": "nonsense"}), "nonsense"),
            (json!({"rangeStart": "192.168.50.9"}), "subnet"),
        ];
        for (range, name) in cases {
            lab.host_local().refuses(lab, &one(range), 7, &["ipam.ranges[0][0]", name]);
        }
    }

    #[reference(fails: "another code")]
    fn ranges_that_overlap_are_refused(lab) {
        let range = json!({"subnet": "192.168.50.0/24"});
        let names = ["ipam.ranges[0][1]", "192.168.50.0/24", "overlap"];
        lab.host_local().refuses(lab, &lab.conf_over(json!([[range, range]])), 7, &names);
        lab.host_local().refuses(lab, &lab.conf_over(json!([[range], [range]])), 7, &["ipam.ranges[1]", "overlap"]);
    }

    #[reference(fails: "another code")]
    fn no_range_at_all_is_refused(lab) {
        for nothing in [json!([]), json!([[]]), json!(null)] {
            lab.host_local().refuses(lab, &lab.conf_over(nothing), 7, &["ipam.ranges"]);
        }
    }

    #[reference(fails: "another code")]
    fn a_set_of_two_families_is_refused(lab) {
        let conf = lab.conf_over(json!([[{"subnet": "192.168.50.0/24"}, {"subnet": "fd50::/64"}]]));
        lab.host_local().refuses(lab, &conf, 7, &["ipam.ranges[0][1]", "fd50::/64"]);
    }

    /// Some networks have such a gateway on purpose, with proxy ARP.
    #[reference(fails: "did not succeed")]
    fn a_gateway_outside_its_subnet_is_a_warning(lab) {
        let conf = lab.conf_over(json!([[{"subnet": "192.168.50.0/24", "gateway": "10.0.0.1"}]]));
        let outcome = lab.host_local().add(&lab.container(), "eth0", &conf).run();
        assert_eq!(outcome.result()["ips"][0]["gateway"], "10.0.0.1");
        assert!(outcome.stderr.contains("gateway 10.0.0.1"), "no warning: {}", outcome.text());
    }

    #[reference(fails: "another code")]
    fn a_data_directory_that_cannot_be_made_is_named(lab) {
        let file = lab.path("plain-file");
        fs::write(&file, "").expect("write a file");
        let mut conf = lab.conf();
        conf["ipam"]["dataDir"] = json!(file.join("leases"));
        lab.host_local().refuses(lab, &conf, 5, &[&file.to_string_lossy()]);
        lab.macvlan().refuses(lab, &conf, 5, &[&file.to_string_lossy()]);
    }

    /// File systems from one without space for a file to one with enough space.
    #[reference(fails: "another code")]
    fn on_a_full_file_system_a_lease_is_complete_or_not_there(lab) {
        for inodes in 1..20 {
            let call = lab.host_local().add(&lab.container(), "eth0", &lab.conf());
            let (outcome, files) = run_with_inodes(lab, &call, inodes);
            if outcome.status.success() {
                assert!(files.contains(&"192.168.50.100".to_owned()), "{inodes} inodes: {files:?}");
                assert!(inodes > 3, "too few failures");
                return;
            }
            let rest: Vec<_> =
                files.iter().filter(|name| !["lock", "last_reserved_ip.0"].contains(&name.as_str())).collect();
            assert!(rest.is_empty(), "{inodes} inodes leave {rest:?}");
            outcome.fails(5, &[&lab.data_dir().to_string_lossy(), "No space left"]);
        }
        panic!("it never succeeds");
    }

    /// A retry after a lost answer, without a requested address.
    #[reference(fails: "did not succeed")]
    fn the_same_owner_gets_the_same_addresses_again(lab) {
        let container = lab.container();
        let conf = lab.conf_with(lab.ipam(Families::Dual));
        let first = add(lab, &container, &conf);
        assert_eq!(add(lab, &container, &conf), first);
        assert_eq!(lab.leases(), ["192.168.50.100", "fd50::100"]);
    }

    /// Runtimes of virtual machines set CNI_NETNS to other names.
    #[reference(passes)]
    fn the_netns_does_not_have_to_exist(lab) {
        let container = lab.container();
        let conf = lab.conf();
        lab.host_local().add(&container, "eth0", &conf).env("CNI_NETNS", "vm:7").run().result();
        lab.host_local().del(&container, "eth0", &conf).env("CNI_NETNS", "vm:7").run().done();
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn damaged_files_in_the_lease_directory_are_ignored(lab) {
        lab.write_lease("last_reserved_ip.0", "nonsense");
        lab.write_lease("last_reserved_ip.7", "10.0.0.1");
        lab.write_lease("README", "not a lease");
        assert_eq!(next(lab, &lab.conf()), "192.168.50.100/24");
        lab.write_lease("last_reserved_ip.0", "10.0.0.1");
        assert_eq!(next(lab, &lab.conf()), "192.168.50.101/24");
        fs::remove_file(lab.lease_file("lock")).expect("remove the lock");
        assert_eq!(next(lab, &lab.conf()), "192.168.50.102/24");
        assert_eq!(read(lab, "README"), "not a lease");
    }

    #[reference(passes)]
    fn check_of_a_lease_that_is_there(lab) {
        let container = lab.container();
        let mut conf = lab.conf();
        conf["prevResult"] = add(lab, &container, &conf);
        lab.unchanged(&[], || lab.host_local().check(&container, "eth0", &conf).run()).done();
    }

    #[reference(fails: "another code")]
    fn check_of_a_lease_that_is_gone(lab) {
        let container = lab.container();
        let mut conf = lab.conf();
        conf["prevResult"] = add(lab, &container, &conf);
        del(lab, &container, &conf);
        lab.host_local().check(&container, "eth0", &conf).run().fails(3, &["container-1", "eth0"]);
    }

    #[reference(fails: "left == right")]
    fn gc_frees_damaged_leases_and_leaves_other_files(lab) {
        let container = lab.container();
        let mut conf = lab.conf();
        add(lab, &container, &conf);
        lab.write_lease("192.168.50.120", "");
        lab.write_lease("192.168.50.121", "other\r\neth0");
        lab.write_lease("README", "not a lease");
        conf["cniVersion"] = json!("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([{"containerID": container.id, "ifname": "eth0"}]);
        lab.host_local().call("GC", &conf).run().done();
        assert_eq!(lab.lease_files(), ["192.168.50.100", "README", "last_reserved_ip.0", "lock"]);
    }

    #[reference(fails: "exists()")]
    fn gc_of_a_network_that_has_never_leased_anything_makes_nothing(lab) {
        let mut conf = lab.conf();
        conf["cniVersion"] = json!("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([]);
        lab.host_local().call("GC", &conf).run().done();
        assert!(!lab.data_dir().join("lan").exists());
    }

    #[reference(fails: "did not fail")]
    fn status_of_a_data_directory_that_cannot_be_used(lab) {
        let file = lab.path("plain-file");
        fs::write(&file, "").expect("write a file");
        let mut conf = lab.conf();
        conf["cniVersion"] = json!("1.1.0");
        conf["ipam"]["dataDir"] = json!(file.join("leases"));
        lab.host_local().call("STATUS", &conf).run().fails(50, &[&file.to_string_lossy()]);
    }

    /// From here on, both implementations use one directory.
    #[reference(not_run: "this test compares with it")]
    fn a_lease_of_the_reference_is_respected_and_released(lab) {
        let (old, new) = (lab.container(), lab.container());
        let conf = lab.conf_of("192.168.50.100", "192.168.50.101");
        theirs(lab).add(&old, "eth0", &conf).run().result();
        // Ours continues after the last address of the reference.
        assert_eq!(ips(&add(lab, &new, &conf)), ["192.168.50.101/24"]);
        lab.host_local().refuses(lab, &conf, 101, &["192.168.50.100"]);
        let mut checked = conf.clone();
        checked["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.100/24"}]});
        lab.host_local().check(&old, "eth0", &checked).run().done();
        del(lab, &old, &conf);
        assert_eq!(lab.leases(), ["192.168.50.101"]);
    }

    #[reference(not_run: "this test compares with it")]
    fn a_lease_of_ours_is_respected_and_released_by_the_reference(lab) {
        let (old, new) = (lab.container(), lab.container());
        let conf = lab.conf_of("192.168.50.100", "192.168.50.101");
        let checked = with(conf.clone(), "prevResult", add(lab, &old, &conf));
        assert_eq!(ips(&theirs(lab).add(&new, "eth0", &conf).run().result()), ["192.168.50.101/24"]);
        assert!(!theirs(lab).add(&lab.container(), "eth0", &conf).run().status.success());
        theirs(lab).check(&old, "eth0", &checked).run().done();
        theirs(lab).del(&old, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), ["192.168.50.101"]);
    }

    #[reference(not_run: "this test compares with it")]
    fn both_write_the_same_bytes(lab) {
        let conf = lab.conf_with(lab.ipam(Families::Dual));
        let state = |plugin: Plugin<'_>| {
            let mut container = lab.container();
            container.id = "the-same".to_owned();
            plugin.add(&container, "eth0", &conf).run().result();
            let mut files: Vec<_> = lab.lease_files();
            files.retain(|name| name != "lock");
            let state: Vec<_> = files.iter().map(|name| (name.clone(), read(lab, name))).collect();
            fs::remove_dir_all(lab.data_dir()).expect("remove the leases");
            state
        };
        assert_eq!(state(lab.host_local()), state(theirs(lab)));
    }

    /// Early releases of the reference wrote only the container ID.
    #[reference(passes)]
    fn a_lease_without_an_interface_name_is_released_by_the_container(lab) {
        let container = lab.container();
        lab.write_lease("192.168.50.100", &container.id);
        assert_eq!(next(lab, &lab.conf()), "192.168.50.101/24");
        del(lab, &container, &lab.conf());
        assert_eq!(lab.leases(), ["192.168.50.101"]);
    }
}
