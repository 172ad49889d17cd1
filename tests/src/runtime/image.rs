//! A container image that the tests build: Debian's static busybox and one page for its web server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::containerd::copy;
use super::programs;

pub const IMAGE: &str = "underlay.test/busybox:latest";
/// An image with the same layer that only waits. It keeps the namespaces of a pod.
pub const PAUSE_IMAGE: &str = "underlay.test/pause:latest";
/// The answer of its web server to `GET /`.
pub const PAGE: &str = "a page from a container\n";

const APPLETS: [&str; 12] =
    ["cat", "hostname", "httpd", "ip", "mkdir", "seq", "sh", "sleep", "sync", "top", "true", "wget"];

/// Writes the images into `scratch`, a new directory, in the format of `docker save`. Returns the path of the archive.
pub fn write(scratch: &Path) -> PathBuf {
    fs::create_dir(scratch).unwrap_or_else(|e| panic!("make {}: {e}", scratch.display()));
    let layer = write_layer(scratch);
    let image = scratch.join("image");
    fs::create_dir(&image).expect("make a directory for an image");
    fs::rename(&layer, image.join("layer.tar")).expect("put the layer into the image");
    let digest = sha256(&image.join("layer.tar"));
    let config = |command: &[&str]| {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        })
    };
    let manifest = json!([
        {"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]},
        {"Config": "pause.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]},
    ]);
    let serve = config(&["httpd", "-f", "-p", "80", "-h", "/www"]);
    fs::write(image.join("config.json"), serve.to_string()).expect("write the image's configuration");
    let pause = config(&["sleep", "86400"]);
    fs::write(image.join("pause.json"), pause.to_string()).expect("write the other image's configuration");
    fs::write(image.join("manifest.json"), manifest.to_string()).expect("write the image's manifest");
    let archive = scratch.join("image.tar");
    pack(&image, &archive);
    archive
}

/// The layer. It is not compressed, so its digest is also its "diff ID".
fn write_layer(scratch: &Path) -> PathBuf {
    let root = scratch.join("layer");
    fs::create_dir_all(root.join("bin")).expect("make a directory for a layer");
    fs::create_dir(root.join("www")).expect("make a directory for a page");
    fs::write(root.join("www/index.html"), PAGE).expect("write a page");
    let busybox = programs::find("busybox", "busybox-static");
    let busybox = fs::canonicalize(&busybox).unwrap_or_else(|e| panic!("{}: {e}", busybox.display()));
    copy(&busybox, &root.join("bin/busybox"));
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("name an applet");
    }
    assert_static(&root);
    let layer = scratch.join("layer.tar");
    pack(&root, &layer);
    layer
}

/// Debian has another busybox, which needs a C library.
fn assert_static(root: &Path) {
    let status = Command::new("chroot").arg(root).args(["/bin/busybox", "true"]).status().expect("start chroot");
    assert!(status.success(), "busybox does not run alone: install Debian's package busybox-static");
}

fn pack(directory: &Path, archive: &Path) {
    let status = Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--file"])
        .arg(archive)
        .arg("--directory")
        .args([directory, Path::new(".")])
        .status()
        .expect("start tar");
    assert!(status.success(), "pack {}", directory.display());
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().expect("start sha256sum");
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split_whitespace().next().unwrap_or_default();
    assert_eq!(digest.len(), 64, "sha256sum {}: {output:?}", file.display());
    digest.to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
