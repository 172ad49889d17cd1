//! Reads resolv.conf(5) for the `dns` of a result.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use cni::Dns;

use crate::error::Error;

/// A limit far above every real file.
const MAX_BYTES: usize = 1 << 16;

/// Reads a file in the format of resolv.conf(5). /dev/null means "none".
///
/// # Errors
///
/// The file cannot be read, is no regular file, or is too long.
pub fn read(path: &Path) -> Result<Dns, Error> {
    if is_null(path) {
        return Ok(Dns::default());
    }
    let mut bytes = Vec::new();
    let read = linux::file::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(Error::io("read", path))?;
    if bytes.len() > MAX_BYTES {
        let cause = format!("is longer than {MAX_BYTES} bytes");
        return Err(Error::Config { place: format!("ipam.resolvConf {}", path.display()), cause });
    }
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

fn is_null(path: &Path) -> bool {
    let device = |path: &Path| {
        let metadata = path.metadata().ok()?;
        metadata.file_type().is_char_device().then(|| metadata.rdev())
    };
    device(path).is_some_and(|number| device(Path::new("/dev/null")) == Some(number))
}

/// As in the reference and unlike glibc, all `search` lines count. The last `domain` line counts.
pub fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().or(dns.domain),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            // Comments, and options that a result cannot contain, such as sortlist.
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_line_means_what_it_means_to_the_reference() {
        let dns = parse(
            "nameserver 192.0.2.1\nnameserver 192.0.2.2 extra\n# nameserver 192.0.2.9\n; nameserver 192.0.2.9\n\
             domain first.example\ndomain lan.example other\nsearch a b\nsearch c\noptions ndots:5 edns0\n\
             options rotate\nsortlist 192.0.2.0\n  nameserver\t192.0.2.3\nNAMESERVER 192.0.2.9\n\
             nameserver fe80::1%eth0\r\nnameserver\ndomain\nsearch\noptions\n\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "fe80::1%eth0"]);
        assert_eq!(dns.domain.as_deref(), Some("lan.example"));
        assert_eq!(dns.search, ["a", "b", "c"]);
        assert_eq!(dns.options, ["ndots:5", "edns0", "rotate"]);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert!(parse("").is_empty());
    }

    #[test]
    fn dev_null_says_nothing_and_another_device_is_refused() {
        assert!(read(Path::new("/dev/null")).unwrap().is_empty());
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().to_string(), "read /dev/zero: not a regular file");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert_eq!(error.to_string(), "read /nonexistent/resolv.conf: No such file or directory (os error 2)");
    }

    fn any_words() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[^\\s]{1,9}", 0..4)
    }

    fn lines(key: &str, words: &[String]) -> String {
        words.iter().map(|word| format!("{key} {word}\n")).collect()
    }

    proptest! {
        /// Property: words on one line or on several lines read back. Only the last domain counts. Comments and
        /// unknown keys are ignored.
        #[test]
        fn what_is_written_reads_back(
            nameservers in any_words(), domains in any_words(), search in any_words(), options in any_words(),
            comment in "[^\r\n]{0,9}",
        ) {
            let text = [
                lines("options", &options),
                format!("#{comment}\n;{comment}\nsortlist {comment}\n"),
                lines("domain", &domains),
                format!("search {}\r\n", search.join("\t ")),
                lines("\tnameserver", &nameservers),
            ];
            let domain = domains.last().cloned();
            prop_assert_eq!(parse(&text.concat()), Dns { nameservers, domain, search, options });
        }
    }
}
