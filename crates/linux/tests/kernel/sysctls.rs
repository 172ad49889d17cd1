//! Sysctls of a network namespace.

use linux::{Errno, Error, Netns, sysctl};

use crate::sandbox::{another_netns, sandboxed};

const KEY: &str = "net/ipv4/conf/lo/arp_notify";

#[test]
fn a_sysctl_is_written_in_one_namespace_only() {
    sandboxed(|| {
        let here = Netns::current().unwrap();
        let there = another_netns();
        assert_eq!(sysctl::read(&there, KEY).unwrap(), "0");
        sysctl::write(&there, KEY, "1").unwrap();
        assert_eq!(sysctl::read(&there, KEY).unwrap(), "1");
        assert_eq!(sysctl::read(&here, KEY).unwrap(), "0");
    });
}

#[test]
fn after_a_failed_write_the_other_sysctls_are_written_too() {
    sandboxed(|| {
        let here = Netns::current().unwrap();
        let settings = [
            (KEY, "1"),
            ("net/ipv4/conf/absent/arp_notify", "1"),
            ("net/ipv4/conf/lo/arp_ignore", "nonsense"),
            ("net/ipv6/conf/lo/ndisc_notify", "1"),
        ];
        let results = sysctl::write_all(&here, &settings);
        let texts: Vec<_> = results.iter().map(|result| result.as_ref().map_err(Error::to_string)).collect();
        assert_eq!(
            texts,
            [
                Ok(&()),
                Err("write /proc/sys/net/ipv4/conf/absent/arp_notify: no such file or directory".to_owned()),
                Err("write /proc/sys/net/ipv4/conf/lo/arp_ignore: invalid argument".to_owned()),
                Ok(&()),
            ]
        );
        assert_eq!(results[1].as_ref().unwrap_err().errno(), Some(Errno::ENOENT));
        assert_eq!(sysctl::read(&here, KEY).unwrap(), "1");
        assert_eq!(sysctl::read(&here, "net/ipv6/conf/lo/ndisc_notify").unwrap(), "1");
    });
}

/// The kernel answers a read with EIO until there is a secret.
#[test]
fn a_sysctl_that_cannot_be_read_before_it_is_set_is_written() {
    const SECRET: &str = "net/ipv6/conf/lo/stable_secret";
    sandboxed(|| {
        let here = Netns::current().unwrap();
        assert_eq!(sysctl::read(&here, SECRET).unwrap_err().errno(), Some(Errno::EIO));
        for secret in ["2001:0db8:0000:0000:0000:0000:0000:0007", "2001:0db8:0000:0000:0000:0000:0000:0008"] {
            sysctl::write(&here, SECRET, secret).unwrap();
            assert_eq!(sysctl::read(&here, SECRET).unwrap(), secret);
        }
        let refused = sysctl::write(&here, SECRET, "nonsense").unwrap_err();
        assert_eq!(refused.to_string(), format!("write /proc/sys/{SECRET}: I/O error"));
    });
}

#[test]
fn replace_all_returns_the_old_values_and_skips_missing_sysctls() {
    sandboxed(|| {
        let here = Netns::current().unwrap();
        let settings = [(KEY, "1"), ("net/ipv4/conf/absent/arp_notify", "1"), ("net/ipv6/conf/lo/ndisc_notify", "0")];
        let before = sysctl::replace_all(&here, &settings).unwrap();
        assert_eq!(before, [(KEY.into(), "0".into()), ("net/ipv6/conf/lo/ndisc_notify".into(), "0".to_owned())]);
        assert_eq!(sysctl::read(&here, KEY).unwrap(), "1");
        let before: Vec<_> = before.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert!(sysctl::write_all(&here, &before).iter().all(Result::is_ok));
        assert_eq!(sysctl::read(&here, KEY).unwrap(), "0");
    });
}
