//! Sends requests and reads their answers: an acknowledgement, one object, or a dump.

use std::fmt;
use std::ops::ControlFlow;

use nix::errno::Errno;

use super::acknowledgement::{end_of_dump, verdict};
use super::constants::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};
use super::socket::{Received, Size, Socket};
use super::{Decode, Message, Messages, Request};
use crate::{Error, Result};

/// At most so many times a dump is started again because its objects have changed.
pub(crate) const DUMP_ATTEMPTS: u32 = 16;

impl Socket {
    /// Sends a request with `NLM_F_ACK`, and waits for the kernel's verdict.
    pub(crate) fn acknowledge(&mut self, mut request: Request, operation: fmt::Arguments<'_>) -> Result<()> {
        self.converse(&mut request, Size::Small, operation, |message| {
            Ok(if message.kind == NLMSG_ERROR { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    /// Asks for one object. `decode` reads its message.
    pub(crate) fn get<T>(
        &mut self,
        mut request: Request,
        operation: fmt::Arguments<'_>,
        decode: impl Fn(&Message<'_>) -> Decode<T>,
    ) -> Result<T> {
        self.converse(&mut request, Size::Usual, operation, |message| {
            if message.kind == NLMSG_ERROR {
                return Err("acknowledgement without an object");
            }
            Ok(ControlFlow::Break(decode(message)?))
        })
    }

    /// Asks for all objects of a kind, with `NLM_F_DUMP`. `decode` adds the object of a message to the list.
    ///
    /// If objects change during a dump, the kernel marks it as inconsistent (`NLM_F_DUMP_INTR`), and it is started
    /// again. After [`DUMP_ATTEMPTS`] such dumps, the error is `EINTR`.
    pub(crate) fn dump<T>(
        &mut self,
        mut request: Request,
        operation: fmt::Arguments<'_>,
        decode: impl Fn(&Message<'_>, &mut Vec<T>) -> Decode<()>,
    ) -> Result<Vec<T>> {
        self.be_strict();
        let mut list = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            list.clear();
            let mut torn = false;
            let ended = self.converse(&mut request, Size::Unknown, operation, |message| {
                torn |= message.flags & NLM_F_DUMP_INTR != 0;
                if message.kind == NLMSG_DONE {
                    return Ok(ControlFlow::Break(end_of_dump(message)?));
                }
                decode(message, &mut list)?;
                Ok(ControlFlow::Continue(()))
            })?;
            ended.map_err(|(errno, ext_ack)| Error::Kernel { operation: operation.to_string(), errno, ext_ack })?;
            if !torn {
                return Ok(list);
            }
        }
        Err(Error::kernel(operation, Errno::EINTR))
    }

    /// Asks for all objects of a kind, as [`Socket::dump`], until `look` ends the dump. Takes the socket, because the
    /// rest of the dump stays unread in it. Returns false if the dump is inconsistent.
    pub(crate) fn dump_until(
        mut self,
        mut request: Request,
        operation: fmt::Arguments<'_>,
        mut look: impl FnMut(&Message<'_>) -> Decode<ControlFlow<()>>,
    ) -> Result<bool> {
        self.be_strict();
        let mut torn = false;
        let ended = self.converse(&mut request, Size::Unknown, operation, |message| {
            torn |= message.flags & NLM_F_DUMP_INTR != 0;
            if message.kind == NLMSG_DONE {
                return Ok(ControlFlow::Break(end_of_dump(message)?));
            }
            Ok(look(message)?.map_break(Ok))
        })?;
        ended.map_err(|(errno, ext_ack)| Error::Kernel { operation: operation.to_string(), errno, ext_ack })?;
        Ok(!torn)
    }

    /// Sends a request, and calls `take` with each message of the answer until `take` returns a value. Ignores messages
    /// that answer another request: an earlier request may have timed out, and its answer may arrive now.
    fn converse<T>(
        &mut self,
        request: &mut Request,
        size: Size,
        operation: fmt::Arguments<'_>,
        mut take: impl FnMut(&Message<'_>) -> Decode<ControlFlow<T>>,
    ) -> Result<T> {
        let malformed = |what| Error::malformed(operation, what);
        let port = self.port();
        let mut sequence = self.send(request).map_err(|errno| Error::kernel(operation, errno))?;
        let mut asked_again = false;
        loop {
            let datagram = match self.receive(size, operation)? {
                Received::Whole(datagram) => datagram,
                // This is the rest of an earlier dump that ended with an error.
                Received::Cut(beginning) if !answers(beginning, sequence, port) => continue,
                Received::Cut(_) if size == Size::Usual && !asked_again => {
                    asked_again = true;
                    sequence = self.send(request).map_err(|errno| Error::kernel(operation, errno))?;
                    continue;
                }
                Received::Cut(_) => return Err(malformed("datagram cut short")),
            };
            for message in Messages::new(datagram) {
                let message = message.map_err(malformed)?;
                if message.sequence != sequence || message.port != port {
                    continue;
                }
                match message.kind {
                    NLMSG_NOOP => continue,
                    NLMSG_OVERRUN => return Err(Error::no_answer(operation, Errno::ENOBUFS)),
                    NLMSG_ERROR => {
                        verdict(&message).map_err(malformed)?.map_err(|(errno, ext_ack)| Error::Kernel {
                            operation: operation.to_string(),
                            errno,
                            ext_ack,
                        })?;
                    }
                    _ => {}
                }
                if let ControlFlow::Break(value) = take(&message).map_err(malformed)? {
                    return Ok(value);
                }
            }
        }
    }
}

/// Returns true if a datagram with this beginning answers a request: compares the last two fields of `struct nlmsghdr`.
fn answers(beginning: &[u8], sequence: u32, port: u32) -> bool {
    let field =
        |at: usize| beginning.get(at..at + 4).map(|bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    field(8) == Some(sequence) && field(12) == Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::constants::{NLM_F_ACK, RTM_GETLINK, RTM_NEWLINK};

    /// Asks for the loopback by its ifindex. Every network namespace has it.
    fn question(flags: u16) -> Request {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&1_u32.to_ne_bytes());
        Request::new(RTM_GETLINK, flags, &header)
    }

    #[test]
    fn answers_to_an_earlier_request_are_skipped() {
        let mut socket = Socket::open().unwrap();
        // No code reads the answers to these two requests, which are a link and an error.
        socket.send(&mut question(0)).unwrap();
        socket.send(&mut Request::new(RTM_GETLINK, NLM_F_ACK, &[])).unwrap();
        let sequence = socket
            .get(question(0), format_args!("find lo"), |message| {
                assert_eq!(message.kind, RTM_NEWLINK);
                Ok(message.sequence)
            })
            .unwrap();
        assert_eq!(sequence, 3);
    }

    #[test]
    fn an_object_larger_than_the_buffer_is_requested_again() {
        let mut socket = Socket::open().unwrap();
        socket.set_buffer(64);
        let kind = socket.get(question(0), format_args!("find lo"), |message| Ok(message.kind)).unwrap();
        assert_eq!(kind, RTM_NEWLINK);
    }

    #[test]
    fn the_error_has_the_text_of_the_decoder() {
        let mut socket = Socket::open().unwrap();
        let error = socket.get(question(0), format_args!("find lo"), |_| Err::<(), _>("too short")).unwrap_err();
        assert_eq!(error.to_string(), "find lo: malformed reply from the kernel: too short");
    }
}
