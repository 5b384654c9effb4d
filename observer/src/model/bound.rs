//! Sockets that are bound, and neither connected nor listening. Their ports are kept from every connect().

use rustc_hash::FxHashMap;

use super::{
    Model,
    address::Local,
    event::Identity,
    ledger::{At, Contribution, Counts},
    units::{NetnsId, Process, SocketId},
};

/// A bound socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) netns: NetnsId,
    pub(super) local: Local,
    /// Its first owner that was seen.
    pub(super) process: Option<Process>,
    /// Index of the row of its cgroup, else of its process.
    pub(super) member: u32,
    /// The last fd scan that saw an owner of it.
    seen_in_fd_scan: u8,
}

impl Bound {
    /// What it adds to all totals.
    pub(super) fn contribution(&self) -> Contribution {
        let at = At::Ports(self.netns, self.local.device.index());
        Contribution {
            at,
            counts: Counts::Bound,
            binder: Some(self.local.port),
            member: self.member,
            ..Contribution::NONE
        }
    }
}

/// All of them. fd scans find them, because no hook watches bind(); connections and listeners with an explicitly bound port
/// become bound sockets at their end.
#[derive(Default)]
pub(super) struct BoundTable(FxHashMap<SocketId, Bound>);

impl BoundTable {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SocketId, &Bound)> {
        self.0.iter()
    }
}

impl Model {
    /// The socket is bound to `local` and nothing more.
    pub(super) fn bind(
        &mut self,
        (id, netns, local): (SocketId, NetnsId, Local),
        process: Option<Process>,
        cgroup: Option<u32>,
    ) {
        self.note_device(netns, local.device);
        let seen_in_fd_scan = self.fd_scan.number;
        let before = self.bound.0.get(&id).copied();
        let place = |local: Local| (local.device, local.port);
        let is_same = before.is_some_and(|it| (it.netns, place(it.local)) == (netns, place(local)));
        // It may have several owners: the first one stays, as long as it is the same socket.
        let known = before.filter(|it| is_same && it.seen_in_fd_scan == seen_in_fd_scan).and_then(|it| it.process);
        let process = known.or(process);
        let member = cgroup.unwrap_or_else(|| self.member_of_process(process));
        let bound = Bound { netns, local, process, member, seen_in_fd_scan };
        self.bound.0.insert(id, bound);
        if !is_same || before.is_some_and(|before| before.member != member) {
            self.ledger.apply(Contribution::NONE, bound.contribution(), self.now);
            if let Some(before) = before {
                self.ledger.apply(before.contribution(), Contribution::NONE, self.now);
            }
        }
    }

    /// A bound socket counts with another member.
    pub(super) fn set_member_of_bound(&mut self, id: SocketId, member: u32) {
        let Some(bound) = self.bound.0.get_mut(&id) else { return };
        let before = bound.contribution();
        bound.member = member;
        self.ledger.apply(before, bound.contribution(), self.now);
    }

    /// The connection is over, and the socket stays bound.
    pub(super) fn stay_bound(&mut self, socket: &Identity, by: Option<Process>) {
        let known = self.sockets.find(socket.id).map(|index| *self.sockets.get(index));
        let owner = known.and_then(|known| self.ledger.owners().process(known.owner));
        let member = known.map(|known| known.member).filter(|member| self.ledger.members().is_cgroup(*member));
        let local = Local { ip: socket.tuple.local_ip, port: socket.tuple.local_port, device: socket.device };
        self.bind((socket.id, socket.netns, local), by.or(owner), member);
    }

    /// The socket is not bound any more, or more than that.
    pub(super) fn unbind(&mut self, id: SocketId) {
        // Every event asks, and most hosts have none.
        if !self.bound.0.is_empty() {
            self.unbind_one(id);
        }
    }

    #[inline(never)]
    fn unbind_one(&mut self, id: SocketId) {
        if let Some(bound) = self.bound.0.remove(&id) {
            self.ledger.apply(bound.contribution(), Contribution::NONE, self.now);
        }
    }

    /// An fd scan has shown every bound socket.
    pub(super) fn sweep_bound(&mut self) {
        let fd_scan = self.fd_scan.number;
        self.unbind_all(|bound| bound.seen_in_fd_scan != fd_scan);
    }

    pub(super) fn unbind_all(&mut self, is_gone: impl Fn(&Bound) -> bool) {
        let gone: Vec<SocketId> = self.bound.0.iter().filter(|(_, bound)| is_gone(bound)).map(|(id, _)| *id).collect();
        for id in gone {
            self.unbind(id);
        }
    }
}
