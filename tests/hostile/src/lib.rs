//! Entry points for fuzzing: one function for each kind of untrusted input. The fuzz targets call them with generated
//! input, the tests with the files in `fuzz/seeds`. A function panics if a promise is broken. Otherwise it returns
//! true if the input was accepted.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use cni::env::{Operation, Variables};
use cni::{AddResult, Args, Attachment, Call, Conflict, Error, NetConf, Object, Program, Version, wire};
use frontend::{Keys, Kind};
use linux::{Advertisement, Arp, Mac};

/// Reads bytes as one kind of input.
pub type Read = fn(&[u8]) -> bool;

/// All kinds. The name is that of the fuzz target and of the directory of seeds.
pub const KINDS: [(&str, Read); 9] = [
    ("advertisement", advertisement),
    ("arp", arp),
    ("configuration", configuration),
    ("datagram", datagram),
    ("directory", directory),
    ("environment", environment),
    ("lease", lease),
    ("resolv_conf", resolv_conf),
    ("result", result),
];

static PROGRAM: Program = Program {
    name: "hostile",
    release: "0",
    plugins: &[("host-local", &host_local::HostLocal)],
    commands: "",
    run: cni::RUN_NOTHING,
};

/// An ICMPv6 message, as a raw socket returns it.
pub fn advertisement(bytes: &[u8]) -> bool {
    let Some(heard) = Advertisement::decode(bytes) else { return false };
    assert!(!heard.target.is_multicast());
    let octets = heard.mac.map(Mac::octets);
    assert!(octets.is_none_or(|octets| bytes[24..].windows(6).any(|window| window == octets)), "{heard:?}");
    true
}

/// The payload of an ARP frame.
pub fn arp(bytes: &[u8]) -> bool {
    let Some(arp) = Arp::decode(bytes) else { return false };
    assert!(bytes.starts_with(&arp.encode()), "{arp:?}");
    true
}

/// A netlink datagram.
pub fn datagram(bytes: &[u8]) -> bool {
    let understood = linux::fuzz::datagram(bytes);
    understood.links + understood.addresses + understood.routes + understood.errors > 0
}

/// A network configuration, a NUL, and CNI_ARGS. All plugins read it.
pub fn configuration(bytes: &[u8]) -> bool {
    let (json, args) = halves(bytes);
    let _ = cni::config::valid_attachments(json).map_err(|error| answer(&error));
    let args = Args::parse(OsStr::from_bytes(args));
    let attachment =
        Attachment { container_id: "c1".into(), ifname: "eth0".into(), netns: Some("/run/netns/none".into()), args };
    with_call(json, |call| {
        let mut accepted = false;
        let mut look = |outcome: Result<(), Error>| match outcome {
            Ok(()) => accepted = true,
            Err(error) => answer(&error),
        };
        look(Conflict::read(call.keys()).map(|conflicts| reread(json, &conflicts)));
        look(call.prev_result().map(|previous| previous.iter().for_each(reencode)));
        look(Keys::read(call, Some("eth0")).map(drop));
        look(macvlan::Macvlan.choose(call, Some(&attachment)).map(drop));
        for kind in [&ipvlan::PLUGIN.0, &ipvlan::PLUGIN_L2.0] {
            look(kind.choose(call, Some(&attachment)).map(drop));
        }
        look(host_local::fuzz::configuration(call, &attachment));
        accepted
    })
}

/// Adds the addresses to a network configuration, and reads them back.
fn reread(json: &[u8], conflicts: &[Conflict]) {
    let added = Conflict::add_to(json, conflicts);
    let map = cni::config::parse(&added).expect("parse a configuration with another key");
    assert_eq!(Conflict::read(&Object::root(&map)).expect("read the key"), conflicts);
}

/// The output of an IPAM plugin: a result or an error.
pub fn result(bytes: &[u8]) -> bool {
    if let Some(error) = Error::from_json(bytes) {
        // Any error is passed on.
        assert_eq!(Error::from_json(&error.to_json(Version::NEWEST)).as_ref(), Some(&error));
    }
    let mut decoded = false;
    for expected in Version::ALL {
        match wire::decode(bytes, expected, "it") {
            Ok(result) => {
                reencode(&result);
                let _ = attach::judge("eth0", 1500, &result);
                decoded = true;
            }
            Err(error) => answer(&error),
        }
    }
    decoded
}

