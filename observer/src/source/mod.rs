//! Sources of records: `live` drains the ring buffer of the attached programs, `records` are some of these, `scan` runs one
//! iterator pass.

pub mod live;
pub mod records;
pub mod scan;
