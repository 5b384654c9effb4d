//! Against hand-made BTF, and against what the running kernel says of itself.

#![expect(clippy::cast_possible_truncation, reason = "hand-made BTF is small")]

use super::*;

/// Builds BTF type by type.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u32, flag: bool, vlen: u32, size_or_type: u32, trailer: &[u32]) -> u32 {
        let name = self.name(name);
        let info = u32::from(flag) << 31 | kind << 24 | vlen;
        for word in [name, info, size_or_type].iter().chain(trailer) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn structure(&mut self, name: &str, kind: u32, flag: bool, members: &[(&str, u32, u32)]) -> u32 {
        let trailer: Vec<u32> = members.iter().flat_map(|(name, ty, bits)| [self.name(name), *ty, *bits]).collect();
        self.add(name, kind, flag, members.len() as u32, 64, &trailer)
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&[1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        bytes
    }
}

fn sample() -> Vec<u8> {
    let mut b = Builder::new();
    let int = b.add("int", kind::INT, false, 0, 4, &[32]);
    let alias = b.add("alias", kind::TYPEDEF, false, 0, int, &[]);
    let inner = b.structure("ns_common", kind::STRUCT, false, &[("stashed", int, 0), ("inum", int, 64)]);
    let inner_alias = b.add("ns_alias", kind::TYPEDEF, false, 0, inner, &[]);
    let anonymous = b.structure("", kind::UNION, false, &[("daddr", alias, 0), ("rcv_saddr", int, 32)]);
    b.structure("sock", kind::STRUCT, false, &[("", anonymous, 96), ("ns", inner_alias, 256)]);
    // A bit field of 4 bits at bit 36: size in the upper byte.
    b.structure("flags", kind::STRUCT, true, &[("locks", int, (4 << 24) + 36)]);
    let prototype = b.add("", kind::FUNC_PROTO, false, 2, int, &[0, int, 0, int]);
    b.add("accept", kind::FUNC, false, 1, prototype, &[]);
    b.finish()
}

#[test]
fn finds_members_through_anonymous_unions_typedefs_and_paths() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.member("sock", "daddr"), Some(Member { byte_offset: 12, bit_shift: 0 }));
    assert_eq!(btf.member("sock", "rcv_saddr"), Some(Member { byte_offset: 16, bit_shift: 0 }));
    assert_eq!(btf.member("sock", "ns.inum"), Some(Member { byte_offset: 40, bit_shift: 0 }));
}

#[test]
fn a_bit_field_has_its_byte_and_its_shift() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.member("flags", "locks"), Some(Member { byte_offset: 4, bit_shift: 4 }));
}

#[test]
fn what_the_kernel_lacks_is_none() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.member("sock", "missing"), None);
    assert_eq!(btf.member("missing", "daddr"), None);
    assert_eq!(btf.member("sock", "daddr.deeper"), None);
    assert_eq!(btf.parameters("missing"), None);
}

#[test]
fn counts_the_parameters_of_a_function() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.parameters("accept"), Some(2));
}

#[test]
fn a_file_cut_off_anywhere_is_an_error_and_never_a_panic() {
    let whole = sample();
    for len in 0..whole.len() {
        assert!(Btf::parse(whole[..len].to_vec()).is_err(), "{len} of {} bytes were taken for whole", whole.len());
    }
    assert_eq!(Btf::parse(b"\x7fELF".to_vec()).err(), Some(BtfError::Magic(0x457f)));
}

#[test]
fn an_unknown_kind_is_named() {
    let mut b = Builder::new();
    b.add("", 30, false, 0, 0, &[]);
    assert_eq!(Btf::parse(b.finish()).err(), Some(BtfError::UnknownKind(30)));
}

#[test]
fn types_that_contain_themselves_have_no_member_and_end() {
    let mut b = Builder::new();
    let itself = |b: &Builder| b.count + 1;
    let (alias, structure) = (itself(&b), itself(&b) + 1);
    b.add("alias", kind::TYPEDEF, false, 0, alias, &[]);
    b.structure("nested", kind::STRUCT, false, &[("", structure, 8), ("", structure, 8), ("inner", alias, 0)]);
    let btf = Btf::parse(b.finish()).unwrap();
    assert_eq!(btf.member("nested", "missing"), None);
    assert_eq!(btf.member("nested", "inner.deeper"), None);
    assert_eq!(btf.member("nested", "inner"), Some(Member { byte_offset: 0, bit_shift: 0 }));
}

#[test]
fn an_offset_beyond_all_memory_is_that_of_no_member() {
    let mut b = Builder::new();
    let far = b.structure("far", kind::STRUCT, false, &[("end", 0, u32::MAX)]);
    b.structure("outer", kind::STRUCT, false, &[("", far, 8), ("named", far, 8)]);
    let btf = Btf::parse(b.finish()).unwrap();
    assert_eq!((btf.member("outer", "end"), btf.member("outer", "named.end")), (None, None));
    assert!(btf.member("far", "end").is_some());
}

#[test]
fn the_running_kernel_describes_its_sockets() {
    let btf = Btf::parse(crate::host::text::bytes("/sys/kernel/btf/vmlinux").expect("a kernel with BTF")).unwrap();
    // These have been the first fields of struct sock since 3.8.
    assert_eq!(btf.member("sock_common", "skc_daddr").map(|m| m.byte_offset), Some(0));
    assert_eq!(btf.member("sock", "__sk_common.skc_rcv_saddr").map(|m| m.byte_offset), Some(4));
    assert_eq!(btf.parameters("tcp_connect"), Some(1));
}
