//! What the kernel refused: to which process, where, why, how often.

use std::{net::SocketAddr, time::Duration};

use crate::{
    frame::Frame,
    model::{
        device::Device,
        failure::{FailureKey, FailureKind, FailureRow, Local},
        filter::{Filter, Filterable},
        limit::{About, LimitKind},
        member::Member,
        port_owner::PortOwner,
        service::Service,
        snapshot::Snapshot,
        units::{NetnsId, Pid},
    },
    present::format,
    tui::{
        pane::Explained,
        table::{Details, TableSource},
    },
};

/// Groups of failures.
#[derive(Debug)]
pub(crate) struct Failures;

impl TableSource for Failures {
    type Row = FailureRow;
    type Key = (
        NetnsId,
        FailureKind,
        Option<Pid>,
        Option<&'static str>,
        Option<Local>,
        Option<SocketAddr>,
        Option<(u16, u16)>,
        Option<Member>,
        Duration,
    );

    const NAME: &'static str = "Failures";
    const SORT: &'static str = "last_at";

    fn rows(data: &Frame) -> Vec<&FailureRow> {
        data.snapshot.failures.iter().collect()
    }

    fn key(row: &FailureRow) -> Self::Key {
        let FailureKey { kind, netns, call, process, local, remote, own_range, member } = row.key;
        let own_range = own_range.map(|range| (range.low, range.high));
        (netns, kind, process.map(|it| it.pid), call, local, remote, own_range, member, row.first_at)
    }

    fn passes(row: &FailureRow, filter: &Filter, data: &Snapshot) -> bool {
        let FailureKey { netns, process, local, remote, .. } = row.key;
        let local = local.map(|local| (local.ip, Some(local.port)));
        let remote = remote.map(|remote| (remote.ip(), Some(remote.port())));
        let addresses: Vec<_> = local.into_iter().chain(remote).collect();
        let port_owner = row.port_owner().and_then(PortOwner::process);
        let processes: Vec<_> = process.into_iter().chain(port_owner).collect();
        filter.lets_through(&Filterable {
            addresses: &addresses,
            processes: &processes,
            netns: Some(netns),
            netns_name: data.netns_name_of(row).map(|name| &**name),
            service: row.service.as_deref(),
            direction: None,
            device: row.key.local.map_or(Device::NONE, |local| local.device),
            has_state: &|_| false,
            text: &row.what(),
        })
    }

    fn service(row: &FailureRow) -> Option<&Service> {
        row.service.as_deref()
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No failures recorded since observer started. Failures are: connect() without a port, bind() to an address in use, \
         calls without a descriptor, full queues and tables."
    }

    const HAS_DETAILS: bool = true;

    fn details(row: Option<&FailureRow>, data: &Frame) -> Option<Details> {
        let (row, title) = match row {
            Some(row) => (row, "Selected failure"),
            None => (data.snapshot.failures.first()?, "Last failure"),
        };
        let process = row.key.process.map(|process| Explained::new("process", format::printable(&process.to_string())));
        let remedy = remedy(row).map(|remedy| Explained::new("remedy", format!("{remedy}.")));
        let what = [Explained::new("failure", row.what()), Explained::new("reason", format::printable(&row.reason()))];
        Some(Details { title, lines: what.into_iter().chain(remedy).chain(process).collect() })
    }

    fn explain(row: &FailureRow, _: &Snapshot) -> Vec<Explained> {
        let remedy = remedy(row);
        let port_owner = row.port_owner().map(|port_owner| Explained::new("PORT OWNER", format!("{port_owner}.")));
        port_owner.into_iter().chain(remedy.map(|remedy| Explained::new("REMEDY", format!("{remedy}.")))).collect()
    }

    fn netns(row: &FailureRow) -> Option<NetnsId> {
        Some(row.key.netns)
    }
}

/// What to do, by the failure itself, else by the limit that refuses.
fn remedy(row: &FailureRow) -> Option<&'static str> {
    row.remedy().or_else(|| Some(About::of(limit(row.key.kind)?).remedy))
}

/// The limit that refuses, if it is one.
const fn limit(kind: FailureKind) -> Option<LimitKind> {
    Some(match kind {
        FailureKind::PortsExhausted => LimitKind::Ports,
        FailureKind::ProcessFds => LimitKind::ProcessFiles,
        FailureKind::HostFiles => LimitKind::HostFiles,
        FailureKind::AcceptQueue => LimitKind::AcceptQueue,
        FailureKind::SynQueue => LimitKind::SynQueue,
        FailureKind::TimeWait => LimitKind::TimeWait,
        FailureKind::Conntrack | FailureKind::ConntrackEvicted => LimitKind::Conntrack,
        FailureKind::TcpMemory => LimitKind::TcpMemory,
        FailureKind::TupleInUse
        | FailureKind::NoSourceAddress
        | FailureKind::AddressInUse
        | FailureKind::BindPorts
        | FailureKind::AddressNotLocal
        | FailureKind::OtherFdLimit
        | FailureKind::ConntrackClash => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::{
        Basis, Model,
        failure::{Failed, Local},
        units::{Comm, Process},
    };

    fn refused_bind() -> FailureRow {
        let process = |pid, comm| Process { pid: Pid(pid), comm: Comm::from(comm) };
        FailureRow {
            key: FailureKey {
                kind: FailureKind::AddressInUse,
                netns: NetnsId(1),
                call: Some("bind"),
                process: Some(process(7, "second")),
                member: None,
                local: Some(Local { ip: [10, 0, 0, 5].into(), port: 8_080, device: Device::NONE }),
                remote: None,
                own_range: None,
            },
            count: 1,
            first_at: Duration::ZERO,
            last_at: Duration::ZERO,
            failed: Failed::PortOwner(PortOwner::Listener(Some(process(812, "nginx")))),
            service: None,
            ended: None,
        }
    }

    #[test]
    fn a_failure_is_found_by_its_port_and_by_who_holds_it() {
        let snapshot = Model::new(Vec::new(), Basis::default()).snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0);
        let row = refused_bind();
        let passes = |filter: &str| Failures::passes(&row, &filter.parse().unwrap(), &snapshot);
        for filter in ["port:8080", "comm:nginx", "pid:812", "pid:7", "comm:second", "nginx", "10.0.0.5"] {
            assert!(passes(filter), "{filter}");
        }
        for filter in ["port:80", "comm:sshd", "pid:8"] {
            assert!(!passes(filter), "{filter}");
        }
    }

    #[test]
    fn who_holds_the_port_is_explained() {
        let snapshot = Model::new(Vec::new(), Basis::default()).snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0);
        let lines = Failures::explain(&refused_bind(), &snapshot);
        let [line] = &lines[..] else { panic!("one line") };
        assert_eq!((line.label, line.text.as_str()), ("PORT OWNER", "nginx (812) listens on it."));
    }
}
