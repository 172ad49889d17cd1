//! The options of the command line.

use std::path::PathBuf;

use e2e::document;

use crate::Result;

/// How the benchmark is run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Few rounds of everything: to see that it works.
    pub(crate) quick: bool,
    /// The JSON file.
    pub(crate) out: PathBuf,
    /// Where the section and the plots go.
    pub(crate) docs: PathBuf,
}

impl Options {
    /// `[--quick] [--out FILE]`. What a quick run says goes beside its JSON file, and not into docs/.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut quick, mut out) =
            (false, PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/bench.json")));
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => quick = true,
                "--out" => out = arguments.next().ok_or("--out wants a file")?.into(),
                _ => return Err(format!("{argument}: only --quick and --out FILE are known").into()),
            }
        }
        let beside = out.parent().map(PathBuf::from).unwrap_or_default();
        let docs = if quick { beside } else { document::folder() };
        Ok(Self { quick, out, docs })
    }
}
