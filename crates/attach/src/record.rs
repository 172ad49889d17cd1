//! Records: one file for each attachment that has effects on the host's side.
//!
//! A record is written before the host is changed, and removed last. So a DEL or GC finds everything that a killed ADD
//! may have left. The records are under /run: a reboot removes them together with the state of the kernel that they
//! describe. All functions that change something need the lock of the [`crate::host_side`].

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cni::Object;
use ipnet::IpNet;
use linux::{Errno, Netns, NetnsFile, NetnsId, Rtnl, VlanProtocol, file};
use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::{Attachment, LOCKS};

/// The directory of the records, in that of the locks.
const DIRECTORY: &str = "attachments";

/// Almost all records are shorter, so one system call reads them.
const USUAL_BYTES: usize = 1 << 10;

/// A longer file is not a record.
const MAX_BYTES: u64 = 64 << 10;

/// The number of the keys below and of their meaning. A release that changes a key gives it another number.
pub(crate) const SCHEMA: u64 = 1;

/// The effects of one attachment on the host's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// [`SCHEMA`].
    pub(crate) schema: u64,
    /// `name` of the network.
    pub(crate) network: String,
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    /// The host's network namespace. Calls in other namespaces ignore the record.
    pub(crate) home: Home,
    /// The namespace of the container.
    pub(crate) container: Place,
    /// The VLAN link that is the parent of the container's link.
    pub(crate) vlan: Option<Vlan>,
    /// The host's routes to the container.
    #[serde(rename = "hostAccess")]
    pub(crate) access: Option<Access>,
}

/// A VLAN link. It may not exist yet, so it is not named by its ifindex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Vlan {
    /// The ifindex of its own parent.
    pub(crate) parent: u32,
    pub(crate) id: u16,
    #[serde(serialize_with = "as_text")]
    pub(crate) protocol: VlanProtocol,
}

fn as_text<S: Serializer>(protocol: &VlanProtocol, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(protocol.as_str())
}

/// The effects of host access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Access {
    /// The ifindex of the parent.
    pub(crate) parent: u32,
    /// The kind of the host's link, such as `macvlan`.
    pub(crate) kind: String,
    /// The addresses of the container: each has a route and a neighbour on the host's link.
    pub(crate) addresses: Vec<IpAddr>,
    /// The addresses of the host that have a route in the container.
    pub(crate) host: Vec<IpAddr>,
    /// All other destinations that have such a route.
    pub(crate) routes: Vec<IpNet>,
}

/// A network namespace of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Home {
    inode: u64,
    /// `None` before Linux 5.14.
    cookie: Option<u64>,
}

impl Home {
    /// The namespace of this process. `host` is a socket there.
    pub(crate) fn here(host: &Rtnl) -> Result<Self> {
        Ok(Self { inode: NetnsId::current()?.inode(), cookie: host.netns_cookie()? })
    }
}

/// How an ADD found the container's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    /// CNI_NETNS.
    path: PathBuf,
    dev: u64,
    inode: u64,
    /// [`NetnsFile::since`].
    since: i64,
    /// `None` before Linux 5.14.
    cookie: Option<u64>,
    /// The mount namespace in which the path is valid.
    mounts: u64,
}

impl Place {
    /// The namespace of a container. `inside` is a socket there.
    pub(crate) fn new(path: &Path, netns: &Netns, inside: &Rtnl) -> Result<Self> {
        let NetnsFile { id, since } = netns.seen();
        let (mounts, cookie) = (NetnsId::mounts()?.inode(), inside.netns_cookie()?);
        Ok(Self { path: path.to_owned(), dev: id.dev(), inode: id.inode(), since, cookie, mounts })
    }

