//! Opening files that somebody else may have put there, so that what is no file can neither hold us up nor lead us away.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

/// Opens a regular file for reading, through symbolic links. A FIFO is not waited for, and a device not even opened.
///
/// # Errors
///
/// `InvalidInput` for anything but a regular file, else what the kernel says.
pub fn open(path: &Path) -> io::Result<File> {
    let regular = |is_file: bool| match is_file {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    };
    regular(fs::metadata(path)?.is_file())?;
    let file = options().open(path)?;
    // It may be another one by now.
    regular(file.metadata()?.is_file())?;
    Ok(file)
}

/// Opens what lies at the path itself for reading, and waits for nothing: a symbolic link is `ELOOP`. Whether it is a
/// regular file is for the caller to see.
///
/// # Errors
///
/// What the kernel says.
pub fn open_itself(path: &Path) -> io::Result<File> {
    options().custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW).open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::errno::Errno;

    use super::*;

    #[test]
    fn only_a_regular_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| folder.path().join(name));
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        open(&file).unwrap();
        open(&link).unwrap();
        for path in [&fifo, folder.path(), Path::new("/dev/null")] {
            assert_eq!(open(path).unwrap_err().to_string(), "not a regular file", "{}", path.display());
        }
        let gone = open(&folder.path().join("gone")).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(Errno::ENOENT as i32));
    }

    #[test]
    fn what_lies_at_the_path_itself_is_never_waited_for_and_no_link_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| folder.path().join(name));
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_itself(&file).unwrap().metadata().unwrap().is_file());
        assert!(!open_itself(&fifo).unwrap().metadata().unwrap().is_file());
        assert_eq!(open_itself(&link).unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
    }
}
