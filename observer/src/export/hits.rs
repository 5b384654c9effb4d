//! How often limits were hit, as lines of text and as performance data.

use crate::model::{
    hits::{Hits, Since},
    limit::About,
    snapshot::Snapshot,
    units::NetnsId,
};

/// A line for each network namespace, and one for what observer has counted itself.
pub(super) fn lines(snapshot: &Snapshot) -> Vec<String> {
    let of_group = |group: &[Hits<'_>]| {
        let counts = group.iter().map(|hits| format!("{} {}", About::of(hits.kind).name, hits.count));
        let counts = counts.collect::<Vec<_>>().join(", ");
        group.first().map(|first| format!("limits hit {}: {counts}", since(first, snapshot)))
    };
    snapshot.hits().collect::<Vec<_>>().chunk_by(|a, b| a.netns == b.netns).filter_map(of_group).collect()
}

/// `since boot`, `since the namespace blue was made`.
fn since(hits: &Hits<'_>, snapshot: &Snapshot) -> String {
    match (hits.since, hits.netns) {
        (Since::Boot, _) => "since boot".to_owned(),
        (Since::Namespace, Some(netns)) => {
            format!("since namespace {} was made", netns.label(hits.netns_name))
        }
        (Since::Namespace, None) => "since the namespace was made".to_owned(),
        (Since::Observer, _) => format!("since observer started {:.1} s ago", snapshot.uptime.as_secs_f64()),
    }
}

/// Counters of one namespace: they grow until it ends. A sum over all would fall with each that ends.
pub(super) fn performance(snapshot: &Snapshot, own: Option<NetnsId>) -> impl Iterator<Item = String> {
    let of_own = snapshot.hits().filter(move |hits| own.is_some() && hits.netns == own);
    of_own.map(|hits| format!("'{}_hits'={}c", About::of(hits.kind).id, hits.count))
}
