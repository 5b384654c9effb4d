//! What the tasks need beyond stable Rust: Debian's rustc, which comes with `core` for BPF, programs from crates.io, and those
//! that tests run. Each task installs what is missing.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::{self, Need};
use crate::process;
use crate::vm::arch::Arch;

const COMPILER: Need = Need {
    packages: &["rustc-web", "cargo-web", "rust-web-llvm", "libstd-rust-web-dev-bpf"],
    purpose: "builds the BPF objects",
};
const LINTER: Need = Need { packages: &["rust-web-clippy"], purpose: "lints the BPF side" };
const LINKER_BUILD: Need =
    Need { packages: &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"], purpose: "builds bpf-linker" };
const NETWORK: Need =
    Need { packages: &["iproute2", "nftables"], purpose: "`ip`, `ss` and `nft`, for tests on live sockets" };
const CONTAINERS: Need = Need {
    packages: &["runc", "podman", "systemd", "systemd-container", "busybox-static", "util-linux", "strace"],
    purpose: "containers, for tests of their names and rights",
};
const RIGHTS: Need =
    Need { packages: &["libcap2-bin", "util-linux"], purpose: "`setcap` and `setpriv`, for tests of rights" };
const TERMINAL: Need = Need { packages: &["tmux"], purpose: "a terminal, for tests of the interface" };
/// prometheus-client's parser in Python is stricter than Prometheus.
const METRICS: Need = Need {
    packages: &[
        "prometheus",
        "prometheus-alertmanager",
        "prometheus-node-exporter",
        "python3-prometheus-client",
        "curl",
    ],
    purpose: "`promtool`, Prometheus, Alertmanager, node_exporter and curl, which read the series in tests",
};
const PYTHON: Need =
    Need { packages: &["python3-venv"], purpose: "Python packages, for tests of the files for Kubernetes" };
/// rotel is a Python package with a program in it, which links Python.
const COLLECTOR: Need =
    Need { packages: &["python3-pip", "libpython3.11"], purpose: "rotel, a collector that receives OTLP in tests" };

const MACHINES: Need = Need {
    packages: &["qemu-system-x86", "busybox-static", "kmod", "xz-utils", "debian-archive-keyring", "curl"],
    purpose: "virtual machines, for tests on other kernels",
};
const AARCH64_MACHINES: Need =
    Need { packages: &["qemu-system-arm"], purpose: "virtual machines of another processor" };
const AARCH64_PROGRAMS: Need = Need {
    packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "debian-archive-keyring"],
    purpose: "builds programs for another processor",
};
const AARCH64_EMULATOR: Need = Need { packages: &["qemu-user-static"], purpose: "runs programs of another processor" };

/// libc6-dev has the static glibc, and its licence.
const PACKAGES: Need =
    Need { packages: &["debhelper", "make", "rpm", "libc6-dev"], purpose: "builds packages for Debian and with RPM" };
const PACKAGE_CHECKS: Need = Need {
    packages: &["lintian", "rpmlint", "binutils", "zsh", "fish", "elvish", "man-db"],
    purpose: "checks packages, in a clean Debian",
};

const LINKER_VERSION: &str = "0.13.0";
/// The LLVM of [`COMPILER`]: bpf-linker reads the bitcode that rustc writes.
const LLVM: &str = "llvm-22";

const PYTHON3: &str = "/usr/bin/python3";
/// PyPI's kubernetes-validate, helm-python-sdk and models of the Prometheus operator's CRDs, with all that these need.
const VALIDATORS: &str = "observer/tests/fleet/requirements.txt";

const DENY_VERSION: &str = "0.20.2";
const AUDITABLE_VERSION: &str = "0.7.7";
const CYCLONEDX_VERSION: &str = "0.5.9";
const FUZZ_VERSION: &str = "0.13.2";
const COLLECTOR_VERSION: &str = "0.0.1a15";

