//! One concern a file: the records, the offsets, the settings, the losses.

mod loss;
mod offsets;
mod record;
mod settings;

pub use loss::Loss;
pub use offsets::Offsets;
pub use record::{
    BoundRecord, COMM_LEN, CallFlags, CallRecord, FdCallRecord, FdOwnerRecord, InodeRecord, Kind, ListenerRecord,
    PID_OUTSIDE, RecordHeader, SocketFlags, SocketRecord, TaskRecord,
};
pub use settings::Settings;
