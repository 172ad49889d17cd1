//! Steps that many tests share, such as attaching a container, a refused call, and a fake IPAM plugin.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};

use crate::plugin::{CniError, write_script};
use crate::{Call, Container, Lab, Outcome, Plugin};

/// The search path of scripts. The environment of a plugin has no PATH.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A configuration with a new value of a key.
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

    /// Calls DEL for `eth0`, and asserts that no link and no lease is left.
    #[track_caller]
    pub fn detach(&self, lab: &Lab, container: &Container, conf: &Value) {
        self.del(container, "eth0", conf).run().done();
        lab.assert_gone(container);
    }

    /// Asserts that CHECK fails with this code, that its message has these names, and that it changes nothing.
    #[track_caller]
    pub fn differs(&self, lab: &Lab, container: &Container, conf: &Value, code: u64, names: &[&str]) {
        lab.unchanged(&[container], || self.check(container, "eth0", conf).run()).fails(code, names);
    }

    /// Asserts that an ADD to a new container fails with this code, that its message has these names, and that it
    /// changes nothing.
    #[track_caller]
    pub fn refuses(&self, lab: &Lab, conf: &Value, code: u64, names: &[&str]) -> CniError {
        let container = lab.container();
        let error = lab.unchanged(&[&container], || self.add(&container, "eth0", conf).run()).fails(code, names);
        assert!(!error.msg.ends_with("busy"), "only the text of an errno: {}", error.msg);
        error
    }
}

impl Lab {
    /// Asserts that the container has only `lo`, and that no address is leased.
    #[track_caller]
    pub fn assert_gone(&self, container: &Container) {
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(self.leases(), [""; 0]);
    }

    /// Writes an IPAM plugin `fake`, which is a shell script with this body, and returns a configuration that uses it.
    /// The script writes each command to the file `calls`. Its variable `$answer` is a result with 192.168.50.77, and
    /// `$LAB` is the directory of the Lab.
    pub fn fake_ipam(&self, body: &str) -> Value {
        fs::create_dir(self.path("fake")).expect("make a directory");
        let answer = r#"{"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.77/24", "gateway": "192.168.50.1"}]}"#;
        let directory = self.path("");
        let prelude =
            format!("LAB={}\nPATH={PATH}\necho $CNI_COMMAND >>$LAB/calls\nanswer='{answer}'\n", directory.display());
        write_script(&self.path("fake/fake"), &(prelude + body));
        self.conf_with(json!({"type": "fake"}))
    }

    /// As [`Lab::fake_ipam`], with this result for ADD and no answer to other commands.
    pub fn ipam_answering(&self, answer: &Value) -> Value {
        self.fake_ipam(&format!("[ $CNI_COMMAND = ADD ] || exit 0\necho '{answer}'"))
    }

    /// A plugin that also finds the IPAM plugin of [`Lab::fake_ipam`].
    pub fn plugin_with_fake(&self, name: &str) -> Plugin<'_> {
        self.plugin(name).search(self.search_path())
    }

    /// A plugin `macvlan` that is a shell script with this line. `$PLUGIN` is the path of the real program, and `$LAB`
    /// is the directory of the Lab.
    pub fn behind(&self, line: &str) -> Plugin<'_> {
        let directory = tempfile::tempdir_in(self.path("")).expect("make a directory").keep();
        let script = directory.join("macvlan");
        let (plugin, lab_directory) = (self.bin().join("macvlan"), self.path(""));
        let names = format!("PLUGIN={} LAB={}", plugin.display(), lab_directory.display());
        write_script(&script, &format!("{names}\nexport PATH={PATH}\n{line}"));
        Plugin::new(&self.host, script).search(self.search_path())
    }

    /// A program of ours as the last word of another command, such as `strace -f`.
    pub fn under(&self, command: &str, name: &str) -> Plugin<'_> {
        let script = tempfile::tempdir_in(self.path("")).expect("make a directory").keep().join(name);
        write_script(&script, &format!("PATH=/usr/bin:/bin exec {command} {}", self.bin().join(name).display()));
        Plugin::new(&self.host, script).search(self.bin())
    }

    /// A path below a file, and the path of a socket. Neither can be a network namespace.
    pub fn odd_paths(&self) -> [PathBuf; 2] {
        let (file, socket) = (self.path("plain"), self.path("socket"));
        fs::write(&file, "").expect("write a file");
        // The file stays after the end of the listener.
        UnixListener::bind(&socket).expect("make a socket");
        [file.join("netns"), socket]
    }

    fn search_path(&self) -> String {
        format!("{}:{}", self.bin().display(), self.path("fake").display())
    }

    /// The commands of all calls of [`Lab::fake_ipam`].
    pub fn fake_calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// Makes so many calls at the same time. Returns all outcomes.
pub fn all_at_once(count: usize, call: impl Fn() -> Outcome + Sync) -> Vec<Outcome> {
    thread::scope(|scope| {
        let calls: Vec<_> = (0..count).map(|_| scope.spawn(&call)).collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    })
}

/// A call for a container whose network namespace does not exist.
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

/// All leases of the network `lan`, each with the content of its file.
pub fn leases(lab: &Lab) -> BTreeMap<String, String> {
    let read = |name: String| {
        let content = fs::read_to_string(lab.lease_file(&name)).expect("read a lease");
        (name, content)
    };
    lab.leases().into_iter().map(read).collect()
}
