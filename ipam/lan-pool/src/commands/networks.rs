//! Finds the networks with lan-pool among the network configurations of this node.

use std::fs;
use std::path::{Path, PathBuf};

use cni::Object;
use serde_json::{Map, Value};

use super::Error;
use crate::config::Place;

/// The directory of the network configurations.
const FOLDER: &str = "/etc/cni/net.d";

/// The endings that runtimes read.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// A network with lan-pool.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) place: Place,
    /// The parent of its containers, if the configuration names one.
    pub(crate) master: Option<String>,
}

/// Reads the networks of these files, or of all files in the usual directory. At least one must have lan-pool.
pub(crate) fn all(files: &[PathBuf]) -> Result<Vec<Network>, Error> {
    let (files, place) = match files {
        [] => (listed()?, FOLDER.to_owned()),
        files => (files.to_vec(), files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")),
    };
    let mut networks = Vec::new();
    for file in &files {
        networks.append(&mut read(file)?);
    }
    match networks.is_empty() {
        true => Err(Error::Usage(format!("no network of {place} has lan-pool as ipam.type; say --conf FILE"))),
        false => Ok(networks),
    }
}

/// As [`all`], and there must be only one LAN.
pub(crate) fn one(files: &[PathBuf]) -> Result<Network, Error> {
    let mut networks = all(files)?;
    let network = networks.swap_remove(0);
    match networks.iter().find(|other| other.place.lan != network.place.lan) {
        Some(other) => {
            let (one, other) = (&network.place.lan, &other.place.lan);
            Err(Error::Usage(format!("there are several LANs, {one} and {other}; say --conf FILE")))
        }
        None => Ok(network),
    }
}

fn listed() -> Result<Vec<PathBuf>, Error> {
    let failed = || Error::io("read", Path::new(FOLDER));
    let mut files = Vec::new();
    for entry in fs::read_dir(FOLDER).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_some_and(|ending| ENDINGS.iter().any(|its| ending == *its)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<Network>, Error> {
    let bytes = fs::read(file).map_err(Error::io("read", file))?;
    let wrong = |error: cni::Error| Error::Pool(format!("{}: {error}", file.display()));
    let conf = cni::config::parse(&bytes).map_err(wrong)?;
    let plugins = conf.get("plugins").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let network = |plugin: &Map<String, Value>| {
        let keys = Object::root(plugin);
        let ipam = keys.object("ipam")?;
        let place = (ipam.text("type")? == Some("lan-pool")).then(|| Place::read(&ipam)).transpose()?;
        let master = keys.text("master")?.map(str::to_owned);
        Ok(place.map(|place| Network { place, master }))
    };
    std::iter::once(&conf).chain(plugins).filter_map(|plugin| network(plugin).map_err(wrong).transpose()).collect()
}
