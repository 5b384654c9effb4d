//! What the program says of itself, to readelf and to whoever looks for its crates.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flate2::read::ZlibDecoder;
use serde_json::Value;

use crate::process;
use crate::vm::arch::Arch;

/// Fails unless the program is static, contains the list of its crates, and the SBOM has all of these.
pub(super) fn check(program: &Path, arch: &Arch, sbom: Option<&Path>) -> Result<()> {
    let headers =
        process::stdout(Command::new("readelf").args(["--program-headers", "--dynamic", "--wide"]).arg(program))?;
    ensure!(!headers.contains("INTERP") && !headers.contains("NEEDED"), "the program is not static:\n{headers}");
    let mut inside = crates_inside(program, arch)?;
    // The root of the list is not among the components of the SBOM.
    ensure!(inside.remove(&format!("observer {}", env!("CARGO_PKG_VERSION"))), "the program does not list itself");
    if let Some(sbom) = sbom {
        let listed = crates_listed(sbom)?;
        let missing: Vec<_> = inside.difference(&listed).collect();
        ensure!(missing.is_empty(), "{} lacks what the program contains: {missing:?}", sbom.display());
    }
    Ok(())
}

/// The crates that cargo-auditable wrote into the program, those of builds alone left out.
fn crates_inside(program: &Path, arch: &Arch) -> Result<BTreeSet<String>> {
    let section = tempfile::NamedTempFile::new().context("make a file")?;
    // It knows programs of its own processor alone.
    let mut objcopy = Command::new(format!("{}-linux-gnu-objcopy", arch.name));
    objcopy.arg(format!("--dump-section=.dep-v0={}", section.path().display())).arg(program).arg("/dev/null");
    process::run_silently(&mut objcopy)?;
    let bytes = fs::read(section.path()).context("read the list of crates in the program")?;
    let mut list = String::new();
    ZlibDecoder::new(&bytes[..]).read_to_string(&mut list).context("unpack the list of crates in the program")?;
    let list: Value = serde_json::from_str(&list).context("the list of crates in the program")?;
    let packages = list["packages"].as_array().context("the program lists no packages")?;
    Ok(packages.iter().filter(|package| package["kind"] != "build").map(name).collect())
}

fn crates_listed(sbom: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(sbom).with_context(|| format!("read {}", sbom.display()))?;
    let list: Value = serde_json::from_str(&text).with_context(|| sbom.display().to_string())?;
    Ok(list["components"].as_array().context("the SBOM has no components")?.iter().map(name).collect())
}

fn name(package: &Value) -> String {
    let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("name"), text("version"))
}
