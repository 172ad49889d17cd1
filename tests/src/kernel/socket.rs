//! A blocking netlink socket. netlink-packet-route encodes and decodes the messages.

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The longest time that the kernel may take. It takes microseconds.
const ANSWER_SECONDS: i64 = 10;

/// A netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("open a netlink socket");
        socket.bind_auto().expect("bind a netlink socket");
        socket.connect(&SocketAddr::new(0, 0)).expect("connect a netlink socket to the kernel");
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))
            .expect("give a netlink socket a receive timeout");
        Self { socket, sequence: 0 }
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Errno> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// Sends a request for a list and returns all answers.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Vec<RouteNetlinkMessage> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP).expect("the kernel refused a dump")
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).expect("send a netlink request");

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().expect("the kernel did not answer a netlink request");
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .unwrap_or_else(|e| panic!("decode an answer of the kernel: {e}"));
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Error(e) => {
                        return match e.code {
                            None => Ok(answers),
                            Some(code) => Err(Errno::from_raw(code.get().abs())),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    other => panic!("an unexpected answer: {other:?}"),
                }
            }
        }
    }
}
