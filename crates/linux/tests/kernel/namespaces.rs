//! Network namespaces: opening, comparing and entering them.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use linux::{Error, Netns, Rtnl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::sandbox::{another_netns, ip, nic, sandboxed};

fn current_inode() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").expect("own namespace").ino()
}

fn assert_not_netns(path: &Path) {
    match Netns::open(path).expect_err("it is not a network namespace") {
        Error::NotNetns { path: named } => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_paths_of_one_namespace_have_the_same_id() {
    sandboxed(|| {
        let here = Netns::current().unwrap();
        let there = another_netns();
        assert_ne!(here.id(), there.id());
        assert_eq!(here.id(), Netns::current().unwrap().id());
        assert_eq!(here.id().inode(), current_inode());

        let task = nix::unistd::gettid();
        let path = format!("/proc/self/task/{task}/ns/net");
        let again = Netns::open(Path::new(&path)).unwrap();
        assert_eq!(again.id(), here.id());
        assert_eq!(again.path(), Path::new(&path));
        let id = here.id();
        assert_eq!(id.to_string(), format!("{}:{}", id.dev(), id.inode()));
    });
}

#[test]
fn the_error_of_a_missing_file_says_so() {
    let path = PathBuf::from("/run/netns/there/is/no/such/namespace");
    let error = Netns::open(&path).unwrap_err();
    assert!(matches!(&error, Error::NetnsMissing { path: named } if *named == path));
    assert_eq!(error.to_string(), format!("open network namespace \"{}\": no such file or directory", path.display()));
}

#[test]
fn files_of_other_kinds_are_not_network_namespaces() {
    let directory = tempfile::tempdir().unwrap();
    assert_not_netns(directory.path());

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert_not_netns(&file);

    // Opening a FIFO for reading usually waits for a writer.
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    assert_not_netns(&fifo);
}

#[test]
fn namespaces_of_other_kinds_are_not_network_namespaces() {
    for kind in ["mnt", "uts", "ipc", "user", "pid"] {
        assert_not_netns(&Path::new("/proc/self/ns").join(kind));
    }
}

#[test]
fn a_thread_enters_a_namespace_and_returns() {
    sandboxed(|| {
        nic();
        let there = another_netns();
        let home = current_inode();
        let (inside, links) = there.enter(|| (current_inode(), ip("-o link show"))).unwrap();
        assert_eq!(inside, there.id().inode());
        assert!(!links.contains("nic0"), "{links}");
        assert_eq!(current_inode(), home);
    });
}

#[test]
fn a_thread_returns_from_a_namespace_after_a_panic() {
    sandboxed(|| {
        let there = another_netns();
        let home = current_inode();
        let result = catch_unwind(AssertUnwindSafe(|| {
            there.enter(|| {
                assert_eq!(current_inode(), there.id().inode());
                std::panic::resume_unwind(Box::new("a bug"));
            })
        }));
        let payload = result.unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"a bug"));
        assert_eq!(current_inode(), home);
    });
}

#[test]
fn a_thread_enters_a_namespace_from_another_and_returns() {
    sandboxed(|| {
        let home = current_inode();
        let outer = another_netns();
        let inner = another_netns();
        outer
            .enter(|| {
                inner.enter(|| assert_eq!(current_inode(), inner.id().inode())).unwrap();
                assert_eq!(current_inode(), outer.id().inode());
            })
            .unwrap();
        assert_eq!(current_inode(), home);
    });
}

/// It returned to the home namespace instead. (C11)
#[test]
fn a_thread_returns_to_the_namespace_it_came_from_and_not_home() {
    sandboxed(|| {
        let home = Netns::current().unwrap();
        let [outer, inner] = [another_netns(), another_netns()].map(|netns| netns.from_home(&home).unwrap());
        let seen = outer.enter(|| (inner.enter(current_inode).unwrap(), current_inode())).unwrap();
        assert_eq!(seen, (inner.id().inode(), outer.id().inode()));
        assert_eq!(current_inode(), home.id().inode());
    });
}

#[test]
fn a_socket_stays_in_the_namespace_where_it_was_opened() {
    sandboxed(|| {
        nic();
        let there = another_netns();
        let home = current_inode();
        let mut inside = Rtnl::open_in(&there).unwrap();
        assert_eq!(current_inode(), home);
        assert_eq!(inside.link("nic0").unwrap(), None);
        let mut here = Rtnl::open().unwrap();
        let seen = there.enter(|| here.link("nic0").unwrap()).unwrap();
        assert!(seen.is_some());
    });
}

#[test]
fn descriptors_are_closed_on_exec() {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::os::fd::AsFd;
    let netns = Netns::current().unwrap();
    let flags = fcntl(netns.as_fd(), FcntlArg::F_GETFD).unwrap();
    assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
    assert!(netns.as_fd().as_raw_fd() > 2);
}

#[test]
fn each_namespace_has_its_own_cookie() {
    sandboxed(|| {
        let here = Rtnl::open().unwrap().netns_cookie().unwrap();
        assert!(here.is_some(), "Linux 5.14 or newer");
        assert_eq!(Rtnl::open().unwrap().netns_cookie().unwrap(), here);
        assert_ne!(Rtnl::open_in(&another_netns()).unwrap().netns_cookie().unwrap(), here);
    });
}
