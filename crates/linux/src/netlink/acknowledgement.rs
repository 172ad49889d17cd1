//! The kernel's verdicts: `NLMSG_ERROR`, which also says "done well", and the end of a
//! dump, each with the kernel's explanation where there is one.

use nix::errno::Errno;

use super::constants::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSGERR_ATTR_MSG};
use super::message::HEADER;
use super::{Attributes, Decode, Message, aligned};

/// Success, or the error and the kernel's words for it.
pub(super) type Verdict = Result<(), (Errno, Option<String>)>;

/// Decodes `NLMSG_ERROR`: the error, the header of the request, the whole request unless
/// the reply is capped (`NETLINK_CAP_ACK`, or a success), then the explanation.
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

/// Decodes `NLMSG_DONE`: kernels before 4.15 or so may leave the error out.
pub(super) fn end_of_dump(message: &Message<'_>) -> Decode<Verdict> {
    if message.payload.is_empty() {
        return Ok(Ok(()));
    }
    let (code, explanation) = code(message)?;
    Ok(judge(code, message.flags, Some(explanation)))
}

/// Zero, or the error number that the kernel sends negated.
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
