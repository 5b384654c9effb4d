//! Single connections: those of the row that was entered, or all.

use crate::{
    frame::Frame,
    model::{
        device::Device,
        filter::{Filter, Filterable},
        query::ConnectionRow,
        service::Service,
        snapshot::Snapshot,
        units::{FourTuple, NetnsId},
    },
    tui::table::TableSource,
};

/// The four-tuples.
#[derive(Debug)]
pub(crate) struct Connections;

impl TableSource for Connections {
    type Row = ConnectionRow;
    type Key = (NetnsId, FourTuple, Device);

    const NAME: &'static str = "Connections";
    const SORT: &'static str = "age";

    fn rows(data: &Frame) -> Vec<&ConnectionRow> {
        data.connections.iter().flat_map(|it| &it.rows).collect()
    }

    fn key(row: &ConnectionRow) -> Self::Key {
        (row.netns, row.tuple, row.device)
    }

    fn passes(row: &ConnectionRow, filter: &Filter, _: &Snapshot) -> bool {
        let FourTuple { local_ip, local_port, remote_ip, remote_port } = row.tuple;
        filter.lets_through(&Filterable {
            addresses: &[(local_ip, Some(local_port)), (remote_ip, Some(remote_port))],
            processes: &row.owner.into_iter().chain(row.co_fd_owners.iter().copied()).collect::<Vec<_>>(),
            netns: Some(row.netns),
            netns_name: row.netns_name.as_deref(),
            service: row.service.as_deref(),
            direction: Some(row.direction),
            device: row.device,
            has_state: &|state| state == row.state,
            text: "",
        })
    }

    fn part_of(data: &Frame) -> Option<(&'static str, usize)> {
        let answer = data.connections.as_ref()?;
        (answer.matching > answer.rows.len()).then_some(("the youngest", answer.matching))
    }

    fn service(row: &ConnectionRow) -> Option<&Service> {
        row.service.as_deref()
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No connections now."
    }

    fn netns(row: &ConnectionRow) -> Option<NetnsId> {
        Some(row.netns)
    }
}
