//! Processes: the sockets and descriptors of each, and the calls that the kernel refused.

use crate::{
    frame::Frame,
    model::{
        device::Device,
        filter::{Filter, Filterable},
        service::Service,
        snapshot::{ProcessRow, Snapshot},
        units::Pid,
    },
    tui::table::TableSource,
};

/// The processes that own sockets, and those nearest to their limit of descriptors.
#[derive(Debug)]
pub(crate) struct Processes;

impl TableSource for Processes {
    type Row = ProcessRow;
    type Key = Pid;

    const NAME: &'static str = "Processes";
    const SORT: &'static str = "open_fds";

    fn rows(data: &Frame) -> Vec<&ProcessRow> {
        data.snapshot.processes.iter().collect()
    }

    fn key(row: &ProcessRow) -> Pid {
        row.process.pid
    }

    fn passes(row: &ProcessRow, filter: &Filter, _: &Snapshot) -> bool {
        filter.lets_through(&Filterable {
            addresses: &[],
            processes: &[row.process],
            netns: None,
            netns_name: None,
            service: row.service.as_deref(),
            direction: None,
            device: Device::NONE,
            has_state: &|_| false,
            text: "",
        })
    }

    fn service(row: &ProcessRow) -> Option<&Service> {
        row.service.as_deref()
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No process owns a TCP socket, and no process's descriptors could be read."
    }
}
