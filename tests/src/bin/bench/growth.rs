//! Measures ADD and DEL with more and more live attachments on the same parent, each with its lease.

use std::fs;
use std::path::Path;

use e2e::lab::NIC;
use e2e::{Namespace, Samples, interrupt};
use ipnet::{IpNet, Ipv4Net};

use crate::field::{Field, Pod};
use crate::scenario::{Scenario, WHOLE};
use crate::side::{COMPARED, Programs, Side};
use crate::{Plan, Result, say};

/// The number of links in a netns. To create a thousand namespaces would take longer than the measurement.
const IN_A_NETNS: u32 = 50;

#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) live: u32,
    /// For each side: ADD and DEL, in milliseconds.
    pub(crate) sides: [[Samples; 2]; 3],
}

struct Crowd {
    field: Field,
    _namespaces: Vec<Namespace>,
}

/// Measures all sizes alternately, so that the ratios compare equal conditions.
pub(crate) fn measure(programs: &Programs, plan: &Plan) -> Result<Vec<Stage>> {
    let scenario = Scenario::of(WHOLE);
    say("live attachments: ")?;
    let mut crowds = Vec::new();
    for &live in plan.growth {
        say(&format!("{live} "))?;
        crowds.push(Crowd::gather(programs, scenario, live, &plan.scratch.join(format!("growth-{live}")))?);
    }
    say(&format!("\ngrowth, {} rounds: ", plan.growth_rounds))?;
    let stage = |live: &u32| Stage { live: *live, sides: Default::default() };
    let mut stages: Vec<Stage> = plan.growth.iter().map(stage).collect();
    // The first round warms the caches.
    for round in 0..=plan.growth_rounds {
        say(".")?;
        for (crowd, stage) in crowds.iter().zip(&mut stages) {
            interrupt::check()?;
            let host = &crowd.field.lab.host;
            let times = host.run(|| crowd.field.turn(programs, scenario, round))?;
            if round > 0 {
                for (samples, times) in stage.sides.iter_mut().zip(times) {
                    samples.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
                }
            }
        }
    }
    say("\n")?;
    Ok(stages)
}

impl Field {
    /// ADD and DEL of each side, in milliseconds.
    fn turn(&self, programs: &Programs, scenario: &Scenario, round: usize) -> Result<[[f64; 2]; 3]> {
        let mut pods: Vec<Pod> = COMPARED.iter().map(|side| self.pod(scenario, *side)).collect();
        let mut times = [[0.0; 2]; 3];
        for (which, command) in ["ADD", "DEL"].into_iter().enumerate() {
            for turn in 0..COMPARED.len() {
                let at = (turn + round) % COMPARED.len();
                times[at][which] = self.time(programs, scenario, &mut pods[at], command)?.wall;
            }
        }
        self.retire(pods)?;
        Ok(times)
    }
}

impl Crowd {
    fn gather(programs: &Programs, scenario: &Scenario, live: u32, data: &Path) -> Result<Self> {
        let field = Field::new(data.to_owned())?;
        let mut namespaces: Vec<Namespace> = Vec::new();
        for number in 0..live {
            if number % IN_A_NETNS == 0 {
                interrupt::check()?;
                let netns = Namespace::new();
                // Without the traffic of IPv6 between them.
                netns.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
                namespaces.push(netns);
            }
            let netns = namespaces.last().ok_or("a netns")?;
            let name = format!("live{}", number % IN_A_NETNS);
            field.lab.host.create_macvlan_in(netns, &name, NIC);
            netns.add_address(&name, IpNet::V4(Ipv4Net::new(address(number), 16)?));
            netns.set_up(&name);
        }
        for side in COMPARED {
            let network = field.leases(scenario, side)?.join("lan");
            for number in 0..live {
                fs::write(network.join(address(number).to_string()), format!("live-{number}\r\neth0"))?;
            }
            fs::write(network.join("last_reserved_ip.0"), address(live.max(1) - 1).to_string())?;
        }
        // Our first call scans leases that others have written.
        field.lab.host.run(|| {
            let mut pod = field.pod(scenario, Side::Ours);
            field.time(programs, scenario, &mut pod, "ADD")?;
            field.time(programs, scenario, &mut pod, "DEL").map(drop)
        })?;
        Ok(Self { field, _namespaces: namespaces })
    }
}

/// From 10.50.0.2 on. The addresses of the floor begin above these.
fn address(number: u32) -> std::net::Ipv4Addr {
    let [.., third, fourth] = (number + 2).to_be_bytes();
    std::net::Ipv4Addr::new(10, 50, third, fourth)
}
