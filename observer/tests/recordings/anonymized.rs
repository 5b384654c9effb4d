//! A recording under pseudonyms has the numbers of the original, and none of its addresses and names.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    NAMES, OBSERVER, decoded, observer, recording,
    stage::{CONNECTIONS, PORT, Stage},
    succeeds, unpacked, within,
};

fn json(path: &str) -> Value {
    serde_json::from_slice(&succeeds(&["replay", path, "--json"]).stdout).unwrap()
}

/// Addresses and names, wherever a key says that there is one.
fn identities(json: &Value, key: &str, is_service: bool, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            identities(value, key, (is_service || key == "service") && key != "kind" && key != "runtime", found);
        }),
        Value::Array(items) => items.iter().for_each(|item| identities(item, key, is_service, found)),
        Value::String(text) => {
            let names = ["comm", "netns_name", "device"];
            let is_name = is_service || names.contains(&key) || key.ends_with("_ip");
            if is_name && text.contains(char::is_alphanumeric) {
                found.insert(text.clone());
            }
        }
        _ => {}
    }
}

/// The text with a mark in the place of each of these words; the longest come first.
fn without(text: &str, words: &[String]) -> String {
    let mut text = text.to_owned();
    let is_edge = |letter: Option<char>| !letter.is_some_and(char::is_alphanumeric);
    for word in words {
        let mut from = 0;
        while let Some(at) = text[from..].find(word.as_str()).map(|at| from + at) {
            let end = at + word.len();
            if is_edge(text[..at].chars().next_back()) && is_edge(text[end..].chars().next()) {
                text.replace_range(at..end, "*");
                from = at + 1;
            } else {
                from = end;
            }
        }
    }
    text
}

/// Both without the addresses and names of either, in an order that does not depend on them: a process may be called as a word
/// is in a sentence.
fn numbers(both: [&Value; 2]) -> [Value; 2] {
    fn walk(json: &Value, words: &[String]) -> Value {
        match json {
            Value::String(text) => without(text, words).into(),
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(|item| walk(item, words)).collect();
                items.sort_by_key(ToString::to_string);
                items.into()
            }
            Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), walk(value, words))).collect(),
            other => other.clone(),
        }
    }
    let mut found = BTreeSet::new();
    for json in both {
        identities(json, "", false, &mut found);
    }
    let mut words: Vec<String> = found.into_iter().collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    both.map(|json| walk(json, &words))
}

#[track_caller]
fn assert_same_numbers(original: &str, anonymized: &str) {
    let [before, after] = numbers([&json(original), &json(anonymized)]);
    for (part, expected) in before.as_object().unwrap() {
        assert_eq!(after[part], *expected, "{original}: {part}");
    }
    assert_eq!(before, after);
}

/// What stays, as docs/recording.md has it.
fn stays(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first == 0 || ip.is_loopback() || ip.is_link_local() || first >= 224
        }
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback(),
    }
}

const COMMON: [&str; 6] = ["init.scope", "system.slice", "user.slice", "machine.slice", "app.slice", "session.slice"];

