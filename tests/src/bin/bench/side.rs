//! Who is measured: the programs, and where they lie.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use e2e::chart;
use e2e::{Binaries, Lab, binaries};
use plotters::style::RGBColor;

use crate::Result;

/// The Go module of the reference, and the file that pins its version for `make peers`.
const REFERENCE_MODULE: &str = "github.com/containernetworking/plugins";
const REFERENCE_PIN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/reference/go.mod"));

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Ours, all names one file: IPAM is called as a function.
    Ours,
    /// Ours, each name a file of its own: IPAM is executed.
    Copies,
    /// The reference plugins.
    Reference,
    /// The bare kernel operations in one static process.
    Floor,
}

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "Underlay",
            Self::Copies => "Underlay, IPAM executed",
            Self::Reference => "reference",
            Self::Floor => "floor",
        }
    }

    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Copies => "copies",
            Self::Reference => "reference",
            Self::Floor => "floor",
        }
    }

    pub(crate) const fn colour(self) -> RGBColor {
        match self {
            Self::Ours => chart::BLUE,
            Self::Copies => chart::SKY,
            Self::Reference => chart::VERMILION,
            Self::Floor => chart::GREY,
        }
    }
}

/// The files of all sides.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    ours: PathBuf,
    copies: PathBuf,
    pub(crate) reference: PathBuf,
    pub(crate) floor: PathBuf,
}

impl Programs {
    /// `lab` has a directory for the copies.
    pub(crate) fn find(lab: &Lab) -> Result<Self> {
        let scratch = lab.path("copies");
        fs::create_dir(&scratch)?;
        Ok(Self {
            ours: Binaries::HardLinks.directory(&scratch),
            copies: Binaries::PlainCopies.directory(&scratch),
            reference: Binaries::Reference.directory(&scratch),
            floor: binaries::floor(),
        })
    }

    /// The directory of a side's plugins: what `CNI_PATH` gets. The floor has none.
    pub(crate) fn directory(&self, side: Side) -> &Path {
        match side {
            Side::Ours => &self.ours,
            Side::Copies => &self.copies,
            Side::Reference => &self.reference,
            Side::Floor => Path::new(""),
        }
    }

    /// The program of that name.
    pub(crate) fn program(&self, side: Side, name: &str) -> PathBuf {
        match side {
            Side::Floor => self.floor.clone(),
            _ => self.directory(side).join(name),
        }
    }

    /// Whose reference it is, for a reader.
    pub(crate) fn reference_name(&self) -> String {
        let mut lines = REFERENCE_PIN.lines().map(str::split_whitespace);
        let version = lines.find_map(|mut words| (words.next() == Some(REFERENCE_MODULE)).then(|| words.next())?);
        match version {
            Some(version) if env::var_os(binaries::REFERENCE_VARIABLE).is_none() => {
                format!("{REFERENCE_MODULE} {version}")
            }
            _ => "a build of one's own (`REFERENCE`)".to_owned(),
        }
    }

    /// Bytes of macvlan and host-local on disk, counting one file once.
    pub(crate) fn bytes_on_disk(&self, side: Side) -> Result<u64> {
        let mut files = Vec::new();
        for name in ["macvlan", "host-local"] {
            let metadata = fs::metadata(self.program(side, name))?;
            files.push((metadata.dev(), metadata.ino(), metadata.size()));
        }
        files.dedup();
        Ok(files.iter().map(|(_, _, size)| size).sum())
    }
}
