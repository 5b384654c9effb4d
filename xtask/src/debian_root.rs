//! A Debian system with systemd for tests that boot one. They write to a layer over it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::{self, Need};
use crate::{process, tools};

const MAKER: Need =
    Need { packages: &["debootstrap", "debian-archive-keyring"], purpose: "a Debian system, for tests under systemd" };

/// What tests run there, beside what each Debian has.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,curl,iproute2,procps";
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";

/// Makes it once, where the tests look for it; returns its folder.
pub(crate) fn make() -> Result<PathBuf> {
    apt::install(&[MAKER])?;
    let root = tools::cache_dir()?.join("debian-root");
    if root.exists() {
        return Ok(root);
    }
    println!("installing Debian {SUITE} to {}: tests boot it", root.display());
    let unfinished = root.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
    }
    fs::create_dir_all(&unfinished).with_context(|| format!("make {}", unfinished.display()))?;
    let mut debootstrap = Command::new("/usr/sbin/debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&unfinished).arg(MIRROR);
    process::run_silently(&mut debootstrap)?;
    fs::rename(&unfinished, &root).with_context(|| format!("rename {}", unfinished.display()))?;
    Ok(root)
}
