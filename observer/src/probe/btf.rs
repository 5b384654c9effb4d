//! A reader of BTF, the kernel's own description of its types (`/sys/kernel/btf/vmlinux`).
//! Format: <https://docs.kernel.org/bpf/btf.html>
//!
//! It answers two questions: where is this field, and how many parameters has this function. The file is indexed once;
//! types are read from its bytes when they are asked for.

use std::{ffi::CStr, hash::BuildHasher as _};

use hashbrown::{HashTable, hash_table::Entry};
use rustc_hash::FxBuildHasher;

const MAGIC: u16 = 0xeb9f;
/// `BTF_KIND_*` of include/uapi/linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
    /// The highest kind that this reader knows the size of.
    pub(super) const LAST: u32 = ENUM64;
}

/// Members that are looked at for one field, those of anonymous members included. The kernel's structures have a few hundred;
/// without a bound, one that contains itself would have no end.
const MOST_MEMBERS: usize = 1 << 13;
/// Typedefs and qualifiers before a type. The kernel has a handful; one that leads to itself has no end.
const MOST_NAMES: usize = 64;

/// Why the bytes are not BTF that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The file does not start as BTF does.
    #[error("not BTF: magic {0:#06x} instead of {MAGIC:#06x}")]
    Magic(u16),
    /// A length or offset points outside the file.
    #[error("BTF is cut short at byte {0}")]
    Truncated(usize),
    /// A type of a kind that came after this reader was written.
    #[error("BTF has a type of unknown kind {0}")]
    UnknownKind(u32),
}

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost structure.
    pub byte_offset: u32,
    /// For a bit field, bits from that byte on; 0 otherwise.
    pub bit_shift: u32,
}

/// Indexed BTF.
pub struct Btf {
    bytes: Vec<u8>,
    /// Where the strings begin.
    strings: usize,
    /// Where each type begins, by type id; id 0 is `void`.
    types: Vec<u32>,
    /// Ids of structures and functions by name; of several with one name the first. The names stay in `bytes`: a kernel has tens
    /// of thousands, and every start reads them.
    structs: HashTable<u32>,
    functions: HashTable<u32>,
}

/// The common start of a type.
#[derive(Clone, Copy)]
struct TypeHeader {
    name: u32,
    kind: u32,
    vlen: u32,
    kind_flag: bool,
    size_or_type: u32,
}

impl TypeHeader {
    const fn has_members(self) -> bool {
        matches!(self.kind, kind::STRUCT | kind::UNION)
    }
}

