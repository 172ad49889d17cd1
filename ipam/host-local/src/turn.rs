//! Whose turn it is in a set: the address that was given last, in a file that the reference has too.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::lock::is_the_only_entry;

/// Where a set goes on, as the reference's file says it: a hint, which may be missing or foreign.
pub(crate) struct Turn {
    /// The address that was given last; `None` where nothing sensible is written.
    pub(crate) last: Option<IpAddr>,
    pub(crate) path: PathBuf,
    /// The file and its length, where it is ours to write into.
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
        // No address is longer; what is, is none.
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0).unwrap_or_default();
        let last = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
        let length = (writable && is_the_only_entry(&path, &file)).then_some(length as u64);
        Self { last, path, own: length.map(|length| (file, length)) }
    }

    /// Writes the text into the file, where it is as long as what is there: one such write is whole or not at all, as a
    /// new file is, and costs far less than a rename over a file, of which ext4 begins to write the new one to the disk
    /// before it returns. (auto_da_alloc) `false` where it was not done.
    pub(crate) fn overwrite(&self, text: &str) -> bool {
        let fits = |(_, length): &&(File, u64)| *length == text.len() as u64;
        self.own.as_ref().filter(fits).is_some_and(|(file, _)| file.write_all_at(text.as_bytes(), 0).is_ok())
    }
}
