//! Files of the kernel are read whole, whatever their length: against the kernel's own list and against connect().

use std::{fs::File, io::Read as _, net::TcpStream};

use observer::{
    host::{netns, text},
    model::snapshot::Snapshot,
};

use crate::support::{in_private_netns, listen, observe, outbound, set_sysctl};

/// The sysctl in one read() that is large enough for every list.
fn kernel_list() -> String {
    let mut buffer = vec![0; 1 << 20];
    let read = File::open("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap().read(&mut buffer).unwrap();
    String::from_utf8(buffer[..read].to_vec()).unwrap()
}

fn reserved_ports(snapshot: &Snapshot) -> u32 {
    let own = netns::current().unwrap();
    snapshot.namespaces.iter().find(|row| row.netns == own).unwrap().reserved_ports
}

/// Single ports with a gap between each two: the kernel lists every one of them.
fn singles(highest: u16, count: u16) -> String {
    (0..count).map(|i| (highest - 2 * i).to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn as_many_reserved_ports_are_counted_as_the_kernel_lists() {
    for count in [1, 27, 2_000, 30_000] {
        in_private_netns(move || {
            set_sysctl("ipv4/ip_local_port_range", "1024 65535");
            set_sysctl("ipv4/ip_local_reserved_ports", &singles(65_535, count));
            let listed = kernel_list();
            assert_eq!(listed.trim().split(',').count(), usize::from(count), "the kernel took all of them");
            assert_eq!(text::string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap(), listed);
            assert_eq!(reserved_ports(&observe().snapshot(0)), u32::from(count));
        });
    }
}

#[test]
fn with_27_reserved_ports_left_is_what_connect_gets() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40203");
        set_sysctl("ipv4/ip_local_reserved_ports", &singles(40_203, 27));
        let _listener = listen("127.0.0.1:7000", 512);
        let first = TcpStream::connect("127.0.0.1:7000").unwrap();
        let snapshot = observe().snapshot(usize::MAX);
        assert_eq!(reserved_ports(&snapshot), 27);
        let left = outbound(&snapshot, "127.0.0.1").unwrap().destinations[0].ports.unwrap().left().unwrap();
        let mut more = Vec::new();
        let error = loop {
            match TcpStream::connect("127.0.0.1:7000") {
                Ok(client) => more.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        assert_eq!(usize::try_from(left).unwrap(), more.len());
        assert_eq!(more.len(), 204 - 27 - 1);
        drop(first);
    });
}
