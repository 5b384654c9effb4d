//! What the fuzz targets in `observer/fuzz` run: each reader of bytes that others may have written. A test runs the same on
//! the corpora. Only tests and the feature `fuzzing` have this module.
//!
//! A reader may refuse its bytes. It may not panic, go on without end, or take memory without bound.

use std::{
    env::consts::ARCH,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{
    anonymize::{self, Anonymizer},
    config::UserSettings,
    decode, host,
    input::{self, Input},
    model::{
        Basis, Model,
        address::Direction,
        device::Device,
        filter::{Filter, Filterable},
        quality::ProcessScope,
        query::{Of, Query},
        service::Service,
        units::{Comm, NetnsId, Pid, Process, TcpState},
    },
    probe::{
        btf::Btf,
        offsets::{self, WANTED},
        plan::ForcedMethods,
    },
    recording::{self, Header},
    replay::Replay,
    serve,
};

/// A target: its name, which its corpus and its binary have too, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 10] = [
    ("record", record),
    ("recording", recording),
    ("filter", filter),
    ("settings", settings),
    ("http", http),
    ("channel", channel),
    ("btf", btf),
    ("cgroup", cgroup),
    ("mountinfo", mountinfo),
    ("proc", proc),
];

/// As many rows as a screen has.
const MOST: usize = 50;

fn basis(frees_buckets: bool) -> Basis {
    let started_at = Some(Duration::from_secs(1));
    Basis { started_at, reads_buckets: true, processes: ProcessScope::All, frees_buckets }
}

/// Records of the ring buffer, each behind a byte with its length, and the model that they go into.
pub fn record(bytes: &[u8]) {
    let mut model = Model::new(Vec::new(), basis(bytes.len().is_multiple_of(2)));
    let mut now = Duration::ZERO;
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (record, after) = after.split_at(after.len().min(usize::from(*length)));
        let _ = decode::pass_end(record);
        input::apply(&mut model, now, Input::Record(record));
        now += Duration::from_millis(100);
        rest = after;
    }
    model.tick(now);
    let _ = model.snapshot(SystemTime::UNIX_EPOCH, now, MOST);
    let _ = model.connections(&Query { of: Of::All, filter: Filter::default() }, now, MOST);
}

/// A recording, as a file and as the content of its chunks, whose check sums no fuzzer finds; the model that it goes into; and the
/// same under pseudonyms, which is complete or refused as the original is.
pub fn recording(bytes: &[u8]) {
    let header = Header {
        observer: "0".to_owned(),
        arch: ARCH.to_owned(),
        kernel: "6.18.0".to_owned(),
        started_at: Duration::from_secs(1_700_000_000),
        hooks: Vec::new(),
        basis: basis(true),
        begins_at: Duration::ZERO,
        losses_before: crate::model::quality::Losses::default(),
    };
    let header = postcard::to_stdvec(&header).unwrap_or_default();
    let sealed = recording::sealed(&[header, bytes.to_vec()]).unwrap_or_default();
    for file in [bytes, &sealed] {
        let Ok(mut replay) = Replay::start(file) else { continue };
        // What came before the damage is shown.
        let is_whole = replay.finish().is_ok();
        let shown = replay.snapshot(MOST);
        let mut anonymized = Vec::new();
        let mut pseudonyms = Anonymizer::new().expect("random bytes");
        let rewritten = anonymize::rewrite(&mut pseudonyms, file, &mut anonymized);
        assert_eq!(rewritten.is_ok(), is_whole, "{rewritten:?}");
        match Replay::start(anonymized.as_slice()) {
            Ok(mut replay) if is_whole => {
                assert!(replay.finish().is_ok());
                assert_eq!(replay.snapshot(MOST).totals, shown.totals);
            }
            _ => assert!(!is_whole),
        }
    }
}

