use super::*;

const CA: &str = "Q0E=";

fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\npreferences: {{}}\ncurrent-context: c\ncontexts:\n- name: c\n  context:\n    \
         cluster: k\n    user: u\n- {{name: other, context: {{cluster: k2}}}}\nclusters:\n- name: k\n  \
         cluster:\n{}\n- {{name: k2, cluster: {{server: 'http://[::1]:8001'}}}}\nusers:\n- name: u\n  user:\n{}\n",
        indented(cluster),
        indented(user)
    )
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

const GOOD: &str = "server: https://10.0.0.1:6443\ncertificate-authority-data: Q0E=";

fn parsed(cluster: &str, user: &str) -> std::result::Result<Kubeconfig, String> {
    parse(Path::new("/etc/kubernetes/kubelet.conf"), &kubeconfig(cluster, user), None)
        .map_err(|error| error.to_string())
}

#[track_caller]
fn user(lines: &str) -> User {
    parsed(GOOD, lines).unwrap().user
}

#[track_caller]
fn wrong(cluster: &str, user: &str) -> String {
    let text = parsed(cluster, user).unwrap_err();
    text.strip_prefix("kubeconfig /etc/kubernetes/kubelet.conf: ").expect("the file").to_owned()
}

#[test]
fn the_kubeconfig_of_a_kubelet_is_read() {
    let lines = "client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem\nclient-key: pki/key.pem";
    let Kubeconfig { cluster, user } = parsed(GOOD, lines).unwrap();
    assert_eq!(
        cluster.server,
        Server {
            url: "https://10.0.0.1:6443".into(),
            is_tls: true,
            host: "10.0.0.1".into(),
            port: 6443,
            authority: "10.0.0.1:6443".into(),
            prefix: String::new(),
        }
    );
    assert_eq!(cluster.authority, Some(Source::Data("certificate-authority-data".into(), b"CA".to_vec())));
    let file = |path: &str| Source::File(path.into());
    let certificate = file("/var/lib/kubelet/pki/kubelet-client-current.pem");
    assert_eq!(user.certificate, Some((certificate, file("/etc/kubernetes/pki/key.pem"))));
}

#[test]
fn another_context_is_chosen_by_its_name() {
    let read = |context| {
        parse(Path::new("k"), &kubeconfig(GOOD, "token: x"), Some(context)).map_err(|error| error.to_string())
    };
    let other = read("other").unwrap();
    assert_eq!((other.cluster.server.host.as_str(), other.cluster.server.port), ("::1", 8001));
    assert_eq!((other.cluster.authority, other.user), (None, User::default()));
    assert_eq!(read("third").unwrap_err(), "kubeconfig k: no context third in contexts");
}

#[test]
fn data_is_stronger_than_a_file_and_a_token_file_than_a_token() {
    let both = user("client-certificate: a\nclient-certificate-data: Q0E=\nclient-key: b\nclient-key-data: Q0E=");
    let data = |key: &str| Source::Data(key.into(), b"CA".to_vec());
    assert_eq!(both.certificate, Some((data("client-certificate-data"), data("client-key-data"))));
    assert_eq!(user("token: x\ntokenFile: t").token, Some(Token::File("/etc/kubernetes/t".into())));
    assert_eq!(user("token: x").token, Some(Token::Text("x".into())));
    assert_eq!(user("username: me\npassword: p").basic, Some(("me".into(), "p".into())));
    // An empty text is as none.
    assert_eq!(user("token: ''\ntokenFile: ''\nusername: ''\nclient-certificate: null"), User::default());
}

#[test]
fn a_program_for_credentials_is_read() {
    let lines = "exec:\n  apiVersion: client.authentication.k8s.io/v1beta1\n  command: bin/login\n  args: [a, '-b']\n  \
                 env: [{name: A, value: b}]\n  provideClusterInfo: true\n  installHint: install it\n  interactiveMode: Never";
    let exec = Exec {
        api_version: "client.authentication.k8s.io/v1beta1".into(),
        command: "/etc/kubernetes/bin/login".into(),
        args: vec!["a".into(), "-b".into()],
        env: vec![("A".into(), "b".into())],
        with_cluster: true,
        hint: Some("install it".into()),
    };
    assert_eq!(user(lines).exec, Some(exec));
    let in_path = user("exec: {apiVersion: client.authentication.k8s.io/v1, command: login}");
    assert_eq!(in_path.exec.unwrap().command, PathBuf::from("login"));
}

