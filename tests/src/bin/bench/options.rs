//! The options of the command line.

use std::path::PathBuf;

use e2e::document;

use crate::Result;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) out: PathBuf,
    /// The directory of the page and the plots.
    pub(crate) docs: PathBuf,
}

impl Options {
    /// `[--quick] [--out FILE]`. A quick run writes the page beside its JSON file, and not into docs/.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut quick, mut out) =
            (false, PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/bench.json")));
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => quick = true,
                "--out" => out = arguments.next().ok_or("--out needs a file")?.into(),
                _ => return Err(format!("{argument}: only --quick and --out FILE are known").into()),
            }
        }
        let beside = out.parent().map(PathBuf::from).unwrap_or_default();
        let docs = if quick { beside } else { document::folder() };
        Ok(Self { quick, out, docs })
    }
}