/// Looks for each address and name of the original in all bytes of the other one; returns for how many.
#[track_caller]
fn assert_absent(original: &str, anonymized: &str) -> usize {
    let (decoded, bytes) = (decoded(original), unpacked(anonymized));
    let contains = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    let strings = |key: &str| -> BTreeSet<String> {
        decoded[key].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let paths = strings("paths");
    let segments = paths.iter().flat_map(|path| path.split('/').map(str::to_owned));
    // Shorter ones occur by chance, or within words.
    let names = strings("names").into_iter().chain(segments).filter(|name| name.len() >= 6);
    let names: BTreeSet<String> = names.filter(|name| !COMMON.contains(&name.as_str())).collect();
    for name in &names {
        assert!(!contains(name.as_bytes()), "{name} is in {anonymized}");
    }
    let addresses = strings("addresses");
    let addresses = addresses
        .iter()
        .map(|digits| IpAddr::V6(Ipv6Addr::from_bits(u128::from_str_radix(digits, 16).unwrap())).to_canonical());
    let addresses: Vec<IpAddr> = addresses.filter(|ip| !stays(*ip)).collect();
    for ip in &addresses {
        let octets = match ip {
            // With the two bytes before it: four small numbers occur by chance.
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets()[10..].to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        assert!(!contains(&octets) && !contains(ip.to_string().as_bytes()), "{ip} is in {anonymized}");
    }
    names.len() + addresses.len()
}

#[test]
fn a_replay_has_the_numbers_of_the_original_and_none_of_its_addresses_and_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let (original, anonymized) = (recording(name), within(folder.path(), name));
        let said = succeeds(&["replay", "--anonymize", &anonymized, &original]);
        let found = fs::metadata(&anonymized).unwrap();
        let said = String::from_utf8(said.stderr).unwrap().replace(',', "");
        assert!(found.mode() & 0o7777 == 0o600 && said.contains(&format!("{} bytes", found.len())), "{said}");
        assert_same_numbers(&original, &anonymized);
        assert!(assert_absent(&original, &anonymized) > 0, "{name}");
        // The moments before the end are the same, too.
        let at = ["--at", "0.7", "--json"];
        let [before, after] = [&original, &anonymized]
            .map(|path| succeeds(&[&["snapshot", "--recording", path.as_str()], &at[..]].concat()).stdout);
        let [before, after] = [before, after].map(|text| serde_json::from_slice::<Value>(&text).unwrap());
        let [before, after] = numbers([&before, &after]);
        assert_eq!(before, after, "{name}");
        // Each has keys of its own.
        let again = within(folder.path(), "again");
        succeeds(&["replay", "--anonymize", &again, &original]);
        if name == "demo" {
            assert_ne!(decoded(&anonymized)["addresses"], decoded(&again)["addresses"]);
        }
        fs::remove_file(again).unwrap();
    }
}

#[test]
fn a_recording_of_this_host_names_nobody() {
    let (folder, stage) = (tempfile::tempdir().unwrap(), Stage::new());
    let [plain, live, later] = ["plain", "live", "later"].map(|name| within(folder.path(), name));
    stage.record_host(&plain);
    let said = succeeds(&["record", &live, "--anonymize", "--for", "1"]);
    let size = format!("{} bytes", fs::metadata(&live).unwrap().len());
    assert!(String::from_utf8(said.stderr).unwrap().replace(',', "").contains(&size), "{size}");
    succeeds(&["replay", "--anonymize", &later, &plain]);
    // Those of the stage alone: of a busy host the longest lists are cut, in an order of names.
    let [own, anonymized] = ["own", "anonymized"].map(|name| within(folder.path(), name));
    stage.record_inside(&own);
    succeeds(&["replay", "--anonymize", &anonymized, &own]);
    assert_same_numbers(&own, &anonymized);
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for anonymized in [&live, &later] {
        // The stage's are among them.
        assert!(assert_absent(&plain, anonymized) >= Stage::addresses().len() + stage.names().len());
        let bytes = unpacked(anonymized);
        let contains = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        for ip in Stage::addresses() {
            let IpAddr::V4(ip) = ip else { continue };
            assert!(!contains(&ip.octets()), "{ip}");
        }
        for name in stage.names() {
            assert!(!contains(name.as_bytes()), "{name}");
        }
        assert!(hostname.trim().len() < 6 || !contains(hostname.trim().as_bytes()), "{hostname}");
    }
    assert_recognized(&live, stage.netns());
}