/// A filter, as a person types it.
pub fn filter(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let filter: Filter = match text.parse() {
        Ok(filter) => filter,
        Err(error) => return drop(error.to_string()),
    };
    let row = Filterable {
        addresses: &[(IpAddr::V4(Ipv4Addr::LOCALHOST), Some(443))],
        processes: &[Process { pid: Pid(812), comm: Comm::from("nginx") }],
        netns: Some(NetnsId(4_026_531_840)),
        netns_name: Some("blue"),
        service: Some(&Service { path: Some("/a".into()), unit: Some("a.service".into()), ..Service::default() }),
        direction: Some(Direction::Inbound),
        device: Device::new(3).named(Comm::from("eth0")),
        has_state: &|state| state == TcpState::TimeWait,
        text: "connect() EADDRNOTAVAIL",
    };
    assert!(filter.lets_through(&row) || !filter.is_empty());
}

/// The settings file.
pub fn settings(bytes: &[u8]) {
    match UserSettings::parse(&String::from_utf8_lossy(bytes), Path::new("/etc/x.toml")) {
        Ok(settings) => {
            let ring = settings.engine(ForcedMethods::default()).ring_bytes;
            assert!(ring.is_power_of_two(), "{ring}");
            let _ = settings.look(|_| None::<&str>);
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.contains(char::is_control), "{}", sentence.escape_debug());
        }
    }
}

/// A connection to the HTTP process.
pub fn http(bytes: &[u8]) {
    serve::fuzzing::http(bytes);
}

/// A message between the two processes of `observer serve`.
pub fn channel(bytes: &[u8]) {
    serve::fuzzing::channel(bytes);
}

/// BTF, as a kernel describes its types.
pub fn btf(bytes: &[u8]) {
    if let Ok(btf) = Btf::parse(bytes.to_vec()) {
        let found = offsets::resolve(&btf);
        let missing = offsets::missing_vital(found).count();
        assert!(missing <= WANTED.len());
        let _ = btf.parameters("tcp_connect");
    }
}

/// What says whose a cgroup is: paths, lines of /proc/PID/cgroup, files of runtimes.
pub fn cgroup(bytes: &[u8]) {
    for Service { path, unit, pod, container, machine } in host::fuzzing::cgroup(bytes) {
        assert!(path.is_some_and(|path| path.as_bytes().len() <= 1024));
        let pod = pod.map(|pod| [Some(pod.uid), pod.namespace, pod.name]);
        let container = container.map(|container| [Some(container.id), container.name, None]);
        let names = [pod, container, Some([unit, machine, None])].into_iter().flatten().flatten().flatten();
        names.for_each(|name| assert!(name.as_bytes().len() <= 255, "{} bytes", name.as_bytes().len()));
    }
}

/// /proc/self/mountinfo.
pub fn mountinfo(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    for found in host::fuzzing::mountinfo(bytes) {
        assert!(found <= lines, "{found} mounts in {lines} lines");
    }
}

/// Files of /proc, and answers of rtnetlink.
pub fn proc(bytes: &[u8]) {
    host::fuzzing::proc(bytes);
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs::{self, DirEntry},
        io,
        path::Path,
    };

    use super::TARGETS;
    use crate::host::text;

    fn entries(directory: &Path) -> Vec<DirEntry> {
        let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<_>>);
        entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
    }

    fn fuzz() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
    }

    #[test]
    fn no_input_of_the_corpora_makes_a_reader_panic() {
        for (name, run) in TARGETS {
            let corpus = entries(&fuzz().join("corpus").join(name));
            assert!(!corpus.is_empty(), "{name}");
            for input in corpus {
                run(&text::bytes(input.path()).unwrap());
            }
        }
    }

    #[test]
    fn every_target_has_a_binary_and_a_corpus_and_there_are_no_others() {
        let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let found = |directory: &str| -> BTreeSet<String> {
            let entries = entries(&fuzz().join(directory)).into_iter();
            entries.map(|entry| entry.path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!((&found("fuzz_targets"), &found("corpus")), (&names, &names));
    }
}
