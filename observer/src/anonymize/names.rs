//! Names under pseudonyms that say what they are of: `process-7`, `unit-3.service`, `k8s-1/pod-2`.

use rustc_hash::FxHashMap;
use siphasher::sip::SipHasher24;

use crate::model::{member::runtime_in, name::Name, units::Comm};

/// Names that get a number, at most. A process may give itself a new one at any time: later ones get a hash, which takes no
/// memory.
const MOST: usize = 1 << 16;
/// Digits of such a hash: 65 bits.
const HASH_DIGITS: usize = 13;
/// Of a command name: what fits.
const COMM_LENGTH: usize = 15;
/// The host's own network namespace, which no other is called.
const HOST: &[u8] = b"host";
/// An id of a container, or what its label shows of it, has at least as many digits.
const SHORT_ID: usize = 12;
/// The loopback device, which every network namespace has.
const LOOPBACK_DEVICE: &[u8] = b"lo";

/// Endings of units: they say of what kind a unit is.
const ENDINGS: [&str; 7] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap", ".device"];

/// Parts of paths that systemd, kubelet and runtimes choose, the same on every host. `init.scope` is known to the model.
const COMMON: [&str; 24] = [
    "",
    "..",
    "-.slice",
    "init.scope",
    "system.slice",
    "user.slice",
    "machine.slice",
    "app.slice",
    "session.slice",
    "background.slice",
    "kubepods.slice",
    "kubepods-burstable.slice",
    "kubepods-besteffort.slice",
    "kubepods",
    "burstable",
    "besteffort",
    "guaranteed",
    "docker",
    "lxc",
    "lxc.payload",
    "libpod_parent",
    "qemu.slice",
    "payload",
    "supervisor",
];

/// Names that are the same name only among their like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Space {
    Command,
    Device,
    Namespace,
    Unit,
    Cgroup,
    User,
    /// Pods, their Kubernetes namespaces, containers and machines: a network namespace may be called as any of them.
    Workload,
}

/// Gives names their pseudonyms.
pub(super) struct Names {
    hasher: SipHasher24,
    known: FxHashMap<(Space, Box<[u8]>), String>,
    /// The last number of each word.
    numbers: FxHashMap<&'static str, u64>,
    /// The same as `known`, of what comes with every other record.
    comms: FxHashMap<Comm, Comm>,
}

impl Names {
    pub(super) fn new(hasher: SipHasher24) -> Self {
        let (known, numbers, comms) = (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        Self { hasher, known, numbers, comms }
    }

    /// How many names are kept.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.known.len()
    }

    /// Of a process. One without a name keeps none.
    pub(super) fn comm(&mut self, comm: Comm) -> Comm {
        if let Some(known) = self.comms.get(&comm) {
            return *known;
        }
        let found = self.short(Space::Command, comm, "process");
        if self.comms.len() >= MOST {
            self.comms.clear();
        }
        self.comms.insert(comm, found);
        found
    }

    /// Of a network device.
    pub(super) fn device(&mut self, name: Comm) -> Comm {
        if name == Comm::from(LOOPBACK_DEVICE) { name } else { self.short(Space::Device, name, "device") }
    }

    fn short(&mut self, space: Space, name: Comm, word: &'static str) -> Comm {
        let bytes = name.bytes();
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        if bytes.is_empty() {
            return name;
        }
        let room = COMM_LENGTH - word.len() - 1;
        Comm::from(self.numbered(space, bytes, word, "", room).as_str())
    }

    /// Of a network namespace that is not called by a workload.
    pub(super) fn of_namespace(&mut self, name: &Name) -> Name {
        Name::new(&self.label(name.as_bytes(), Space::Namespace, "namespace"))
    }

    /// Of a network namespace that is called by a workload, as [`crate::model::service::Service::namespace_name`] has it.
    pub(super) fn of_workload(&mut self, name: &Name) -> Name {
        Name::new(&self.label(name.as_bytes(), Space::Workload, "workload"))
    }

    /// What [`crate::model::service::Service::label`] makes of the pseudonyms of the parts, if `bytes` are what it makes of the
    /// parts.
    fn label(&mut self, bytes: &[u8], space: Space, word: &'static str) -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes);
        if let Some((user, rest)) = text.strip_prefix("user@").and_then(|text| text.split_once(": ")) {
            let user = self.user(user.as_bytes());
            let rest = self.label(rest.as_bytes(), space, word);
            return [format!("user@{user}: ").as_bytes(), &rest].concat();
        }
        let start_of_uid = text.strip_prefix("pod ").map(|rest| rest.strip_suffix('…').unwrap_or(rest));
        if let Some(uid) = start_of_uid.filter(|uid| is_id(uid.as_bytes())) {
            let rest = if text.ends_with('…') { "…" } else { "" };
            return format!("pod {}{rest}", self.id(uid.as_bytes())).into_bytes();
        }
        self.part(bytes, space, word).into_bytes()
    }

    /// Of a pod, a container, a machine, or a Kubernetes namespace.
    pub(super) fn workload(&mut self, name: &Name, word: &'static str) -> Name {
        Name::from(self.part(name.as_bytes(), Space::Workload, word).as_str())
    }

