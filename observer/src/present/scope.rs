//! The scope of a limit, in a column.

use super::{format, service};
use crate::model::{
    limit::{Limit, Scope},
    units::NetnsId,
};

/// What the limit applies to, with its service, and its namespace where that is not `own`.
pub(crate) fn beside(limit: &Limit, own: NetnsId) -> String {
    let elsewhere = limit.elsewhere(own);
    let within = service::within_beside(limit.service.as_deref(), &elsewhere);
    format::printable(&(limit.owner() + &within + &elsewhere))
}

/// The same in so many columns. What does not fit is cut: the service first, addresses before ports, and of a namespace's name
/// the end, but for the number that another of this name makes necessary. Without `own` the reader has service and namespace in columns of their own.
pub(crate) fn fitted(limit: &Limit, own: Option<NetnsId>, width: usize) -> String {
    const PLACE: usize = 16;
    let whole = format::printable(&limit.owner());
    let elsewhere = own.map_or_else(String::new, |own| format::printable(&limit.elsewhere(own)));
    let service = limit.service.as_deref().filter(|_| own.is_some());
    let within = service::within_beside(service, &elsewhere);
    let taken = format::text_width(&whole) + format::text_width(&elsewhere);
    if taken <= width {
        return whole + &cut(&within, width - taken) + &elsewhere;
    }
    let is_ambiguous = limit.netns_name.as_ref().is_some_and(|name| name.is_ambiguous);
    let cut_name = if is_ambiguous { format::cut_middle } else { format::cut_end };
    let elsewhere = cut_name(&elsewhere, PLACE.min(width));
    let room = width - format::text_width(&elsewhere);
    let owner = match limit.scope {
        Scope::Destination { local_ip, device, remote, .. } => format::towards(local_ip, device, remote, room),
        Scope::Listener { local, device, .. } if format::text_width(&whole) > room => {
            format::cut_middle(&format::address(local.ip(), Some(local.port()), device), room)
        }
        _ => match (limit.scope, limit.process) {
            (Scope::Process(pid), Some(process)) => format::distinct_process(&format::comm(process.comm), pid, room),
            _ => format::cut_end(&whole, room),
        },
    };
    let left = room - format::text_width(&owner);
    owner + &cut(&within, left) + &elsewhere
}

/// As much of ` in nginx.service` as fits; nothing where that would say nothing.
fn cut(within: &str, room: usize) -> String {
    /// ` in ngin…`
    const LEAST: usize = 9;
    let is_enough = room >= LEAST.min(format::text_width(within));
    if is_enough { format::cut_end(within, room) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        device::Device,
        limit::LimitKind,
        service::Service,
        units::{Pid, Process, SocketId},
    };

    #[test]
    fn addresses_are_cut_before_ports_and_a_namespace_last() {
        let remote = "10.9.0.2:5432".parse().unwrap();
        let local_ip = "10.9.0.1".parse().unwrap();
        let scope = Scope::Destination { netns: NetnsId(1), local_ip, device: Device::NONE, remote };
        let limit = Limit { netns_name: Some("t2-a".into()), ..Limit::for_test(LimitKind::Ports, scope, 1, 2) };
        for (width, expected) in [
            (34, "10.9.0.1 → 10.9.0.2:5432 in t2-a"),
            (31, "….9.0.1 → 10.9.0.2:5432 in t2-a"),
            (25, "… → 10.9.0.2:5432 in t2-a"),
        ] {
            assert_eq!(fitted(&limit, Some(NetnsId(2)), width), expected, "{width}");
        }
    }

    #[test]
    fn a_service_stands_behind_its_process_as_far_as_there_is_room() {
        let unit = |name: &str| Some(Arc::new(Service { unit: Some(name.into()), ..Service::default() }));
        let process = Some(Process { pid: Pid(1_234), comm: "nginx".into() });
        let limit = Limit {
            process,
            service: unit("nginx.service"),
            ..Limit::for_test(LimitKind::ProcessFiles, Scope::Process(Pid(1_234)), 1, 2)
        };
        assert_eq!(beside(&limit, NetnsId(1)), "nginx (1234) in nginx.service");
        for (width, expected) in [
            (29, "nginx (1234) in nginx.service"),
            (28, "nginx (1234) in nginx.servi…"),
            (21, "nginx (1234) in ngin…"),
            (20, "nginx (1234)"),
            (11, "ngi… (1234)"),
            (10, "ng… (1234)"),
            (9, "nginx"),
        ] {
            assert_eq!(fitted(&limit, Some(NetnsId(1)), width), expected, "{width}");
        }
        assert_eq!(fitted(&limit, None, 80), "nginx (1234)", "the screen has a column for it");
        let root = Service { path: Some("/".into()), ..Service::default() };
        assert_eq!(beside(&Limit { service: Some(Arc::new(root)), ..limit }, NetnsId(1)), "nginx (1234)");
    }

    #[test]
    fn a_pod_that_gives_its_name_to_its_namespace_is_named_once() {
        let (local, id) = ("10.0.0.1:80".parse().unwrap(), SocketId(1));
        let scope = Scope::Listener { netns: NetnsId(7), local, device: Device::NONE, id };
        let service = Service { unit: Some("blue".into()), ..Service::default() };
        let limit = Limit {
            netns_name: Some("blue".into()),
            service: Some(Arc::new(service)),
            ..Limit::for_test(LimitKind::AcceptQueue, scope, 1, 2)
        };
        assert_eq!(beside(&limit, NetnsId(1)), "10.0.0.1:80 in blue");
        assert_eq!(beside(&limit, NetnsId(7)), "10.0.0.1:80 in blue", "the service");
        let red = Limit { netns_name: Some("red".into()), ..limit };
        assert_eq!(beside(&red, NetnsId(1)), "10.0.0.1:80 in blue in red");
        // The service says more than a process that does not fit.
        let owned = Limit { process: Some(Process { pid: Pid(7), comm: "long-name".into() }), ..red };
        assert_eq!(fitted(&owned, Some(NetnsId(7)), 22), "10.0.0.1:80 in blue");
    }
}
