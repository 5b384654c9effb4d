//! Limits for tests.

use super::{Limit, LimitKind, Scope};

impl Limit {
    /// A limit of which no more is known than its use.
    pub(crate) fn for_test(kind: LimitKind, scope: Scope, used: u64, maximum: u64) -> Self {
        Self {
            kind,
            scope,
            netns_name: None,
            process: None,
            service: None,
            used,
            maximum,
            hits: None,
            counters: Vec::new(),
            slope: None,
            turnover: None,
            lifetime: None,
        }
    }
}
