//! The text form of a lease: the file name is the address, the content is the owner.

use std::fmt;
use std::net::IpAddr;

/// The owner of a lease: one interface of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner<'a> {
    pub(crate) container_id: &'a str,
    pub(crate) ifname: &'a str,
}

impl Owner<'_> {
    /// The content of a lease file of this owner. The reference compares it byte for byte.
    pub(crate) fn content(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.container_id, self.ifname)
    }
}

/// The content of a lease file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// The form that both implementations write.
    Owned { container_id: String, ifname: String },
    /// The form of old releases of the reference, without an interface name.
    Legacy { container_id: String },
    /// An incomplete file, left by a crash: empty, NULs only, or an ID with a separator and no interface name.
    Torn { container_id: Option<String> },
    /// Any other content. It is never freed by itself.
    Garbage,
}

impl Content {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        if bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
            return Self::Torn { container_id: None };
        }
        let plain = |text: &str| !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        let Ok(text) = std::str::from_utf8(bytes.trim_ascii_start()) else { return Self::Garbage };
        match text.trim_ascii_end().split_once("\r\n") {
            Some((id, ifname)) if plain(id) && plain(ifname) => {
                Self::Owned { container_id: id.to_owned(), ifname: ifname.to_owned() }
            }
            Some(_) => Self::Garbage,
            None => {
                let id = text.trim_ascii_end();
                match (plain(id), text[id.len()..].starts_with('\r')) {
                    (false, _) => Self::Garbage,
                    (true, true) => Self::Torn { container_id: Some(id.to_owned()) },
                    // An editor adds a line feed, so it does not prove that the file is incomplete.
                    (true, false) => Self::Legacy { container_id: id.to_owned() },
                }
            }
        }
    }

    pub(crate) fn is_torn(&self) -> bool {
        matches!(self, Self::Torn { .. })
    }

    pub(crate) fn is_of(&self, owner: &Owner<'_>) -> bool {
        matches!(self, Self::Owned { container_id, ifname }
            if container_id == owner.container_id && ifname == owner.ifname)
    }

    /// Returns true if the content names this container and no interface. A DEL frees such a lease if the owner has
    /// no other.
    pub(crate) fn names_only(&self, id: &str) -> bool {
        match self {
            Self::Legacy { container_id } | Self::Torn { container_id: Some(container_id) } => container_id == id,
            _ => false,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned { container_id, ifname } => write!(f, "{}", Owner { container_id, ifname }),
            Self::Legacy { container_id } => write!(f, "{container_id}"),
            Self::Torn { container_id: None } => f.write_str("no container (the lease file is empty)"),
            Self::Torn { container_id: Some(id) } => write!(f, "{id} (the lease file is incomplete)"),
            Self::Garbage => f.write_str("an unknown owner (the lease file has another form)"),
        }
    }
}

/// The file name for an address, as Go's `net.IP.String()` writes it. An IPv4-mapped IPv6 address is written as IPv4.
pub(crate) fn file_name(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

/// The address for a file name. Only the canonical form is accepted.
pub(crate) fn address(name: &str) -> Option<IpAddr> {
    name.parse().ok().filter(|ip| file_name(*ip) == name)
}

#[cfg(test)]
mod tests {
    use cni::env::{why_no_identifier, why_no_ifname};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_names_are_the_forms_that_go_prints() {
        for (text, go) in [
            ("10.0.0.2", "10.0.0.2"),
            ("::ffff:10.0.0.2", "10.0.0.2"),
            ("::", "::"),
            ("::1", "::1"),
            ("fd00:0:0:0:0:0:0:2", "fd00::2"),
            ("FD00::ABCD", "fd00::abcd"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("1:0:0:0:0:0:0:0", "1::"),
            ("::10.0.0.2", "::a00:2"),
            ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
        ] {
            assert_eq!(file_name(text.parse().unwrap()), go, "{text}");
            assert!(address(go).is_some(), "{go}");
        }
    }

    #[test]
    fn other_names_are_no_leases() {
        for name in
            ["lock", "last_reserved_ip.0", "010.0.0.2", "10.0.0", "FD00::2", "::ffff:10.0.0.2", "fe80::1%eth0", ""]
        {
            assert_eq!(address(name), None, "{name}");
        }
    }

    #[test]
    fn content_reads_back_and_white_space_around_it_does_not_count() {
        let owner = Owner { container_id: "c1", ifname: "eth0" };
        assert_eq!(owner.content(), "c1\r\neth0");
        for text in ["c1\r\neth0", "\r\n c1\r\neth0\n \n"] {
            assert!(Content::parse(text.as_bytes()).is_of(&owner), "{text:?}");
        }
        assert!(!Content::parse(b"c1\r\neth1").is_of(&owner));
    }

    #[test]
    fn torn_is_only_what_a_writer_can_leave_behind() {
        for text in ["", "\0\0\0", " \r\n"] {
            assert_eq!(Content::parse(text.as_bytes()), Content::Torn { container_id: None }, "{text:?}");
        }
        for text in ["c1\r", "c1\r\n"] {
            let torn = Content::Torn { container_id: Some("c1".into()) };
            assert_eq!(Content::parse(text.as_bytes()), torn, "{text:?}");
        }
        for text in ["c1", "c1\n"] {
            assert_eq!(Content::parse(text.as_bytes()), Content::Legacy { container_id: "c1".into() }, "{text:?}");
        }
        for bytes in [&b"c1\neth0"[..], b"c1\r\neth0\0\0", b"a b", b"a\r\nb\r\nc", b"\xff\xfe"] {
            assert_eq!(Content::parse(bytes), Content::Garbage, "{bytes:?}");
        }
    }

    proptest! {
        /// Property: every valid owner reads back. A truncated lease file is never read as a lease of this owner.
        #[test]
        fn every_owner_reads_back_and_part_of_one_is_another(
            id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,70}",
            // At most 15 bytes.
            ifname in "[^/:%\\s\\x00-\\x1f\\x7f-\\x9f]{1,3}|[!-$&-.0-9;-~]{1,15}",
            length in any::<prop::sample::Index>(),
        ) {
            prop_assume!(why_no_identifier(&id).is_none() && why_no_ifname(&ifname).is_none());
            let owner = Owner { container_id: &id, ifname: &ifname };
            let written = owner.content();
            let expected = Content::Owned { container_id: id.clone(), ifname: ifname.clone() };
            prop_assert_eq!(Content::parse(written.as_bytes()), expected);
            prop_assert!(!Content::parse(&written.as_bytes()[..length.index(written.len())]).is_of(&owner));
        }

        /// Property: every address reads back. An IPv4-mapped address reads back as IPv4, as in Go.
        #[test]
        fn every_address_reads_back_from_its_file_name(ip in any::<IpAddr>(), mapped in any::<bool>()) {
            let written = match ip {
                IpAddr::V4(ip) if mapped => ip.to_ipv6_mapped().into(),
                ip => ip,
            };
            prop_assert_eq!(address(&file_name(written)), Some(ip.to_canonical()));
        }
    }
}
