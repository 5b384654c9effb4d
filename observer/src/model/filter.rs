//! Which rows are shown: `port:443 state:time_wait comm:nginx netns:blue 10.0.0.0/8`. Every word must hold.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{
    address::Direction,
    device::Device,
    service::Service,
    units::{NetnsId, Process, TcpState},
};

/// The words of a filter; none lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Term>);

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// `port:443`: of either end.
    Port(u16),
    /// `state:time_wait`
    State(TcpState),
    /// `comm:nginx`: a part of a process's name, in any case.
    Comm(String),
    /// `pid:812`
    Pid(u32),
    /// `netns:blue`: a part of a namespace's name, or its number.
    Netns(String),
    /// `service:nginx`: a part of what the service is called, or of its cgroup's path.
    Service(String),
    /// `unit:nginx.service`: a part of the unit's name.
    Unit(String),
    /// `pod:shop/web`: a part of `namespace/name`, or of the uid.
    Pod(String),
    /// `container:web`: a part of the container's name or id.
    Container(String),
    /// `dir:in`, `dir:out`
    Direction(Direction),
    /// `10.0.0.0/8`, `::1`: holds an address of either end.
    Network(IpNet),
    /// `fe80::1%eth0`, `10.0.0.0/8%eth0`: the same, of a socket that is bound to this device.
    OnDevice(IpNet, String),
    /// Anything else: a part of a process's name, of a namespace's, or of what else the row says.
    Text(String),
}

/// Why a word makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The value of a key.
    #[error("{key}:{value} is no {wanted}")]
    Value {
        /// Before the colon.
        key: &'static str,
        /// After it.
        value: String,
        /// What should stand there.
        wanted: &'static str,
    },
    /// A key that does not exist.
    #[error("there is no key {0} but port: state: comm: pid: netns: dir: service: unit: pod: container:")]
    Key(String),
}

/// What a row has to say to a filter.
#[derive(Clone, Copy)]
pub struct Filterable<'a> {
    /// Addresses of both ends; a port that is not one's own is `None`.
    pub addresses: &'a [(IpAddr, Option<u16>)],
    /// Processes.
    pub processes: &'a [Process],
    /// Its network namespace, where it has one.
    pub netns: Option<NetnsId>,
    /// The name of that.
    pub netns_name: Option<&'a str>,
    /// Its service.
    pub service: Option<&'a Service>,
    /// Which end called connect().
    pub direction: Option<Direction>,
    /// Whether it is in a state, or has a socket in it.
    pub has_state: &'a dyn Fn(TcpState) -> bool,
    /// The device that its sockets are bound to.
    pub device: Device,
    /// What else it says.
    pub text: &'a str,
}

impl Filter {
    /// Whether every row passes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all words hold.
    #[must_use]
    pub fn lets_through(&self, row: &Filterable<'_>) -> bool {
        self.0.iter().all(|term| term.holds(row))
    }
}

impl Term {
    fn holds(&self, row: &Filterable<'_>) -> bool {
        match self {
            Self::Port(port) => row.addresses.iter().any(|(_, other)| *other == Some(*port)),
            Self::State(state) => (row.has_state)(*state),
            Self::Comm(part) => row.processes.iter().any(|process| has(&process.comm.to_string(), part)),
            Self::Pid(pid) => row.processes.iter().any(|process| process.pid.number() == *pid),
            Self::Netns(part) => is_namespace(row, part),
            Self::Service(part) => row.service.is_some_and(|service| is_called(service, part)),
            Self::Unit(part) => row.service.and_then(|it| it.unit.as_ref()).is_some_and(|unit| has(unit, part)),
            Self::Pod(part) => row
                .service
                .and_then(|it| it.pod.as_ref())
                .is_some_and(|pod| has(&pod.label(), part) || has(&pod.uid, part)),
            Self::Container(part) => row
                .service
                .and_then(|it| it.container.as_ref())
                .is_some_and(|container| has(&container.label(), part) || has(&container.id, part)),
            Self::Direction(direction) => row.direction == Some(*direction),
            Self::Network(network) => holds_address(row, network),
            Self::OnDevice(network, device) => {
                let label = row.device.label();
                label.is_some_and(|label| label.to_lowercase() == *device) && holds_address(row, network)
            }
            Self::Text(part) => {
                has(row.text, part)
                    || has(&row.device.to_string(), part)
                    || row.netns_name.is_some_and(|name| has(name, part))
                    || row.service.is_some_and(|service| has(&service.label(), part))
                    || row.processes.iter().any(|process| has(&process.comm.to_string(), part))
            }
        }
    }
}

fn is_called(service: &Service, part: &str) -> bool {
    has(&service.label(), part) || service.path.as_ref().is_some_and(|path| has(path, part))
}

fn holds_address(row: &Filterable<'_>, network: &IpNet) -> bool {
    row.addresses.iter().any(|(ip, _)| network.contains(ip))
}

fn is_namespace(row: &Filterable<'_>, part: &str) -> bool {
    row.netns_name.is_some_and(|name| has(name, part)) || row.netns.is_some_and(|netns| netns.0.to_string() == part)
}

