//! The reader against bytes that no observer wrote. Recordings of real traffic are in tests/live/recording.rs.

use std::time::Duration;

use proptest::prelude::*;

use super::{FORMAT, Header, Next, ReadError, Reader, Writer};
use crate::{
    input::Input,
    model::{
        Basis,
        cost::{Cost, CpuShare},
        device::DeviceReading,
        gaps::{Gap, Gaps, Skipped, Unread},
        member::Member,
        namespace::{Conntrack, ConntrackCounters, NamespaceName, NamespaceReading},
        quality::{AttachMethod, FailedMethod, Hook, HookStatus, Losses, ProcessScope, ScanSummary, StreamLoss},
        service::{CgroupId, Container, Pod, Runtime, Service},
        snapshot::{FileUse, Host, Memory, OwnUse, ProcessFiles},
        units::{Comm, NetnsId, Pid, PortRange, Process},
    },
};

fn header() -> Header {
    let because = "no such function".to_owned();
    let failed = vec![FailedMethod { method: AttachMethod::Fentry, because }];
    Header {
        observer: "0.1.0".to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        kernel: "6.12.0".to_owned(),
        started_at: Duration::from_secs(1_700_000_000),
        hooks: vec![HookStatus { hook: Hook::Connect, method: Some(AttachMethod::Kprobe), failed }],
        basis: Basis {
            started_at: Some(Duration::from_millis(5_500)),
            reads_buckets: true,
            processes: ProcessScope::All,
            frees_buckets: false,
        },
        begins_at: Duration::ZERO,
        losses_before: Losses::default(),
    }
}

/// One of each.
fn inputs() -> [Input<'static>; 19] {
    let process = Process { pid: Pid(7), comm: Comm::from("nginx") };
    let files = ProcessFiles { process, open: 3, soft_limit: Some(1024), hard_limit: None };
    [
        Input::Record(&[1, 2, 3]),
        Input::BeginScan(NetnsId(4_026_531_840)),
        Input::EndScan,
        Input::AbandonScan,
        Input::EndRound(ScanSummary { finished_at: Duration::from_secs(2), took: Duration::from_millis(3), found: 4 }),
        Input::BeginFdScan,
        Input::EndFdScan,
        Input::Namespace(
            NetnsId(1),
            Box::new(NamespaceReading {
                name: NamespaceName::Other("blue".into()),
                port_range: Some(PortRange { low: 32_768, high: 60_999 }),
                conntrack: Some(Conntrack {
                    count: 1,
                    max: 2,
                    closed_timeout: Some(Duration::from_mins(2)),
                    counters: Some(ConntrackCounters { insert_failed: 3, drop: 4, early_drop: 5 }),
                }),
                devices: vec![DeviceReading { index: 3, name: Comm::from("eth0"), vrf: 4 }],
                tcp_l3mdev_accept: Some(false),
                port_step_width: Some(5),
                ..NamespaceReading::default()
            }),
        ),
        Input::ForgetNamespace(NetnsId(2)),
        Input::Host(Box::new(Host {
            kernel: "6.12.0".to_owned(),
            files: Some(FileUse { allocated: 1, max: 2 }),
            nr_open: Some(3),
            processes: vec![files],
            memory: Some(Memory { available: 4, per_socket: 5 }),
            own: Some(OwnUse { cpu: Duration::from_millis(6), resident: 7 }),
        })),
        Input::Losses(Losses { ring_full: 1, missed: Some(2), ..Losses::default() }),
        Input::Gaps(Box::new({
            let mut gaps = Gaps::default();
            gaps.set(Unread::Processes, Gap { count: 1, errno: Some(13) });
            gaps.skipped =
                Skipped { rounds: 2, operation: "scan".to_owned(), errno: Some(24), cause: "EMFILE".to_owned() };
            gaps
        })),
        Input::Tick,
        Input::RestartTotals,
        Input::Service(Member::Process(Pid(7)), None),
        Input::Service(
            Member::Cgroup(CgroupId(4_242)),
            Some(Box::new(Service {
                path: Some("/a".into()),
                unit: Some("nginx.service".into()),
                pod: Some(Pod { uid: "1-2".into(), namespace: Some("shop".into()), name: Some("web".into()) }),
                container: Some(Container {
                    id: "0123".into(),
                    name: Some("front".into()),
                    runtime: Some(Runtime::Podman),
                }),
                machine: Some("m".into()),
            })),
        ),
        Input::StreamLoss(Box::new(StreamLoss { inputs: 8, namespaces: vec![NetnsId(1)] })),
        Input::Cost(cost()),
        Input::Unchanged(NetnsId(3)),
    ]
}

