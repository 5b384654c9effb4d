//! Which format and which encoding a client prefers (RFC 9110, 12.5).

use super::channel::DocumentKind;

/// One element of a list: a name, its parameters, and its weight in thousandths.
#[derive(Debug)]
struct Preference<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    weight: u16,
}

/// The elements of a header field. What cannot be read is skipped.
fn preferences(list: &str) -> impl Iterator<Item = Preference<'_>> {
    list.split(',').filter_map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let all = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')));
        let (weights, parameters): (Vec<_>, Vec<_>) = all.partition(|(key, _)| key.eq_ignore_ascii_case("q"));
        let weight = weights.first().map_or(Some(1000), |(_, value)| weight(value))?;
        Some(Preference { name, parameters, weight })
    })
}

fn weight(text: &str) -> Option<u16> {
    let value: f32 = text.parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    Some((value * 1000.0).round() as u16)
}

impl Preference<'_> {
    /// How closely it names the media type with this version: 0 not at all.
    fn closeness(&self, media_type: &str, version: &str) -> u8 {
        let (kind, _) = media_type.split_once('/').unwrap_or((media_type, ""));
        if self.name.eq_ignore_ascii_case(media_type) {
            let asked = self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case("version"));
            return match asked {
                None => 3,
                Some((_, asked)) if *asked == version => 4,
                Some(_) => 0,
            };
        }
        let is_range = self.name.split_once('/').is_some_and(|(of, all)| all == "*" && of.eq_ignore_ascii_case(kind));
        if is_range { 2 } else { u8::from(self.name == "*/*") }
    }
}

/// The weight of the closest element, and how close that is.
fn weight_of(accept: &str, media_type: &str, version: &str) -> (u16, u8) {
    let candidates = preferences(accept).map(|it| (it.closeness(media_type, version), it.weight));
    candidates.filter(|(closeness, _)| *closeness > 0).max().map_or((0, 0), |(closeness, weight)| (weight, closeness))
}

/// The format of series. A client that names neither gets the text format, as every reader of it expects.
pub(super) fn metrics(accept: &str) -> DocumentKind {
    let (openmetrics, is_close) = weight_of(accept, "application/openmetrics-text", "1.0.0");
    let (text, _) = weight_of(accept, "text/plain", "0.0.4");
    if is_close >= 3 && openmetrics > 0 && openmetrics >= text {
        DocumentKind::OpenMetrics
    } else {
        DocumentKind::MetricsText
    }
}

/// Whether the client takes gzip.
pub(super) fn takes_gzip(accept_encoding: &str) -> bool {
    let of =
        |name: &str| preferences(accept_encoding).find(|it| it.name.eq_ignore_ascii_case(name)).map(|it| it.weight);
    of("gzip").or_else(|| of("*")).is_some_and(|weight| weight > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_openmetrics_and_everybody_else_text() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            prometheus_2,
            prometheus_3,
            "application/openmetrics-text",
            "APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"",
            "text/plain;q=0.5, application/openmetrics-text;q=0.5",
        ] {
            assert_eq!(metrics(accept), DocumentKind::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html, */*;q=0.8",
            "application/*",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;version=0.0.1,*/*;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.2,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text;q=2",
            ",;=,;q=,",
        ] {
            assert_eq!(metrics(accept), DocumentKind::MetricsText, "{accept}");
        }
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for accepted in ["gzip", "deflate, GZIP;q=0.5", "*", "gzip;q=0.001"] {
            assert!(takes_gzip(accepted), "{accepted}");
        }
        for refused in ["", "identity", "gzip;q=0", "gzip;q=0, *", "*;q=0", "gzipped", "x-gzip"] {
            assert!(!takes_gzip(refused), "{refused}");
        }
    }
}