    /// The one that a name gets wherever it is found, also where nothing says what it is of.
    fn part(&mut self, bytes: &[u8], space: Space, word: &'static str) -> String {
        if bytes.trim_ascii() == HOST {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == b'/') {
            let (namespace, pod) = bytes.split_at(at);
            let namespace = self.part(namespace, space, "k8s");
            return format!("{namespace}/{}", self.part(&pod[1..], space, "pod"));
        }
        if bytes.len() >= SHORT_ID && is_id(bytes) {
            return self.id(bytes);
        }
        if ending(bytes).is_empty() { self.numbered(space, bytes, word, "", HASH_DIGITS) } else { self.unit(bytes) }
    }

    /// Of a systemd unit: with its ending, and with what says that it is a session, a user's, or a runtime.
    pub(super) fn unit(&mut self, bytes: &[u8]) -> String {
        if COMMON.iter().any(|common| common.as_bytes() == bytes) {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        let ending = ending(bytes);
        let name = &bytes[..bytes.len() - ending.len()];
        for (prefix, of) in [("user@", ".service"), ("user-", ".slice")] {
            if let Some(user) = name.strip_prefix(prefix.as_bytes()).filter(|_| ending == of) {
                return format!("{prefix}{}{ending}", self.user(user));
            }
        }
        let word = match runtime_in(bytes) {
            Some(runtime) => runtime,
            None if name.starts_with(b"session-") && ending == ".scope" => "session",
            None => "unit",
        };
        self.numbered(Space::Unit, bytes, word, ending, HASH_DIGITS)
    }

    /// Of a segment of a cgroup's path.
    pub(super) fn segment(&mut self, bytes: &[u8]) -> String {
        if COMMON.iter().any(|common| common.as_bytes() == bytes) {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        if !ending(bytes).is_empty() {
            return self.unit(bytes);
        }
        if bytes.len() >= SHORT_ID && is_id(bytes) {
            return self.id(bytes);
        }
        match bytes.strip_prefix(b"pod").filter(|uid| is_id(uid)) {
            Some(uid) => format!("pod{}", self.id(uid)),
            None => self.numbered(Space::Cgroup, bytes, "cgroup", "", HASH_DIGITS),
        }
    }

    /// Of a user id. Root is root everywhere.
    fn user(&mut self, id: &[u8]) -> String {
        if id == b"0" { "0".to_owned() } else { self.numbered(Space::User, id, "", "", HASH_DIGITS) }
    }

    /// Of the uid of a pod.
    pub(super) fn uid(&mut self, uid: &Name) -> Name {
        let bytes = uid.as_bytes();
        let pseudonym =
            if is_id(bytes) { self.id(bytes) } else { self.numbered(Space::Workload, bytes, "uid", "", HASH_DIGITS) };
        Name::from(pseudonym.as_str())
    }

    /// Of hexadecimal digits, as many others. Each depends on those before it: labels show the first ones, and are recognized.
    fn id(&self, bytes: &[u8]) -> String {
        let digit = |at: usize| {
            let Some(digit) = char::from(bytes[at]).to_digit(16) else { return char::from(bytes[at]) };
            let moved = (u64::from(digit) + (self.hasher.hash(&bytes[..at]) & 15)) & 15;
            b"0123456789abcdef"[usize::try_from(moved).unwrap_or(0)].into()
        };
        (0..bytes.len()).map(digit).collect()
    }

    /// `word-NUMBERending`, without a word the number alone. Where no number is left, at most `room` digits of a hash.
    fn numbered(&mut self, space: Space, bytes: &[u8], word: &'static str, ending: &str, room: usize) -> String {
        let key = (space, Box::from(bytes));
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let hyphen = if word.is_empty() { "" } else { "-" };
        if self.known.len() >= MOST {
            return format!("{word}{hyphen}{}{ending}", self.hashed(space, bytes, room));
        }
        let number = self.numbers.entry(word).or_default();
        *number += 1;
        let pseudonym = format!("{word}{hyphen}{number}{ending}");
        self.known.insert(key, pseudonym.clone());
        pseudonym
    }

    /// In letters that no number has, so that it is none of those.
    fn hashed(&self, space: Space, bytes: &[u8], digits: usize) -> String {
        let mut rest = self.hasher.hash(&[&[space as u8], bytes].concat());
        let mut digit = || {
            let digit = b"abcdefghijklmnopqrstuvwxyzABCDEF"[usize::try_from(rest & 31).unwrap_or(0)];
            rest >>= 5;
            char::from(digit)
        };
        (0..digits).map(|_| digit()).collect()
    }
}

/// Hexadecimal digits, and hyphens between them.
fn is_id(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
}

/// The ending of a unit's name; nothing where it is none.
fn ending(bytes: &[u8]) -> &'static str {
    let ending = ENDINGS.into_iter().find(|ending| bytes.ends_with(ending.as_bytes()));
    ending.filter(|ending| bytes.len() > ending.len()).unwrap_or_default()
}