#[test]
fn a_recorders_directory_has_the_same_pseudonyms_in_all_its_segments_and_incidents() {
    let (folder, stage) = (tempfile::tempdir().unwrap(), Stage::new());
    let [original, anonymized, inside, empty] =
        ["recorder", "public", "recorder/public", "empty"].map(|name| within(folder.path(), name));
    fs::create_dir(&empty).unwrap();
    let segments = stage.record_segments(Path::new(&original), 2);
    let name_of = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    // As an incident keeps them: one that the history has, and one that it has no more.
    let incident = Path::new("incidents").join("1-20261127T031301Z-ports-exhausted");
    let original_incident = Path::new(&original).join(&incident);
    fs::create_dir(&original_incident).unwrap();
    fs::hard_link(&segments[0], original_incident.join(name_of(&segments[0]))).unwrap();
    let gone = "00000000-20261127T031201Z.obs";
    fs::copy(&segments[1], original_incident.join(gone)).unwrap();
    // After a crash the last one may be damaged.
    let mut bytes = fs::read(&segments[1]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = Path::new(&original).join("00009999-20261127T041301Z.obs.part");
    fs::write(&damaged, bytes).unwrap();
    fails_with(&["replay", "--anonymize", &inside, &original], 1, "in the recorder's directory, choose another name");
    fails_with(&["replay", "--anonymize", "-", &original], 1, "is a directory and becomes one");
    fails_with(&["replay", "--anonymize", &original, &original], 1, "is there already: choose another name");
    fails_with(&["replay", "--anonymize", &anonymized, &empty], 1, "has no recording");
    assert!(!Path::new(&anonymized).exists());
    let said = String::from_utf8(succeeds(&["replay", "--anonymize", &anonymized, &original]).stderr).unwrap();
    assert!(said.contains("and 1 incidents of") && said.contains("left out: "), "{said}");
    assert!(said.contains(damaged.to_str().unwrap()) && said.contains("damaged"), "{said}");
    fs::remove_file(&damaged).unwrap();
    let names = |folder: &Path| -> BTreeSet<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let (copies, kept) = (Path::new(&anonymized), Path::new(&anonymized).join(&incident));
    assert_eq!(names(copies), names(Path::new(&original)));
    assert_eq!(names(&kept), names(&original_incident));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(copies), mode(&kept), mode(&kept.join(gone))), (0o700, 0o700, 0o600));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&copies.join(name_of(&segments[0]))), inode(&kept.join(name_of(&segments[0]))), "written once");
    let mut known: Vec<[BTreeSet<String>; 2]> = Vec::new();
    let pairs = segments.iter().map(|path| (path.clone(), copies.join(name_of(path))));
    for (before, after) in pairs.chain([(original_incident.join(gone), kept.join(gone))]) {
        let [before, after] = [&before, &after].map(|path| path.to_str().unwrap());
        assert!(assert_absent(before, after) >= Stage::addresses().len() + stage.names_inside().len());
        assert_same_numbers(before, after);
        known.push([before, after].map(|path| {
            let decoded = decoded(path);
            decoded["addresses"].as_array().unwrap().iter().map(ToString::to_string).collect()
        }));
    }
    // As many addresses are in both as there were, and so of the names.
    let shared = |which: usize| known[0][which].intersection(&known[1][which]).count();
    assert!(shared(0) >= Stage::addresses().len() && shared(0) == shared(1), "{known:?}");
    assert_same_numbers(&original, &anonymized);
    let report = |path: &str| serde_json::from_slice::<Value>(&succeeds(&["report", path, "--json"]).stdout).unwrap();
    let reports = [&original, &anonymized].map(|path| report(path));
    // Each time that a report names can be shown: the ends of a recording too.
    let spans = reports[0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 3, "{spans:?}");
    for at in spans.iter().flat_map(|span| ["from", "to"].map(|end| span[end].as_str().unwrap())) {
        let shown = [&original, &anonymized].map(|path| {
            serde_json::from_slice::<Value>(&succeeds(&["replay", path, "--at", at, "--json"]).stdout).unwrap()
        });
        let [before, after] = numbers([&shown[0], &shown[1]]);
        assert_eq!(before, after, "at {at}");
    }
    let [before, after] = numbers([&reports[0], &reports[1]]);
    assert_eq!(before, after);
}

