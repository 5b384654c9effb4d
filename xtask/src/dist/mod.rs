//! `cargo xtask dist`: what an administrator installs, built from a clean checkout into `target/dist/`.
//!
//! **Invariant**: a commit and the same tools give the same bytes in every folder. `--twice` holds the artefacts to it.

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::vm::arch::{self, Arch, X86_64};
use crate::{process, tools, workspace};

mod check;
mod debian;
mod notices;
mod oci;
mod program;
mod release;
mod rpm;
mod sbom;
mod tree;
mod twice;

use release::Release;
use tree::Tree;
use twice::Again;

/// What systemd gets, and where it stands in the repository.
const UNITS: [&str; 2] = ["observer.service", "observer.socket"];
const SYSTEMD: &str = "packaging/systemd";
const CHECKSUMS: &str = "SHA256SUMS";

/// What `cargo xtask dist` does besides building.
#[derive(clap::Args)]
pub(crate) struct Request {
    /// Then install each artefact in a clean root and try it, and run the tests that use the packages (needs root)
    #[arg(long)]
    check: bool,
    /// Build a second time, in another folder, and fail unless all bytes are equal
    #[arg(long)]
    twice: bool,
    /// To try the packages: a program that is built in a third of the time and is larger, no SBOM, and files may differ from the
    /// commit
    #[arg(long, conflicts_with = "twice")]
    quick: bool,
    /// Add a tar archive for another processor, built with Debian's compiler: aarch64
    #[arg(long, value_parser = arch::named)]
    also: Option<&'static Arch>,
}

/// Builds all artefacts.
pub(crate) fn run(request: &Request) -> Result<()> {
    if !request.quick {
        ensure_clean()?;
    }
    // This machine's own is there in any case.
    let also = request.also.filter(|arch| !arch.is_native());
    tools::for_dist(request.quick, also)?;
    // Side by side: a program that is one unit keeps one processor busy.
    let (folder, again) = thread::scope(|scope| {
        let again = request.twice.then(|| scope.spawn(|| Again::build(also)));
        let folder = build(request.quick, also);
        (folder, again.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))))
    });
    let folder = folder?;
    if let Some(again) = again.transpose()? {
        again.compare(&folder)?;
    }
    if request.check {
        check::run(&folder, request.quick, also)?;
        check::in_use()?;
    }
    Ok(())
}

/// Tries the packages of the sources as they are, in CI: its other tests use them.
pub(crate) fn check_quickly() -> Result<()> {
    tools::for_dist(true, None)?;
    check::run(&build(true, None)?, true, None)
}

/// Builds all artefacts for x86_64, and one for the processor `also`; returns their folder.
fn build(quick: bool, also: Option<&'static Arch>) -> Result<PathBuf> {
    let auditable = tools::auditable()?;
    let release = Release::of_this_tree()?;
    let work = fresh(workspace::target_dir()?.join("dist-build"))?;
    let built = program::build(&auditable, &X86_64, release.epoch, quick)?;
    let (program, made) = (read(&built)?, program::generated(&built, &work)?);
    let notices = notices::of_all_dependencies(&X86_64)?;
    let shared = Shared { release: &release, arch: &X86_64, program: &program, made: &made, notices: &notices };

    let mut artefacts = BTreeMap::new();
    artefacts.insert(shared.tarball_name(), shared.tarball()?);
    if let Some(arch) = also {
        let program = read(&program::build(&auditable, arch, release.epoch, quick)?)?;
        let notices = notices::of_all_dependencies(arch)?;
        let other = Shared { arch, program: &program, notices: &notices, ..shared };
        artefacts.insert(other.tarball_name(), other.tarball()?);
    }
    artefacts.insert(shared.name("x86_64-oci.tar"), oci::archive(&shared)?);
    if !quick {
        artefacts.insert(shared.name("cdx.json"), sbom::of(&tools::cyclonedx()?, &release)?);
    }
    for (name, bytes) in [debian::package(&shared, &work)?, rpm::package(&shared, &work)?] {
        artefacts.insert(name, bytes);
    }
    let sums: Vec<_> = artefacts.iter().map(|(name, bytes)| format!("{}  {name}\n", sha256(bytes))).collect();
    artefacts.insert(CHECKSUMS.to_owned(), sums.concat().into_bytes());

    let folder = fresh(workspace::target_dir()?.join("dist"))?;
    for (name, bytes) in &artefacts {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        println!("{}: {} bytes", path.display(), bytes.len());
    }
    Ok(folder)
}