    /// The inode of the namespace.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    fn presence(&self) -> Presence {
        let is_elsewhere = match NetnsFile::at(&self.path) {
            Ok(file) if (file.id.dev(), file.id.inode()) == (self.dev, self.inode) => {
                return if file.since == self.since { Presence::There } else { self.compare_cookies() };
            }
            Ok(_) => true,
            Err(error) => matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOTDIR)),
        };
        let has_its_meaning = NetnsId::mounts().is_ok_and(|mounts| mounts.inode() == self.mounts);
        if is_elsewhere && has_its_meaning { Presence::Gone } else { Presence::Unknown }
    }

    /// The kernel gives the inode of a namespace that has ended to the next one. The cookie tells them apart.
    fn compare_cookies(&self) -> Presence {
        let Some(was) = self.cookie else { return Presence::There };
        let now = Netns::open(&self.path).and_then(|netns| Rtnl::open_in(&netns)?.netns_cookie());
        match now {
            Ok(Some(now)) if now != was => Presence::Gone,
            Ok(_) => Presence::There,
            Err(_) => Presence::Unknown,
        }
    }
}

/// Whether the container of an attachment exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    /// The runtime has removed the container's namespace: the path of ADD does not lead there any more.
    Gone,
    /// The path was valid in another mount namespace, or cannot be looked at.
    Unknown,
}

impl Record {
    pub(crate) fn presence(&self) -> Presence {
        self.container.presence()
    }

    /// Returns true if the parent with this ifindex carries the attachment.
    pub(crate) fn is_of(&self, parent: u32) -> bool {
        self.access.as_ref().is_some_and(|access| access.parent == parent)
            || self.vlan.is_some_and(|vlan| vlan.parent == parent)
    }

    /// The addresses of the container that have a route on the host.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        self.access.as_ref().map_or(&[], |access| &access.addresses)
    }

    /// Writes the record, in place of an earlier one. If the process is killed meanwhile, the earlier one stays.
    pub(crate) fn write(&self) -> Result<()> {
        file::create_private_directory(&directory())?;
        let text = serde_json::to_vec(self).map_err(|error| {
            let source = std::io::Error::other(error);
            linux::Error::Io { operation: "write a record".to_owned(), source }
        })?;
        // There is one writer at a time.
        let new = Path::new(LOCKS).join("attachment.new");
        file::write_private(&new, &text)?;
        let path = path(&self.container_id, &self.ifname);
        fs::rename(&new, &path).map_err(|source| {
            let _ = fs::remove_file(&new);
            linux::Error::Io { operation: format!("write {}", path.display()), source }.into()
        })
    }

    pub(crate) fn remove(&self) -> Result<()> {
        remove(&path(&self.container_id, &self.ifname))
    }
}

/// The content of a record's file.
#[derive(Debug)]
pub(crate) enum Content {
    Whole(Box<Record>),
    /// An ADD was killed before it changed the host.
    Incomplete,
    /// Another release has written it, with other keys. Only that release knows what they mean.
    OtherSchema,
}

/// Reads the record of an attachment. Costs one system call if there is none.
pub(crate) fn of(attachment: &Attachment<'_>) -> Result<Option<Content>> {
    read(&path_of(attachment))
}

/// Removes the record of an attachment. Succeeds if there is none.
pub(crate) fn remove_of(attachment: &Attachment<'_>) -> Result<()> {
    remove(&path_of(attachment))
}

/// Returns the path of the record of an attachment.
pub(crate) fn path_of(attachment: &Attachment<'_>) -> PathBuf {
    path(attachment.container_id, attachment.ifname)
}

/// Returns true if an attachment has had a record since the last reboot.
pub(crate) fn is_in_use() -> bool {
    directory().exists()
}

/// Lists the files of all records. Empty if there is no directory.
pub(crate) fn paths() -> Result<Vec<PathBuf>> {
    let directory = directory();
    let failed = |source| linux::Error::Io { operation: format!("read directory {}", directory.display()), source };
    match file::entries(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound || is_of_another_user(&error) => Ok(Vec::new()),
        Err(error) => Err(failed(error).into()),
        Ok(entries) => {
            // After the first error, the iterator may never end.
            let names = entries.map(|entry| Ok(directory.join(entry?.name))).collect::<std::io::Result<_>>();
            Ok(names.map_err(failed)?)
        }
    }
}

