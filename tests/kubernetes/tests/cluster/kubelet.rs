//! The kubelet and its own pods: probes, and the subcommands of `kubectl` that the kubelet serves.

use std::time::Duration;

use e2e::runtime::PAGE;
use e2e::traffic::fetch;
use kubernetes::Cluster;
use kubernetes::pods::{self, DEPLOYMENTS};
use serde_json::json;

#[test]
fn probes_by_http_tcp_and_exec_succeed() {
    let cluster = Cluster::shared();
    let http = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
    let probes = [
        http.clone(),
        json!({"tcpSocket": {"port": 80}, "periodSeconds": 1}),
        json!({"exec": {"command": ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"]}, "periodSeconds": 1}),
    ];
    for node in &cluster.nodes {
        let mut spec = pods::spec_on(node);
        // The first container is the web server, and all share its network.
        let containers = probes.iter().enumerate().map(|(index, probe)| {
            let mut container = spec["containers"][0].clone();
            container["name"] = json!(format!("container-{index}"));
            container["readinessProbe"] = probe.clone();
            if index > 0 {
                container["command"] = json!(["sleep", "86400"]);
            }
            container
        });
        spec["containers"] = containers.collect();
        spec["containers"][0]["startupProbe"] = http.clone();
        spec["containers"][0]["livenessProbe"] = http.clone();
        cluster.api.create(DEPLOYMENTS, &pods::deployment(node.name, 1, spec));
    }
    for node in &cluster.nodes {
        let pods = cluster.await_replicas(node.name, 1);
        assert_eq!(pods[0].restarts, 0);
    }
    for node in &cluster.nodes {
        cluster.api.delete(&format!("{DEPLOYMENTS}/{}", node.name));
    }
    cluster.await_no_pods();
    cluster.await_nothing_left();
}

#[test]
fn a_pod_reaches_its_kubelet_and_kubectl_reaches_the_pod() {
    let cluster = Cluster::shared();
    for node in &cluster.nodes {
        let mut spec = pods::spec_on(node);
        spec["containers"][0]["command"] = json!(["sh", "-c", "echo serving; exec httpd -f -p 80 -h /www"]);
        let pod = cluster.deploy("web", 1, spec).remove(0);

        let netns = node.pod_namespace(pod.ip);
        let kubelet = format!("--server=https://{}:10250", node.machine.v4);
        assert_eq!(cluster.kubectl_in(&netns, &[&kubelet, "get", "--raw", "/healthz"], ""), Ok("ok".to_owned()));
        drop(netns);

        assert_eq!(cluster.kubectl(&["exec", &pod.name, "--", "cat", "/www/index.html"], ""), PAGE);
        assert_eq!(cluster.kubectl(&["exec", "-i", &pod.name, "--", "cat"], "typed"), "typed");
        assert_eq!(cluster.kubectl(&["logs", &pod.name], ""), "serving\n");
        let forward = cluster.forward(&pod.name, 80);
        let page = fetch(&cluster.gateway, forward.address, "/", Duration::from_secs(10));
        assert_eq!(page.as_deref(), Ok(PAGE));
        drop(forward);
        cluster.undeploy("web");
    }
}