fn cost() -> Cost {
    let [share, at_most] = [0.1, 0.2].map(CpuShare::from_ratio);
    Cost { share, at_most, hook_ns: 3, is_measured: true, is_suspended: false, suspensions: 4, skipped: 5 }
}

fn recording() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::start(&mut bytes, &header()).unwrap();
    for (second, input) in (0..).zip(inputs()) {
        writer.write(Duration::from_secs(second), &input).unwrap();
    }
    assert_eq!(writer.finish().unwrap().records, 1);
    bytes
}

fn sealed(chunks: &[Vec<u8>]) -> Vec<u8> {
    super::sealed(chunks).unwrap()
}

fn read_all(bytes: &[u8]) -> Result<usize, ReadError> {
    let mut reader = Reader::start(bytes)?;
    let mut count = 0;
    while let Next::Input(..) = reader.next(Duration::MAX)? {
        count += 1;
    }
    Ok(count)
}

#[test]
fn what_is_read_is_what_was_written() {
    let bytes = recording();
    let mut reader = Reader::start(bytes.as_slice()).unwrap();
    assert_eq!(*reader.header(), header());
    for (second, input) in (0..).zip(inputs()) {
        let at = Duration::from_secs(second);
        if second > 0 {
            assert_eq!(reader.next(Duration::from_millis(second * 1000 - 1)).unwrap(), Next::Later);
        }
        assert_eq!(reader.next(at).unwrap(), Next::Input(at, input));
    }
    assert_eq!(reader.next(Duration::MAX).unwrap(), Next::End);
}

/// Fails when an input is encoded otherwise than before: then files that are there are read wrong, and [`FORMAT`] is to
/// be raised with this number.
#[test]
fn the_encoding_belongs_to_the_format() {
    let mut encoded = postcard::to_stdvec(&Header { arch: "any".to_owned(), ..header() }).unwrap();
    for input in inputs() {
        encoded.extend(postcard::to_stdvec(&input).unwrap());
    }
    assert_eq!((FORMAT, format!("{:08x}", crc32fast::hash(&encoded))), (6, "78e25647".to_owned()));
}

#[test]
fn other_files_are_recognized() {
    const OWN: &str = env!("CARGO_PKG_VERSION");
    let sentence = |bytes: &[u8]| read_all(bytes).unwrap_err().to_string();
    assert_eq!(sentence(b""), "this is not a recording of observer");
    assert_eq!(
        sentence(b"observer of nothing"),
        format!(
            "this recording has format 28448: the version that wrote it reads it, and this one ({OWN}) reads formats 4 to 6"
        )
    );
    let mut newer = recording();
    newer[8] = 9;
    assert_eq!(
        sentence(&newer),
        format!("this recording has format 9: observer 0.1.0 reads it, and this one ({OWN}) reads formats 4 to 6")
    );
    let elsewhere = Header { arch: "m\x1b68k".to_owned(), ..header() };
    let elsewhere = sealed(&[postcard::to_stdvec(&elsewhere).unwrap()]);
    assert_eq!(sentence(&elsewhere), "this was recorded on m\\u{1b}68k, and can be replayed there only");
}

#[test]
fn time_that_goes_back_is_damage() {
    let entry = |at_ns: u64| postcard::to_stdvec(&(at_ns, Input::Tick)).unwrap();
    let bytes = sealed(&[postcard::to_stdvec(&header()).unwrap(), [entry(5), entry(4)].concat()]);
    assert!(matches!(read_all(&bytes), Err(ReadError::Damaged { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read_all(&bytes).is_err());
        let begun = [&sealed(&[]), &bytes[..]].concat();
        prop_assert!(read_all(&begun).is_err());
        let with_header = [&sealed(&[postcard::to_stdvec(&header()).unwrap()]), &bytes[..]].concat();
        let is_cut_or_damaged = matches!(read_all(&with_header), Ok(0) | Err(ReadError::Damaged { .. }));
        prop_assert!(is_cut_or_damaged);
    }

    #[test]
    fn no_content_of_a_chunk_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 1..400)) {
        let _ = read_all(&sealed(std::slice::from_ref(&bytes)));
        let _ = read_all(&sealed(&[postcard::to_stdvec(&header()).unwrap(), bytes]));
    }
}
