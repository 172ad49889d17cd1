//! A certificate authority, and the certificates that it issues. openssl(1) does the work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::control_plane::openssl;

/// A certificate authority with its directory. Each certificate that it issues is one PEM file with its key.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    issued: AtomicU32,
}

impl Authority {
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("make a directory for certificates");
        let [certificate, key] = ["ca.crt", "ca.key"].map(|name| directory.join(name));
        let authority = Self { directory: directory.to_owned(), certificate, key, issued: AtomicU32::new(0) };
        let extensions = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, digitalSignature\n";
        let request = authority.request("ca", "CN = kubernetes\n", extensions);
        let paths = [&authority.certificate, Path::new("-keyout"), &authority.key, Path::new("-config"), &request];
        openssl(&[&REQUEST[..], &["-out"]].concat(), &paths);
        authority
    }

    /// The file of its own certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The certificate of a client. The first call issues it.
    pub(crate) fn client(&self, user: &str, group: &str) -> PathBuf {
        let path = self.client_path(user, group);
        if path.exists() { path } else { self.renew_client(user, group) }
    }

    /// Issues a new certificate for a client, in the place of the old one.
    pub(crate) fn renew_client(&self, user: &str, group: &str) -> PathBuf {
        let subject = format!("O = {group}\nCN = {user}\n");
        self.issue(&self.client_path(user, group), &subject, "extendedKeyUsage = clientAuth\n")
    }

    /// The certificate of a server with these names, in the form of subjectAltName. (x509v3_config(5))
    pub(crate) fn server(&self, names: &str) -> PathBuf {
        let extensions = format!("extendedKeyUsage = serverAuth\nsubjectAltName = {names}\n");
        self.issue(&self.directory.join("server.pem"), "CN = kube-apiserver\n", &extensions)
    }

    fn client_path(&self, user: &str, group: &str) -> PathBuf {
        self.directory.join(format!("{group}-{user}.pem").replace(':', "-"))
    }

    fn issue(&self, to: &Path, subject: &str, extensions: &str) -> PathBuf {
        // Two threads may issue certificates at the same time.
        let name = format!("issue-{}", self.issued.fetch_add(1, Ordering::Relaxed));
        let leaf = "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n";
        let request = self.request(&name, subject, &format!("{leaf}{extensions}"));
        let [certificate, key] = ["crt", "key"].map(|end| self.directory.join(format!("{name}.{end}")));
        let [ca, ca_key, out, keyout, config] = ["-CA", "-CAkey", "-out", "-keyout", "-config"].map(Path::new);
        openssl(
            &REQUEST,
            &[ca, &self.certificate, ca_key, &self.key, out, &certificate, keyout, &key, config, &request],
        );
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let pem = self.directory.join(format!("{name}.pem"));
        fs::write(&pem, read(&certificate) + &read(&key)).expect("write a certificate");
        fs::rename(&pem, to).unwrap_or_else(|e| panic!("rename {}: {e}", pem.display()));
        to.to_owned()
    }

    /// A configuration of `openssl req`. Without one, that of the machine would add extensions.
    fn request(&self, name: &str, subject: &str, extensions: &str) -> PathBuf {
        let path = self.directory.join(format!("{name}.cnf"));
        let text = format!(
            "[req]\nprompt = no\ndistinguished_name = subject\nx509_extensions = extensions\n[subject]\n{subject}\
             [extensions]\n{extensions}"
        );
        fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        path
    }
}

/// `openssl req` that makes a key without a password, and a certificate for it.
const REQUEST: [&str; 9] =
    ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30"];

/// The base64 of a file, in one line.
pub(crate) fn base64(path: &Path) -> String {
    let output = Command::new("openssl").args(["base64", "-A", "-in"]).arg(path).output().expect("start openssl");
    assert!(output.status.success(), "base64 of {}: {output:?}", path.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
