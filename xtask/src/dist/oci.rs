//! The container image, from scratch: the program and its licences, as an archive of the OCI image layout. skopeo, podman and
//! containerd read it. No engine is needed to make it.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Shared, Tree, sha256, tree};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The archive.
pub(super) fn archive(shared: &Shared) -> Result<Vec<u8>> {
    let mut files = Tree::default();
    files.add_program("usr/bin/observer", shared.program);
    files.add_file("usr/share/doc/observer/LICENSE", std::path::Path::new("LICENSE"))?;
    for (name, notices) in shared.notices {
        files.add(&format!("usr/share/doc/observer/{name}.gz"), &tree::gzip(notices));
    }
    // For names of users and hosts in messages, and for whoever looks into a running container.
    files.add("etc/passwd", b"root:x:0:0::/:\nnobody:x:65534:65534::/:\n");
    files.add("etc/group", b"root:x:0:\nnogroup:x:65534:\n");
    let layer = files.tar("", shared.release.epoch)?;

    let created = Timestamp::from_second(i64::try_from(shared.release.epoch)?).context("the time of the commit")?;
    let mut layout = Layout::default();
    let diff = sha256(&layer);
    let layer = layout.add(LAYER, &tree::gzip(&layer));
    let labels = labels(&shared.release.version, &created.to_string());
    let config = layout.add_json(
        CONFIG,
        &json!({
            "architecture": "amd64",
            "os": "linux",
            "created": created.to_string(),
            "config": {
                "Entrypoint": ["/usr/bin/observer"],
                "Cmd": ["serve"],
                "ExposedPorts": {"28232/tcp": {}},
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
            "history": [{"created": created.to_string(), "created_by": "cargo xtask dist"}],
        }),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], "annotations": labels,
    });
    let mut manifest = layout.add_json(MANIFEST, &manifest);
    let name = &shared.release.version;
    manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
    manifest["annotations"] = json!({
        "org.opencontainers.image.ref.name": name,
        "io.containerd.image.name": format!("localhost/observer:{name}"),
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    layout.0.add("index.json", index.to_string().as_bytes());
    layout.0.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    layout.0.tar("", shared.release.epoch)
}

fn labels(version: &str, created: &str) -> Value {
    json!({
        "org.opencontainers.image.title": "observer",
        "org.opencontainers.image.description": "A live TCP socket observer for Linux",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
    })
}

/// Blobs by their digests.
#[derive(Default)]
struct Layout(Tree);

impl Layout {
    /// Adds a blob; returns its descriptor.
    fn add(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        self.0.add(&format!("blobs/sha256/{digest}"), bytes);
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn add_json(&mut self, media_type: &str, value: &Value) -> Value {
        self.add(media_type, value.to_string().as_bytes())
    }
}
