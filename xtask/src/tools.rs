//! What the tasks need beyond stable Rust, and how it is got: packages of Debian 12, and bpf-linker from crates.io.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Packages that serve one purpose, installed together so that their versions fit.
struct Need {
    packages: &'static [&'static str],
    purpose: &'static str,
}

const COMPILER: Need = Need {
    packages: &[
        "rustc-web",
        "cargo-web",
        "rust-web-llvm",
        "libstd-rust-web-dev-bpf",
    ],
    purpose: "builds the BPF objects (a rustc that comes with `core` for BPF)",
};
const LINTER: Need = Need {
    packages: &["rust-web-clippy"],
    purpose: "lints the BPF side",
};
const LINKER_BUILD: Need = Need {
    packages: &[
        "llvm-22-dev",
        "libpolly-22-dev",
        "zlib1g-dev",
        "libzstd-dev",
    ],
    purpose: "builds bpf-linker",
};
const NETWORK: Need = Need {
    packages: &["iproute2"],
    purpose: "`ip` and `ss`: the tests' network namespaces, and a second opinion",
};
const TERMINAL: Need = Need {
    packages: &["tmux"],
    purpose: "a terminal for the tests of the interface",
};

const LINKER_VERSION: &str = "0.13.0";
/// The LLVM of [`COMPILER`]: the linker reads the bitcode which that rustc writes.
const LLVM: &str = "llvm-22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Installs what building and linting the BPF side needs; returns the path of bpf-linker.
pub(crate) fn for_ebpf() -> Result<PathBuf> {
    install(vec![COMPILER, LINTER])
}

/// Installs what the whole of `cargo xtask test` needs; returns the path of bpf-linker.
pub(crate) fn for_tests() -> Result<PathBuf> {
    install(vec![NETWORK, TERMINAL, COMPILER, LINTER])
}

/// A program of Debian's Rust, by name: of two toolchains on one machine it must not mix.
pub(crate) fn debian_rust(program: &str) -> Command {
    let mut command = Command::new(Path::new("/usr/bin").join(program));
    for (name, _) in env::vars_os().filter(|(name, _)| steers_rust(name)) {
        command.env_remove(name);
    }
    command
        .env("CARGO", "/usr/bin/cargo")
        .env("RUSTC", "/usr/bin/rustc");
    command
}

/// Whether a variable, set by the user or by the cargo that runs us, would change what another cargo builds or with
/// what. Where crates come from is left as the user has it.
fn steers_rust(name: &OsStr) -> bool {
    const SOURCES: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    let name = name.to_string_lossy();
    // rustup and `cargo run` point LD_LIBRARY_PATH at the libraries of their own rustc.
    let steers = ["CARGO", "RUST", "AYA_", "LD_LIBRARY_PATH"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    steers && !SOURCES.iter().any(|prefix| name.starts_with(prefix))
}

fn install(mut needs: Vec<Need>) -> Result<PathBuf> {
    // Beside cargo's own tools it could be of another version or LLVM; outside the tree it outlives `cargo clean`.
    let linker_root = cache_dir()?.join(format!("bpf-linker-{LINKER_VERSION}-{LLVM}"));
    let linker = linker_root.join("bin/bpf-linker");
    let has_linker = linker.exists();
    if !has_linker {
        needs.push(LINKER_BUILD);
    }
    install_packages(&needs)?;
    if !has_linker {
        println!(
            "installing bpf-linker {LINKER_VERSION} to {}: links the BPF objects",
            linker_root.display()
        );
        let mut cargo = debian_rust("cargo");
        cargo.args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--no-default-features",
        ]);
        cargo
            .args(["--features", LLVM])
            .arg("--root")
            .arg(&linker_root);
        process::run_silently(cargo.env("LLVM_PREFIX", LLVM_PREFIX))?;
    }
    Ok(linker)
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value: &OsString| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(cache
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("observer"))
}

fn install_packages(needs: &[Need]) -> Result<()> {
    let installed = installed_packages(needs)?;
    let is_met = |need: &Need| {
        need.packages
            .iter()
            .all(|&package| installed.contains(package))
    };
    let unmet: Vec<&Need> = needs.iter().filter(|need| !is_met(need)).collect();
    if unmet.is_empty() {
        return Ok(());
    }
    if !is_root()? || !Path::new("/usr/bin/apt-get").exists() {
        let packages: Vec<_> = unmet
            .iter()
            .flat_map(|need| need.packages)
            .copied()
            .collect();
        bail!(
            "packages are missing; on Debian 12, as root: apt-get install {}",
            packages.join(" ")
        );
    }
    process::run_silently(apt_get().arg("update"))?;
    for need in unmet {
        println!("installing {}: {}", need.packages.join(" "), need.purpose);
        process::run_silently(
            apt_get()
                .args(["install", "--yes", "--no-install-recommends"])
                .args(need.packages),
        )?;
    }
    Ok(())
}

fn installed_packages(needs: &[Need]) -> Result<HashSet<String>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"]);
    query.args(needs.iter().flat_map(|need| need.packages));
    // Its exit code only tells that some package is not known.
    let listed = match query.output() {
        Ok(output) => output.stdout,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context("start `dpkg-query`"),
    };
    let listed = String::from_utf8_lossy(&listed);
    Ok(listed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt at work on the machine is waited for, not failed on.
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "--quiet",
        "--option",
        "DPkg::Lock::Timeout=300",
    ]);
    command
}

fn is_root() -> Result<bool> {
    let process = fs::metadata("/proc/self").context("read the owner of /proc/self")?;
    Ok(process.uid() == 0)
}
