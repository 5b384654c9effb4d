//! For tests: every total that contributions add up to.

use super::Ledger;
use crate::model::row_members::RowMember;

impl Ledger {
    /// The same rows, without any socket.
    pub(in crate::model) fn emptied(&self) -> Self {
        let mut ledger = self.clone();
        ledger.endpoints.empty();
        ledger.destinations.empty();
        ledger.owners.empty();
        ledger.members.empty();
        ledger.ports.iter_mut().for_each(|(_, ports)| ports.empty());
        ledger
    }

    /// All totals as text, one a line.
    pub(in crate::model) fn totals(&self) -> Vec<String> {
        let endpoints = self.endpoints.iter().map(|(index, row)| {
            let counts = (row.listeners, row.states, row.minisocks, row.destinations);
            format!("endpoint {index}: {counts:?}")
        });
        let destinations = self.destinations.iter_indexed().map(|(index, row)| {
            let counts = (row.sockets, row.minisocks, row.time_wait, row.stamped, row.ports);
            format!("destination {index}: {counts:?}")
        });
        let ports = self.ports_by_netns.iter().flat_map(|(netns, slot)| {
            self.ports[*slot as usize].totals().into_iter().map(move |totals| format!("port of {netns:?}: {totals}"))
        });
        let of_endpoints = self.endpoints.iter().map(|(index, row)| (format!("endpoint {index}"), &row.members));
        let of_destinations =
            self.destinations.iter_indexed().map(|(index, row)| (format!("destination {index}"), &row.members));
        let row_members = of_endpoints.chain(of_destinations).flat_map(|(row, members)| {
            members.iter().map(move |RowMember { member, count }| format!("member {member} of {row}: {count}"))
        });
        let members = self.members.totals().chain(row_members);
        let owners = self.owners.totals();
        let mut all: Vec<String> = endpoints.chain(destinations).chain(ports).chain(owners).chain(members).collect();
        all.sort_unstable();
        all
    }
}
