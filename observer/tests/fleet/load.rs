//! What uses ports up, and what fills a queue. The kernel's errno says when there is no port left.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::network::{HOSTS, Namespace, Network};

/// The port of the service that everybody connects to.
pub(crate) const SERVICE: u16 = 9_000;
/// The port of a service that accepts nothing.
const STUCK: u16 = 9_001;
/// Ports of the first host: few, so that they run out soon.
pub(crate) const PORTS: usize = 64;
const RANGE: &str = "40000 40063";

/// Gives the first host its few ports, and the second its service.
pub(crate) fn prepare(network: &Network) {
    let [client, server, _] = &network.hosts;
    client.inside(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", RANGE).unwrap());
    let listener = server.inside(|| TcpListener::bind((HOSTS[1], SERVICE)).unwrap());
    // It ends with the test's process: an accepted connection stays until then.
    thread::spawn(move || {
        let mut accepted = Vec::new();
        for stream in listener.incoming() {
            accepted.push(stream);
        }
    });
}

/// Connections of the first host to the service. Their ports are free again as soon as they are dropped.
#[derive(Default)]
pub(crate) struct Connections(Vec<TcpStream>);

impl Connections {
    /// Opens as many more.
    pub(crate) fn open(&mut self, from: &Namespace, count: usize) {
        let opened = from.inside(|| (0..count).map(|_| connect(SERVICE)).collect::<io::Result<Vec<_>>>());
        self.0.extend(opened.unwrap());
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for stream in &self.0 {
            // A reset leaves no TIME_WAIT.
            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        }
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    TcpStream::connect(SocketAddr::from((HOSTS[1], port)))
}

/// One more call, which finds no port.
pub(crate) fn assert_exhausted(from: &Namespace) {
    let error = from.inside(|| connect(SERVICE)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
}

/// A full accept queue of the second host: its listener, and the connections of the third that wait.
pub(crate) fn full_accept_queue(network: &Network) -> (Socket, Vec<TcpStream>) {
    let [_, server, client] = &network.hosts;
    let listener = server.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, STUCK)).into()).unwrap();
        socket.listen(1).unwrap();
        socket
    });
    // The backlog, and one more.
    let waiting = client.inside(|| [connect(STUCK).unwrap(), connect(STUCK).unwrap()]);
    (listener, waiting.into())
}
