//! The netlink socket and the netns. Several requests are sent at once, and only needed answers are read.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use crate::Result;
use crate::message::{FLAGS, Request, SEQUENCE, get_link};

/// `RTMGRP_IPV6_IFADDR`. (include/uapi/linux/rtnetlink.h)
pub(crate) const IPV6_ADDRESSES: u32 = 0x100;

const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFA_F_TENTATIVE: u8 = 0x40;
const IFA_F_DADFAILED: u8 = 0x08;

pub(crate) fn enter(netns: &File) -> Result<()> {
    Ok(setns(netns, CloneFlags::CLONE_NEWNET)?)
}

pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: [u8; 8192],
}

impl Socket {
    pub(crate) fn open(groups: u32) -> Result<Self> {
        let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
        let fd = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        if groups != 0 {
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        }
        Ok(Self { fd, buffer: [0; 8192] })
    }

    /// Sends all requests in one message, and waits for the acknowledgement of the last one. Returns the first refusal.
    pub(crate) fn transact(&mut self, requests: &[Request]) -> Result<()> {
        let last = requests.len() as u32;
        let mut bytes = Vec::with_capacity(1024);
        for (sequence, Request(request)) in (1..).zip(requests) {
            let begin = bytes.len();
            bytes.extend(request);
            bytes[begin + SEQUENCE..][..4].copy_from_slice(&u32::to_ne_bytes(sequence));
            if sequence == last {
                let flags = u16::from_ne_bytes([request[FLAGS], request[FLAGS + 1]]) | NLM_F_ACK;
                bytes[begin + FLAGS..][..2].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        self.find(|message| match message.kind() {
            NLMSG_ERROR => match i32::from_ne_bytes(message.word(16)) {
                0 => Some(Ok(())).filter(|_| message.word(SEQUENCE) == last.to_ne_bytes()),
                errno => Some(Err(Errno::from_raw(-errno).into())),
            },
            _ => None,
        })
    }

    pub(crate) fn ifindex(&mut self, name: &str) -> Result<u32> {
        send(self.fd.as_raw_fd(), &get_link(name).0, MsgFlags::empty())?;
        self.find(|message| match message.kind() {
            RTM_NEWLINK => Some(Ok(u32::from_ne_bytes(message.word(20)))),
            NLMSG_ERROR => Some(Err(Errno::from_raw(-i32::from_ne_bytes(message.word(16))).into())),
            _ => None,
        })
    }

    /// Waits until this number of IPv6 addresses has passed duplicate address detection.
    pub(crate) fn wait_usable(&mut self, mut addresses: usize) -> Result<()> {
        self.find(|message| {
            // struct ifaddrmsg: family, prefix length, flags, scope.
            let [_, _, flags, scope] = message.word(16);
            if message.kind() != RTM_NEWADDR || scope != RT_SCOPE_UNIVERSE {
                return None;
            }
            if flags & IFA_F_DADFAILED != 0 {
                return Some(Err("another machine has the address".into()));
            }
            addresses -= usize::from(flags & IFA_F_TENTATIVE == 0);
            Some(Ok(())).filter(|_| addresses == 0)
        })
    }

    /// Reads messages until one of them is an answer.
    fn find<T>(&mut self, mut answer: impl FnMut(Message<'_>) -> Option<Result<T>>) -> Result<T> {
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut rest = &self.buffer[..length];
            while let Some(head) = rest.first_chunk::<4>() {
                let size = u32::from_ne_bytes(*head) as usize;
                if let Some(found) = rest.get(..size).and_then(|bytes| answer(Message(bytes))) {
                    return found;
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// One message of the kernel. The relevant kinds have at least 24 bytes.
#[derive(Clone, Copy)]
struct Message<'a>(&'a [u8]);

impl Message<'_> {
    fn kind(self) -> u16 {
        u16::from_ne_bytes([self.0[4], self.0[5]])
    }

    fn word(self, at: usize) -> [u8; 4] {
        self.0.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default()
    }
}