/// The variables in the order of [`Variables`], separated by NUL.
pub fn environment(bytes: &[u8]) -> bool {
    let mut values = bytes.split(|byte| *byte == 0).map(|value| OsStr::from_bytes(value).to_owned());
    let mut next = || values.next().filter(|value| !value.is_empty());
    let variables = Variables {
        command: next(),
        container_id: next(),
        netns: next(),
        ifname: next(),
        args: next(),
        path: next(),
        netns_override: next(),
    };
    let _ = (variables.overrides_netns(), variables.folders());
    match Operation::parse(&variables) {
        Ok(Operation::Add(attachment) | Operation::Del(attachment) | Operation::Check(attachment)) => {
            for part in [&attachment.container_id, &attachment.ifname] {
                assert!(!part.contains(['/', '\0', ':']) && !matches!(part.as_str(), "" | "." | ".."), "{part:?}");
            }
            true
        }
        Ok(_) => true,
        Err(error) => {
            answer(&error);
            false
        }
    }
}

/// A lease file, or the text of a record.
pub fn lease(bytes: &[u8]) -> bool {
    host_local::fuzz::lease(bytes)
}

/// A resolv.conf.
pub fn resolv_conf(bytes: &[u8]) -> bool {
    let dns = host_local::fuzz::resolv_conf(bytes);
    let words = dns.nameservers.iter().chain(&dns.search).chain(&dns.options).chain(&dns.domain);
    for word in words {
        assert!(!word.is_empty() && !word.contains(char::is_whitespace), "{word:?}");
    }
    reencode(&AddResult { dns: dns.clone(), ..AddResult::default() });
    !dns.is_empty()
}

/// A lease directory and calls of host-local. `host_local::fuzz::directory` describes the format.
pub fn directory(bytes: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("make a folder");
    let data_dir = folder.path().join("networks");
    let conf = serde_json::json!({
        "cniVersion": "1.1.0",
        "name": "lan",
        "addressConflicts": [{"address": "10.0.0.3", "mac": "52:54:00:12:34:56"}, {"address": "fd00::2"}],
        "ipam": {
            "type": "host-local", "dataDir": data_dir, "reuseDelay": 30, "conflictDelay": 60,
            "ranges": [[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/125"}]],
        },
    });
    let json = conf.to_string();
    with_call(json.as_bytes(), |call| host_local::fuzz::directory(folder.path(), bytes, call) > 0)
}

fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

/// Returns true if `work` accepts the call. If the common keys are wrong, `work` does not run.
fn with_call(json: &[u8], work: impl FnOnce(&Call<'_>) -> bool) -> bool {
    let map = match cni::config::parse(json) {
        Ok(map) => map,
        Err(error) => {
            answer(&error);
            return false;
        }
    };
    match NetConf::read(Object::root(&map)) {
        Ok(conf) => {
            assert!(!conf.name.contains(['/', '\0']) && !conf.name.starts_with('.'), "{:?}", conf.name);
            let variables = Variables::default();
            work(&Call { plugin: "host-local", program: &PROGRAM, variables: &variables, stdin: json, conf: &conf })
        }
        Err(error) => {
            answer(&error);
            false
        }
    }
}

/// A runtime must be able to read the error.
fn answer(error: &Error) {
    assert!(error.code.0 > 0 && error.code != cni::Code::INTERNAL, "{error}");
    assert!(!error.msg.is_empty());
    assert_eq!(Error::from_json(&error.to_json(Version::NEWEST)).as_ref(), Some(error));
}

/// The result can be written in all versions. In the newest version nothing is lost.
fn reencode(result: &AddResult) {
    for version in Version::ALL {
        let again = wire::decode(&wire::encode(result, version), version, "it").expect("our own result");
        if version == Version::NEWEST {
            assert_eq!(again, *result);
        }
    }
}
