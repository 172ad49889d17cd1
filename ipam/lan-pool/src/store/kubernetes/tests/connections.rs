//! Connections: one for several requests, and failures before a request is sent.

use std::net::TcpListener;

use super::server::open;
use super::*;

#[test]
fn requests_share_a_connection() {
    let (server, mut client) = client(vec![made(), Reply::json(200, &object()).chunked(50), deleted()]);
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    assert_eq!(client.ask(&get(), soon()), Answer::Found(Some(held())));
    assert_eq!(client.ask(&delete(), soon()), Answer::Gone);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_that_has_ended_is_not_used_again() {
    let closing = Reply::bytes(String::from_utf8(made().content().to_vec()).unwrap().replacen(
        "\r\n",
        "\r\nConnection: close\r\n",
        1,
    ));
    let old = Reply::bytes(String::from_utf8(made().content().to_vec()).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1));
    for reply in [closing.closing(), old.closing()] {
        let (server, mut client) = client(vec![reply, deleted()]);
        assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
        assert_eq!(client.ask(&delete(), soon()), Answer::Gone);
        assert_eq!(server.connections(), 2);
    }
}

#[test]
fn a_connection_that_the_server_closes_without_a_word_is_not_used_again() {
    let (server, mut client) = client(vec![made().closing(), deleted()]);
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    server.await_end(1);
    assert_eq!(client.ask(&delete(), soon()), Answer::Gone);
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_response_that_comes_twice_does_not_answer_the_next_request() {
    let twice = [made().content(), made().content()].concat();
    let (server, mut client) = client(vec![Reply::bytes(twice), exists()]);
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    assert_eq!(client.ask(&create(), soon()), Answer::Taken);
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_refused_connection_is_a_refusal() {
    // No other test listens on this address.
    let port = TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap().port();
    let server = Server::start(vec![]);
    let mut client = open(&server.kubeconfig(&format!("server: 'http://127.0.0.77:{port}'"), "token: x"));
    let answer = client.ask(&create(), soon());
    assert_eq!(refused(&answer), format!("connect to 127.0.0.77:{port}: Connection refused (os error 111)"));
}

#[test]
fn each_address_of_a_name_is_tried() {
    // The server listens only on 127.0.0.1, and the name can also have ::1.
    let server = Server::start(vec![made()]);
    let mut client = open(&server.kubeconfig(&format!("server: 'http://localhost:{}'", server.port), "token: x"));
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
}

#[test]
fn a_name_without_an_address_is_a_refusal() {
    let server = Server::start(vec![]);
    let mut client = open(&server.kubeconfig("server: 'http://api.invalid'", "token: x"));
    let answer = client.ask(&create(), Instant::now() + Duration::from_secs(3));
    assert!(refused(&answer).starts_with("resolve api.invalid: "), "{answer:?}");
}

#[test]
fn after_the_deadline_nothing_is_sent() {
    let (server, mut client) = client(vec![made()]);
    assert_eq!(refused(&client.ask(&delete(), Instant::now())), "timed out");
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    // Now there is a connection.
    assert_eq!(refused(&client.ask(&delete(), Instant::now())), "timed out");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_busy_server_is_asked_again() {
    let busy = |headers: &str| Reply::text(429, headers, "Too many requests, please try again later.\n");
    let (server, mut client) =
        client(vec![busy(""), busy("Retry-After: 0\r\n"), busy("Retry-After: soon\r\n"), made()]);
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| *request == requests[0]));
}

#[test]
fn a_server_that_is_busy_until_the_deadline_refuses() {
    let begin = Instant::now();
    let (server, mut client) = client(vec![Reply::text(429, "Retry-After: 3600\r\n", "")]);
    assert_eq!(refused(&client.ask(&create(), soon())), "the server is busy (status 429)");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_wait_lasts_as_long_as_the_server_says() {
    let begin = Instant::now();
    let (_server, mut client) = client(vec![Reply::text(429, "Retry-After: 1\r\n", ""), made()]);
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    assert!(begin.elapsed() >= Duration::from_secs(1));
}
