//! The rules of docs/architecture.md that a search can hold.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every Rust file under these folders of the repository, with its text.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    files(folders, &["rs"])
}

/// Every file under these folders whose name ends so, with its text.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    let mut queue: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(path) = queue.pop() {
        if path.is_dir() {
            queue.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|it| extension == *it)) {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(!files.is_empty(), "{folders:?} hold no source");
    files
}

#[track_caller]
fn assert_absent(folders: &[&str], words: &[&str], except: &[&str], rule: &str) {
    for (name, text) in sources(folders) {
        if except.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in words {
                assert!(!code.contains(word), "{name}:{}: {rule}: {word}", number + 1);
            }
        }
    }
}

#[test]
fn the_model_is_pure() {
    assert_absent(
        &["observer/src/model"],
        &["std::fs", "std::io", "std::process", "Instant::now", "SystemTime::now", "tokio", "ratatui", "aya", "libc"],
        &[],
        "the model takes its time and its data as arguments",
    );
}

#[test]
fn only_decode_and_probe_know_the_abi() {
    assert_absent(
        &["observer/src"],
        &["observer_ebpf"],
        &["observer/src/decode", "observer/src/probe"],
        "beyond decode and probe there are only the model's types",
    );
}

#[test]
fn aya_stays_where_programs_are_loaded_and_records_are_read() {
    assert_absent(
        &["observer/src"],
        &["aya::", "aya_log::"],
        &["observer/src/probe", "observer/src/source/live.rs"],
        "aya is named only by probe and the live source",
    );
}

#[test]
fn nothing_prints_behind_the_screen() {
    assert_absent(
        &["observer/src"],
        &["println!", "eprintln!", "print!(", "eprint!(", "dbg!"],
        &[],
        "output goes through a writer that main, doctor or export was given",
    );
}

#[test]
fn the_view_changes_nothing_and_asks_nobody() {
    assert_absent(
        &["observer/src/tui/view.rs", "observer/src/tui/ui.rs", "observer/src/tui/widget", "observer/src/tui/screen"],
        &["std::fs", "std::io", "Instant::now", "SystemTime::now", "crossterm::", "crate::engine", "crate::host"],
        &[],
        "drawing and updating are pure",
    );
}

#[test]
fn kernel_text_has_one_reader() {
    assert_absent(
        &["observer/src"],
        &["fs::read_to_string", "fs::read(", "File::open", "BufReader"],
        &[
            "observer/src/host/text.rs",
            // Namespace files are opened, not read.
            "observer/src/host/handle.rs",
            // Files of users and the terminal.
            "observer/src/config.rs",
            "observer/src/new_file.rs",
            "observer/src/recording",
            "observer/src/frame/recorded.rs",
            "observer/src/replay",
            "observer/src/tui/input.rs",
        ],
        "/proc and /sys are read by host/text.rs, which reads them whole and keeps the errno",
    );
}

#[test]
fn tests_wait_for_conditions_and_none_is_switched_off() {
    let (sleep, ignore) = (["thread::", "sleep"].concat(), ["#[ig", "nore"].concat());
    assert_absent(&["observer/tests", "observer/src/model/tests"], &[&sleep, &ignore], &[], "no sleep, no switch");
}

#[test]
fn a_file_holds_one_concern() {
    for (name, text) in sources(&["observer", "observer-ebpf", "xtask"]) {
        let lines = text.lines().count();
        assert!(lines <= 450, "{name} has {lines} lines: more than one concern?");
    }
}

#[test]
fn what_is_cut_on_the_screen_says_so() {
    assert_absent(
        &["observer/src/tui"],
        &["render(row,", "set_string(", "set_stringn(", "set_line(", "set_span(", "Span::raw(text).render"],
        &["observer/src/tui/text.rs", "observer/src/tui/tests"],
        "lines are drawn by text::put, which ends what does not fit with a mark",
    );
}

/// Words that this project once had for things that the field has a word for. The right one is in docs/glossary.md.
const PRIVATE_WORDS: [&str; 44] = [
    "wall",
    "walls",
    "rung",
    "rungs",
    "ladder",
    "ladders",
    "climb",
    "climbs",
    "climbed",
    "mini",
    "minis",
    "holder",
    "holders",
    "door",
    "doors",
    "wish",
    "wishes",
    "calm",
    "foretell",
    "foretells",
    "foretold",
    "told",
    "tell",
    "tells",
    "telling",
    "deaf",
    "deafen",
    "blind",
    "dear",
    "dearer",
    "dearest",
    "crew",
    "goodbye",
    "ripe",
    "ripen",
    "ripens",
    "ripening",
    "hostile",
    "anew",
    "narration",
    "narrator",
    "narrate",
    "narrates",
    "unborn",
];

/// The words of a line in lower case; `WallKind` and `wall_kind` are two each.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in line.chars() {
        if !letter.is_ascii_alphabetic() || (letter.is_ascii_uppercase() && was_lower) {
            words.push(String::new());
        }
        if letter.is_ascii_alphabetic() {
            words.last_mut().unwrap().push(letter.to_ascii_lowercase());
        }
        was_lower = letter.is_ascii_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_words_are_those_of_the_field() {
    let folders = ["observer", "observer-ebpf/src", "xtask/src", "docs", "README.md"];
    let mut found = Vec::new();
    for (name, text) in files(&folders, &["rs", "md", "snap"]) {
        // This list, and the history of names.
        if ["observer/tests/tidy.rs", "docs/changelog.md"].contains(&name.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let words = words(line);
            for (i, word) in words.iter().enumerate().filter(|(_, word)| PRIVATE_WORDS.contains(&word.as_str())) {
                let is_wall_clock =
                    word == "wall" && words.get(i + 1).is_some_and(|next| next == "clock" || next == "time");
                if !is_wall_clock {
                    found.push(format!("{name}:{}: {word}", number + 1));
                }
            }
            // As `ss` writes it: in what reads `ss`, and in filters that take both.
            let quotes_ss = ["docs/glossary.md", "observer/src/model/filter.rs", "observer/tests/live/ss.rs"];
            if (line.contains("TIME-WAIT") && !quotes_ss.contains(&name.as_str()))
                || words.windows(2).any(|pair| pair == ["borne", "out"])
            {
                found.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "see docs/glossary.md for these:\n{}", found.join("\n"));
}

#[test]
fn each_dependency_has_its_row_and_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let mut wanted = BTreeSet::new();
    for folder in ["", "observer/", "observer/fuzz/", "observer-ebpf/", "xtask/"] {
        let manifest: toml::Table = read(&format!("{folder}Cargo.toml")).parse().unwrap();
        let mut tables = vec![&manifest];
        while let Some(table) = tables.pop() {
            for (name, value) in table {
                match value.as_table() {
                    Some(crates) if name.ends_with("dependencies") => wanted.extend(crates.keys().cloned()),
                    Some(inner) => tables.push(inner),
                    None => {}
                }
            }
        }
    }
    // The fuzz targets depend on observer itself.
    wanted.remove("observer");
    let table = read("docs/dependencies.md");
    let mut listed = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.iter().all(|cell| !cell.is_empty()), "an empty cell: {row}");
        assert!(listed.insert(cells[0].trim_matches('`').to_owned()), "twice: {row}");
    }
    assert_eq!(wanted, listed, "docs/dependencies.md does not list the dependencies of the manifests");
}
