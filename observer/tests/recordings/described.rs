//! docs/recording.md describes the format well enough: a decoder that knows nothing else reads what the crate reads.

use std::{collections::BTreeMap, fs::File, io::BufReader, time::Duration};

use observer::{
    input::Input,
    recording::{Next, Reader},
};
use serde_json::{Value, json};

use crate::{NAMES, decoded, recording, stage::Stage, succeeds, within};

fn kind(input: &Input<'_>) -> &'static str {
    match input {
        Input::Record(_) => "record",
        Input::BeginScan(_) => "begin_scan",
        Input::EndScan => "end_scan",
        Input::AbandonScan => "abandon_scan",
        Input::EndRound(_) => "end_round",
        Input::BeginFdScan => "begin_fd_scan",
        Input::EndFdScan => "end_fd_scan",
        Input::Namespace(..) => "namespace",
        Input::ForgetNamespace(_) => "forget_namespace",
        Input::Host(_) => "host",
        Input::Losses(_) => "losses",
        Input::Gaps(_) => "gaps",
        Input::Tick => "tick",
        Input::RestartTotals => "restart_totals",
        Input::Service(..) => "service",
        Input::StreamLoss(_) => "stream_loss",
        Input::Cost(_) => "cost",
        Input::Unchanged(_) => "unchanged",
    }
}

/// What the decoder prints, by the crate.
fn read(path: &str) -> Value {
    let mut reader = Reader::start(BufReader::new(File::open(path).unwrap())).unwrap();
    let mut inputs: BTreeMap<&str, u64> = BTreeMap::new();
    let mut records: BTreeMap<String, u64> = BTreeMap::new();
    let mut times: Vec<u64> = Vec::new();
    while let Next::Input(at, input) = reader.next(Duration::MAX).unwrap() {
        times.push(at.as_nanos().try_into().unwrap());
        *inputs.entry(kind(&input)).or_default() += 1;
        if let Input::Record(bytes) = input {
            *records.entry(bytes[28].to_string()).or_default() += 1;
        }
    }
    let header = reader.header();
    let hooks = header.hooks.iter().map(|status| json!([status.hook as u8, status.method.map(|method| method as u8)]));
    json!({
        "observer": header.observer,
        "arch": header.arch,
        "kernel": header.kernel,
        "started_at": u64::try_from(header.started_at.as_nanos()).unwrap(),
        "hooks": hooks.collect::<Vec<_>>(),
        "inputs": inputs,
        "records": records,
        "first_at": times[0],
        "last_at": times.last(),
        "sum_of_times": times.iter().sum::<u64>(),
    })
}

#[track_caller]
fn assert_same(path: &str, format: u16) -> Value {
    let (decoded, read) = (decoded(path), read(path));
    assert_eq!(decoded["format"], format, "{path}");
    for (part, expected) in read.as_object().unwrap() {
        assert_eq!(decoded[part], *expected, "{path}: {part}");
    }
    decoded
}

#[test]
fn a_decoder_of_its_own_reads_recordings_of_format_4() {
    for name in NAMES {
        assert_same(&recording(name), 4);
    }
    let demo = decoded(&recording("demo"));
    assert!(demo["inputs"]["record"].as_u64() > Some(60_000) && demo["records"].as_object().unwrap().len() > 8);
}

#[test]
fn and_recordings_of_this_host() {
    let (folder, stage) = (tempfile::tempdir().unwrap(), Stage::new());
    let path = within(folder.path(), "live");
    stage.record_inside(&path);
    let decoded = assert_same(&path, 6);
    for (what, found) in [("addresses", Stage::addresses_as_bytes()), ("names", stage.names_inside())] {
        let all = decoded[what].as_array().unwrap();
        for one in found {
            assert!(all.iter().any(|it| *it == one), "{one} not among {what}: {all:?}");
        }
    }
    let rewritten = within(folder.path(), "rewritten");
    succeeds(&["replay", "--anonymize", &rewritten, &path]);
    assert_same(&rewritten, 6);
}
