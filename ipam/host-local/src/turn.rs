//! The rotation of a set: the last leased address, in a file that the reference uses too.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::lock::is_the_only_entry;

/// The position of a set. It is a hint: the file may be missing or foreign.
pub(crate) struct Turn {
    /// The last leased address. `None` if the file has none.
    pub(crate) last: Option<IpAddr>,
    pub(crate) path: PathBuf,
    /// The file and its length, if it may be written in place.
    own: Option<(File, u64)>,
}

impl Turn {
    pub(crate) fn read(path: PathBuf) -> Self {
        let nothing = |path| Self { last: None, path, own: None };
        if !fs::symlink_metadata(&path).is_ok_and(|entry| entry.is_file()) {
            return nothing(path);
        }
        let open = |writing| OpenOptions::new().read(true).write(writing).open(&path).map(|file| (file, writing));
        let Ok((file, writable)) = open(true).or_else(|_| open(false)) else { return nothing(path) };
        // No address is longer.
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0).unwrap_or_default();
        let last = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
        let length = (writable && is_the_only_entry(&path, &file)).then_some(length as u64);
        Self { last, path, own: length.map(|length| (file, length)) }
    }

    /// Writes the text in place if it has the length of the old text. Such a write is complete or not there. A rename
    /// costs far more: ext4 then writes the new file to the disk at once (auto_da_alloc). Returns false if it was not
    /// done.
    pub(crate) fn overwrite(&self, text: &str) -> bool {
        let fits = |(_, length): &&(File, u64)| *length == text.len() as u64;
        self.own.as_ref().filter(fits).is_some_and(|(file, _)| file.write_all_at(text.as_bytes(), 0).is_ok())
    }
}
