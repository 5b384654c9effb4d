//! The directory of a recorder on a real filesystem.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use super::*;

const BOUNDS: RecorderBounds = RecorderBounds { keep: Duration::from_hours(1), bytes: 1 << 20, incidents: 2 };

fn open(path: &Path) -> Recorder {
    Recorder::open(path, BOUNDS, None).unwrap()
}

fn begin(recorder: &mut Recorder, at: Duration) {
    recorder.take(&Item::Beginning { bytes: Arc::from(vec![1; 100]), at, lost: 0 }).unwrap();
}

fn add(recorder: &mut Recorder, bytes: usize) {
    recorder.take(&Item::Chunk { bytes: Arc::from(vec![2; bytes]), inputs: 3 }).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != name::INCIDENTS).collect();
    names.sort();
    names
}

fn is_open(name: &str) -> bool {
    SegmentName::parse(name).unwrap().is_open
}

#[test]
fn a_segment_has_its_name_once_it_is_complete_and_the_next_recorder_goes_on_with_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let mut recorder = open(&path);
    let now = wall_clock();
    begin(&mut recorder, now);
    add(&mut recorder, 1_000);
    assert!(names(&path)[0].ends_with(".obs.part"), "{:?}", names(&path));
    begin(&mut recorder, now + Duration::from_secs(1));
    let (first, second) = (names(&path)[0].clone(), names(&path)[1].clone());
    assert!(first.starts_with("00000001-") && first.ends_with("Z.obs") && second.ends_with(".obs.part"));
    assert_eq!(fs::read(path.join(&first)).unwrap().len(), 1_100);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&path), mode(&path.join(&first)), mode(&path.join("incidents"))), (0o700, 0o600, 0o700));
    // As a crash leaves it.
    drop(recorder);
    let mut recorder = open(&path);
    assert!(names(&path).iter().all(|name| !is_open(name)), "{:?}", names(&path));
    begin(&mut recorder, now + Duration::from_secs(2));
    recorder.finish().unwrap();
    assert!(names(&path)[2].starts_with("00000003-") && !is_open(&names(&path)[2]), "{:?}", names(&path));
    assert_eq!(recorder.handle().status().segments, 3);
}

#[test]
fn a_directory_is_of_one_recorder_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let recorder = open(&path);
    let refused = |path: &Path| errno::sentence(&Recorder::open(path, BOUNDS, None).unwrap_err());
    assert!(refused(&path).starts_with("another recorder writes to "), "{}", refused(&path));
    drop(recorder);
    fs::write(path.join("letter.txt"), "mine").unwrap();
    assert!(refused(&path).contains("has letter.txt, which is of no recorder"), "{}", refused(&path));
    fs::remove_file(path.join("letter.txt")).unwrap();
    symlink(&path, folder.path().join("link")).unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for other in ["link", "file"] {
        assert!(refused(&folder.path().join(other)).contains("is no directory"), "{other}");
    }
    assert!(refused(&folder.path().join("a/b")).contains("ENOENT"), "{}", refused(&folder.path().join("a/b")));
    open(&path);
}

#[test]
fn what_root_makes_belongs_to_the_later_user_unless_somebody_else_may_have_put_something_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let nobody = User::nobody();
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    let mut recorder = Recorder::open(&path, BOUNDS, Some(nobody)).unwrap();
    if !rustix::process::geteuid().is_root() {
        // There is nothing to give away.
        assert_eq!(owner(&path), rustix::process::geteuid().as_raw());
        return;
    }
    begin(&mut recorder, wall_clock());
    let first = path.join(&names(&path)[0]);
    assert_eq!([owner(&path), owner(&path.join("incidents")), owner(&first)], [nobody.uid().as_raw(); 3]);
    drop(recorder);
    // Files of an earlier recorder that stayed root.
    let of_root = folder.path().join("of_root");
    let mut recorder = open(&of_root);
    begin(&mut recorder, wall_clock());
    drop(recorder);
    drop(Recorder::open(&of_root, BOUNDS, Some(nobody)).unwrap());
    assert_eq!(owner(&of_root.join(&names(&of_root)[0])), nobody.uid().as_raw());
    let open_to_all = folder.path().join("open_to_all");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Recorder::open(&open_to_all, BOUNDS, Some(nobody)).unwrap_err();
    assert!(refused.to_string().contains("belongs to user 0, mode 777"), "{refused}");
}

#[test]
fn an_incident_has_the_segments_of_the_minute_before_and_after_under_the_name_of_the_worst_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let mut recorder = open(&path);
    let now = wall_clock();
    begin(&mut recorder, now);
    add(&mut recorder, 5_000);
    let incident = |severity, words: &str| Item::Incident(Incident { at: now, severity, words: words.to_owned() });
    recorder.take(&incident(Severity::Critical, "ports critical")).unwrap();
    recorder.take(&incident(Severity::Exhausted, "ports exhausted")).unwrap();
    recorder.take(&incident(Severity::Failing, "ports_exhausted failures")).unwrap();
    let incidents = names(&path.join("incidents"));
    assert!(incidents.len() == 1 && incidents[0].ends_with("Z-ports-exhausted"), "{incidents:?}");
    let kept = path.join("incidents").join(&incidents[0]);
    assert_eq!(names(&kept), Vec::<String>::new(), "it is being written");
    begin(&mut recorder, now + Duration::from_secs(1));
    assert_eq!(names(&kept), names(&path)[..1]);
    // Both names are one file.
    let bytes = recorder.handle().status().bytes;
    assert_eq!(fs::metadata(kept.join(&names(&kept)[0])).unwrap().nlink(), 2);
    assert_eq!(bytes, 3 * 4096 + 2 * 4096 + 4096, "three folders, 5,100 bytes and 100 bytes");
    // A crash before the segment is complete: the next recorder puts it to the incident.
    drop(recorder);
    let recorder = open(&path);
    assert_eq!(names(&kept), names(&path));
    assert_eq!(recorder.handle().status().incidents, 1);
}

#[test]
fn an_error_of_the_disk_ends_a_segment_and_not_the_recorder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let mut recorder = open(&path);
    let now = wall_clock();
    begin(&mut recorder, now);
    add(&mut recorder, 100);
    // The kernel refuses to write to it: EBADF.
    let segment = recorder.open.as_mut().unwrap();
    segment.file = File::open(path.join(segment.name.to_string())).unwrap();
    add(&mut recorder, 100);
    add(&mut recorder, 100);
    let status = recorder.handle().status();
    assert_eq!((status.errors, status.lost, status.segments), (1, 6, 1));
    assert!(status.last_error.unwrap().starts_with("EBADF"));
    assert!(!recorder.handle().may_begin() && recorder.handle().take_dropped() == 6);
    begin(&mut recorder, now + Duration::from_secs(1));
    add(&mut recorder, 100);
    recorder.finish().unwrap();
    let lengths = names(&path).iter().map(|name| fs::metadata(path.join(name)).unwrap().len()).collect::<Vec<_>>();
    assert_eq!(lengths, [200, 200]);
}