/// Reads the record in a file. Returns `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Content>> {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    let outcome = file::open_itself(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    match outcome {
        Ok(_) => Ok(Some(decode(&text))),
        // No record has a name that is too long.
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename) =>
        {
            Ok(None)
        }
        Err(error) if is_of_another_user(&error) => Ok(None),
        Err(source) => Err(linux::Error::Io { operation: format!("read {}", path.display()), source }.into()),
    }
}

/// Reads the text of a record. The last byte of an object ends it, so an object that can be read is not incomplete.
fn decode(text: &[u8]) -> Content {
    match cni::object::parse(text, &[]) {
        Err(_) => Content::Incomplete,
        Ok(map) => match record_of(&Object::root(&map)) {
            Some(record) => Content::Whole(Box::new(record)),
            None => Content::OtherSchema,
        },
    }
}

/// Reads a record, key by key: derived code would be larger. Returns `None` if a key is missing, or for another schema.
fn record_of(keys: &Object<'_>) -> Option<Record> {
    let text = |keys: &Object<'_>, key| Some(keys.item(key)?.text().ok()?.to_owned());
    let number = |keys: &Object<'_>, key| Some(keys.item(key)?.signed().ok()?.cast_unsigned());
    let schema = number(keys, "schema").filter(|schema| *schema == SCHEMA)?;
    let (home, container) = (keys.object("home").ok()?, keys.object("container").ok()?);
    Some(Record {
        schema,
        network: text(keys, "network")?,
        container_id: text(keys, "containerID")?,
        ifname: text(keys, "ifname")?,
        home: Home { inode: number(&home, "inode")?, cookie: number(&home, "cookie") },
        container: Place {
            path: text(&container, "path")?.into(),
            dev: number(&container, "dev")?,
            inode: number(&container, "inode")?,
            since: container.item("since")?.signed().ok()?,
            cookie: number(&container, "cookie"),
            mounts: number(&container, "mounts")?,
        },
        vlan: part(keys, "vlan", |keys| {
            Some(Vlan {
                parent: keys.item("parent")?.number().ok()?,
                id: keys.item("id")?.number().ok()?.try_into().ok()?,
                protocol: keys.item("protocol")?.text().ok()?.parse().ok()?,
            })
        })?,
        access: part(keys, "hostAccess", |keys| {
            Some(Access {
                parent: keys.item("parent")?.number().ok()?,
                kind: text(keys, "kind")?,
                addresses: parsed(keys, "addresses")?,
                host: parsed(keys, "host")?,
                routes: parsed(keys, "routes")?,
            })
        })?,
    })
}

/// Reads a part that may be missing.
fn part<T>(keys: &Object<'_>, key: &'static str, read: impl FnOnce(&Object<'_>) -> Option<T>) -> Option<Option<T>> {
    let Some(item) = keys.item(key) else { return Some(None) };
    read(&item.object().ok()?).map(Some)
}

fn parsed<T: FromStr>(keys: &Object<'_>, key: &'static str) -> Option<Vec<T>> {
    keys.item(key)?.items().ok()?.iter().map(|item| item.text().ok()?.parse().ok()).collect()
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(linux::Error::Io { operation: format!("remove {}", path.display()), source }.into())
        }
        _ => Ok(()),
    }
}

/// Returns true if a record cannot be read because another user owns the directory of the records. For root of a user
/// namespace, it belongs to root of the host. So this process has written none of the records.
fn is_of_another_user(error: &std::io::Error) -> bool {
    let owner = |path: &str| Some(fs::metadata(path).ok()?.uid());
    error.kind() == ErrorKind::PermissionDenied
        && owner(LOCKS).is_some_and(|theirs| owner("/proc/thread-self").is_some_and(|own| own != theirs))
}

