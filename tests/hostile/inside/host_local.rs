//! Fuzzing of lease directories and other input of host-local. This file is compiled into `host-local`, because it uses
//! private items. The program is built without it.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cni::{Args, Attachment, Call, Dns};

use crate::config::Config;
use crate::lease::{self, Content, Owner};
use crate::machine::Machine;
use crate::record::{self, Record};

/// Reads the keys of an ADD, and checks the arithmetic of ranges.
pub fn configuration(call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
    let config = Config::read(call, Some(attachment))?;
    assert_eq!(config.sets.len(), config.requests.len());
    for (set, request) in config.sets.iter().zip(&config.requests) {
        assert!(request.as_ref().is_none_or(|request| set.admits(request.ip)));
        let spans = set.turn(request.as_ref().map(|request| request.ip));
        for ip in spans.iter().flat_map(|span| [span.first, span.last]).map(|number| set.address(number)) {
            assert!(set.admits(ip), "{ip} in {set}");
            assert!(set.range_of(ip).is_some_and(|range| range.gateway != ip), "{ip} in {set}");
        }
        assert_eq!(set.capacity() == 0, spans.is_empty());
    }
    Ok(())
}

/// Reads bytes as a lease file and as a record. Returns true if they are one of them.
pub fn lease(bytes: &[u8]) -> bool {
    let content = Content::parse(bytes);
    assert!(!content.to_string().chars().any(char::is_control), "{content:?}");
    if let Content::Owned { container_id, ifname } = &content {
        let owner = Owner { container_id, ifname };
        assert_eq!(Content::parse(owner.content().as_bytes()), content);
        assert!(content.is_of(&owner));
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = record::owner(&text);
    if let Some(ip) = lease::address(&text) {
        assert_eq!(lease::file_name(ip), text);
    }
    let record = record::is_ours(&text).then(|| Record::parse(&text)).flatten();
    if let Some(again) = record.as_ref().and_then(Record::text) {
        assert_eq!(Record::parse(&again), record);
    }
    record.is_some() || matches!(content, Content::Owned { .. } | Content::Legacy { .. })
}

/// Reads a resolv.conf.
pub fn resolv_conf(bytes: &[u8]) -> Dns {
    ranges::resolv::parse(&String::from_utf8_lossy(bytes))
}

/// A file that must not change. Links in the lease directory may lead to it.
const PRECIOUS: &str = "precious";

/// Creates a lease directory from bytes below an empty `folder`, and calls the plugin several times. Returns the number
/// of addresses that were leased.
///
/// The first byte is the number of calls, and the calls follow, one byte each. Then come entries: a byte for the kind,
/// one for the length of the name, two for the length of the content, name, content.
pub fn directory(folder: &Path, bytes: &[u8], call: &Call<'_>) -> usize {
    let (calls, entries) = split(bytes);
    let lan = folder.join("networks/lan");
    fs::create_dir_all(&lan).expect("make a lease directory");
    fs::write(folder.join(PRECIOUS), PRECIOUS).expect("write a file");
    populate(&lan, entries);
    let machine = machine(&folder.join("proc"));
    let mut leased: Vec<(IpAddr, String)> = Vec::new();
    let mut made = 0;
    for call_byte in calls {
        let container_id = format!("c{}", call_byte >> 4);
        let attachment = Attachment {
            container_id: container_id.clone(),
            ifname: "eth0".into(),
            netns: None,
            args: Ok(Args::default()),
        };
        let outcome = match call_byte & 7 {
            0..4 => crate::add(&machine, call, &attachment).map(|result| {
                for ip in result.ips.iter().map(|ip| ip.address.addr()) {
                    let content = fs::read(lan.join(lease::file_name(ip))).expect("the file of a lease");
                    assert_eq!(Content::parse(&content).to_string(), format!("{container_id} eth0"));
                    let other = leased.iter().find(|(its, owner)| *its == ip && *owner != container_id);
                    assert_eq!(other, None, "leased twice");
                    leased.push((ip, container_id.clone()));
                    made += 1;
                }
            }),
            4 | 5 => {
                leased.retain(|(_, owner)| *owner != container_id);
                crate::del(&machine, call, &attachment)
            }
            6 => crate::check(&machine, call, &attachment),
            _ => crate::status(&machine, call),
        };
        if let Err(error) = outcome {
            assert!(error.code != cni::Code::INTERNAL, "{error}");
        }
    }
    assert_eq!(fs::read_to_string(folder.join(PRECIOUS)).expect("read a file"), PRECIOUS);
    let mut left: Vec<_> =
        fs::read_dir(folder).expect("read a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["networks", PRECIOUS, "proc"]);
    made
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(count & 15).min(rest.len()))
}

fn populate(lan: &Path, mut bytes: &[u8]) {
    let mut stamp = None;
    while let Some((&[kind, name, low, high], rest)) = bytes.split_first_chunk::<4>() {
        let (name, rest) = rest.split_at(usize::from(name).min(rest.len()));
        let (content, rest) = rest.split_at(usize::from(u16::from_le_bytes([low, high])).min(rest.len()));
        bytes = rest;
        let Ok(name) = str::from_utf8(name) else { continue };
        if name.contains(['/', '\0']) || matches!(name, "" | "." | "..") {
            continue;
        }
        let path = lan.join(name);
        // Entries that the file system refuses are left out.
        let _ = match kind % 4 {
            0 | 1 => write_new(&path, content),
            2 => symlink(target(content), &path),
            _ if content.is_empty() => fs::create_dir(&path),
            _ => fs::hard_link(lan.join("../..").join(PRECIOUS), &path),
        };
        if name == "lock" && kind % 4 < 2 {
            stamp = content.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        }
    }
    if let Some(stamp) = stamp.filter(|stamp| *stamp < 1 << 33) {
        // The index counts only if the directory has its modification time.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(stamp);
        let folder = File::open(lan).expect("open a directory");
        folder.set_times(FileTimes::new().set_modified(time)).expect("set the time of a directory");
    }
}

/// Writes a new file. A plain write would follow an earlier link to the file that must not change.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    File::options().write(true).create_new(true).open(path)?.write_all(content)
}

/// The target of a link. It is inside the folder, so that the test cannot harm the machine.
fn target(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content).replace('\0', "");
    match text.is_empty() || text.starts_with('/') || text.contains("..") {
        true => format!("../../{PRECIOUS}"),
        false => text,
    }
}

fn machine(proc: &Path) -> Machine {
    fs::create_dir_all(proc.join("sys/kernel/random")).expect("make a folder");
    fs::write(proc.join("sys/kernel/random/boot_id"), "boot-1\n").expect("write a file");
    fs::write(proc.join("uptime"), "100.50 7.00\n").expect("write a file");
    Machine { proc: proc.to_owned(), boots: proc.join("boots") }
}
