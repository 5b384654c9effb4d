//! Debian's packages: which are there, and installing those that are not.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

const APT_GET: &str = "/usr/bin/apt-get";

/// Packages that serve one purpose, installed together so that their versions fit.
pub(crate) struct Need {
    pub(crate) packages: &'static [&'static str],
    pub(crate) purpose: &'static str,
}

/// Installs what is not there yet, saying so; where it may not, fails with the command to give.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let installed = installed(needs)?;
    let is_met = |need: &&Need| need.packages.iter().all(|&package| installed.contains(package));
    let (_, unmet): (Vec<_>, Vec<_>) = needs.iter().partition(is_met);
    if unmet.is_empty() {
        return Ok(());
    }
    if !is_root()? || !Path::new(APT_GET).exists() {
        let packages: Vec<_> = unmet.iter().map(|need| need.packages.join(" ")).collect();
        bail!("packages are missing; on Debian 12, as root: apt-get install {}", packages.join(" "));
    }
    process::run_silently(apt_get().arg("update"))?;
    for need in unmet {
        println!("installing {}: {}", need.packages.join(" "), need.purpose);
        process::run_silently(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(need.packages))?;
    }
    Ok(())
}

/// Those packages of `needs` that are installed.
fn installed(needs: &[Need]) -> Result<HashSet<String>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"]);
    // Its exit code says only that some package is unknown.
    let listed = match query.args(needs.iter().flat_map(|need| need.packages)).output() {
        Ok(output) => output.stdout,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context("start `dpkg-query`"),
    };
    let listed = String::from_utf8_lossy(&listed);
    Ok(listed.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect())
}

fn apt_get() -> Command {
    let mut command = Command::new(APT_GET);
    // Another apt at work on the machine is waited for, not failed on.
    command.args(["--quiet", "--option", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> Result<bool> {
    let process = fs::metadata("/proc/self").context("read the owner of /proc/self")?;
    Ok(process.uid() == 0)
}