impl Btf {
    /// Indexes BTF as the kernel shows it.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let magic = u16::from_le_bytes(array(&bytes, 0)?);
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let header_len = word(&bytes, 4)? as usize;
        let types_start = header_len + word(&bytes, 8)? as usize;
        let types_end = types_start + word(&bytes, 12)? as usize;
        let strings = header_len + word(&bytes, 16)? as usize;
        let strings_end = strings + word(&bytes, 20)? as usize;
        if types_end.max(strings_end) > bytes.len() {
            return Err(BtfError::Truncated(bytes.len()));
        }
        let mut btf = Self { bytes, strings, types: vec![0], structs: HashTable::new(), functions: HashTable::new() };
        btf.index(types_start, types_end)?;
        Ok(btf)
    }

    fn index(&mut self, start: usize, end: usize) -> Result<(), BtfError> {
        let mut at = start;
        while at < end {
            let header = self.header_at(at)?;
            let id = u32::try_from(self.types.len()).map_err(|_| BtfError::Truncated(at))?;
            self.types.push(u32::try_from(at).map_err(|_| BtfError::Truncated(at))?);
            let names = match header.kind {
                kind::STRUCT => Some(&mut self.structs),
                kind::FUNC => Some(&mut self.functions),
                _ => None,
            };
            if let Some(names) = names {
                let name = string(&self.bytes, self.strings, header.name)?;
                let name_of = |id: &u32| name_of(&self.bytes, self.strings, &self.types, *id);
                let entry = names.entry(hash(name), |other| name_of(other) == name, |other| hash(name_of(other)));
                if let Entry::Vacant(entry) = entry
                    && !name.is_empty()
                {
                    entry.insert(id);
                }
            }
            at += 12 + trailer(header)?;
        }
        Ok(())
    }

    /// Where `path` ("inum", or "ns.inum" for a structure within) is in `structure`; anonymous unions and structures
    /// in between need not be named. `None` if this kernel has no such field.
    #[must_use]
    pub fn member(&self, structure: &str, path: &str) -> Option<Member> {
        let mut id = self.id(&self.structs, structure)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (member_type, offset) = self.find(id, name.as_bytes())?;
            bits = u32::checked_add(bits, offset)?;
            id = member_type;
        }
        Some(Member { byte_offset: bits / 8, bit_shift: bits % 8 })
    }

    /// How many parameters the function has; `None` if the kernel has no such function, or inlined it away.
    #[must_use]
    pub fn parameters(&self, function: &str) -> Option<u32> {
        let function = self.header(self.id(&self.functions, function)?)?;
        let prototype = self.header(function.size_or_type)?;
        (prototype.kind == kind::FUNC_PROTO).then_some(prototype.vlen)
    }

    fn id(&self, names: &HashTable<u32>, name: &str) -> Option<u32> {
        let is_named = |id: &u32| name_of(&self.bytes, self.strings, &self.types, *id) == name.as_bytes();
        names.find(hash(name.as_bytes()), is_named).copied()
    }

    /// The type and the bit offset of a member, looked for in anonymous members too.
    fn find(&self, id: u32, name: &[u8]) -> Option<(u32, u32)> {
        let mut structures = vec![(id, 0)];
        let mut left = MOST_MEMBERS;
        while let Some((id, outer)) = structures.pop() {
            let Some((id, header)) = self.resolve(id).filter(|(_, header)| header.has_members()) else { continue };
            let first = *self.types.get(id as usize)? as usize + 12;
            for index in 0..header.vlen as usize {
                left = left.checked_sub(1)?;
                let at = first + index * 12;
                let member_name = string(&self.bytes, self.strings, word(&self.bytes, at).ok()?).ok()?;
                let member_type = word(&self.bytes, at + 4).ok()?;
                let offset = word(&self.bytes, at + 8).ok()?;
                // With the flag, the upper byte is the size of a bit field.
                let offset = if header.kind_flag { offset & 0x00ff_ffff } else { offset };
                let offset = u32::checked_add(outer, offset)?;
                if member_name == name {
                    return Some((member_type, offset));
                }
                if member_name.is_empty() {
                    structures.push((member_type, offset));
                }
            }
        }
        None
    }

    /// Follows typedefs and qualifiers to the type behind them.
    fn resolve(&self, mut id: u32) -> Option<(u32, TypeHeader)> {
        for _ in 0..MOST_NAMES {
            let header = self.header(id)?;
            match header.kind {
                kind::TYPEDEF..=kind::RESTRICT | 18 => id = header.size_or_type,
                _ => return Some((id, header)),
            }
        }
        None
    }

    fn header(&self, id: u32) -> Option<TypeHeader> {
        let at = *self.types.get(id as usize).filter(|_| id != 0)?;
        self.header_at(at as usize).ok()
    }

    fn header_at(&self, at: usize) -> Result<TypeHeader, BtfError> {
        let info = word(&self.bytes, at + 4)?;
        Ok(TypeHeader {
            name: word(&self.bytes, at)?,
            kind: (info >> 24) & 0x1f,
            vlen: info & 0xffff,
            kind_flag: info >> 31 != 0,
            size_or_type: word(&self.bytes, at + 8)?,
        })
    }
}

/// Bytes that follow the common start.
fn trailer(header: TypeHeader) -> Result<usize, BtfError> {
    let vlen = header.vlen as usize;
    match header.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => Ok(4),
        kind::ARRAY => Ok(12),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => Ok(12 * vlen),
        kind::ENUM | kind::FUNC_PROTO => Ok(8 * vlen),
        1..=kind::LAST => Ok(0),
        unknown => Err(BtfError::UnknownKind(unknown)),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BtfError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(BtfError::Truncated(at))
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn string(bytes: &[u8], strings: usize, offset: u32) -> Result<&[u8], BtfError> {
    let at = strings + offset as usize;
    let rest = bytes.get(at..).ok_or(BtfError::Truncated(at))?;
    CStr::from_bytes_until_nul(rest).map(CStr::to_bytes).map_err(|_| BtfError::Truncated(at))
}

/// The name of a type that is indexed.
fn name_of<'a>(bytes: &'a [u8], strings: usize, types: &[u32], id: u32) -> &'a [u8] {
    let offset = types.get(id as usize).and_then(|at| word(bytes, *at as usize).ok());
    offset.and_then(|offset| string(bytes, strings, offset).ok()).unwrap_or_default()
}

fn hash(name: &[u8]) -> u64 {
    FxBuildHasher.hash_one(name)
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