#[test]
fn each_mistake_has_one_message() {
    for (cluster, user, text) in [
        (
            "server: 10.0.0.1:6443",
            "{}",
            "cluster k: server 10.0.0.1:6443: the URL has to begin with https:// or http://",
        ),
        ("server: https://", "{}", "cluster k: server https://: the host is missing"),
        ("server: https://h:0", "{}", "cluster k: server https://h:0: 0 is no port"),
        ("server: https://h:70000", "{}", "cluster k: server https://h:70000: 70000 is no port"),
        ("server: 'https://[::1'", "{}", "cluster k: server https://[::1: ] is missing"),
        ("server: 'https://[h]:1'", "{}", "cluster k: server https://[h]:1: h is no IPv6 address"),
        ("server: 'https://[::1]1'", "{}", "cluster k: server https://[::1]1: after ], only :PORT may follow"),
        ("server: https://u@h", "{}", "cluster k: server https://u@h: the URL may have a host, a port and a path only"),
        ("certificate-authority: x", "{}", "cluster k: server is missing"),
        ("server: https://h", "{}", "cluster k: certificate-authority is missing"),
        ("server: 7", "{}", "cluster k: server is not a text: put it in quotes"),
        (
            "server: https://h\ninsecure-skip-tls-verify: true",
            "{}",
            "cluster k: insecure-skip-tls-verify is not supported: set certificate-authority",
        ),
        (
            "server: https://h\nproxy-url: http://p",
            "{}",
            "cluster k: proxy-url is not supported: the node has to reach the server without a proxy",
        ),
        (
            "server: https://h\ncertificate-authority-data: '!'",
            "{}",
            "cluster k: certificate-authority-data is not base64: Invalid symbol 33, offset 0.",
        ),
        (GOOD, "as: admin", "user u: as is not supported: use the credentials of the node"),
        (GOOD, "auth-provider: {name: gcp}", "user u: auth-provider is not supported: use exec"),
        (GOOD, "client-certificate: x", "user u: client-key is missing"),
        (GOOD, "client-key: x", "user u: client-certificate is missing"),
        (GOOD, "token: 12", "user u: token is not a text: put it in quotes"),
        (GOOD, "exec: login", "user u: exec is not an object"),
        (
            GOOD,
            "exec: {command: login}",
            "user u: exec: apiVersion \"\" is neither client.authentication.k8s.io/v1 nor client.authentication.k8s.io/v1beta1",
        ),
        (GOOD, "exec: {apiVersion: client.authentication.k8s.io/v1}", "user u: exec: command is missing"),
        (
            GOOD,
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Always}",
            "user u: exec: interactiveMode Always is not supported: a plugin has no terminal",
        ),
        (
            GOOD,
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, args: [1]}",
            "user u: exec: an entry of args is not a text: put it in quotes",
        ),
        (
            GOOD,
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, args: 1}",
            "user u: exec: args is not a list",
        ),
        (
            GOOD,
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, env: [{name: A=B, value: x}]}",
            "user u: exec: an entry of env has no name or no value",
        ),
        (
            GOOD,
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, provideClusterInfo: 1}",
            "user u: exec: provideClusterInfo is neither true nor false",
        ),
    ] {
        assert_eq!(wrong(cluster, user), text);
    }
    for (file, text) in [
        ("", "not one YAML object"),
        ("[]", "not one YAML object"),
        ("a: b\n---\na: b", "not one YAML object"),
        ("a: [", "no YAML: while parsing a node, did not find expected node content at byte 4 line 2 column 1"),
        ("current-context: ''", "current-context is missing or empty"),
        ("current-context: c", "no context c in contexts"),
        ("current-context: c\ncontexts: 7", "contexts is not a list"),
        ("current-context: c\ncontexts: [7, {name: c}]", "context c: context is not an object"),
        ("current-context: c\ncontexts: [{name: c, context: {}}]", "context c: cluster is missing"),
        ("current-context: c\ncontexts: [{name: c, context: {cluster: k}}]", "no cluster k in clusters"),
        (
            "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nclusters: [{name: k, cluster: {server: 'http://h'}}]",
            "no user u in users",
        ),
    ] {
        let found = parse(Path::new("k"), file, None).unwrap_err().to_string();
        let found = found.strip_prefix("kubeconfig k: ").unwrap();
        let stem = text.split(" at byte").next().unwrap();
        assert!(found.starts_with(stem), "{file:?}: {found}");
    }
}

#[test]
fn urls_have_a_prefix_and_a_default_port() {
    let read = |url: &str| server(url).unwrap();
    let rancher = read("https://rancher.example/k8s/clusters/c-1/");
    assert_eq!(
        (rancher.port, rancher.prefix.as_str(), rancher.host.as_str()),
        (443, "/k8s/clusters/c-1", "rancher.example")
    );
    let six = read("https://[fd00::1]:6443");
    assert_eq!((six.port, six.host.as_str(), six.authority.as_str()), (6443, "fd00::1", "[fd00::1]:6443"));
    assert_eq!(read("http://h").port, 80);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = load(Path::new("/nonexistent/kubelet.conf"), None).unwrap_err().to_string();
    assert_eq!(missing, "read /nonexistent/kubelet.conf: No such file or directory (os error 2)");
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    std::fs::write(&large, vec![b' '; LARGEST_FILE as usize + 1]).unwrap();
    let text = load(&large, None).unwrap_err().to_string();
    assert_eq!(text, format!("read {}: more than 1048576 bytes", large.display()));
    std::fs::write(&large, [0xff]).unwrap();
    assert_eq!(load(&large, None).unwrap_err().to_string(), format!("read {}: not UTF-8", large.display()));
}

#[test]
fn a_pod_has_a_service_account() {
    let read = |host: &'static str| {
        in_cluster(move |name| match name {
            "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
            _ => None,
        })
    };
    let pod = read("10.96.0.1").unwrap().unwrap();
    assert_eq!(pod.cluster.server.url, "https://10.96.0.1:6443");
    let directory = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(pod.cluster.authority, Some(Source::File(format!("{directory}/ca.crt").into())));
    assert_eq!(pod.user.token, Some(Token::File(format!("{directory}/token").into())));
    assert_eq!(read("fd00::1").unwrap().unwrap().cluster.server.host, "fd00::1");
    assert_eq!(in_cluster(|_| None).unwrap(), None);
}

proptest::proptest! {
    /// Property: no text makes the reader panic.
    #[test]
    fn no_text_makes_it_panic(text in "[-a-z:{}\\[\\], \n'\"&*!|>0-9]{0,200}", cut in 0..600_usize) {
        _ = parse(Path::new("k"), &text, None);
        let good = kubeconfig(GOOD, &format!("token: {CA}"));
        let cut: String = good.chars().take(cut).chain(text.chars()).collect();
        _ = parse(Path::new("k"), &cut, None);
    }

    /// Property: no URL makes the reader panic.
    #[test]
    fn no_url_makes_it_panic(url in "https?://[\\[\\]:/@?a-z0-9.]{0,40}") {
        _ = server(&url);
    }
}
