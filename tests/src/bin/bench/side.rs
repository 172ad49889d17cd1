//! The programs that are measured.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::chart;
use e2e::{Binaries, Lab, binaries};
use plotters::style::RGBColor;

use crate::Result;

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

    /// The name and version of the reference, as its macvlan states them on stderr when nothing calls it.
    pub(crate) fn reference_name(&self) -> Result<String> {
        let output =
            Command::new(self.program(Side::Reference, "macvlan")).env_clear().stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let version = text.lines().next().and_then(|line| line.strip_prefix("CNI macvlan plugin "));
        let version = version.ok_or_else(|| format!("the reference's macvlan does not state its version: {text}"))?;
        Ok(format!("containernetworking/plugins {version}"))
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
