//! Decodes the kernel's verdict: `NLMSG_ERROR`, which also reports success, and the end of a dump.

use nix::errno::Errno;

use super::constants::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSGERR_ATTR_MSG};
use super::message::HEADER;
use super::{Attributes, Decode, Message, aligned};

/// Success, or the error number with the kernel's explanation.
pub(super) type Verdict = Result<(), (Errno, Option<String>)>;

/// Decodes `NLMSG_ERROR`. It has the error number, the header of the request, the rest of the request, and the
/// explanation. A capped reply lacks the rest of the request. (`NLM_F_CAPPED`)
pub(super) fn verdict(message: &Message<'_>) -> Decode<Verdict> {
    let (code, echo) = code(message)?;
    let explanation = if message.flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        let length = echo.first_chunk().ok_or("acknowledgement too short")?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        aligned(length.max(HEADER))
    };
    Ok(judge(code, message.flags, echo.get(explanation..)))
}

/// Decodes `NLMSG_DONE`. Kernels before about 4.15 may leave the error out.
pub(super) fn end_of_dump(message: &Message<'_>) -> Decode<Verdict> {
    if message.payload.is_empty() {
        return Ok(Ok(()));
    }
    let (code, explanation) = code(message)?;
    Ok(judge(code, message.flags, Some(explanation)))
}

/// Reads the error number, which the kernel sends as a negative number. Zero is success.
fn code<'a>(message: &Message<'a>) -> Decode<(Option<Errno>, &'a [u8])> {
    let (code, rest) = message.payload.split_first_chunk().ok_or("acknowledgement too short")?;
    match i32::from_ne_bytes(*code).checked_neg() {
        Some(0) => Ok((None, rest)),
        Some(number) if number > 0 => Ok((Some(Errno::from_raw(number)), rest)),
        _ => Err("acknowledgement with a positive error number"),
    }
}