/// Whether `part`, which is in lower case, is in `text`.
fn has(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Term {
    type Err = FilterError;

    fn from_str(word: &str) -> Result<Self, FilterError> {
        let network = |word: &str| word.parse().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
        if let Ok(network) = network(word) {
            return Ok(Self::Network(network));
        }
        if let Some((address, device)) = word.split_once('%')
            && let Ok(network) = network(address)
        {
            return Ok(Self::OnDevice(network, device.to_lowercase()));
        }
        let Some((key, value)) = word.split_once(':') else {
            return Ok(Self::Text(word.to_lowercase()));
        };
        let refuse = |key, wanted| FilterError::Value { key, value: value.to_owned(), wanted };
        Ok(match key {
            "port" => Self::Port(value.parse().map_err(|_| refuse("port", "port number"))?),
            "pid" => Self::Pid(value.parse().map_err(|_| refuse("pid", "process id"))?),
            "state" => Self::State(
                state(value).ok_or_else(|| refuse("state", "TCP state: established, time_wait, listen, ..."))?,
            ),
            "comm" => Self::Comm(value.to_lowercase()),
            "netns" => Self::Netns(value.to_lowercase()),
            "service" => Self::Service(value.to_lowercase()),
            "unit" => Self::Unit(value.to_lowercase()),
            "pod" => Self::Pod(value.to_lowercase()),
            "container" => Self::Container(value.to_lowercase()),
            "dir" => Self::Direction(match value {
                "in" => Direction::Inbound,
                "out" => Direction::Outbound,
                _ => return Err(refuse("dir", "direction: in or out")),
            }),
            other => return Err(FilterError::Key(format!("{other}:"))),
        })
    }
}

/// A state by its name, as we or as `ss` write it: `time_wait`, `TIME-WAIT`, `estab`.
fn state(name: &str) -> Option<TcpState> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(name);
    TcpState::ALL.into_iter().find(|state| {
        [state.name(), state.label()].iter().any(|known| {
            let known = plain(known);
            known == wanted || (wanted.len() >= 4 && known.starts_with(&wanted))
        })
    })
}

impl fmt::Debug for Filterable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filterable")
            .field("addresses", &self.addresses)
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        service::{Container, Pod},
        units::{Comm, Pid},
    };

    fn service() -> Service {
        let pod = Pod { uid: "1a2b-3c4d".into(), namespace: Some("Shop".into()), name: Some("web-6f5d8".into()) };
        let container = Container { id: "0123456789abcdef".into(), name: Some("front".into()), runtime: None };
        Service {
            path: Some("/kubepods/burstable/pod1a2b-3c4d/0123456789abcdef".into()),
            unit: Some("kubelet.service".into()),
            pod: Some(pod),
            container: Some(container),
            machine: None,
        }
    }

    fn lets_through(filter: &str) -> bool {
        let addresses = ["10.1.2.3:443", "[2001:db8::1]:50000"].map(|text| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            (address.ip(), Some(address.port()))
        });
        let row = Filterable {
            addresses: &addresses,
            processes: &[Process { pid: Pid(812), comm: Comm::from("Nginx") }],
            netns: Some(NetnsId(4_026_531_840)),
            netns_name: Some("blue"),
            service: Some(&service()),
            direction: Some(Direction::Inbound),
            device: Device::new(3).named(Comm::from("Eth0")),
            has_state: &|state| state == TcpState::TimeWait,
            text: "connect() EADDRNOTAVAIL",
        };
        filter.parse::<Filter>().unwrap().lets_through(&row)
    }

    #[test]
    fn every_word_must_hold() {
        for filter in [
            "",
            "port:443",
            "port:50000",
            "state:time_wait",
            "state:TIME-WAIT",
            "comm:nginx",
            "pid:812",
            "netns:blue",
            "netns:4026531840",
            "dir:in",
            "service:shop/web",
            "service:burstable",
            "unit:kubelet",
            "pod:shop/web-6f5d8",
            "pod:1a2b",
            "container:front",
            "container:012345",
            "6f5d8",
            "10.0.0.0/8",
            "2001:db8::/32",
            "10.1.2.3",
            "2001:db8::1",
            "2001:db8::1%eth0",
            "10.0.0.0/8%eth0",
            "%eth0",
            "eth0",
            "ngi",
            "eaddr",
            "port:443 state:time_wait comm:nginx netns:blue 10.0.0.0/8",
        ] {
            assert!(lets_through(filter), "{filter}");
        }
        for filter in [
            "port:80",
            "state:estab",
            "comm:sshd",
            "pid:1",
            "netns:red",
            "dir:out",
            "service:front",
            "unit:shop",
            "pod:front",
            "container:web",
            "11.0.0.0/8",
            "11.0.0.0/8%eth0",
            "10.1.2.3%eth",
            "%eth1",
            "::1",
            "xyz",
            "port:443 pid:1",
        ] {
            assert!(!lets_through(filter), "{filter}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_reported_in_one_sentence() {
        let error = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        assert_eq!(error("port:http"), "port:http is no port number");
        assert_eq!(error("state:open"), "state:open is no TCP state: established, time_wait, listen, ...");
        assert_eq!(error("dir:up"), "dir:up is no direction: in or out");
        assert_eq!(
            error("user:root"),
            "there is no key user: but port: state: comm: pid: netns: dir: service: unit: pod: container:"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Filter>();
        }

        #[test]
        fn words_stand_for_themselves_in_any_order(words in prop::collection::vec(word(), 0..5)) {
            let each = words.iter().all(|word| lets_through(word));
            prop_assert_eq!(lets_through(&words.join(" ")), each);
            let backwards: Vec<_> = words.iter().rev().copied().collect();
            prop_assert_eq!(lets_through(&backwards.join("  ")), each);
        }
    }

    fn word() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "port:443",
            "port:80",
            "state:time_wait",
            "state:estab",
            "comm:nginx",
            "pid:1",
            "netns:blue",
            "dir:in",
            "dir:out",
            "10.0.0.0/8",
            "::1",
            "ngi",
            "xyz",
        ])
    }
}
