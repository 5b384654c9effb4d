//! Addresses, sockets and namespaces that are shared, passed on and deleted.

use super::*;
use crate::processes::output;

#[test]
fn several_listeners_share_one_address() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = || {
            let listener = socket(addr(V4));
            listener.set_reuse_port(true).unwrap();
            listener.bind(&addr(V4).into()).unwrap();
            listener.listen(128).unwrap();
            listener
        };
        let (accepting, idle) = (listener(), listener());
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(V4).unwrap()).collect();
        let snapshot = settle(&mut engine, (120, (120, 0, 0)));
        assert_eq!(inbound(&snapshot, V4).map(|row| (row.listening, row.sockets)), Some((true, 60)));
        accepting.set_nonblocking(true).unwrap();
        let accepted: Vec<_> = std::iter::from_fn(|| accepting.accept().ok()).collect();
        let kept = u32::try_from(accepted.len()).unwrap();
        assert!(0 < kept && kept < 60, "all of 60 connections went to one of two listeners");
        // A listener that goes takes along those that wait for it, and the row still listens.
        drop(idle);
        let snapshot = settle(&mut engine, (2 * kept, (120, u64::from(120 - 2 * kept), 0)));
        assert_eq!(inbound(&snapshot, V4).map(|row| (row.listening, row.sockets)), Some((true, kept)));
        drop((accepting, accepted));
        drop(clients);
        let snapshot = settle(&mut engine, (0, (120, 120, 0)));
        assert!(!inbound(&snapshot, V4).unwrap().listening);
    });
}

#[test]
fn a_listener_on_every_address_and_one_on_a_single_address_share_a_port() {
    in_private_netns(|| {
        let mut engine = observe();
        let sharing = |at: &str, target: &str, count: usize| {
            let listener = socket(addr(at));
            listener.set_reuse_port(true).unwrap();
            listener.bind(&addr(at).into()).unwrap();
            listener.listen(128).unwrap();
            let mut pairs = Pairs { listener: listener.into(), clients: Vec::new(), accepted: Vec::new() };
            pairs.more(target, count);
            pairs
        };
        let every = sharing("0.0.0.0:7000", "127.0.0.2:7000", 3);
        let one = sharing(V4, V4, 4);
        let snapshot = settle(&mut engine, (14, (14, 0, 0)));
        let sockets = |local| inbound(&snapshot, local).map(|row| (row.listening, row.sockets));
        assert_eq!(sockets(V4), Some((true, 4)));
        assert_eq!(sockets("127.0.0.2:7000"), Some((false, 3)));
        assert_eq!(sockets("0.0.0.0:7000"), Some((true, 0)));
        drop((every, one));
        assert_eq!(flows(&settle(&mut engine, (0, (14, 14, 0)))), (14, 14, 0));
    });
}

#[test]
fn sockets_stay_open_in_the_process_that_received_them() {
    if let Some((_, channel)) = role() {
        let held: Vec<_> = (0..5).map(|_| take(&channel).unwrap()).collect();
        keep_open(&channel);
        return drop(held);
    }
    in_private_netns(|| {
        let mut engine = observe();
        let mut pairs = Pairs::open(V4, V4, 4);
        let mut receiver = TestProcess::start(&sockets_stay_open_in_the_process_that_received_them, "hold");
        for client in &pairs.clients {
            pass(&receiver.channel, client).unwrap();
        }
        pass(&receiver.channel, &pairs.listener).unwrap();
        receiver.wait_until_ready();
        pairs.clients.clear();
        let Pairs { listener, accepted, .. } = pairs;
        drop(listener);
        let snapshot = settle(&mut engine, (8, (8, 0, 0)));
        assert!(inbound(&snapshot, V4).unwrap().listening);
        // In flight: closed here, not yet received there. The message alone keeps them open.
        let (to, from) = UnixStream::pair().unwrap();
        let flying = TcpStream::connect(V4).unwrap();
        pass(&to, &flying).unwrap();
        drop(flying);
        settle(&mut engine, (10, (10, 0, 0)));
        drop((to, from));
        receiver.kill();
        assert!(accepted.iter().all(has_ended));
        drop(accepted);
        let snapshot = settle(&mut engine, (0, (10, 10, 0)));
        assert!(!inbound(&snapshot, V4).unwrap().listening);
    });
}

#[test]
fn a_namespace_is_deleted_under_its_sockets() {
    in_private_netns(|| {
        let mut outside = observe();
        let here = Pairs::open(V4, V4, 2);
        let name = format!("observer-test-{}", process::id());
        run("ip", &["netns", "add", &name]);
        let file = File::open(format!("/run/netns/{name}")).unwrap();
        let delete = name.clone();
        let inside = thread::spawn(move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
            drop(file);
            run("ip", &["link", "set", "lo", "up"]);
            let mut engine = observe();
            let mut pairs = Pairs::open(V4, V4, 5);
            settle(&mut engine, (10, (10, 0, 0)));
            run("ip", &["netns", "del", &delete]);
            // Its name is gone; its sockets and its thread keep it.
            pairs.more(V4, 5);
            let snapshot = settle(&mut engine, (20, (20, 0, 0)));
            assert_eq!(snapshot.totals.connections, 10);
            pairs.clients.truncate(3);
            settle(&mut engine, (13, (20, 7, 0)));
            pairs
        });
        let inside = inside.join();
        // A failed test leaves no namespace behind.
        let _ = output(process::Command::new("ip").args(["netns", "del", &name]));
        // Only its sockets keep it now; with them it goes.
        let orphans = inside.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        settle(&mut outside, (4, (4, 0, 0)));
        drop(orphans);
        let more = Pairs::open("127.0.0.1:7001", "127.0.0.1:7001", 20);
        let snapshot = settle(&mut outside, (44, (44, 0, 0)));
        assert_eq!(snapshot.totals.connections, 22);
        drop((here, more));
        assert_eq!(flows(&settle(&mut outside, (0, (44, 44, 0)))), (44, 44, 0));
    });
}
