//! Steps that many tests share: attaching a container, a call that must be refused, an IPAM plugin of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};

use crate::plugin::{CniError, write_script};
use crate::{Call, Container, Lab, Outcome, Plugin};

/// Where scripts find their programs: a plugin's environment has only what the test sets.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A configuration with one more key, or another value of a key.
pub fn with(mut conf: Value, key: &str, value: Value) -> Value {
    conf[key] = value;
    conf
}

/// A configuration without a key.
pub fn without(mut conf: Value, key: &str) -> Value {
    conf.as_object_mut().expect("an object").remove(key);
    conf
}

impl Plugin<'_> {
    /// Attaches a new container as `eth0`. Returns it with the configuration that has the result as `prevResult`.
    #[track_caller]
    pub fn attach(&self, lab: &Lab, conf: &Value) -> (Container, Value) {
        let container = lab.container();
        let result = self.add(&container, "eth0", conf).run().result();
        (container, with(conf.clone(), "prevResult", result))
    }

    /// As [`Plugin::attach`], but returns the result.
    #[track_caller]
    pub fn attached(&self, lab: &Lab, conf: &Value) -> (Container, Value) {
        let (container, mut conf) = self.attach(lab, conf);
        (container, conf["prevResult"].take())
    }

    /// DEL of `eth0`, which leaves neither a link nor a lease.
    #[track_caller]
    pub fn detach(&self, lab: &Lab, container: &Container, conf: &Value) {
        self.del(container, "eth0", conf).run().done();
        lab.assert_gone(container);
    }

    /// A CHECK must fail with this code and a message that names all of these, and change nothing.
    #[track_caller]
    pub fn differs(&self, lab: &Lab, container: &Container, conf: &Value, code: u64, names: &[&str]) {
        lab.unchanged(&[container], || self.check(container, "eth0", conf).run()).fails(code, names);
    }

    /// An ADD to a new container must fail with this code and a message that names all of these, and change nothing.
    #[track_caller]
    pub fn refuses(&self, lab: &Lab, conf: &Value, code: u64, names: &[&str]) -> CniError {
        let container = lab.container();
        let error = lab.unchanged(&[&container], || self.add(&container, "eth0", conf).run()).fails(code, names);
        assert!(!error.msg.ends_with("busy"), "a bare errno: {}", error.msg);
        error
    }
}

impl Lab {
    /// The container has no link but `lo`, and no address is leased.
    #[track_caller]
    pub fn assert_gone(&self, container: &Container) {
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(self.leases(), [""; 0]);
    }

    /// Writes an IPAM plugin named `fake`: a shell script with this body. It notes each command in the file `calls`.
    /// The variable `$answer` is a result with 192.168.50.77, and `$LAB` the Lab's directory. Returns a configuration
    /// with it.
    pub fn fake_ipam(&self, body: &str) -> Value {
        fs::create_dir(self.path("fake")).expect("make a directory");
        let answer = r#"{"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.77/24", "gateway": "192.168.50.1"}]}"#;
        let directory = self.path("");
        let prelude =
            format!("LAB={}\nPATH={PATH}\necho $CNI_COMMAND >>$LAB/calls\nanswer='{answer}'\n", directory.display());
        write_script(&self.path("fake/fake"), &(prelude + body));
        self.conf_with(json!({"type": "fake"}))
    }

    /// As [`Lab::fake_ipam`]: it answers ADD with this result, and any other command with nothing.
    pub fn ipam_answering(&self, answer: &Value) -> Value {
        self.fake_ipam(&format!("[ $CNI_COMMAND = ADD ] || exit 0\necho '{answer}'"))
    }

    /// A plugin that also finds the IPAM plugin of [`Lab::fake_ipam`].
    pub fn plugin_with_fake(&self, name: &str) -> Plugin<'_> {
        self.plugin(name).search(self.search_path())
    }

    /// The program `macvlan` behind a line of shell. There, `$PLUGIN` is its path and `$LAB` the Lab's directory.
    pub fn behind(&self, line: &str) -> Plugin<'_> {
        let directory = tempfile::tempdir_in(self.path("")).expect("make a directory").keep();
        let script = directory.join("macvlan");
        let (plugin, lab_directory) = (self.bin().join("macvlan"), self.path(""));
        let names = format!("PLUGIN={} LAB={}", plugin.display(), lab_directory.display());
        write_script(&script, &format!("{names}\nexport PATH={PATH}\n{line}"));
        Plugin::new(&self.host, script).search(self.search_path())
    }

    /// A path below a plain file, and one of a socket: no network namespace can be there.
    pub fn odd_paths(&self) -> [PathBuf; 2] {
        let (file, socket) = (self.path("plain"), self.path("socket"));
        fs::write(&file, "").expect("write a file");
        // The file stays when the listener goes.
        UnixListener::bind(&socket).expect("make a socket");
        [file.join("netns"), socket]
    }

    fn search_path(&self) -> String {
        format!("{}:{}", self.bin().display(), self.path("fake").display())
    }

    /// The commands that the IPAM plugin of [`Lab::fake_ipam`] was called with.
    pub fn fake_calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// Makes a call so many times at once. Returns what came of each.
pub fn all_at_once(count: usize, call: impl Fn() -> Outcome + Sync) -> Vec<Outcome> {
    thread::scope(|scope| {
        let calls: Vec<_> = (0..count).map(|_| scope.spawn(&call)).collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    })
}

/// A call about a container that has no network namespace here.
pub fn call<'a>(plugin: &Plugin<'a>, command: &str, id: &str, conf: &Value) -> Call<'a> {
    let call = plugin.call(command, conf).env("CNI_CONTAINERID", id);
    call.env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/run/netns/none")
}

/// The first address of a result.
pub fn address(outcome: &Outcome) -> String {
    let result = outcome.result();
    let address = result["ips"][0]["address"].as_str().expect("an address");
    address.split('/').next().expect("an address").to_owned()
}

/// Every lease file of the network `lan` with its content.
pub fn leases(lab: &Lab) -> BTreeMap<String, String> {
    let read = |name: String| {
        let content = fs::read_to_string(lab.lease_file(&name)).expect("read a lease");
        (name, content)
    };
    lab.leases().into_iter().map(read).collect()
}
