//! Netlink datagrams in the memory of a traced process. To simulate a refusal, a request gets a type that the kernel
//! does not know, and its answer gets the error under test.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::registers::Entry;

/// `struct nlmsghdr`: length 4, type 2, flags 2, sequence 4, port 4. (include/uapi/linux/netlink.h)
const HEADER: usize = 16;
const TYPE: usize = 4;
const SEQUENCE: usize = 8;
const NLMSG_ERROR: u16 = 2;
/// Above `RTM_MAX`, so the kernel refuses it.
const NO_TYPE: u16 = 0xfff0;
/// The offset of the pointer to the vector in `struct msghdr`, on 64 bits. Its length follows.
const VECTOR: u64 = 16;
/// Larger than any datagram.
const MANY: u64 = 1 << 20;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    /// The offset of its header.
    at: usize,
    kind: u16,
    sequence: u32,
}

/// A request that was changed so that the kernel refuses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    descriptor: u64,
    sequence: u32,
    kind: u16,
    errno: Errno,
    address: u64,
}

/// The types of the requests in the datagram that a task is about to send. Empty if it is not netlink.
pub(super) fn requests(task: Pid, entry: &Entry) -> Vec<u16> {
    match sent(task, entry) {
        Ok((_, bytes)) => messages(&bytes).iter().map(|message| message.kind).collect(),
        Err(_) => Vec::new(),
    }
}

/// Changes one request of the datagram that a task is about to send, so that the kernel refuses it.
pub(super) fn spoil(task: Pid, entry: &Entry, request: usize, errno: Errno) -> io::Result<Refused> {
    let (start, bytes) = sent(task, entry)?;
    let messages = messages(&bytes);
    let message = messages.get(request).ok_or_else(|| io::Error::other("no such request"))?;
    let address = start + message.at as u64 + TYPE as u64;
    memory(task)?.write_all_at(&NO_TYPE.to_ne_bytes(), address)?;
    Ok(Refused { descriptor: entry.arguments[0], sequence: message.sequence, kind: message.kind, errno, address })
}

impl Refused {
    /// Restores the request after it was sent.
    pub(super) fn restore(&self, task: Pid) -> io::Result<()> {
        memory(task)?.write_all_at(&self.kind.to_ne_bytes(), self.address)
    }

    /// If the task has just received the kernel's answer, writes the error into it.
    pub(super) fn answer(&self, task: Pid, entry: &Entry, length: i64) -> io::Result<()> {
        let Ok(length @ 1..) = u64::try_from(length) else { return Ok(()) };
        if entry.arguments[0] != self.descriptor {
            return Ok(());
        }
        let (start, room) = buffer(task, entry)?;
        let mut bytes = vec![0; length.min(room).min(MANY) as usize];
        let memory = memory(task)?;
        memory.read_exact_at(&mut bytes, start)?;
        for message in messages(&bytes).iter().filter(|its| (its.kind, its.sequence) == (NLMSG_ERROR, self.sequence)) {
            let payload = start + (message.at + HEADER) as u64;
            memory.write_all_at(&(-(self.errno as i32)).to_ne_bytes(), payload)?;
            // The answer also has the header of the request, so its type is restored.
            memory.write_all_at(&self.kind.to_ne_bytes(), payload + 4 + TYPE as u64)?;
        }
        Ok(())
    }
}

pub(super) fn sends(number: i64) -> bool {
    matches!(number, libc::SYS_sendto | libc::SYS_sendmsg)
}

pub(super) fn receives(number: i64) -> bool {
    matches!(number, libc::SYS_recvfrom | libc::SYS_recvmsg)
}

fn sent(task: Pid, entry: &Entry) -> io::Result<(u64, Vec<u8>)> {
    let (start, length) = buffer(task, entry)?;
    let mut bytes = vec![0; length.min(MANY) as usize];
    memory(task)?.read_exact_at(&mut bytes, start)?;
    Ok((start, bytes))
}

/// The address and the length of the buffer of a datagram.
fn buffer(task: Pid, entry: &Entry) -> io::Result<(u64, u64)> {
    if matches!(entry.number, libc::SYS_sendto | libc::SYS_recvfrom) {
        return Ok((entry.arguments[1], entry.arguments[2]));
    }
    let memory = memory(task)?;
    let word = |address: u64| -> io::Result<u64> {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, address)?;
        Ok(u64::from_ne_bytes(bytes))
    };
    // Our messages have one part.
    let vector = word(entry.arguments[1] + VECTOR)?;
    Ok((word(vector)?, word(vector + 8)?))
}

fn memory(task: Pid) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(format!("/proc/{task}/mem"))
}

/// The messages of a datagram. Empty if it is not netlink.
fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER) {
        let word = |from: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| header[from + byte]));
        let length = word(0) as usize;
        if length < HEADER || at + length > bytes.len() {
            return Vec::new();
        }
        let kind = u16::from_ne_bytes([header[TYPE], header[TYPE + 1]]);
        messages.push(Message { at, kind, sequence: word(SEQUENCE) });
        at += length.next_multiple_of(4);
    }
    if at >= bytes.len() { messages } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_has_several_messages_or_is_not_netlink() {
        let both = [message(16, 1, b"abc"), message(24, 2, b"")].concat();
        assert_eq!(
            messages(&both),
            [Message { at: 0, kind: 16, sequence: 1 }, Message { at: 20, kind: 24, sequence: 2 }]
        );
        assert_eq!(messages(&both[..both.len() - 1]), []);
        assert_eq!(messages(b"{\"cniVersion\": \"1.0.0\"}"), []);
        assert_eq!(messages(b""), []);
    }
}
