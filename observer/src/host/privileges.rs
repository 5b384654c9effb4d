//! What a thread gives up for good: new privileges by exec, its user, its groups, and capabilities.
//!
//! The kernel keeps all of it for each thread. Whoever gives up rights therefore does so before it starts other threads, or
//! in each thread.

use std::env;

use rustix::{
    io::Errno,
    process::{Gid, Uid, getegid, geteuid, getgid, getgroups, getuid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::errno::Refusal;

/// User and group of nobody, on every distribution.
const NOBODY: u32 = 65534;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: Uid,
    gid: Gid,
}

impl User {
    /// The user without rights.
    #[must_use]
    pub fn nobody() -> Self {
        Self { uid: Uid::from_raw(NOBODY), gid: Gid::from_raw(NOBODY) }
    }

    /// The user of this process.
    #[must_use]
    pub fn current() -> Self {
        Self { uid: getuid(), gid: getgid() }
    }

    /// The user that called sudo, who then may send this process signals; `None` if nobody but root did.
    #[must_use]
    pub fn of_sudo() -> Option<Self> {
        Self::of_sudo_in(|name| env::var(name).ok())
    }

    fn of_sudo_in(env: impl Fn(&str) -> Option<String>) -> Option<Self> {
        // -1 leaves an id as it is, and 0 is root.
        let id = |name: &str| env(name)?.parse::<u32>().ok().filter(|id| *id != 0 && *id != u32::MAX);
        Some(Self { uid: Uid::from_raw(id("SUDO_UID")?), gid: Gid::from_raw(id("SUDO_GID")?) })
    }

    /// The user.
    #[must_use]
    pub const fn uid(self) -> Uid {
        self.uid
    }

    /// The group.
    #[must_use]
    pub const fn gid(self) -> Gid {
        self.gid
    }

    /// Whom this process can become in place of root: `wanted`, or nobody. `None` where it is not root.
    #[must_use]
    pub fn in_place_of_root(wanted: Option<Self>) -> Option<Self> {
        let is_root = getuid().is_root() || geteuid().is_root();
        is_root.then(|| wanted.unwrap_or_else(Self::nobody))
    }
}

/// What a thread keeps; it gives up everything else.
#[derive(Clone, Copy, Debug)]
pub struct Reduction {
    keep: CapabilitySet,
    user: Option<User>,
}

/// What could not be given up. The capabilities are gone all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The bounding set: without CAP_SETPCAP. Without new privileges it gives nothing.
    pub bounding_set: bool,
    /// The user: without CAP_SETUID or CAP_SETGID.
    pub user: bool,
    /// Supplementary groups: without CAP_SETGID.
    pub groups: bool,
}

impl Kept {
    pub(crate) const BOUNDING_SET: &str = "its bounding set could not be emptied (CAP_SETPCAP)";
    pub(crate) const USER: &str = "its user could not be changed (CAP_SETUID, CAP_SETGID)";
    pub(crate) const GROUPS: &str = "its supplementary groups could not be dropped (CAP_SETGID)";

    /// What stays, and with which capability it would go.
    pub fn sentences(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.bounding_set, Self::BOUNDING_SET), (self.user, Self::USER), (self.groups, Self::GROUPS)];
        all.into_iter().filter(|(is_kept, _)| *is_kept).map(|(_, words)| words)
    }
}

impl Reduction {
    /// CAP_KILL: sends signals to processes of other users.
    pub const KILL: u64 = CapabilitySet::KILL.bits();

    /// Keeps those of the capabilities in `keep` that this thread has, and becomes `user`, if there is one.
    #[must_use]
    pub const fn to(keep: u64, user: Option<User>) -> Self {
        Self { keep: CapabilitySet::from_bits_retain(keep), user }
    }

    /// What it keeps at most.
    #[must_use]
    pub const fn capabilities(self) -> u64 {
        self.keep.bits()
    }

    /// Whom the thread becomes; `None` where the user stays.
    #[must_use]
    pub fn uid(self) -> Option<u32> {
        self.user.map(|user| user.uid.as_raw())
    }

    /// The same with these capabilities, mostly none: for threads that only print what others read.
    #[must_use]
    pub const fn with_capabilities(self, keep: u64) -> Self {
        Self { keep: CapabilitySet::from_bits_retain(keep), ..self }
    }

    /// Reduces the calling thread, and every thread that it will start.
    pub fn apply(self) -> Result<Kept, Refusal> {
        let refused = |what: &str| {
            let operation = format!("{what} to drop privileges");
            move |error: Errno| Refusal::new(operation, &std::io::Error::from(error))
        };
        set_no_new_privs(true).map_err(refused("set PR_SET_NO_NEW_PRIVS"))?;
        let bounding_set = !empty_bounding_set();
        let (user, groups) = self.user.map_or((false, false), |user| self.become_user(user));
        clear_ambient_capability_set().map_err(refused("clear the ambient set"))?;
        let permitted = capabilities(None).map_err(refused("read the capabilities"))?.permitted;
        let keep = self.keep & permitted;
        let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets).map_err(refused("call capset()"))?;
        Ok(Kept { bounding_set, user, groups })
    }

    /// Whether the user and the groups stay.
    fn become_user(self, User { uid, gid }: User) -> (bool, bool) {
        // systemd lists the own group there too: no further right.
        let has_others = || !getgroups().is_ok_and(|groups| groups.iter().all(|group| *group == getegid()));
        let groups = set_thread_groups(&[]).is_err() && has_others();
        // Root would lose what it keeps. Where securebits forbid to keep it (SECBIT_KEEP_CAPS_LOCKED), the user stays.
        let keeps = self.keep.is_empty() || set_keep_capabilities(true).is_ok();
        let is_changed =
            keeps && set_thread_res_gid(gid, gid, gid).is_ok() && set_thread_res_uid(uid, uid, uid).is_ok();
        // It is off by itself where there was nothing to keep.
        let _ = set_keep_capabilities(false);
        (!is_changed, groups)
    }
}

/// Whether it is empty: to remove one takes CAP_SETPCAP.
fn empty_bounding_set() -> bool {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(false) => {}
            // The kernel has no further one.
            Err(Errno::INVAL) => return true,
            Ok(true) | Err(_) if remove_capability_from_bounding_set(capability).is_ok() => {}
            Ok(true) | Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_sudo_is_a_user_and_never_root() {
        let of = |uid: &str, gid: &str| {
            let found = User::of_sudo_in(|name| Some(if name == "SUDO_UID" { uid } else { gid }.to_owned()));
            found.map(|User { uid, gid }| (uid.as_raw(), gid.as_raw()))
        };
        assert_eq!(of("1000", "100"), Some((1000, 100)));
        for (uid, gid) in [("0", "100"), ("1000", "0"), ("-1", "1"), ("4294967295", "1"), ("", "1"), ("me", "1")] {
            assert_eq!(of(uid, gid), None, "{uid} {gid}");
        }
        assert_eq!(User::of_sudo_in(|_| None), None);
    }
}
