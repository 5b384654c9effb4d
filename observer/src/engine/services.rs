//! Names the services of cgroups and processes that sockets have named.

use super::Engine;
use crate::{
    input::Input,
    model::{member::Member, service::Service},
};

/// Members that are named between two looks at the ring: each may cost a walk over the tree of cgroups, or a file of /proc.
const AT_ONCE: usize = 64;
/// Before a frame. Members that come faster than they are named must not hold it up.
const MOST_STEPS: usize = 1_024;

impl Engine {
    /// Finds the services of members that nobody has named yet.
    pub(super) fn name_members(&mut self) {
        let unnamed: Vec<Member> = self.feed.model().unnamed_members().take(AT_ONCE).collect();
        for member in unnamed {
            let service = match member {
                Member::Cgroup(id) => self.resolver.resolve(id),
                Member::Process(pid) => self.resolver.of_process(pid),
            };
            self.feed.take(Input::Service(member, service.map(Box::new)));
        }
    }

    /// Names all of them, also those that a cgroup without a service of its own gives way to: a single frame waits for its
    /// names.
    pub(super) fn name_all_members(&mut self) {
        for _ in 0..MOST_STEPS {
            if self.feed.model().unnamed_members().next().is_none() {
                return;
            }
            self.name_members();
            self.drain();
        }
    }

    /// Once a second: names that a runtime had not written when they were asked for, and the end of cgroups.
    pub(super) fn complete_services(&mut self) {
        let nameless = self.feed.model().nameless_members();
        let nameless: Vec<(Member, Option<Service>)> =
            nameless.map(|(member, known)| (member, known.cloned())).collect();
        for (member, known) in nameless {
            let service = match member {
                Member::Cgroup(id) => self.resolver.resolve(id),
                // The process may be another one by now: it is asked nothing.
                Member::Process(_) => known.as_ref().and_then(|known| self.resolver.again(known)),
            };
            if let Some(service) = service.filter(|service| known.as_ref() != Some(service)) {
                self.feed.take(Input::Service(member, Some(Box::new(service))));
            }
        }
        for id in self.feed.take_forgotten_cgroups() {
            self.resolver.forget(id);
        }
    }
}
