//! The page at `/`: links and the state of observer, as HTML that every browser shows.

use std::fmt::{self, Write as _};

use super::{listen::ListenAddress, sandbox::Confinement};
use crate::{
    frame::Frame,
    model::{name::fold_text, units::grouped},
    present::format,
    recording::RecorderStatus,
};

/// What the page says beside the frame.
#[derive(Debug)]
pub(super) struct ServeState<'a> {
    /// Where observer listens.
    pub(super) addresses: Vec<&'a ListenAddress>,
    /// Of the HTTP process.
    pub(super) confinement: Option<Confinement>,
}

impl ServeState<'_> {
    /// How far the HTTP process is confined, in a sentence.
    pub(super) fn confinement(&self) -> String {
        match self.confinement.map(Confinement::lacks) {
            None => "unknown".to_owned(),
            Some(None) => "complete: no capability, no file, few system calls".to_owned(),
            Some(Some(lacks)) => format!("no capability, few system calls; but {lacks}"),
        }
    }
}

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>observer</title></head>\n<body>\n\
    <h1>observer</h1>\n<ul>\n\
    <li><a href=\"/metrics\">/metrics</a>: series for Prometheus</li>\n\
    <li><a href=\"/snapshot\">/snapshot</a>: everything as JSON</li>\n\
    <li><a href=\"/-/healthy\">/-/healthy</a>, <a href=\"/-/ready\">/-/ready</a></li>\n</ul>\n<table>\n";

pub(super) fn render(frame: &Frame, state: &ServeState<'_>) -> String {
    let snapshot = &frame.snapshot;
    let quality = &snapshot.quality;
    let missing: Vec<&str> =
        quality.hooks.iter().filter(|status| status.method.is_none()).map(|status| status.hook.spec().name).collect();
    let unread = quality.gaps.advice();
    let addresses: Vec<String> = state.addresses.iter().map(ToString::to_string).collect();
    let mut page = HEAD.to_owned();
    let mut row = |name: &str, value: &dyn fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<tr><th align=\"left\">{name}</th><td>{}</td></tr>", escaped(&value.to_string()));
    };
    row("Version", &env!("CARGO_PKG_VERSION"));
    row("Running for", &format_args!("{} s", snapshot.uptime.as_secs()));
    row("Listening on", &addresses.join(", "));
    row("Sockets", &grouped(snapshot.totals.sockets.into()));
    row("Namespaces", &grouped(snapshot.namespaces.len() as u64));
    row("Records", &grouped(quality.events_total));
    row("Lost records", &grouped(quality.lost_total()));
    row("Suspended hooks", &quality.suspension().unwrap_or_else(|| "none".to_owned()));
    row("Missing hooks", &if missing.is_empty() { "none".to_owned() } else { missing.join(", ") });
    row("Not read", &if unread.is_empty() { "nothing".to_owned() } else { unread.join("; ") });
    if let Some(status) = &frame.recorder {
        row("Recorder", &recorder(status));
    }
    row("HTTP process", &state.confinement());
    row("HTTP restarts", &frame.http_restarts.unwrap_or(0));
    page.push_str("</table>\n</body>\n</html>\n");
    page
}

/// How the recorder stands, in a sentence.
fn recorder(status: &RecorderStatus) -> String {
    let RecorderStatus { bytes, most_bytes, segments, oldest, incidents, errors, last_error, lost } = status;
    let (bytes, most) = (grouped(*bytes), grouped(*most_bytes));
    let since = oldest.map_or_else(String::new, |oldest| format!(" since {}", format::local_time(oldest)));
    let mut words = format!("{bytes} of {most} bytes: {segments} segments{since}, {incidents} incidents");
    // Writing to a String cannot fail.
    if *lost > 0 {
        let _ = write!(words, "; {} inputs not recorded", grouped(*lost));
    }
    if let Some(error) = last_error {
        let _ = write!(words, "; {errors} times it could not be written, last {error}");
    }
    words
}

/// Text as HTML shows it. Names from outside are folded.
fn escaped(text: &str) -> String {
    fold_text(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_no_markup() {
        assert_eq!(escaped("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
