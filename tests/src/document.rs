//! The sections of docs/benchmarks.md, which the benchmarks write, and the form of numbers and dates in them.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The directory docs/ of the repository.
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))
}

/// A part of docs/benchmarks.md between two markers. One program writes it.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The name in the markers.
    pub name: &'static str,
    pub command: &'static str,
}

impl Section {
    /// Replaces the section in `folder`/benchmarks.md. A new section is added at the end.
    pub fn insert(&self, folder: &Path, text: &str) -> io::Result<()> {
        self.insert_into(&folder.join("benchmarks.md"), text)
    }

    /// As [`Section::insert`], for another page.
    pub fn insert_into(&self, page: &Path, text: &str) -> io::Result<()> {
        let old = match fs::read_to_string(page) {
            Ok(old) => old,
            Err(e) if e.kind() == io::ErrorKind::NotFound => "# Benchmarks\n".to_owned(),
            Err(e) => return Err(e),
        };
        fs::write(page, self.inserted(&old, text))
    }

    fn inserted(&self, old: &str, text: &str) -> String {
        let begin = format!("<!-- {}: written by `{}` -->\n", self.name, self.command);
        let end = format!("<!-- {}: end -->\n", self.name);
        let new = format!("{begin}{}\n{end}", text.trim_end());
        match (old.find(&begin), old.find(&end)) {
            (Some(from), Some(to)) => format!("{}{new}{}", &old[..from], &old[to + end.len()..]),
            _ => format!("{}\n\n{new}", old.trim_end()),
        }
    }
}

pub fn wrapped(paragraph: &str) -> String {
    const WIDTH: usize = 118;
    let mut text = String::new();
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text + "\n"
}

/// The kernel, the number of processors, and the date.
pub fn setting() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {cpus} CPUs, {}", kernel(), today())
}

/// The release of the kernel, without the part that a distribution adds.
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('-').next().unwrap_or_default().to_owned()
}

pub fn grouped(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1000), number % 1000),
    }
}

/// A number with at least three significant digits, except for small ones.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => grouped(value.round() as u64),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Year, month and day of the machine's clock.
pub fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    date(now.unwrap_or_default().as_secs())
}

/// Year, month and day of a time in seconds since 1970.
pub fn date(seconds: u64) -> String {
    // Computes the Gregorian date, with years that begin in March.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}