fn judge(code: Option<Errno>, flags: u16, explanation: Option<&[u8]>) -> Verdict {
    let Some(errno) = code else {
        return Ok(());
    };
    // A damaged explanation must not hide the error that it explains.
    let text = explanation
        .filter(|_| flags & NLM_F_ACK_TLVS != 0)
        .and_then(|bytes| {
            Attributes::new(bytes).map_while(Result::ok).find(|attribute| attribute.kind == NLMSGERR_ATTR_MSG)
        })
        .map(|attribute| attribute.text())
        .filter(|text| !text.is_empty());
    Err((errno, text))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use netlink_packet_core::{DoneMessage, ErrorMessage, NetlinkHeader, NetlinkPayload};
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Request;
    use crate::netlink::constants::{NLMSG_DONE, NLMSG_ERROR};
    use crate::netlink::reference::{emit_payload, only};

    const TEXT: &str = "Nexthop has invalid gateway";

    /// Writes NLMSGERR_ATTR_OFFS, then NLMSGERR_ATTR_MSG.
    fn explanation() -> Vec<u8> {
        let mut attributes = Request::new(0, 0, &[]);
        attributes.u32(2, 36);
        attributes.text(1, TEXT);
        attributes.sealed(0, 0)[HEADER..].to_vec()
    }

    /// Lets netlink-packet-core write an error, and reads it.
    fn error(code: i32, flags: u16, echo: &[u8], tail: &[u8]) -> Decode<Verdict> {
        let mut payload = ErrorMessage::default();
        payload.code = NonZeroI32::new(code);
        payload.header = [echo, tail].concat();
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let bytes = emit_payload(NetlinkPayload::Error(payload), header);
        let message = only(&bytes);
        assert_eq!(message.kind, NLMSG_ERROR);
        verdict(&message)
    }

    fn request() -> Vec<u8> {
        let mut request = Request::new(24, 0x4, &[0; 12]);
        request.bytes(5, &[172, 16, 0, 1]);
        request.sealed(1, 2).to_vec()
    }

    #[test]
    fn an_explanation_after_the_capped_request_is_found() {
        let request = request();
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let verdict = error(-101, flags, &request[..HEADER], &explanation());
        assert_eq!(verdict, Ok(Err((Errno::ENETUNREACH, Some(TEXT.to_owned())))));
    }

    #[test]
    fn an_explanation_after_the_whole_request_is_found() {
        let verdict = error(-101, NLM_F_ACK_TLVS, &request(), &explanation());
        assert_eq!(verdict, Ok(Err((Errno::ENETUNREACH, Some(TEXT.to_owned())))));
    }

    #[test]
    fn without_the_flag_no_explanation_is_read() {
        let verdict = error(-101, 0, &request(), &explanation());
        assert_eq!(verdict, Ok(Err((Errno::ENETUNREACH, None))));
    }

    #[test]
    fn a_damaged_explanation_does_not_hide_the_error() {
        let request = request();
        for tail in [&[0; 8][..], &[255; 8], &[1]] {
            let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
            let verdict = error(-16, flags, &request[..HEADER], tail);
            assert_eq!(verdict, Ok(Err((Errno::EBUSY, None))));
        }
        // The length in the echoed request is too large.
        let mut echo = request.clone();
        echo[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let verdict = error(-16, NLM_F_ACK_TLVS, &echo, &explanation());
        assert_eq!(verdict, Ok(Err((Errno::EBUSY, None))));
    }

    #[test]
    fn zero_is_success_and_a_positive_number_is_an_error() {
        let request = request();
        let header = &request[..HEADER];
        assert_eq!(error(0, NLM_F_CAPPED, header, &[]), Ok(Ok(())));
        assert_eq!(error(5, NLM_F_CAPPED, header, &[]), Err("acknowledgement with a positive error number"));
    }

    #[test]
    fn a_dump_can_end_with_an_error_and_an_explanation() {
        let done = |code, extended_ack| {
            let mut payload = DoneMessage::default();
            payload.code = code;
            payload.extended_ack = extended_ack;
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_ACK_TLVS;
            let bytes = emit_payload(NetlinkPayload::Done(payload), header);
            let message = only(&bytes);
            assert_eq!(message.kind, NLMSG_DONE);
            end_of_dump(&message)
        };
        assert_eq!(done(0, vec![]), Ok(Ok(())));
        assert_eq!(done(-22, explanation()), Ok(Err((Errno::EINVAL, Some(TEXT.to_owned())))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            flags in any::<u16>(),
            payload in prop::collection::vec(any::<u8>(), 0..128),
        ) {
            let message = Message { kind: NLMSG_ERROR, flags, sequence: 0, port: 0, payload: &payload };
            let first = payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
            if let Ok(Ok(())) = verdict(&message) {
                prop_assert_eq!(first, Some(0));
            }
            if let Ok(Err((errno, _))) = end_of_dump(&message) {
                prop_assert_eq!(Some(errno), first.map(|code| Errno::from_raw(-code)));
            }
        }

        /// An empty explanation is read as none.
        #[test]
        fn an_explanation_reads_back(
            number in 1..134_i32, capped in any::<bool>(), text in "[^\0]{0,60}",
            echoed in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut request = Request::new(24, 0, &[]);
            request.bytes(5, &echoed);
            let request = request.sealed(1, 2);
            let mut explanation = Request::new(0, 0, &[]);
            explanation.u32(2, 36);
            explanation.text(NLMSGERR_ATTR_MSG, &text);
            let echo = if capped { &request[..HEADER] } else { request };
            let flags = NLM_F_ACK_TLVS | if capped { NLM_F_CAPPED } else { 0 };
            let read = error(-number, flags, echo, &explanation.sealed(0, 0)[HEADER..]);
            prop_assert_eq!(read, Ok(Err((Errno::from_raw(number), Some(text).filter(|text| !text.is_empty())))));
        }
    }
}
