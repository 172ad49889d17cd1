//! A scene: one kind of wire on one kernel, with several setups ("ways") that are measured alternately.

use std::fmt;
use std::time::Instant;

use e2e::Samples;
use e2e::document;
use e2e::interrupt;
use e2e::needs::Feature;
use serde_json::{Map, Value, json};

use crate::measure::{Effort, LATENCY, METRICS, Sample, measure as measure_one, used_by_others};
use crate::way::{Built, Way};
use crate::wire;

/// The kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Native,
    Guest,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Guest => "guest",
        })
    }
}

/// The results of one setup.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) way: Way,
    pub(crate) samples: Vec<Sample>,
    /// The mean size of a frame during the streams, in bytes.
    pub(crate) frames: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) wire: wire::Kind,
    pub(crate) kernel: String,
    pub(crate) cpus: usize,
    /// The share of the processors that other processes used before each round, from 0 to 1.
    pub(crate) others: Vec<f64>,
    pub(crate) ways: Vec<Measured>,
}

/// Returns true if this kernel has all setups and wires, so that no guest is needed.
pub(crate) fn all_is_here() -> bool {
    Feature::Ipvlan.is_here() && wire::can_delay()
}

impl Scene {
    /// The scenes that this kernel can measure.
    pub(crate) fn all(place: Place, effort: Effort) -> Vec<Self> {
        let wires: &[wire::Kind] = match (place, effort) {
            (Place::Native, _) => &wire::Kind::ALL,
            (Place::Guest, Effort::Quick) => &[wire::Kind::Delayed],
            (Place::Guest, _) => &[wire::Kind::Offloaded, wire::Kind::Delayed, wire::Kind::Node],
        };
        let ways = |wire: wire::Kind| -> &[Way] {
            match (place, effort, wire) {
                (Place::Native, ..) | (_, _, wire::Kind::Node) => Way::on(wire),
                (Place::Guest, Effort::Quick, _) => &[Way::Macvlan, Way::Ipvlan],
                // The guest measures the missing setups, and others to compare with.
                (Place::Guest, ..) => &[Way::Host, Way::Macvlan, Way::Ipvlan, Way::Calico, Way::Vxlan],
            }
        };
        let kernel = document::kernel();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let can_delay = wire::can_delay();
        let scene = |wire: &wire::Kind| {
            let measured = |way: &Way| Measured { way: *way, samples: Vec::new(), frames: Vec::new() };
            let ways = ways(*wire).iter().filter(|way| way.is_here()).map(measured).collect();
            Self { place, wire: *wire, kernel: kernel.clone(), cpus, others: Vec::new(), ways }
        };
        wires.iter().filter(|wire| can_delay || **wire != wire::Kind::Delayed).map(scene).collect()
    }

    fn take_turn(&mut self, which: usize, built: &Built, effort: Effort) -> Result<(), String> {
        let measured = &mut self.ways[which];
        let turn = measure_one(built, effort);
        interrupt::check()?;
        let named = |error| format!("{} on {}: {error}", measured.way.name(), self.wire.about());
        let (sample, frame) = turn.map_err(named)?;
        self.wire.judge(frame, sample[LATENCY]).map_err(named)?;
        measured.samples.push(sample);
        measured.frames.push(frame);
        Ok(())
    }

    pub(crate) fn to_json(&self) -> Value {
        let ways: Vec<Value> = self.ways.iter().map(Measured::to_json).collect();
        json!({
            "place": self.place.to_string(), "wire": self.wire.name(), "kernel": self.kernel, "cpus": self.cpus,
            "used_by_others": self.others,
            "ways": ways,
        })
    }

    /// The inverse of [`Scene::to_json`].
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let place = value["place"].as_str()?;
        Some(Self {
            place: [Place::Native, Place::Guest].into_iter().find(|one| one.to_string() == place)?,
            wire: wire::Kind::from_name(value["wire"].as_str()?)?,
            kernel: value["kernel"].as_str()?.to_owned(),
            cpus: value["cpus"].as_u64()?.try_into().ok()?,
            others: value["used_by_others"].as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?,
            ways: value["ways"].as_array()?.iter().map(Measured::from_json).collect::<Option<_>>()?,
        })
    }
}

impl Measured {
    /// All values of one of [`METRICS`].
    pub(crate) fn values(&self, metric: usize) -> Samples {
        self.samples.iter().map(|sample| sample[metric]).collect()
    }

    fn to_json(&self) -> Value {
        let sample = |sample: &Sample| {
            let pairs = METRICS.iter().zip(sample).map(|(metric, value)| (metric.key.to_owned(), json!(value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        let samples: Vec<Value> = self.samples.iter().map(sample).collect();
        json!({"way": self.way.name(), "rounds": samples, "frame_bytes": self.frames})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let sample = |value: &Value| {
            let mut sample = Sample::default();
            for (metric, slot) in METRICS.iter().zip(&mut sample) {
                *slot = value[metric.key].as_f64()?;
            }
            Some(sample)
        };
        Some(Self {
            way: Way::from_name(value["way"].as_str()?)?,
            samples: value["rounds"].as_array()?.iter().map(sample).collect::<Option<_>>()?,
            frames: value["frame_bytes"].as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?,
        })
    }
}

/// Builds all setups, and measures them alternately, so that other load of the machine disturbs all of them.
pub(crate) fn measure(scenes: &mut [Scene], effort: Effort) -> Result<(), String> {
    let mut stages = Vec::new();
    for (at, scene) in scenes.iter().enumerate() {
        for (which, measured) in scene.ways.iter().enumerate() {
            interrupt::check()?;
            stages.push((at, which, Built::new(measured.way, scene.wire)?));
        }
    }
    let place = scenes.first().map_or(Place::Native, |scene| scene.place);
    println!("{place}: {} ways stand, {} rounds", stages.len(), effort.rounds());
    let begun = Instant::now();
    for round in 1..=effort.rounds() {
        let round_begun = Instant::now();
        let others = used_by_others();
        println!("{place}: round {round}, other processes use {:.0} % of the CPU time", others * 100.0);
        for (at, scene) in scenes.iter_mut().enumerate() {
            println!("  {}", scene.wire.about());
            scene.others.push(others);
            for (_, which, built) in stages.iter().filter(|(its, _, _)| *its == at) {
                scene.take_turn(*which, built, effort)?;
            }
        }
        if begun.elapsed() + round_begun.elapsed() > effort.within() {
            println!("{place}: no time for another round");
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_can_be_read_from_its_json() {
        let measured = Measured {
            way: Way::Ipvlan,
            samples: vec![[0.1, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5]],
            frames: vec![1498.25],
        };
        let scene = Scene {
            place: Place::Guest,
            wire: wire::Kind::Delayed,
            kernel: "6.1.176".to_owned(),
            cpus: 1,
            others: vec![0.25],
            ways: vec![measured],
        };
        let text = scene.to_json().to_string();
        assert_eq!(Scene::from_json(&serde_json::from_str(&text).unwrap()), Some(scene));
    }
}
