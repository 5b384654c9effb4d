//! The image in podman.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::Artefacts;
use crate::process;

/// The most bytes that the image may have, unpacked.
const LIMIT: u64 = 10_000_000;

/// Fails unless podman runs the image, with no right and without writing.
pub(super) fn check(artefacts: &Artefacts, quick: bool) -> Result<()> {
    let image = artefacts.image();
    let storage = TempDir::new().context("make a folder")?;
    let podman = |arguments: &[&str]| {
        // It refuses hosts with both versions of cgroups.
        const ALONE: &str = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ALONE, "sh", "podman", "--cgroup-manager=cgroupfs", "--runtime=runc"]);
        command.args(["--storage-driver=vfs", "--root"]).arg(storage.path().join("root"));
        process::stdout(command.arg("--runroot").arg(storage.path().join("run")).args(arguments))
    };
    let path = image.to_str().context("the path of the image")?;
    podman(&["load", "--quiet", "--input", path])?;
    let list = podman(&["images", "--quiet", "--no-trunc"])?;
    let id = list.trim_end();
    let described = podman(&["image", "inspect", id])?;
    let described: Value = serde_json::from_str(&described).context("what podman says of the image")?;
    let size = described[0]["Size"].as_u64().context("podman names no size")?;
    ensure!(quick || size <= LIMIT, "{} has {size} bytes unpacked: more than {LIMIT}", image.display());
    let labels = &described[0]["Labels"];
    ensure!(labels["org.opencontainers.image.version"] == artefacts.version.as_str(), "the image's labels: {labels}");

    let options = "run --rm --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
        --network none --pids-limit 0 --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
    let command: Vec<&str> = options.split_whitespace().chain([id, "--version"]).collect();
    let printed = podman(&command)?;
    ensure!(printed == format!("observer {}\n", artefacts.version), "the image prints {printed}");
    Ok(())
}
