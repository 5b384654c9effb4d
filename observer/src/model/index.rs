//! Indexes of rows, as the tables keep them: four bytes each.

use std::hash::{BuildHasher as _, Hash};

use rustc_hash::FxBuildHasher;

/// The index that stands for no row.
pub(super) const NO_ROW: u32 = u32::MAX;

pub(super) fn hash<T: Hash>(value: &T) -> u64 {
    FxBuildHasher.hash_one(value)
}

/// Indexes stay below 2^32: 2^32 sockets would need 256 GiB of this table alone.
pub(super) fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 rows")
}
