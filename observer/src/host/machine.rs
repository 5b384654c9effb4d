//! Which machine this is.

use uuid::Uuid;

use super::{netns, text};

/// The file of systemd, dbus and others that has a random number for each installed system.
const MACHINE_ID: &str = "/etc/machine-id";
/// Another random UUID with each read().
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";
/// It has 32 hexadecimal digits.
const MACHINE_ID_BYTES: usize = 32;
/// The namespace of the UUIDs of service instances: the semantic conventions of OpenTelemetry fix it (`service.instance.id`).
const INSTANCES: Uuid = Uuid::from_u128(0x4d63_009a_8d0f_11ee_aad7_4c79_6ed8_e320);

/// What identifies a machine among others. What could not be read is absent.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The host's name (`uname -n`).
    pub name: Option<String>,
    /// The machine id.
    pub id: Option<String>,
}

impl Machine {
    /// The one that observer runs on.
    #[must_use]
    pub fn this() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { name: Some(name).filter(|name| !name.is_empty()), id: id() }
    }

    /// One of the instances of a service on this machine. `place` is what no two of them share at one time. The same place
    /// gives the same UUID after a restart, and another one on another machine; nobody reads the machine id from it. Where there
    /// is no machine id, it is a random one of the kernel; `None` where that cannot be read either.
    #[must_use]
    pub fn instance(&self, service: &str, place: &str) -> Option<String> {
        match &self.id {
            Some(id) => Some(Uuid::new_v5(&INSTANCES, format!("{id} {service} {place}").as_bytes()).to_string()),
            None => Some(text::string(RANDOM_UUID).ok()?.trim_end().to_owned()),
        }
    }
}

/// Where a service listens: each network namespace has these addresses for itself. The number of the host's own namespace says
/// nothing, and another kernel may give it another one.
#[must_use]
pub fn place(addresses: &str) -> String {
    match netns::current() {
        Ok(netns) if !netns::is_of_host() => format!("{addresses} in network namespace {}", netns.0),
        Ok(_) | Err(_) => addresses.to_owned(),
    }
}

fn id() -> Option<String> {
    let text = text::string(MACHINE_ID).ok()?;
    let id = text.trim_end();
    // Images that were never started have an empty file, or the word `uninitialized`.
    let is_id = id.len() == MACHINE_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}