/// What several artefacts contain.
struct Shared<'a> {
    release: &'a Release,
    arch: &'static Arch,
    program: &'a [u8],
    made: &'a program::Generated,
    /// The licences of everything that the program links.
    notices: &'a [(&'static str, Vec<u8>)],
}

impl Shared<'_> {
    fn name(&self, rest: &str) -> String {
        let separator = if rest.starts_with("cdx") { '.' } else { '-' };
        format!("observer-{}{separator}{rest}", self.release.version)
    }

    fn tarball_name(&self) -> String {
        self.name(&format!("{}-linux.tar.gz", self.arch.name))
    }

    /// Documents, as the links between them expect it.
    fn documents(&self, tree: &mut Tree, folder: &str) -> Result<()> {
        tree.add_file(&format!("{folder}README.md"), Path::new("README.md"))?;
        tree.add_folder(&format!("{folder}docs"), Path::new("docs"))?;
        for (name, notices) in self.notices {
            tree.add(&format!("{folder}{name}"), notices);
        }
        Ok(())
    }

    /// Everything, to unpack anywhere.
    fn tarball(&self) -> Result<Vec<u8>> {
        let mut tree = Tree::default();
        tree.add_program("observer", self.program);
        tree.add_file("LICENSE", Path::new("LICENSE"))?;
        self.documents(&mut tree, "")?;
        for folder in ["grafana", "helm", "kubernetes", "prometheus", "systemd"] {
            tree.add_folder(&format!("packaging/{folder}"), &Path::new("packaging").join(folder))?;
        }
        for (name, page) in &self.made.pages {
            tree.add(&format!("man/man1/{name}"), page);
        }
        for (shell, script) in &self.made.completions {
            tree.add(&format!("completions/{}", shell.file), script);
        }
        let name = self.name(&format!("{}-linux", self.arch.name));
        Ok(tree::gzip(&tree.tar(&format!("{name}/"), self.release.epoch)?))
    }

    /// What a package installs, by its place below `/`: all but the units. Distributions differ in their folder, and in that of
    /// zsh's completions.
    fn installed(&self, zsh: &str) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.add_program("usr/bin/observer", self.program);
        for (name, page) in &self.made.pages {
            tree.add(&format!("usr/share/man/man1/{name}"), page);
        }
        let doc = "usr/share/doc/observer/";
        for (shell, script) in &self.made.completions {
            let folder = match shell.name {
                "bash" => "usr/share/bash-completion/completions",
                "fish" => "usr/share/fish/vendor_completions.d",
                "zsh" => zsh,
                // These have no folder that packages may write to.
                _ => "usr/share/doc/observer/examples/completions",
            };
            let file = if shell.name == "bash" { "observer" } else { shell.file };
            tree.add(&format!("{folder}/{file}"), script);
        }
        tree.add_file("usr/lib/sysusers.d/observer.conf", Path::new("packaging/systemd/sysusers.conf"))?;
        tree.add_file("etc/default/observer", &Path::new(SYSTEMD).join("default"))?;
        for folder in ["grafana", "prometheus"] {
            tree.add_folder(&format!("{doc}examples/{folder}"), &Path::new("packaging").join(folder))?;
        }
        tree.add_file(&format!("{doc}examples/systemd/own-netns.conf"), &Path::new(SYSTEMD).join("own-netns.conf"))?;
        self.documents(&mut tree, doc)?;
        Ok(tree)
    }
}

/// Fails where files of the repository differ from its commit: artefacts name the commit's version and date.
fn ensure_clean() -> Result<()> {
    let changed = process::stdout(Command::new("git").args(["status", "--porcelain"]))?;
    ensure!(
        changed.is_empty(),
        "files differ from the commit: commit them, or give --quick to try packages\n{}",
        changed.trim_end()
    );
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// An empty folder at this path.
fn fresh(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
