//! Responses that are cut off, late, damaged or too large.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

/// Each request with its good replies.
fn exchanges() -> Vec<(Request, Reply)> {
    vec![
        (create(), made()),
        (create(), made().chunked(100)),
        (create(), exists()),
        (get(), Reply::json(200, &object())),
        (get(), missing().chunked(7)),
        (delete(), deleted()),
        (delete(), missing()),
        (delete(), failure(409, "Conflict", "Precondition failed", NAME)),
        (Request::OfNode, list(&[object()], "")),
    ]
}

#[test]
fn a_response_that_is_cut_at_any_byte_is_lost() {
    let (mut cuts, mut requests) = (Vec::new(), Vec::new());
    for (index, (request, reply)) in exchanges().into_iter().enumerate() {
        for length in 0..reply.content().len() {
            cuts.push(exchanges().swap_remove(index).1.cut(length));
            requests.push((request.clone(), length));
        }
    }
    let (server, mut client) = client(cuts);
    for (request, length) in &requests {
        let answer = client.ask(request, soon());
        let text = lost(&answer);
        assert!(text.ends_with("the server has closed the connection"), "{request:?} {length}: {text}");
    }
    assert!(requests.len() > 2000);
    assert_eq!(server.requests().len(), requests.len());
}

#[test]
fn a_response_in_chunks_is_read() {
    for size in [1, 10, 100, 10_000] {
        assert_eq!(answer(&create(), made().chunked(size)), Answer::Made(uid()), "{size}");
    }
}

#[test]
fn a_server_without_an_answer_is_lost_at_the_deadline() {
    for start in ["", "HTTP/1.1 201", "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n{"] {
        let (server, mut client) = client(vec![Reply::bytes(start)]);
        let begin = Instant::now();
        let answer = client.ask(&create(), begin + Duration::from_millis(300));
        assert!(lost(&answer).ends_with("timed out"), "{answer:?}");
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_response_that_is_not_understood_is_lost() {
    let body = object().to_string();
    let with = |headers: &str| Reply::bytes(format!("HTTP/1.1 201 Created\r\n{headers}\r\n{body}")).closing();
    let length = body.len();
    let json = "Content-Type: application/json\r\n";
    for (reply, cause) in [
        (with(json), "the length of its body is not known"),
        (
            with(&format!("{json}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")),
            "the length of its body is not known",
        ),
        (with(&format!("{json}Content-Length: {length}\r\nContent-Length: 1\r\n")), "it has two lengths"),
        (with(&format!("{json}Content-Length: +{length}\r\n")), "its length is wrong"),
        (with(&format!("{json}Content-Length: -1\r\n")), "its length is wrong"),
        (with(&format!("{json}Content-Length: \r\n")), "its length is wrong"),
        (with(&format!("{json}Content-Length: {length}\r\nContent-Encoding: gzip\r\n")), "it is compressed"),
        (with("Transfer-Encoding: gzip, chunked\r\n"), "its transfer encoding is not chunked"),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "its transfer encoding is not chunked"),
        (Reply::bytes("HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), "the size of a chunk is wrong"),
        (with("Content-Length: 1048577\r\n"), "too large"),
        (with("Content-Length: 99999999999999999999\r\n"), "its length is wrong"),
        (Reply::bytes("HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n"), "too large"),
        (Reply::bytes("HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"), "too large"),
        (Reply::bytes("HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc"), "a chunk does not end"),
        (Reply::bytes("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "another protocol"),
        (Reply::bytes("SSH-2.0-OpenSSH_10.0\r\n"), "not HTTP"),
        (Reply::bytes("HTTP/2 201\r\n\r\n"), "not HTTP"),
        (Reply::bytes(format!("HTTP/1.1 201 X\r\nA: {}", "a".repeat(70_000))), "its head is too large"),
        (
            Reply::bytes(format!("HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1".repeat(2_000))),
            "a line of its chunks is too long",
        ),
        (
            Reply::bytes(format!(
                "HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}",
                "A: b\r\n".repeat(200)
            )),
            "too many trailers",
        ),
        (Reply::bytes(format!("HTTP/1.1 201 X\r\n{}\r\n", "A: b\r\n".repeat(200))), "not HTTP"),
    ] {
        let text = String::from_utf8_lossy(reply.content()).chars().take(200).collect::<String>();
        assert_eq!(lost(&answer(&create(), reply)), format!("read the response: {cause}"), "{text}");
    }
}

#[test]
fn hints_before_the_response_are_skipped() {
    let mut bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_vec();
    bytes.extend_from_slice(made().content());
    assert_eq!(answer(&create(), Reply::bytes(bytes)), Answer::Made(uid()));
}

/// Parts of a response, of which some are wrong.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let tokens: Vec<Vec<u8>> = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 201 Created\r\n",
        "HTTP/1.1 404 X\r\n",
        "HTTP/1.1 409 X\r\n",
        "\r\n",
        "Content-Length: 2\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Type: application/json\r\n",
        "0\r\n\r\n",
        "5\r\n",
        "{}",
        "Connection: close\r\n",
        "Retry-After: 1\r\n",
        "{\"kind\":\"Status\",\"reason\":\"NotFound\"}",
        "null",
        "[]",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    prop_oneof![4 => prop::sample::select(tokens), 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Property: for all bytes that do not contain the name of the lease, no answer says anything about the lease.
    #[test]
    fn no_bytes_are_taken_for_an_answer(parts in prop::collection::vec(part(), 0..12)) {
        for request in [create(), get(), delete()] {
            let (_server, mut client) = client(vec![Reply::bytes(parts.concat()).closing()]);
            let answer = client.ask(&request, Instant::now() + Duration::from_secs(5));
            prop_assert!(matches!(answer, Answer::Lost(_) | Answer::Refused(_)), "{answer:?}");
        }
    }

    /// Property: one changed byte of a good response never makes the answer of another kind of request, and never a panic.
    #[test]
    fn a_changed_byte_makes_no_other_claim(at in any::<prop::sample::Index>(), byte: u8, which in any::<prop::sample::Index>()) {
        let mut exchanges = exchanges();
        let (request, reply) = exchanges.swap_remove(which.index(exchanges.len()));
        let good = answer(&request, Reply::bytes(reply.content()));
        let mut bytes = reply.content().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let (_server, mut client) = client(vec![Reply::bytes(bytes).closing()]);
        let bad = client.ask(&request, Instant::now() + Duration::from_secs(5));
        let mut text = String::new();
        write!(text, "{request:?}: {good:?} became {bad:?}").unwrap();
        let is_same_kind = std::mem::discriminant(&bad) == std::mem::discriminant(&good);
        prop_assert!(is_same_kind || matches!(bad, Answer::Lost(_) | Answer::Refused(_)), "{}", text);
    }
}
