//! Kernel modules for a guest: which files, in which order.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::kernel::Kernel;
use crate::process;

/// A module's file as the guest's `insmod` takes it.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) object: Vec<u8>,
}

/// The modules of these names with all that they need, each after what it needs; what is built in needs no loading.
pub(crate) fn in_load_order(kernel: &Kernel, names: &[&str]) -> Result<Vec<Module>> {
    let read = |name| {
        let path = kernel.modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let mut files: Vec<&str> = Vec::new();
    for name in names {
        if let Some(of_name) = files_of(name, &dependencies) {
            files.extend(of_name);
        } else {
            let is_builtin = builtin.lines().any(|file| is_named(file, name));
            ensure!(is_builtin, "{} has no module {name}", kernel.package);
        }
    }
    let mut loaded = HashSet::new();
    files.retain(|&file| loaded.insert(file));
    files.into_iter().map(|file| module(&kernel.modules.join(file))).collect()
}

/// The files to load for a module, itself the last, by `modules.dep`: there each module names all it needs, the ones
/// to load first last.
fn files_of<'a>(name: &str, dependencies: &'a str) -> Option<Vec<&'a str>> {
    let (file, needed) =
        dependencies.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| is_named(file, name))?;
    Some(needed.split_whitespace().rev().chain([file]).collect())
}

/// Whether a file is a module's: the kernel takes `-` and `_` for the same.
fn is_named(file: &str, name: &str) -> bool {
    let stem = file.rsplit('/').next().unwrap_or(file).split(".ko").next().unwrap_or_default();
    stem.replace('-', "_") == name.replace('-', "_")
}

/// Reads a module, unpacked: the guest has no need for tools that do it.
fn module(path: &PathBuf) -> Result<Module> {
    let name = path.file_stem().context("a module without a name")?.to_string_lossy();
    let object = if path.extension() == Some(OsStr::new("xz")) {
        unxz(path)?
    } else {
        fs::read(path).with_context(|| format!("read {}", path.display()))?
    };
    Ok(Module { name: name.trim_end_matches(".ko").to_owned(), object })
}

fn unxz(path: &Path) -> Result<Vec<u8>> {
    let mut xz = Command::new("xz");
    let output = xz.args(["--decompress", "--stdout"]).arg(path).output().context("start `xz`")?;
    process::expect_success(&xz, output.status)?;
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let dependencies = "\
kernel/net/netfilter/nf_conntrack.ko: kernel/lib/libcrc32c.ko kernel/arch/x86/crypto/crc32c-intel.ko
kernel/drivers/net/veth.ko.xz:
";
        let files = files_of("nf-conntrack", dependencies).unwrap();
        assert_eq!(
            files,
            [
                "kernel/arch/x86/crypto/crc32c-intel.ko",
                "kernel/lib/libcrc32c.ko",
                "kernel/net/netfilter/nf_conntrack.ko"
            ]
        );
        assert_eq!(files_of("veth", dependencies), Some(vec!["kernel/drivers/net/veth.ko.xz"]));
        assert_eq!(files_of("conntrack", dependencies), None);
    }
}
