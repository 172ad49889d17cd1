//! The programs that are measured.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::chart;
use e2e::{Binaries, Lab, binaries};
use plotters::style::RGBColor;

use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Ours as one file: IPAM is a function.
    Ours,
    /// Ours as one file for each name: IPAM is executed.
    Copies,
    /// As ours, with host access.
    Access,
    Reference,
    /// The bare kernel operations in one static process.
    Floor,
}

impl Side {
    const fn row(self) -> (&'static str, &'static str, RGBColor) {
        match self {
            Self::Ours => ("Underlay", "ours", chart::BLUE),
            Self::Copies => ("Underlay, IPAM executed", "copies", chart::SKY),
            Self::Access => ("Underlay, host access", "host-access", chart::AMBER),
            Self::Reference => ("reference", "reference", chart::VERMILION),
            Self::Floor => ("floor", "floor", chart::GREY),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        self.row().0
    }

    pub(crate) const fn key(self) -> &'static str {
        self.row().1
    }

    pub(crate) const fn colour(self) -> RGBColor {
        self.row().2
    }
}

/// The sides of bursts, growth and divided DELs.
pub(crate) const COMPARED: [Side; 3] = [Side::Ours, Side::Reference, Side::Floor];

/// The index of a side in [`COMPARED`].
pub(crate) fn index(side: Side) -> usize {
    COMPARED.iter().position(|its| *its == side).expect("a side that is compared")
}

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

    /// The directory of a side's plugins, for `CNI_PATH`. The floor has none.
    pub(crate) fn directory(&self, side: Side) -> &Path {
        match side {
            Side::Ours | Side::Access => &self.ours,
            Side::Copies => &self.copies,
            Side::Reference => &self.reference,
            Side::Floor => Path::new(""),
        }
    }

    pub(crate) fn program(&self, side: Side, name: &str) -> PathBuf {
        match side {
            Side::Floor => self.floor.clone(),
            _ => self.directory(side).join(name),
        }
    }

    /// Name and version of the reference. Its macvlan prints them on stderr if it is called without CNI_COMMAND.
    pub(crate) fn reference_name(&self) -> Result<String> {
        let output =
            Command::new(self.program(Side::Reference, "macvlan")).env_clear().stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let version = text.lines().next().and_then(|line| line.strip_prefix("CNI macvlan plugin "));
        let version = version.ok_or_else(|| format!("the reference's macvlan does not print its version: {text}"))?;
        Ok(format!("containernetworking/plugins {version}"))
    }

    /// The bytes of macvlan and host-local on disk.
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