fn directory() -> PathBuf {
    Path::new(LOCKS).join(DIRECTORY)
}

/// Neither part of the name has a colon, so two attachments never have the same file.
fn path(container_id: &str, ifname: &str) -> PathBuf {
    directory().join(format!("{container_id}:{ifname}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Place {
        let path = Path::new("/proc/thread-self/ns/net");
        Place::new(path, &Netns::open(path).unwrap(), &Rtnl::open().unwrap()).unwrap()
    }

    fn record() -> Record {
        Record {
            schema: SCHEMA,
            network: "lan".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
            home: Home { inode: 4_026_531_840, cookie: Some(7) },
            container: Place { path: "/run/netns/a \"b\"".into(), ..here() },
            vlan: None,
            access: Some(access()),
        }
    }

    fn access() -> Access {
        Access {
            parent: 2,
            kind: "macvlan".into(),
            addresses: vec!["192.168.50.5".parse().unwrap(), "fd50::5".parse().unwrap()],
            host: vec!["192.168.50.10".parse().unwrap()],
            routes: vec!["10.96.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()],
        }
    }

    #[test]
    fn a_record_is_read_back_and_any_part_of_it_is_incomplete() {
        let mut record = record();
        let vlan = |protocol| Vlan { parent: 2, id: 4094, protocol };
        for (cookie, vlan, access) in [
            (Some(7), None, Some(access())),
            (None, Some(vlan(VlanProtocol::Dot1Q)), None),
            (None, Some(vlan(VlanProtocol::Dot1Ad)), Some(access())),
        ] {
            (record.home.cookie, record.container.cookie) = (cookie, cookie);
            (record.vlan, record.access) = (vlan, access);
            let text = serde_json::to_vec(&record).unwrap();
            assert!(matches!(decode(&text), Content::Whole(read) if *read == record));
            assert!((0..text.len()).all(|end| matches!(decode(&text[..end]), Content::Incomplete)));
        }
    }

    /// It was removed as incomplete, and the routes to its container with it when another one got the address.
    #[test]
    fn a_record_of_another_release_is_not_incomplete() {
        let text = String::from_utf8(serde_json::to_vec(&record()).unwrap()).unwrap();
        for (part, other) in [
            ("\"schema\":1", "\"schema\":2"),
            ("\"schema\":1,", ""),
            ("\"kind\"", "\"type\""),
            ("[\"192.168.50.5\"", "[{}"),
        ] {
            assert!(text.contains(part), "{text} has no {part}");
            assert!(matches!(decode(text.replace(part, other).as_bytes()), Content::OtherSchema), "{part}");
        }
    }

    #[test]
    fn a_container_is_gone_if_its_path_leads_elsewhere() {
        let here = here();
        assert_eq!(here.presence(), Presence::There);
        let nowhere = Place { path: "/nonexistent".into(), ..here.clone() };
        assert_eq!(nowhere.presence(), Presence::Gone);
        assert_eq!(Place { inode: here.inode + 1, ..here.clone() }.presence(), Presence::Gone);
        let elsewhere = Place { mounts: here.mounts + 1, ..nowhere };
        assert_eq!(elsewhere.presence(), Presence::Unknown, "the path has another meaning there");
    }

    /// The kernel gives an inode to the next namespace, and a fixed path can lead to it.
    #[test]
    fn a_container_is_gone_if_another_namespace_has_its_path_and_its_inode() {
        let later = Place { since: 1, ..here() };
        assert_eq!(later.presence(), Presence::There, "the namespace is the same, and its file on nsfs is a new one");
        if let Some(cookie) = later.cookie {
            assert_eq!(Place { cookie: Some(cookie + 1), ..later.clone() }.presence(), Presence::Gone);
        }
        assert_eq!(Place { cookie: None, ..later }.presence(), Presence::There, "it is not known");
    }
}
