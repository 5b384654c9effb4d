//! `observer serve --recorder`.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use super::{
    eventually,
    server::{OBSERVER, Server},
};

const NOBODY: u32 = 65_534;

fn segments(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut segments: Vec<String> = names.filter(|name| name.contains("Z.obs") && !name.contains(".part")).collect();
    segments.sort();
    segments
}

#[test]
fn a_service_without_rights_goes_on_with_segments_and_says_how_its_recorder_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recorder");
    let name = path.to_str().unwrap();
    let recorder = ["--recorder", name, "--recorder-keep", "10s", "--recorder-max-bytes", "4M"];
    let server = Server::with(&[&["--own-netns", "--listen", "127.0.0.1:0"][..], &recorder].concat());
    // A second one is refused.
    let second = Command::new(OBSERVER).args(["record", "--keep", "10s", name]).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(second.status.code() == Some(1) && said.contains("another recorder writes to"), "{said}");
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let uid: u32 =
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok()).unwrap();
    // Where others may not execute the program, the service stays root.
    let is_for_all = fs::metadata(OBSERVER).unwrap().mode() & 0o001 != 0;
    assert_eq!(uid, if is_for_all { NOBODY } else { 0 });
    assert_eq!(fs::metadata(&path).unwrap().uid(), uid);
    // Ten seconds later the next one begins, without rights, and again: then the first one goes, which was begun with rights.
    let second = eventually("the end of the first segment", || {
        segments(&path).into_iter().next().filter(|name| !name.starts_with("00000001-"))
    });
    assert_eq!(fs::metadata(path.join(second)).unwrap().uid(), uid);
    let metrics = server.get("/metrics");
    for series in
        ["observer_recorder_size_bytes ", "observer_recorder_oldest_timestamp_seconds ", "observer_recorder_incidents "]
    {
        assert!(metrics.lines().any(|line| line.starts_with(series)), "{series}: {metrics}");
    }
    assert!(server.sum("observer_recorder_errors_total") < 0.5 && server.sum("observer_recorder_lost_total") < 0.5);
    let page = server.get("/");
    assert!(page.contains("of 4,194,304 bytes: "), "{page}");
}
