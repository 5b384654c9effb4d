//! What could not be read as JSON objects.

use serde::Serialize;

use crate::{
    errno,
    model::gaps::{Gap, Gaps, Skipped, Unread},
};

/// A kind of things that could not be read; kinds that were read are absent.
#[derive(Serialize)]
pub(super) struct UnreadObject {
    kind: &'static str,
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    /// With which it could be read; absent where none helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<&'static str>,
    /// What would help.
    remedy: &'static str,
    consequence: &'static str,
}

impl UnreadObject {
    pub(super) fn all(gaps: &Gaps) -> Vec<Self> {
        let object = |(kind, gap): (Unread, Gap)| Self {
            kind: kind.id(),
            count: gap.count,
            errno: gap.errno.map(errno::name),
            capability: kind.capability(),
            remedy: kind.remedy(),
            consequence: kind.consequence(),
        };
        gaps.unread().map(object).collect()
    }
}

/// The last round that was skipped.
#[derive(Serialize)]
pub(super) struct SkipObject {
    operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    cause: String,
}

impl SkipObject {
    pub(super) fn new(skipped: &Skipped) -> Option<Self> {
        let Skipped { rounds, operation, errno, cause } = skipped.clone();
        (rounds > 0).then(|| Self { operation, errno: errno.map(errno::name), cause })
    }
}
