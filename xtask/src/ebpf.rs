//! The BPF objects: `observer/bpf/observer-<arch>.bpf.o`, built from `observer-ebpf/` and committed, so that building
//! the observer takes stable Rust alone.
//!
//! **Invariant**: the same source and toolchain give the same bytes on every machine and in every folder. `check`
//! holds the committed objects to the source by it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{process, tools, workspace};

/// The machines that the observer runs on. One object each: a probe's arguments lie in the registers of its machine.
pub(crate) const ARCHES: [&str; 2] = ["x86_64", "aarch64"];

const OBJECTS: &str = "observer/bpf";
/// By what the committed objects were built, so that a difference can be laid to the source or to the tools.
const TOOLCHAIN_NOTE: &str = "observer/bpf/toolchain.txt";
const TARGET: &str = "bpfel-unknown-none";

/// Builds the objects and writes them where the observer's build picks them up.
pub(crate) fn write() -> Result<()> {
    let linker = tools::for_ebpf()?;
    for arch in ARCHES {
        let object = build(arch, &linker)?;
        let path = object_path(arch);
        fs::write(&path, &object).with_context(|| format!("write {}", path.display()))?;
        println!("{}: {} bytes", path.display(), object.len());
    }
    fs::write(TOOLCHAIN_NOTE, toolchain(&linker)?).with_context(|| format!("write {TOOLCHAIN_NOTE}"))
}

/// Builds the objects and fails unless they are, byte for byte, the committed ones.
pub(crate) fn check() -> Result<()> {
    let linker = tools::for_ebpf()?;
    let mut stale = Vec::new();
    for arch in ARCHES {
        let object = build(arch, &linker)?;
        let path = object_path(arch);
        // A file that is missing is as stale as one that differs.
        if fs::read(&path).ok() != Some(object) {
            stale.push(path.display().to_string());
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    let committed_by = fs::read_to_string(TOOLCHAIN_NOTE).unwrap_or_else(|_| "not known\n".into());
    bail!(
        "not what observer-ebpf builds: {}\nbuilt here by:{}committed as built by:{}\
         run `cargo xtask ebpf` and commit {OBJECTS}/",
        stale.join(", "),
        indented(&toolchain(&linker)?),
        indented(&committed_by),
    );
}

/// Lints the kernel side as it is compiled for the kernel; the host's clippy sees only its record layouts.
pub(crate) fn lint() -> Result<()> {
    let linker = tools::for_ebpf()?;
    for arch in ARCHES {
        let mut clippy = tools::debian_rust("cargo-clippy");
        // cargo-clippy expects its own name first, as when cargo calls it.
        for_kernel(clippy.arg("clippy"), arch, &linker)?.args(["--", "-D", "warnings"]);
        process::run(&mut clippy)?;
    }
    Ok(())
}

fn build(arch: &str, linker: &Path) -> Result<Vec<u8>> {
    let mut cargo = tools::debian_rust("cargo");
    for_kernel(cargo.arg("build"), arch, linker)?.args(["--bin", "observer-bpf"]);
    process::run(&mut cargo)?;
    let built = target_dir()?.join(TARGET).join("release/observer-bpf");
    fs::read(&built).with_context(|| format!("read {}", built.display()))
}

fn for_kernel<'a>(cargo: &'a mut Command, arch: &str, linker: &Path) -> Result<&'a mut Command> {
    let flags = [
        format!("-Clinker={}", utf8(linker)?),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // The ways by which folders of the building machine get into an object. Nobody reads where a BPF program
        // panicked, therefore the build omits those places.
        "-Zlocation-detail=none".to_owned(),
        format!("--remap-path-prefix={}=/observer", utf8(&workspace::root()?)?),
    ];
    cargo
        .args(["--locked", "--release", "--target", TARGET, "--package", "observer-ebpf"])
        .arg("--target-dir")
        .arg(target_dir()?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // aya-ebpf uses unstable features of the BPF target.
        .env("RUSTC_BOOTSTRAP", "1")
        // The workspace's release profile is the host's. Here bpf-linker optimizes the program as a whole, and neither
        // aya nor the kernel asks for debug information.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    Ok(cargo)
}

/// Apart from the host's, so that both can be built at once. The arches share what runs on this machine, most of it macros;
/// cargo compiles again what differs by its flags.
fn target_dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("bpf"))
}

fn object_path(arch: &str) -> PathBuf {
    Path::new(OBJECTS).join(format!("observer-{arch}.bpf.o"))
}

fn toolchain(linker: &Path) -> Result<String> {
    let rustc = process::stdout(tools::debian_rust("rustc").arg("-vV"))?;
    let line = |start| rustc.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    let linker = process::stdout(Command::new(linker).arg("--version"))?;
    ensure!(!linker.is_empty(), "bpf-linker prints no version");
    Ok(format!("{}\n{}\n{}", line("rustc"), line("LLVM"), linker))
}

fn indented(lines: &str) -> String {
    format!("\n    {}\n", lines.trim_end().replace('\n', "\n    "))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
