//! One run of a case: a Lab, the implementation of each command, and the state after each call.

use std::cell::RefCell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};

use super::answer;
use super::state::{self, Facts};
use crate::{Binaries, Call, Container, Lab, Outcome, Plugin};

/// The beginning of the MACs that cases set. All other MACs are random.
const ASKED_FOR: &str = "02:00:5e:10:00:";

/// The implementation of each command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) adds: Binaries,
    /// All other commands.
    pub(super) ends: Binaries,
}

/// The state after one call.
#[derive(Debug)]
pub(super) struct Step {
    /// The call, such as "2 CHECK".
    pub(super) name: String,
    pub(super) facts: Facts,
}

/// What a case calls the plugins with.
#[derive(Debug)]
pub struct Rig {
    lab: Lab,
    roles: Roles,
    containers: RefCell<Vec<Rc<Container>>>,
    steps: RefCell<Vec<Step>>,
}

impl Deref for Rig {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Rig {
    pub(super) fn new(roles: Roles) -> Self {
        let lab = Lab::new(Binaries::HardLinks);
        Self { lab, roles, containers: RefCell::default(), steps: RefCell::default() }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps.into_inner()
    }

    /// A new container. From now on, its state is noted after each call.
    pub fn container(&self) -> Rc<Container> {
        let container = Rc::new(self.lab.container());
        self.containers.borrow_mut().push(Rc::clone(&container));
        container
    }

    fn directory(&self, command: &str) -> PathBuf {
        let whose = if command == "ADD" { self.roles.adds } else { self.roles.ends };
        whose.directory(Path::new(""))
    }

    /// The program of that name, of the implementation for this command.
    pub fn program(&self, command: &str, name: &str) -> Plugin<'_> {
        let directory = self.directory(command);
        Plugin::new(&self.lab.host, directory.join(name)).search(directory)
    }

    fn program_of(&self, command: &str, conf: &Value) -> Plugin<'_> {
        self.program(command, conf["type"].as_str().expect("a configuration has a type"))
    }

    /// Returns the result of an ADD, or null.
    pub fn add(&self, container: &Container, ifname: &str, conf: &Value) -> Value {
        self.see("ADD", &self.program_of("ADD", conf).add(container, ifname, conf))
    }

    pub fn del(&self, container: &Container, ifname: &str, conf: &Value) {
        self.see("DEL", &self.program_of("DEL", conf).del(container, ifname, conf));
    }

    /// A CHECK. `conf` has the prevResult.
    pub fn check(&self, container: &Container, ifname: &str, conf: &Value) {
        self.see("CHECK", &self.program_of("CHECK", conf).check(container, ifname, conf));
    }

    /// Makes a call and notes the state. Returns its result, or null.
    pub fn see(&self, command: &str, call: &Call<'_>) -> Value {
        let outcome = call.run();
        self.note(command, &outcome);
        match outcome.status.success() && !outcome.stdout.is_empty() {
            true => outcome.json(),
            false => Value::Null,
        }
    }

    /// The calls of one attachment: ADD, CHECK if the version has it, and DEL twice.
    pub fn live(&self, conf: &Value) {
        self.live_with(conf, |call| call);
    }

    /// As [`Rig::live`], with a change of each call.
    pub fn live_with(&self, conf: &Value, with: impl Fn(Call<'_>) -> Call<'_>) {
        self.live_in(&self.container(), conf, with);
    }

    /// As [`Rig::live_with`], in a given container.
    pub fn live_in(&self, container: &Container, conf: &Value, with: impl Fn(Call<'_>) -> Call<'_>) {
        let make = |command: &str, conf: &Value| {
            let call = self.program_of(command, conf).attachment(command, container, "eth0", conf);
            self.see(command, &with(call))
        };
        let result = make("ADD", conf);
        let mut later = conf.clone();
        if result.is_object() {
            later["prevResult"] = result;
            if conf["cniVersion"].as_str().is_some_and(|version| version >= "0.4.0") {
                make("CHECK", &later);
            }
        }
        make("DEL", &later);
        make("DEL", conf);
    }

    fn note(&self, command: &str, outcome: &Outcome) {
        let mut facts = Facts::default();
        answer::describe(outcome, &mut facts);
        let containers = self.containers.borrow();
        state::describe(&self.lab, containers.iter().map(Rc::as_ref), &mut facts);
        let names = self.names();
        let plain = |text: String| names.iter().fold(text, |text, (chance, name)| text.replace(chance, name));
        let facts = facts.map(plain);
        let mut steps = self.steps.borrow_mut();
        let name = format!("{} {command}", steps.len() + 1);
        steps.push(Step { name, facts });
    }

    /// The random texts of this Lab, and the names that replace them. The longest come first, because one may begin
    /// another.
    fn names(&self) -> Vec<(String, String)> {
        let containers = self.containers.borrow();
        let mut names = vec![(self.lab.path("").display().to_string(), "<lab>/".to_owned())];
        let mut add = |whose: &str, netns: &crate::Namespace| {
            names.push((netns.path().display().to_string(), format!("<netns of {whose}>")));
            let macs = netns.links().into_iter().filter(|link| link.name != "lo" && !link.mac.starts_with(ASKED_FOR));
            names.extend(macs.map(|link| (link.mac, format!("<mac of {whose} {}>", link.name))));
        };
        // The host comes first: an ipvlan slave has the MAC of its parent.
        add("host", &self.lab.host);
        containers.iter().for_each(|container| add(&container.id, container));
        names.sort_by_key(|(chance, _)| std::cmp::Reverse(chance.len()));
        names
    }
}

/// A host-local configuration, called by itself, with these keys in `ipam`.
pub fn host_local(lab: &Lab, keys: Value) -> Value {
    let mut conf = lab.conf_with(keys);
    conf["type"] = json!("host-local");
    conf["ipam"]["type"] = json!("host-local");
    conf["ipam"]["dataDir"] = json!(lab.data_dir());
    conf
}