/// Installs what builds and lints the BPF side; returns the path of bpf-linker.
pub(crate) fn for_ebpf() -> Result<PathBuf> {
    install(vec![COMPILER, LINTER])
}

/// Installs cargo-deny; returns its path. Its build takes 2.5 minutes of CPU time.
pub(crate) fn for_deny() -> Result<PathBuf> {
    cargo_tool("cargo-deny", DENY_VERSION, "checks licences and sources")
}

/// Installs what builds packages, with a program of another processor beside, once for all builds that then run side by side.
pub(crate) fn for_dist(quick: bool, also: Option<&Arch>) -> Result<()> {
    apt::install(&[PACKAGES])?;
    if also.is_some() {
        apt::install(&[AARCH64_PROGRAMS, COMPILER])?;
    }
    auditable()?;
    if !quick {
        cyclonedx()?;
    }
    Ok(())
}

/// The path of cargo-auditable, whose build takes half a minute of CPU time.
pub(crate) fn auditable() -> Result<PathBuf> {
    cargo_tool("cargo-auditable", AUDITABLE_VERSION, "writes the list of crates into a program")
}

/// The path of cargo-cyclonedx, whose build takes 2.5 minutes of CPU time.
pub(crate) fn cyclonedx() -> Result<PathBuf> {
    cargo_tool("cargo-cyclonedx", CYCLONEDX_VERSION, "writes the list of crates as CycloneDX")
}

/// Installs what runs a program of aarch64.
pub(crate) fn for_aarch64_emulation() -> Result<()> {
    apt::install(&[AARCH64_EMULATOR])
}

/// Installs what tries a release.
pub(crate) fn for_dist_checks() -> Result<()> {
    apt::install(&[PACKAGE_CHECKS, CONTAINERS])
}

/// Installs what runs the tests of a release: see `dist::check::in_use`.
pub(crate) fn for_dist_tests() -> Result<()> {
    apt::install(&[CONTAINERS, NETWORK, PYTHON])?;
    install_validators()
}

/// Installs cargo-fuzz; returns its path. Its build takes a minute of CPU time.
pub(crate) fn for_fuzz() -> Result<PathBuf> {
    cargo_tool("cargo-fuzz", FUZZ_VERSION, "builds and runs fuzz targets")
}

/// Installs a program of crates.io, once for each version; returns its path. The settings below trade its speed, which does
/// not matter, for a short build.
fn cargo_tool(name: &str, version: &str, purpose: &str) -> Result<PathBuf> {
    let root = cache_dir()?.join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.exists() {
        println!("installing {name} {version} to {}: {purpose}", root.display());
        let mut cargo = process::cargo();
        cargo.args(["install", name, "--version", version, "--locked"]).arg("--root").arg(root);
        for (setting, value) in [("LTO", "off"), ("OPT_LEVEL", "1"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0")] {
            cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
        }
        process::run_silently(&mut cargo)?;
    }
    Ok(program)
}

/// Installs all that `cargo xtask test` runs.
pub(crate) fn for_tests() -> Result<()> {
    install(vec![NETWORK, CONTAINERS, TERMINAL, RIGHTS, METRICS, PYTHON, COLLECTOR, MACHINES, COMPILER, LINTER])?;
    install_validators()?;
    install_collector()
}

/// Installs what validates the files for Kubernetes, where `observer/tests/fleet` looks for it. The list of packages is kept
/// beside them and says which versions are there.
fn install_validators() -> Result<()> {
    let wanted = fs::read_to_string(VALIDATORS).with_context(|| format!("read {VALIDATORS}"))?;
    let root = cache_dir()?.join("kubernetes-validators");
    let list = root.join("requirements.txt");
    if fs::read_to_string(&list).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("installing {VALIDATORS} to {}: validates the files for Kubernetes", root.display());
    process::run_silently(Command::new(PYTHON3).args(["-m", "venv", "--clear"]).arg(&root))?;
    pip_install(&root.join("bin/python"), &["--no-cache-dir", "--requirement", VALIDATORS])?;
    fs::write(&list, wanted).with_context(|| format!("write {}", list.display()))
}

/// Installs rotel where tests look for it. Debian has no collector for OTLP: its VictoriaMetrics (1.79) and Prometheus (2.42)
/// are too old.
fn install_collector() -> Result<()> {
    let root = cache_dir()?.join("rotel");
    if root.join(format!("rotel-{COLLECTOR_VERSION}.dist-info")).exists() {
        return Ok(());
    }
    println!("installing rotel {COLLECTOR_VERSION} to {}: receives OTLP in tests", root.display());
    let package = format!("rotel=={COLLECTOR_VERSION}");
    let target = format!("--target={}", root.display());
    pip_install(Path::new(PYTHON3), &["--root-user-action=ignore", "--no-deps", "--upgrade", &package, &target])
}

/// Installs packages of PyPI for this Python.
fn pip_install(python: &Path, args: &[&str]) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(args);
    process::run_silently(&mut pip)
}

