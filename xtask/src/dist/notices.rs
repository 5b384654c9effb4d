//! The licences and copyright notices of everything that the program links. All of it is linked statically, and each licence
//! wants its notice in copies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::vm::arch::Arch;

/// Where Debian has the copyright of the C library that is linked.
const GLIBC: &str = "/usr/share/doc/libc6-dev/copyright";
/// How files with a licence or a notice begin.
const NOTICES: [&str; 5] = ["licen", "copying", "copyright", "notice", "unlicense"];

/// Those of the Rust standard library are a page of their own, in the toolchain.
const RUST: &str = "share/doc/rust/COPYRIGHT-library.html";

/// Files for the documents of an artefact.
pub(super) fn of_all_dependencies(arch: &Arch) -> Result<[(&'static str, Vec<u8>); 2]> {
    let rust = sysroot()?.join(RUST);
    let rust = fs::read(&rust).with_context(|| format!("read {}", rust.display()))?;
    Ok([("third-party-notices.txt", of_crates_and_glibc(arch)?.into_bytes()), ("rust-standard-library.html", rust)])
}

/// One text, each licence in it once: many crates have the same Apache licence.
fn of_crates_and_glibc(arch: &Arch) -> Result<String> {
    let mut crates = Vec::new();
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    for (package, folder) in linked_crates(arch)? {
        let licence = package.get("license").and_then(Value::as_str).unwrap_or("see below");
        let name = format!("{} {}", text(&package, "name")?, text(&package, "version")?);
        crates.push(format!("{name}: {licence}"));
        let notices = notices_in(&folder)?;
        ensure!(!notices.is_empty(), "{name} comes without a licence text: {}", folder.display());
        for notice in notices {
            texts.entry(notice).or_default().push(name.clone());
        }
    }
    let glibc = fs::read_to_string(GLIBC).with_context(|| format!("read {GLIBC}"))?;
    texts.entry(glibc).or_default().push("the GNU C Library".to_owned());

    let mut all = format!(
        "observer links these crates, the Rust standard library and the GNU C Library statically.\n\
         The notices of the Rust standard library are in rust-standard-library.html, the others below this list.\n\n{}\n",
        crates.join("\n")
    );
    // By whom they are of: the order of texts says nothing.
    let mut texts: Vec<_> = texts.into_iter().map(|(text, owners)| (owners, text)).collect();
    texts.sort();
    for (owners, text) in texts {
        let _ = write!(all, "\n{}\n{}\n\n{}\n", "-".repeat(80), owners.join(", "), text.trim_end());
    }
    Ok(all)
}

/// The crates of the program, with their folders. Macros are not linked.
fn linked_crates(arch: &Arch) -> Result<Vec<(Value, PathBuf)>> {
    let mut tree = process::cargo();
    tree.args("tree --locked --package observer --edges normal,no-proc-macro --prefix none --format".split(' '));
    tree.args(["{p}", "--target", &arch.target()]);
    let tree = process::stdout(&mut tree)?;
    let is_linked = |package: &Value| -> Result<bool> {
        let start = format!("{} v{}", text(package, "name")?, text(package, "version")?);
        let follows =
            |line: &str| line.strip_prefix(&start).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        Ok(tree.lines().any(follows))
    };
    let mut metadata = process::cargo();
    let metadata = process::stdout(metadata.args([
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        &arch.target(),
    ]))?;
    let mut metadata: Value = serde_json::from_str(&metadata).context("read what `cargo metadata` prints")?;
    let packages = metadata["packages"].as_array_mut().context("`cargo metadata` lists no packages")?;
    let mut linked = Vec::new();
    for package in packages.drain(..) {
        // Those without a source are of this repository, whose LICENSE comes along.
        if !package["source"].is_null() && is_linked(&package)? {
            let manifest = PathBuf::from(text(&package, "manifest_path")?);
            linked.push((package, manifest.parent().context("a manifest without a folder")?.to_owned()));
        }
    }
    linked.sort_by_key(|(_, folder)| folder.file_name().map(ToOwned::to_owned));
    ensure!(!linked.is_empty(), "no crate is linked");
    Ok(linked)
}

/// The texts of files at the top of the folder, and in folders for such files.
fn notices_in(folder: &Path) -> Result<Vec<String>> {
    let mut notices = BTreeMap::new();
    let mut queue = vec![folder.to_owned()];
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            if !NOTICES.iter().any(|start| name.starts_with(start)) {
                continue;
            }
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_none_or(|extension| extension != "rs") {
                let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                notices.insert(path, String::from_utf8_lossy(&bytes).replace('\r', ""));
            }
        }
    }
    Ok(notices.into_values().collect())
}

fn sysroot() -> Result<PathBuf> {
    Ok(process::stdout(Command::new("rustc").args(["--print", "sysroot"]))?.trim_end().into())
}

fn text<'a>(package: &'a Value, field: &str) -> Result<&'a str> {
    package[field].as_str().with_context(|| format!("a package of `cargo metadata` has no {field}"))
}
