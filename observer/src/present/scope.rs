//! The scope of a limit, in a column.

use super::format;
use crate::model::limit::{Limit, Scope};

/// What the limit applies to, and where. What does not fit is cut: addresses before ports, and of a namespace's name the end.
pub(crate) fn fitted(limit: &Limit, elsewhere: &str, width: usize) -> String {
    const PLACE: usize = 16;
    let whole = format::printable(&limit.owner());
    if format::text_width(&whole) + format::text_width(elsewhere) <= width {
        return whole + elsewhere;
    }
    let elsewhere = format::cut_end(elsewhere, PLACE.min(width));
    let room = width - format::text_width(&elsewhere);
    let owner = match limit.scope {
        Scope::Destination { local_ip, device, remote, .. } => format::towards(local_ip, device, remote, room),
        Scope::Listener { local, device, .. } if format::text_width(&whole) > room => {
            format::cut_middle(&format::address(local.ip(), Some(local.port()), device), room)
        }
        _ => format::cut_end(&whole, room),
    };
    owner + &elsewhere
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{device::Device, limit::LimitKind, units::NetnsId};

    #[test]
    fn addresses_are_cut_before_ports_and_a_namespace_last() {
        let remote = "10.9.0.2:5432".parse().unwrap();
        let local_ip = "10.9.0.1".parse().unwrap();
        let scope = Scope::Destination { netns: NetnsId(1), local_ip, device: Device::NONE, remote };
        let limit = Limit::for_test(LimitKind::Ports, scope, 1, 2);
        for (width, expected) in [
            (34, "10.9.0.1 → 10.9.0.2:5432 in t2-a"),
            (31, "….9.0.1 → 10.9.0.2:5432 in t2-a"),
            (25, "… → 10.9.0.2:5432 in t2-a"),
        ] {
            assert_eq!(fitted(&limit, " in t2-a", width), expected, "{width}");
        }
    }
}
