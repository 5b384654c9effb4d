//! Numbers, durations, addresses and names as people read them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::model::{
    device::Device,
    name::{columns as columns_of, fold_text},
    units::{Comm, Pid, grouped, grouped_digits},
};

/// `1,234,567`
pub(crate) fn count(value: u64) -> String {
    grouped(value)
}

/// `1,234,567` when it fits into `width`, else `1234567`, else `1.2M`.
pub(crate) fn count_within(value: u64, width: usize) -> String {
    let plain = value.to_string();
    let long = grouped(value);
    if long.len() <= width {
        return long;
    }
    if plain.len() <= width {
        return plain;
    }
    let (unit, letter) = match value {
        0..1_000_000 => (1_000, 'k'),
        1_000_000..1_000_000_000 => (1_000_000, 'M'),
        _ => (1_000_000_000, 'G'),
    };
    let short = format!("{}.{}{letter}", value / unit, value % unit * 10 / unit);
    if short.len() <= width { short } else { format!("{}{letter}", value / unit) }
}

/// Where there is no limit in practice.
pub(crate) const NO_LIMIT: &str = "no limit";

/// Where there is no such number.
pub(crate) const ABSENT: &str = "–";

/// How much there can be: `1,024` or `no limit`.
pub(crate) fn maximum(maximum: Option<u64>) -> String {
    maximum_within(maximum, usize::MAX)
}

/// The same in so many columns.
pub(crate) fn maximum_within(maximum: Option<u64>, width: usize) -> String {
    maximum.map_or_else(|| NO_LIMIT.to_owned(), |maximum| count_within(maximum, width))
}

/// A wall-clock time, since the Unix epoch, as the clock of this machine shows it: `2026-11-27 03:12:07`.
pub(crate) fn local_time(since_1970: Duration) -> String {
    let time = SignedDuration::try_from(since_1970).ok().and_then(|since| Timestamp::from_duration(since).ok());
    let time = time.unwrap_or(Timestamp::MAX).to_zoned(TimeZone::system());
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Per second: one decimal below ten.
pub(crate) fn rate(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value < 9.95 {
        format!("{value:.1}")
    } else {
        grouped_digits(&format!("{value:.0}"))
    }
}

/// How long ago, or for how long: two units at most.
pub(crate) fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0..10 => format!("{}.{} s", seconds, value.subsec_millis() / 100),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A predicted time, in one unit: a prediction is no more exact.
pub(crate) fn forecast(value: Duration) -> String {
    duration(value).split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// How long something took.
pub(crate) fn took(value: Duration) -> String {
    match value.as_millis() {
        0 => "<1 ms".to_owned(),
        millis @ 1..1_000 => format!("{millis} ms"),
        _ => duration(value),
    }
}

/// A part, 0 to 1, in whole percent. Rounded down: 100 % means full.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.0} %", (ratio * 100.0).floor())
}

/// `10.0.0.5:80`, `[::1]:80`, `[fe80::1%eth0]:80`; `*` for a port of its own for each connection.
pub(crate) fn address(ip: IpAddr, port: Option<u16>, device: Device) -> String {
    let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
    printable(&device.endpoint(ip, port))
}

/// `10.0.0.5 → 10.0.0.9:5432`, or as much of it as fits: the remote end, and of that the port; then the end of the local
/// address, by which rows differ.
pub(crate) fn towards(local: IpAddr, device: Device, remote: SocketAddr, width: usize) -> String {
    const LEAST: usize = 4;
    let local = scoped(local, device);
    let both = format!("{local} → {remote}");
    let left = width.saturating_sub(text_width(&format!(" → {remote}")));
    let marked = format!("… → {remote}");
    match width {
        room if text_width(&both) <= room => both,
        _ if left >= LEAST => format!("{} → {remote}", cut_start(&local, left)),
        room if text_width(&marked) <= room => marked,
        _ => cut_middle(&format!("→ {remote}"), width),
    }
}

/// `10.0.0.5`, `fe80::1%eth0`
pub(crate) fn scoped(ip: IpAddr, device: Device) -> String {
    printable(&device.scoped(ip))
}

/// A command name that is safe to draw.
pub(crate) fn comm(comm: Comm) -> String {
    printable(&comm.to_string())
}

/// `nginx (1234)`, or the name alone where that does not fit.
pub(crate) fn process(comm: &str, pid: Pid, width: usize) -> String {
    let both = format!("{comm} ({pid})");
    if text_width(&both) <= width { both } else { cut_end(comm, width) }
}

/// The same for a list that may have several of one name: the pid stays as long as a part of the name fits beside it.
pub(crate) fn distinct_process(comm: &str, pid: Pid, width: usize) -> String {
    /// `ob… (1234567)`
    const LEAST: usize = 3;
    let pid = format!(" ({pid})");
    let room = width.saturating_sub(text_width(&pid));
    let is_whole = text_width(comm) <= room;
    if is_whole || room >= LEAST { cut_end(comm, room) + &pid } else { cut_end(comm, width) }
}

/// `wrk +1`: the name of most, and how many other names there are.
pub(crate) fn several(comm: &str, others: usize, width: usize) -> String {
    let more = if others == 0 { String::new() } else { format!(" +{others}") };
    format!("{}{more}", cut_end(comm, width.saturating_sub(more.len())))
}

/// Safe to draw: see [`fold_text`].
pub(crate) fn printable(text: &str) -> String {
    fold_text(text)
}

/// The columns that a text takes on the screen.
pub(crate) fn text_width(text: &str) -> usize {
    columns_of(text)
}

/// The text, its end replaced by `…` where it does not fit.
pub(crate) fn cut_end(text: &str, width: usize) -> String {
    cut(text, width, 0)
}

/// The text, its beginning replaced by `…` where it does not fit.
pub(crate) fn cut_start(text: &str, width: usize) -> String {
    if text_width(text) <= width { text.to_owned() } else { cut(text, width, usize::MAX) }
}

/// The text, its middle replaced by `…` where it does not fit; a port at its end stays.
pub(crate) fn cut_middle(text: &str, width: usize) -> String {
    const PORT: usize = ":65535".len();
    cut(text, width, PORT.min(width / 2))
}

fn cut(text: &str, width: usize, tail: usize) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let mut ending: Vec<char> = Vec::new();
    let mut left = width.saturating_sub(1);
    for c in text.chars().rev() {
        let columns = text_width(c.encode_utf8(&mut [0; 4]));
        if columns > left || ending.len() >= tail {
            break;
        }
        left -= columns;
        ending.push(c);
    }
    let mut out = String::new();
    for c in text.chars() {
        let columns = text_width(c.encode_utf8(&mut [0; 4]));
        if columns > left {
            break;
        }
        left -= columns;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out.extend(ending.into_iter().rev());
    out
}

/// The text in lines of at most `width` columns, broken between words; a word that is longer than a line is broken, too.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace().flat_map(|word| broken(word, width)) {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if text_width(line) + 1 + text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A word in parts of at most `width` columns, each of a letter at least.
fn broken(word: &str, width: usize) -> Vec<&str> {
    let (mut parts, mut start, mut taken) = (Vec::new(), 0, 0);
    for (at, letter) in word.char_indices() {
        let columns = text_width(letter.encode_utf8(&mut [0; 4]));
        if at > start && taken + columns > width {
            parts.push(&word[start..at]);
            (start, taken) = (at, 0);
        }
        taken += columns;
    }
    parts.push(&word[start..]);
    parts
}

/// A width as the layout takes it.
pub(crate) fn columns(width: usize) -> u16 {
    u16::try_from(width).unwrap_or(u16::MAX)
}
