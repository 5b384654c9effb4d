//! Sources of records: `live` drains the ring buffer of the attached programs, `scan` runs one iterator pass.

pub mod live;
pub mod scan;
