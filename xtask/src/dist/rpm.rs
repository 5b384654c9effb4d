//! The package for distributions with RPM, made with rpmbuild from `packaging/rpm`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::release::Release;
use super::{SYSTEMD, Shared, Tree, UNITS};
use crate::process;

const SPEC: &str = "packaging/rpm/observer.spec";

/// Makes the package; returns its name and its bytes.
pub(super) fn package(shared: &Shared, work: &Path) -> Result<(String, Vec<u8>)> {
    let folder = super::fresh(work.join("rpm"))?;
    let mut tree = Tree::default();
    tree.add("changes", changes(shared.release).as_bytes());
    tree.write_to(&folder)?;
    let mut installed = shared.installed("usr/share/zsh/site-functions")?;
    installed.add_file("usr/share/licenses/observer/LICENSE", Path::new("LICENSE"))?;
    for unit in UNITS {
        installed.add_file(&format!("usr/lib/systemd/system/{unit}"), &Path::new(SYSTEMD).join(unit))?;
    }
    installed.write_to(&folder.join("tree"))?;

    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--target", "x86_64-linux"]).arg(SPEC);
    let path = |name: &str| folder.join(name).display().to_string();
    for (name, value) in [
        ("version", shared.release.version.clone()),
        ("revision", Release::REVISION.to_owned()),
        ("packager", Release::packager()),
        ("tree", path("tree")),
        ("changes", path("changes")),
        ("_topdir", path("build")),
        // The program comes stripped: nothing to split off or to link to by its build id.
        ("debug_package", "%{nil}".to_owned()),
        ("_build_id_links", "none".to_owned()),
        // The scripts that would come after %install strip the list of crates, and differ between distributions.
        ("__os_install_post", "%{nil}".to_owned()),
        // What would differ from build to build.
        ("_buildhost", "localhost".to_owned()),
        ("use_source_date_epoch_as_buildtime", "1".to_owned()),
        ("clamp_mtime_to_source_date_epoch", "1".to_owned()),
        ("_binary_payload", "w9.xzdio".to_owned()),
    ] {
        rpmbuild.arg("--define").arg(format!("{name} {value}"));
    }
    process::run_silently(rpmbuild.env("SOURCE_DATE_EPOCH", shared.release.epoch.to_string()))?;
    let name = format!("observer-{}-{}.x86_64.rpm", shared.release.version, Release::REVISION);
    let path = folder.join("build/RPMS/x86_64").join(&name);
    Ok((name, fs::read(&path).with_context(|| format!("read {}", path.display()))?))
}

/// The entry of the release, in RPM's format.
fn changes(release: &Release) -> String {
    let date = release.date.strftime("%a %b %d %Y");
    let mut text = format!("* {date} {} - {}-{}\n", Release::packager(), release.version, Release::REVISION);
    for group in &release.groups {
        for change in &group.changes {
            // A percent sign begins a macro.
            let _ = writeln!(text, "- {}: {}", group.title, change.replace('%', "%%"));
        }
    }
    text
}
