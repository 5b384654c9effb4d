//! Which machine this is.

use super::text;

/// The file of systemd, dbus and others that has a random number for each installed system.
const MACHINE_ID: &str = "/etc/machine-id";
/// It has 32 hexadecimal digits.
const MACHINE_ID_BYTES: usize = 32;

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
}

fn id() -> Option<String> {
    let text = text::string(MACHINE_ID).ok()?;
    let id = text.trim_end();
    // Images that were never started have an empty file, or the word `uninitialized`.
    let is_id = id.len() == MACHINE_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}