/// The stage's connections are there, by their ports, and share the first bits that their addresses share.
fn assert_recognized(path: &str, netns: u64) {
    let json = json(path);
    let rows = json["endpoints"].as_array().unwrap().iter();
    let rows: Vec<&Value> = rows.filter(|row| row["local_port"] == PORT && row["netns"] == netns).collect();
    let ips: BTreeSet<IpAddr> = rows.iter().map(|row| row["local_ip"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!((rows.len(), ips.len()), (4, 4), "{rows:#?}");
    let is_among = |is: &dyn Fn(&IpAddr) -> bool| ips.iter().filter(|ip| is(ip)).count();
    assert_eq!(is_among(&|ip| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10)), 1);
    assert_eq!(is_among(&|ip| matches!(ip, IpAddr::V6(ip) if ip.octets()[0] == 0xfd)), 1);
    assert_eq!(is_among(&|ip| matches!(ip, IpAddr::V6(ip) if ip.octets()[0] >> 5 == 1)), 1);
    for row in &rows {
        let is_bound = row.get("device").is_some();
        assert!(!is_bound || row["device"].as_str().unwrap().starts_with("device-"), "{row}");
        let established = row["states"]["established"].as_u64().unwrap_or(0);
        assert_eq!(established, if is_bound { 0 } else { CONNECTIONS as u64 }, "{row}");
        assert!(row["process"]["comm"].as_str().unwrap().starts_with("process-"), "{row}");
        let unit = row["service"]["unit"].as_str().unwrap();
        assert!(unit.starts_with("unit-") && unit.ends_with(".service"), "{row}");
        assert!(row["netns_name"].as_str().unwrap().starts_with("namespace-"), "{row}");
    }
}

#[track_caller]
fn fails_with(args: &[&str], code: i32, words: &str) {
    let output = observer(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && stderr.contains(words), "{args:?}: {stderr}");
    assert!(code == 2 || stderr.trim_end().lines().count() == 1, "one sentence: {stderr}");
}

#[test]
fn a_name_that_cannot_be_had_is_refused_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let [here, there, damaged, new, missing] =
        ["here", "there", "damaged", "new", "missing/x"].map(|name| within(folder.path(), name));
    fs::copy(recording("lab-backlog"), &here).unwrap();
    fs::write(&there, "precious").unwrap();
    let mut bytes = fs::read(&here).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    fails_with(&["replay", "--anonymize", &here, &here], 1, "is the recording itself: choose another name");
    fails_with(&["replay", "--anonymize", &there, &here], 1, "is there already: choose another name");
    fails_with(&["replay", "--anonymize", &missing, &here], 1, "ENOENT");
    fails_with(&["replay", "--anonymize", folder.path().to_str().unwrap(), &here], 1, "is a directory");
    fails_with(&["replay", "--anonymize", &new, &missing], 1, "ENOENT");
    fails_with(&["replay", "--anonymize", &new, &there], 1, "not a recording of observer");
    fails_with(&["replay", "--anonymize", &new, &damaged], 1, "is damaged");
    for other in [
        &["--json"][..],
        &["--speed", "2"],
        &["--from", "1"],
        &["--at", "03:12"],
        &["--follow"],
        &["--sort", "sockets"],
    ] {
        fails_with(&[&["replay", "--anonymize", &new, &here], other].concat(), 2, "cannot be used with");
    }
    // A recorder writes segments as they come: nothing may look anonymized that is not.
    fails_with(&["record", "--anonymize", "--keep", "1h", &new], 2, "cannot be used with");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["damaged", "here", "there"]);
    assert_eq!(fs::read(&there).unwrap(), b"precious");
}

#[test]
fn it_goes_through_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let from = |path: &str| Stdio::from(fs::File::open(Path::new(path)).unwrap());
    let output = Command::new(OBSERVER)
        .args(["replay", "--anonymize", "-", "-"])
        .stdin(from(&recording("lab-backlog")))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let piped = within(folder.path(), "piped");
    fs::write(&piped, &output.stdout).unwrap();
    assert_same_numbers(&recording("lab-backlog"), &piped);
}
