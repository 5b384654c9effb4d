//! The pictures of the documents: what the screen shows of recordings of real traffic, and that they are not stale.
//!
//! `cargo xtask shots` writes them; `cargo xtask shots --record` makes the recordings first.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod svg;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use observer::{replay, tui::Look};

/// A picture in `docs/images`.
struct Picture {
    name: &'static str,
    /// In `observer/tests/data`.
    recording: &'static str,
    /// Seconds since its start.
    at: f64,
    /// Keys to type before the picture: see [`observer::tui::shot`].
    keys: &'static str,
    size: (u16, u16),
}

const DEMO: &str = "demo.obs";

const PICTURES: &[Picture] = &[
    Picture { name: "endpoints", recording: DEMO, at: 11.5, keys: "", size: (120, 30) },
    Picture { name: "endpoints-80x24", recording: DEMO, at: 11.5, keys: "", size: (80, 24) },
    Picture { name: "destinations", recording: DEMO, at: 11.5, keys: "2i", size: (120, 30) },
    Picture { name: "failures", recording: DEMO, at: 11.5, keys: "6", size: (120, 18) },
    Picture { name: "limits", recording: DEMO, at: 11.5, keys: "5", size: (120, 24) },
    Picture { name: "services", recording: DEMO, at: 11.5, keys: "7", size: (120, 18) },
    Picture { name: "lab-accept", recording: "lab-accept.obs", at: 0.9, keys: "", size: (100, 17) },
    Picture { name: "lab-client-ceiling", recording: "lab-client-ceiling.obs", at: 1.52, keys: "2", size: (100, 16) },
    Picture { name: "lab-port-reuse", recording: "lab-port-reuse.obs", at: 0.75, keys: "2", size: (100, 16) },
    Picture { name: "lab-time-wait", recording: "lab-time-wait.obs", at: 6.5, keys: "2", size: (100, 16) },
    Picture { name: "lab-fd-limit", recording: "lab-fd-limit.obs", at: 0.9, keys: "6", size: (120, 16) },
    Picture { name: "lab-backlog", recording: "lab-backlog.obs", at: 1.0, keys: "5/port:7000\n", size: (100, 16) },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn drawn(picture: &Picture) -> String {
    let recording = root().join("observer/tests/data").join(picture.recording);
    let at = Duration::from_secs_f64(picture.at);
    svg::of_screen(&replay::picture(&recording, at, picture.keys, picture.size, Look::default()).unwrap())
}

#[test]
fn every_picture_of_the_documents_is_what_the_screen_shows_today() {
    let is_to_write = env::var_os("OBSERVER_WRITE_SHOTS").is_some();
    let images = root().join("docs/images");
    let mut stale = Vec::new();
    for picture in PICTURES {
        let (path, drawn) = (images.join(picture.name).with_extension("svg"), drawn(picture));
        if is_to_write {
            fs::write(path, drawn).unwrap();
        } else if fs::read_to_string(path).ok() != Some(drawn) {
            stale.push(picture.name);
        }
    }
    assert!(stale.is_empty(), "`cargo xtask shots` rewrites these: {stale:?}");
}

#[test]
fn every_image_is_a_picture_and_is_shown_somewhere() {
    let images = fs::read_dir(root().join("docs/images")).unwrap().map(|entry| entry.unwrap().file_name());
    let images: BTreeSet<String> = images.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(images, PICTURES.iter().map(|picture| format!("{}.svg", picture.name)).collect());
    let documents = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents =
        documents.filter(|path| path.extension().is_some_and(|it| it == "md")).chain([root().join("README.md")]);
    let text: String = documents.map(|path| fs::read_to_string(path).unwrap()).collect();
    let unseen: Vec<&String> = images.iter().filter(|name| !text.contains(&format!("images/{name}"))).collect();
    assert!(unseen.is_empty(), "in no document: {unseen:?}");
}