/// Installs what runs the tests on other kernels.
pub(crate) fn for_vms(arch: &Arch) -> Result<()> {
    if arch.is_native() {
        return apt::install(&[NETWORK, MACHINES]);
    }
    apt::install(&[MACHINES, AARCH64_MACHINES, AARCH64_PROGRAMS, COMPILER])
}

/// A program of Debian's Rust, unaffected by the Rust that runs this task.
pub(crate) fn debian_rust(program: &str) -> Command {
    with_debian_rust(Command::new(Path::new("/usr/bin").join(program)))
}

/// A program that calls cargo and rustc, and gets Debian's.
pub(crate) fn with_debian_rust(mut command: Command) -> Command {
    for (name, _) in env::vars_os().filter(|(name, _)| steers_rust(name)) {
        command.env_remove(name);
    }
    command.env("CARGO", "/usr/bin/cargo").env("RUSTC", "/usr/bin/rustc");
    command
}

/// Whether a variable, of the user or of the cargo that runs this task, would change what Debian's cargo builds, or
/// with what. Where crates come from stays as the user has it.
fn steers_rust(name: &OsStr) -> bool {
    // rustup and `cargo run` point LD_LIBRARY_PATH at the libraries of their own rustc.
    const STEERING: [&str; 4] = ["CARGO", "RUST", "AYA_", "LD_LIBRARY_PATH"];
    const SOURCES: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    let name = name.to_string_lossy();
    let is_one_of = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    is_one_of(&STEERING) && !is_one_of(&SOURCES)
}

fn install(mut needs: Vec<Need>) -> Result<PathBuf> {
    // A bpf-linker on the PATH may be of another version; outside the tree ours outlives `cargo clean`.
    let root = cache_dir()?.join(format!("bpf-linker-{LINKER_VERSION}-{LLVM}"));
    let linker = root.join("bin/bpf-linker");
    if linker.exists() {
        apt::install(&needs)?;
    } else {
        needs.push(LINKER_BUILD);
        apt::install(&needs)?;
        install_linker(&root)?;
    }
    Ok(linker)
}

fn install_linker(root: &Path) -> Result<()> {
    println!("installing bpf-linker {LINKER_VERSION} to {}: links the BPF objects", root.display());
    let mut cargo = debian_rust("cargo");
    cargo.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"]);
    cargo.args(["--no-default-features", "--features", LLVM]).arg("--root").arg(root);
    process::run_silently(cargo.env("LLVM_PREFIX", Path::new("/usr/lib").join(LLVM)))
}

/// The folder of tools and images that outlive a build and the working tree.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("observer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_outer_cargo_sets_does_not_reach_debians() {
        for name in ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "LD_LIBRARY_PATH"] {
            assert!(steers_rust(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_HTTP_CAINFO", "https_proxy"] {
            assert!(!steers_rust(OsStr::new(name)), "{name}");
        }
    }
}
