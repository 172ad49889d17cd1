//! The floor for the benchmarks: a static process that does only the kernel operations of an attachment. It checks
//! nothing and undoes nothing.
//!
//! It is called like a plugin, with `CNI_COMMAND` (without it, it ends at once), `CNI_NETNS`, `CNI_IFNAME` and
//! `CNI_CONTAINERID`. It has three variables of its own: `FLOOR_PARENT`, an ifindex (without it, no link is created),
//! `FLOOR_LEASES`, a directory, and `FLOOR_ADDRESSES`, a list of `ADDRESS/LENGTH,GATEWAY`, separated by spaces.
//!
//! Its start is C's `main`, as in the program itself.
#![no_main]
#![deny(unsafe_code)]

mod address;
mod kernel;
mod lease;
mod message;

use std::env::var;
use std::error::Error;
use std::ffi::{c_char, c_int};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use address::Address;
use kernel::Socket;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

// SAFETY: the C library calls `main`, once, as C declares it. Nothing else of that name is linked.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "floor: {error}");
            1
        }
    }
}

fn run() -> Result<()> {
    if var("FLOOR_HELD").is_ok() {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    }
    match var("CNI_COMMAND").as_deref() {
        Ok("ADD") => Attachment::read()?.add(),
        Ok("DEL") => Attachment::read()?.del(),
        _ => Ok(()),
    }
}

struct Attachment {
    /// The netns of the container and the ifindex of the parent. `None` creates no link.
    link: Option<(File, u32)>,
    ifname: String,
    owner: String,
    leases: Option<PathBuf>,
    addresses: Vec<Address>,
}

impl Attachment {
    fn read() -> Result<Self> {
        let ifname = var("CNI_IFNAME")?;
        let link = match var("FLOOR_PARENT") {
            Ok(parent) => Some((File::open(var("CNI_NETNS")?)?, parent.parse()?)),
            Err(_) => None,
        };
        Ok(Self {
            link,
            owner: format!("{}\r\n{ifname}", var("CNI_CONTAINERID")?),
            ifname,
            leases: var("FLOOR_LEASES").ok().map(PathBuf::from),
            addresses: Address::parse_all(&var("FLOOR_ADDRESSES").unwrap_or_default())?,
        })
    }

    fn add(&self) -> Result<()> {
        if let Some((netns, parent)) = &self.link {
            Socket::open(0)?.transact(&[message::new_macvlan(&self.ifname, *parent, netns.as_raw_fd())])?;
        }
        if let Some(directory) = &self.leases {
            lease::take(directory, &self.owner, &self.addresses)?;
        }
        match &self.link {
            Some((netns, _)) => self.configure(netns),
            None => Ok(()),
        }
    }

    /// Sets the same state in the container as a plugin. For IPv6 it waits for duplicate address detection, which it
    /// shortens as our plugin does.
    fn configure(&self, netns: &File) -> Result<()> {
        kernel::enter(netns)?;
        let mut socket = Socket::open(0)?;
        let ifindex = socket.ifindex(&self.ifname)?;
        let v6 = self.addresses.iter().filter(|address| !address.is_v4()).count();
        let mut before = Vec::new();
        let watch = if v6 == 0 { None } else { Some(Socket::open(kernel::IPV6_ADDRESSES)?) };
        if watch.is_some() {
            let ifname = &self.ifname;
            replace(&format!("conf/{ifname}/ndisc_notify"), "1")?;
            replace(&format!("conf/{ifname}/keep_addr_on_down"), "1")?;
            for (key, value) in [
                (format!("conf/{ifname}/router_solicitation_delay"), "0"),
                (format!("neigh/{ifname}/retrans_time_ms"), "200"),
            ] {
                let old = replace(&key, value)?;
                before.push((key, old));
            }
        }
        let mut batch = Vec::new();
        if !self.addresses.is_empty() {
            batch.push(message::set_arp_notify(ifindex));
        }
        batch.extend(self.addresses.iter().map(|address| message::new_address(ifindex, address)));
        batch.push(message::set_up(ifindex));
        batch.extend(self.addresses.iter().map(|address| message::new_default_route(ifindex, address)));
        socket.transact(&batch)?;
        if let Some(mut watch) = watch {
            watch.wait_usable(v6)?;
        }
        before.iter().try_for_each(|(key, old)| replace(key, old.trim_end()).map(drop))
    }

    fn del(&self) -> Result<()> {
        if let Some(directory) = &self.leases {
            lease::release(directory, &self.addresses)?;
        }
        if let Some((netns, _)) = &self.link {
            kernel::enter(netns)?;
            let mut socket = Socket::open(0)?;
            socket.transact(&[message::delete_link(&self.ifname)])?;
        }
        Ok(())
    }
}

/// Writes a sysctl of IPv6 and returns its old value.
fn replace(key: &str, value: &str) -> Result<String> {
    let path = format!("/proc/sys/net/ipv6/{key}");
    let old = fs::read_to_string(&path)?;
    fs::write(&path, value)?;
    Ok(old)
}
